//! RabbitMQ for tests: a virtual host of their own, and what operators do to connections and queues.
//!
//! `AMQP_URL` says where it is (`amqp://guest:guest@127.0.0.1:5672`), `RABBITMQ_MANAGEMENT_URL` where its management
//! listens (the same host, port 15672). Virtual hosts are made and removed through the management, because its command
//! line takes seconds.

#![expect(clippy::missing_panics_doc, reason = "a test that has no broker ends here")]

mod http;
mod private;

use std::process;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

use serde_json::{Value, json};

pub use http::Management;
pub use private::PrivateBroker;

const DEFAULT_URL: &str = "amqp://guest:guest@127.0.0.1:5672";
const MANAGEMENT_PORT: u16 = 15672;
const PREFIX: &str = "attune-test-";
/// Older virtual hosts belong to tests that were killed.
const STALE_SECONDS: u64 = 3600;

static NEXT: AtomicU32 = AtomicU32::new(0);

/// A virtual host of a test's own. It is removed when this is dropped.
#[derive(Debug)]
pub struct TestBroker {
    management: Management,
    /// `host:port` of the broker.
    authority: String,
    userinfo: String,
    vhost: String,
}

impl TestBroker {
    /// A new virtual host on the broker of the environment.
    pub fn new() -> Self {
        #[expect(clippy::disallowed_methods, reason = "tests say where their broker is in the environment")]
        let variable = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
        let url = variable("AMQP_URL").unwrap_or_else(|| DEFAULT_URL.to_owned());
        let rest = url.strip_prefix("amqp://").expect("AMQP_URL begins with amqp://");
        let rest = rest.split('/').next().unwrap_or(rest);
        let (userinfo, authority) = rest.rsplit_once('@').unwrap_or(("guest:guest", rest));
        let authority = if authority.contains(':') { authority.to_owned() } else { format!("{authority}:5672") };
        let management = variable("RABBITMQ_MANAGEMENT_URL").map_or_else(
            || format!("{}:{MANAGEMENT_PORT}", authority.split(':').next().unwrap_or("127.0.0.1")),
            |url| url.trim_start_matches("http://").trim_end_matches('/').to_owned(),
        );
        Self::at(&authority, userinfo, &management)
    }

    /// A new virtual host on the broker at `authority`, whose management listens at `management`.
    pub fn at(authority: &str, userinfo: &str, management: &str) -> Self {
        let management = Management::new(management, userinfo);
        sweep(&management);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let vhost = format!("{PREFIX}{}-{}-{number}", now(), process::id());
        management.put(&format!("/api/vhosts/{vhost}"), &json!({}));
        let user = userinfo.split(':').next().unwrap_or("guest");
        let all = json!({ "configure": ".*", "write": ".*", "read": ".*" });
        management.put(&format!("/api/permissions/{vhost}/{user}"), &all);
        Self { management, authority: authority.to_owned(), userinfo: userinfo.to_owned(), vhost }
    }

    /// The virtual host's URL.
    pub fn url(&self) -> String {
        self.url_via(&self.authority)
    }

    /// The same, through a [`Proxy`](crate::Proxy) or another way at `authority`.
    pub fn url_via(&self, authority: &str) -> String {
        format!("amqp://{}@{authority}/{}", self.userinfo, self.vhost)
    }

    /// The same with TLS, at `authority`.
    pub fn tls_url_via(&self, authority: &str) -> String {
        format!("amqps://{}@{authority}/{}", self.userinfo, self.vhost)
    }

    /// A user that may declare only what `configure` matches, and read and write everything. Answers its URL.
    pub fn restricted_url(&self, configure: &str) -> String {
        let user = &self.vhost;
        self.management.put(&format!("/api/users/{user}"), &json!({ "password": "restricted", "tags": "" }));
        let permissions = json!({ "configure": configure, "write": ".*", "read": ".*" });
        self.management.put(&format!("/api/permissions/{}/{user}", self.vhost), &permissions);
        format!("amqp://{user}:restricted@{}/{}", self.authority, self.vhost)
    }

