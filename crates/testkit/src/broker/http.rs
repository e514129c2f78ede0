//! The management's HTTP interface, as far as tests need it. Blocking, so that it works while things are dropped.

use std::io::{Read, Write};
use std::net::{TcpStream, ToSocketAddrs};
use std::time::Duration;

use base64::Engine;
use serde_json::Value;

const LIMIT: Duration = Duration::from_secs(10);

/// A RabbitMQ management.
#[derive(Debug, Clone)]
pub struct Management {
    authority: String,
    authorization: String,
}

impl Management {
    /// The one at `authority`, for the user in `userinfo` (`user:password`).
    pub(super) fn new(authority: &str, userinfo: &str) -> Self {
        let authorization = base64::engine::general_purpose::STANDARD.encode(userinfo);
        Self { authority: authority.to_owned(), authorization }
    }

    /// The JSON at `path`.
    pub fn get(&self, path: &str) -> Value {
        self.find(path).unwrap_or_else(|| panic!("{path} of RabbitMQ's management is not there"))
    }

    /// The JSON at `path`; none when there is none.
    pub fn find(&self, path: &str) -> Option<Value> {
        let (status, body) = self.request("GET", path, None);
        match status {
            200 => Some(serde_json::from_str(&body).unwrap_or_else(|error| panic!("{path}: {error}: {body}"))),
            404 => None,
            _ => panic!("GET {path} of RabbitMQ's management: {status} {body}"),
        }
    }

    /// Puts `body`.
    pub fn put(&self, path: &str, body: &Value) {
        let (status, answer) = self.request("PUT", path, Some(&body.to_string()));
        assert!(matches!(status, 201 | 204), "PUT {path} of RabbitMQ's management: {status} {answer}");
    }

    /// Posts `body` and returns the answer.
    pub fn post(&self, path: &str, body: &Value) -> Value {
        let (status, answer) = self.request("POST", path, Some(&body.to_string()));
        assert_eq!(status, 200, "POST {path} of RabbitMQ's management: {answer}");
        serde_json::from_str(&answer).unwrap_or_else(|error| panic!("{path}: {error}: {answer}"))
    }

    /// Deletes; what is gone already is fine.
    pub fn delete(&self, path: &str) {
        let (status, answer) = self.request("DELETE", path, None);
        assert!(matches!(status, 204 | 404), "DELETE {path} of RabbitMQ's management: {status} {answer}");
    }

    fn request(&self, method: &str, path: &str, body: Option<&str>) -> (u16, String) {
        self.exchange(method, path, body).unwrap_or_else(|error| {
            panic!(
                "RabbitMQ's management at {} does not answer ({error}). Tests on the broker need it: run scripts/setup, or \
                 `rabbitmq-plugins enable rabbitmq_management`, or set AMQP_URL and RABBITMQ_MANAGEMENT_URL",
                self.authority
            )
        })
    }

    /// One request of HTTP 1.0: the answer ends with the connection.
    fn exchange(&self, method: &str, path: &str, body: Option<&str>) -> std::io::Result<(u16, String)> {
        let address = self.authority.to_socket_addrs()?.next().ok_or(std::io::ErrorKind::NotFound)?;
        let mut stream = TcpStream::connect_timeout(&address, LIMIT)?;
        stream.set_read_timeout(Some(LIMIT))?;
        stream.set_write_timeout(Some(LIMIT))?;
        let body = body.unwrap_or_default();
        let Self { authority, authorization } = self;
        let request = format!(
            "{method} {path} HTTP/1.0\r\nHost: {authority}\r\nAuthorization: Basic {authorization}\r\n\
             Content-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
            body.len()
        );
        stream.write_all(request.as_bytes())?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        let status = answer.split(' ').nth(1).and_then(|status| status.parse().ok());
        let (_, body) = answer.split_once("\r\n\r\n").unwrap_or_default();
        status.map(|status| (status, body.to_owned())).ok_or_else(|| std::io::ErrorKind::InvalidData.into())
    }
}
