//! The servers of the platform: names, certificates, database, broker, API.

use std::fs;
use std::path::Path;
use std::time::Duration;

use attune_bus::{Bus as _, QueueLifetime, QueueSpec};
use attune_bus_amqp::{AmqpBus, AmqpConfig};
use attune_config::PlatformConfig;
use attune_http::{Client, ClientConfig, Request};
use attune_model::chain;
use attune_model::message::Exchange;
use attune_store_postgres::{CheckError, PostgresStore, Role, system_roots};
use chrono::{TimeDelta, Utc};
use tokio::net::lookup_host;
use tokio::time::timeout;
use url::Url;
use uuid::Uuid;

use super::finding::Finding;
use crate::applets::machine;
use crate::exit::Exit;

/// A server on the same network answers in milliseconds.
const LIMIT: Duration = Duration::from_secs(3);

/// The queue that is tried out is gone when nobody has used it for so long.
const TRIAL_LIFETIME: Duration = Duration::from_secs(10);

/// Tokens are valid for minutes; clocks further apart make them fail.
const FAR_APART: TimeDelta = TimeDelta::seconds(30);

/// Asks each of them, side by side.
pub(super) async fn look(role: Role, platform: &PlatformConfig) -> Vec<Finding> {
    let (names, database, broker, api) =
        tokio::join!(names(platform), database(role, platform), broker(platform), api(platform));
    [vec![bundle(system_roots().as_deref())], names, database, broker, vec![api]].concat()
}

/// Certificates of authorities that this image trusts, beside those that are built in.
fn bundle(roots: Option<&Path>) -> Finding {
    const ABOUT: &str = "certificates";
    let Some(path) = roots else { return Finding::fine(ABOUT, "none in this image: the built-in roots count") };
    let shown = path.display();
    let problem = match fs::read(path) {
        Ok(bytes) => match String::from_utf8_lossy(&bytes).matches("-----BEGIN CERTIFICATE-----").count() {
            0 => "has no certificate".to_owned(),
            count => return Finding::fine(ABOUT, format!("{count} in {shown}")),
        },
        Err(error) => format!("cannot be read ({error})"),
    };
    let remedy = "install the image's ca-certificates anew, or mount a bundle there that this user can read";
    Finding::warning(ABOUT, format!("{shown} {problem}: servers behind certificates are not trusted"), remedy)
}

/// Host and port of an address, as far as it has them.
fn host(url: &str, usual_port: u16) -> Option<(String, u16)> {
    let url = Url::parse(url).ok()?;
    let name = url.host_str().filter(|name| !name.is_empty())?;
    // The brackets of an IPv6 address belong to the URL.
    Some((name.trim_matches(['[', ']']).to_owned(), url.port().unwrap_or(usual_port)))
}

async fn names(platform: &PlatformConfig) -> Vec<Finding> {
    // Agents start and work while the API is away; engines of containers take its name away with it.
    let places = [
        ("database.url", host(platform.database.url.expose(), 5432), true),
        ("message_queue.url", host(platform.message_queue.url.expose(), 5672), true),
        ("the API's address", host(&platform.api_url, 80), false),
    ];
    let mut findings = Vec::new();
    for (key, place, needed) in places {
        let Some((name, port)) = place else { continue };
        let found = match timeout(LIMIT, lookup_host((name.as_str(), port))).await {
            Ok(Ok(found)) => {
                let addresses: Vec<_> = found.map(|address| address.ip().to_string()).collect();
                findings.push(Finding::fine("name", format!("{name} is {}", addresses.join(", "))));
                continue;
            }
            Ok(Err(error)) => format!("{name} has no address: {error}"),
            Err(_) => format!("{name}: no answer from the name server within {} s", LIMIT.as_secs()),
        };
        let remedy = format!("correct {key}, or the names that the container is given (compose service, cluster DNS)");
        findings.push(if needed {
            Finding::problem("name", Exit::Unavailable, found, remedy)
        } else {
            Finding::warning("name", found, remedy)
        });
    }
    findings
}

async fn database(role: Role, platform: &PlatformConfig) -> Vec<Finding> {
    let store = match timeout(LIMIT, PostgresStore::connect(&platform.database)).await {
        Ok(Ok(store)) => store,
        Ok(Err(error)) => {
            let (exit, remedy) = if error.may_pass() {
                (Exit::Unavailable, "start it, or correct database.url")
            } else {
                (Exit::Configuration, "correct the section database")
            };
            return vec![Finding::problem("database", exit, chain(&error), remedy)];
        }
        Err(_) => return vec![silent("database", "PostgreSQL", "database.url")],
    };
    let mut findings = vec![Finding::fine("database", format!("PostgreSQL at {} answers", store.place()))];
    findings.push(match store.check(role).await {
        Ok(()) => Finding::fine("schema", "has what is needed"),
        Err(error @ CheckError::Differs(_)) => {
            let remedy = "run the platform's migrations, or `attune-agents migrate` for an installation without it";
            Finding::problem("schema", Exit::Configuration, chain(&error), remedy)
        }
        Err(error @ CheckError::Store(_)) => {
            Finding::problem("schema", Exit::Unavailable, chain(&error), "let this user read the schema")
        }
    });
    findings.push(match store.clock().await {
        Ok(clock) => apart(clock - Utc::now()),
        Err(error) => Finding::warning("clock", format!("not known: {}", chain(&error)), "see the database"),
    });
    store.close().await;
    findings
}