    /// `host:port` of the broker.
    pub fn authority(&self) -> &str {
        &self.authority
    }

    /// The name of the virtual host.
    pub fn vhost(&self) -> &str {
        &self.vhost
    }

    /// The broker's management.
    pub fn management(&self) -> &Management {
        &self.management
    }

    /// The connections of this virtual host that the management has noticed (it does so every few seconds).
    pub fn connections(&self) -> Vec<String> {
        let list = self.management.get(&format!("/api/vhosts/{}/connections", self.vhost));
        list.as_array()
            .into_iter()
            .flatten()
            .filter_map(|connection| connection["name"].as_str())
            .map(ToOwned::to_owned)
            .collect()
    }

    /// Closes every connection of this virtual host from the broker's side. Returns how many there were.
    pub fn kill_connections(&self) -> usize {
        let names = self.connections();
        for name in &names {
            self.management.delete(&format!("/api/connections/{}", encode(name)));
        }
        names.len()
    }

    /// The queue as the broker has it; none when there is none.
    pub fn queue(&self, name: &str) -> Option<Value> {
        self.management.find(&format!("/api/queues/{}/{}", self.vhost, encode(name)))
    }

    /// Where messages come from into the queue: exchange and key.
    pub fn bindings(&self, queue: &str) -> Vec<(String, String)> {
        let list = self.management.get(&format!("/api/queues/{}/{}/bindings", self.vhost, encode(queue)));
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        list.as_array()
            .into_iter()
            .flatten()
            .map(|binding| (text(&binding["source"]), text(&binding["routing_key"])))
            .filter(|(source, _)| !source.is_empty())
            .collect()
    }

    /// Publishes a body of any kind, which need not make sense to anybody.
    pub fn publish_raw(&self, exchange: &str, routing_key: &str, body: &str) {
        let message = json!({
            "properties": {"delivery_mode": 2}, "routing_key": routing_key, "payload": body, "payload_encoding": "string",
        });
        let answer = self.management.post(&format!("/api/exchanges/{}/{exchange}/publish", self.vhost), &message);
        assert_eq!(answer["routed"], true, "a queue is bound for {routing_key}");
    }

    /// Deletes a queue with all that is in it.
    pub fn delete_queue(&self, name: &str) {
        self.management.delete(&format!("/api/queues/{}/{}", self.vhost, encode(name)));
    }
}

impl Default for TestBroker {
    fn default() -> Self {
        Self::new()
    }
}

impl Drop for TestBroker {
    fn drop(&mut self) {
        self.management.delete(&format!("/api/vhosts/{}", self.vhost));
        self.management.delete(&format!("/api/users/{}", self.vhost));
    }
}

fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

/// Removes what killed tests have left.
fn sweep(management: &Management) {
    let list = management.get("/api/vhosts?columns=name");
    for name in list.as_array().into_iter().flatten().filter_map(|vhost| vhost["name"].as_str()) {
        let made = name.strip_prefix(PREFIX).and_then(|rest| rest.split('-').next()).and_then(|made| made.parse().ok());
        if made.is_some_and(|made: u64| now().saturating_sub(made) > STALE_SECONDS) {
            management.delete(&format!("/api/vhosts/{name}"));
            management.delete(&format!("/api/users/{name}"));
        }
    }
}

fn digit(value: u8) -> char {
    char::from_digit(u32::from(value), 16).unwrap_or('0').to_ascii_uppercase()
}

/// Percent-encodes a name for a path.
fn encode(name: &str) -> String {
    name.bytes().fold(String::new(), |mut path, byte| {
        if byte.is_ascii_alphanumeric() || b"-._".contains(&byte) {
            path.push(char::from(byte));
        } else {
            path.extend(['%', digit(byte >> 4), digit(byte & 15)]);
        }
        path
    })
}