/// How far the database is ahead.
fn apart(ahead: TimeDelta) -> Finding {
    let side = if ahead < TimeDelta::zero() { "ahead of" } else { "behind" };
    let distance = format!("{} ms {side} the database's", ahead.num_milliseconds().abs());
    if ahead.abs() < FAR_APART {
        return Finding::fine("clock", distance);
    }
    Finding::warning(
        "clock",
        format!("{distance}: tokens may count as expired, times in logs mislead"),
        "set both clocks (NTP); leases and heartbeats go by the database's and are right",
    )
}

async fn broker(platform: &PlatformConfig) -> Vec<Finding> {
    let url = platform.message_queue.url.clone();
    let ca_file = platform.message_queue.ca_file.clone();
    let config = AmqpConfig { start_limit: LIMIT, ca_file, ..AmqpConfig::new(url, "attune-doctor") };
    let bus = match timeout(LIMIT * 2, AmqpBus::connect(&config)).await {
        Ok(Ok(bus)) => bus,
        Ok(Err(error)) => {
            let (exit, remedy) = if error.is_final() {
                (Exit::Configuration, "correct the section message_queue")
            } else {
                (Exit::Unavailable, "start it, or correct message_queue.url")
            };
            return vec![Finding::problem("broker", exit, chain(&error), remedy)];
        }
        Err(_) => return vec![silent("broker", "RabbitMQ", "message_queue.url")],
    };
    let mut findings = vec![Finding::fine("broker", "RabbitMQ answers")];
    let trial = QueueSpec {
        name: format!("attune.doctor.{}", Uuid::new_v4()),
        bindings: [Exchange::Events, Exchange::Executions].map(|exchange| (exchange, "doctor".to_owned())).to_vec(),
        message_ttl_ms: None,
        dead_letters: false,
        lifetime: QueueLifetime::UntilUnused(TRIAL_LIFETIME),
    };
    findings.push(match timeout(LIMIT, bus.declare(&trial)).await {
        Ok(Ok(_consumers)) => Finding::fine("queues", "may be declared and bound to both exchanges"),
        Ok(Err(error)) => {
            let remedy =
                "give the user of message_queue.url the rights to configure, write and read in its virtual host";
            Finding::problem("queues", Exit::Unavailable, chain(&error), remedy)
        }
        Err(_) => silent("queues", "RabbitMQ", "message_queue.url"),
    });
    bus.close().await;
    findings
}

async fn api(platform: &PlatformConfig) -> Finding {
    let address = &platform.api_url;
    let client = match Client::build(&ClientConfig {
        ca_file: machine::api_ca_file(address),
        connect_timeout: LIMIT,
        ..ClientConfig::default()
    }) {
        Ok(client) => client,
        Err(error) => return Finding::warning("API", chain(&error), "see the certificates"),
    };
    // Any answer will do.
    match client.send(&Request::get(format!("{address}/health")).timeout(LIMIT)).await {
        Ok(answer) => Finding::fine("API", format!("{address} answers with status {}", answer.status)),
        Err(error) => Finding::warning(
            "API",
            format!("{}: no packs, files and tokens from there", chain(&error)),
            "start it, or correct the address (docs/configuration.md, `api_url`)",
        ),
    }
}

fn silent(about: &'static str, server: &str, key: &str) -> Finding {
    let found = format!("{server} does not answer: packets may be dropped on the way");
    Finding::problem(about, Exit::Unavailable, found, format!("correct {key}, or let the network pass it"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_are_found_in_every_kind_of_address() {
        let host = |url: &str| host(url, 1).map(|(name, port)| format!("{name} {port}"));
        assert_eq!(host("postgresql://user:p%40ss@db:6543/attune?x=y").as_deref(), Some("db 6543"));
        assert_eq!(host("amqp://rabbit").as_deref(), Some("rabbit 1"));
        assert_eq!(host("amqp://guest:guest@[::1]:5673/%2f").as_deref(), Some("::1 5673"));
        assert_eq!(host("amqps://[::1]/").as_deref(), Some("::1 1"));
        assert_eq!(host("postgresql:///attune?host=/run/postgresql"), None);
    }

    #[test]
    fn a_bundle_has_certificates_that_can_be_read() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("ca.crt");
        let said = |path| bundle(path).line();
        assert!(said(None).contains("built-in roots"));
        assert!(said(Some(&path)).contains("cannot be read"));
        fs::write(&path, "").unwrap();
        assert!(said(Some(&path)).contains("has no certificate: "));
        let one = "-----BEGIN CERTIFICATE-----\nMIIB\n-----END CERTIFICATE-----\n";
        fs::write(&path, one.repeat(2)).unwrap();
        assert_eq!(said(Some(&path)), format!("certificates: 2 in {}", path.display()));
    }

    #[test]
    fn clocks_that_are_far_apart_are_told() {
        assert!(!apart(TimeDelta::seconds(-2)).line().contains("tokens"));
        assert!(apart(TimeDelta::seconds(-40)).line().contains("tokens"));
        assert!(apart(TimeDelta::hours(1)).line().contains("tokens"));
    }
}
