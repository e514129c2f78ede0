//! How long a worker that cannot work goes on saying that it can: two heartbeats at the most, on real servers.

use std::process::Command;
use std::time::{Duration, Instant};

use attune_testkit::{Direction, Proxy};

use crate::health::becomes;
use crate::support::{Installation, Program};

/// Of the row and of the connection to the broker.
const HEARTBEAT: Duration = Duration::from_secs(3);

/// What a busy machine may take to start the health check that sees it.
const SLACK: Duration = Duration::from_secs(2);

/// A worker that is ready, and the ways to its servers.
struct Watched {
    installation: Installation,
    worker: Program,
    database: Proxy,
    broker: Proxy,
}

impl Watched {
    async fn new() -> Self {
        let installation = Installation::bare().await;
        let url = installation.database.url();
        let server = url.split_once('@').unwrap().1.split_once('/').unwrap().0;
        let (database, broker) = (Proxy::start(server), Proxy::start(installation.broker.authority()));
        let seconds = HEARTBEAT.as_secs();
        let through = |command: &mut Command| {
            command.env("ATTUNE__DATABASE__URL", url.replace(server, &database.authority()));
            let broker = format!("{}?heartbeat={seconds}", installation.broker.url_via(&broker.authority()));
            command.env("ATTUNE__MESSAGE_QUEUE__URL", broker);
            command.env("ATTUNE__WORKER__HEARTBEAT_INTERVAL", format!("{seconds}s"));
        };
        let worker = installation.start_with("worker", &["worker", "--name", installation.database.name()], through);
        becomes(&installation, 0, "ready").await;
        Self { installation, worker, database, broker }
    }

    /// Waits until it says that `part` is not well, and asserts that this was in time.
    async fn misses(&self, part: &str, since: Instant) -> String {
        let text = becomes(&self.installation, 1, &format!("[-] {part}: ")).await;
        let took = since.elapsed();
        assert!(took <= HEARTBEAT * 2 + SLACK, "{took:?}: {text}");
        text
    }

    /// Waits until it is ready again, and ends it.
    async fn comes_back(self) {
        becomes(&self.installation, 0, "ready").await;
        self.worker.stop();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_broker_in_a_black_hole_is_missed_within_two_heartbeats() {
    let watched = Watched::new().await;
    let since = Instant::now();
    watched.broker.black_hole_both();
    let text = watched.misses("bus", since).await;
    assert!(text.contains("[+] row: ok"), "the database is there: {text}");
    watched.broker.resume();
    watched.comes_back().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_database_in_a_black_hole_is_missed_within_two_heartbeats() {
    let watched = Watched::new().await;
    let since = Instant::now();
    watched.database.black_hole_both();
    let text = watched.misses("row", since).await;
    assert!(text.contains("[+] bus: ok"), "the broker is there: {text}");
    watched.database.resume();
    watched.comes_back().await;
}

/// It consumes again so quickly that nobody would see it; here what it sends is held back, so that it cannot.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_consumer_that_the_broker_cancels_is_missed_until_it_consumes_again() {
    let watched = Watched::new().await;
    let id = watched.installation.database.number("SELECT id FROM worker").await;
    watched.broker.black_hole(Direction::ToServer);
    let since = Instant::now();
    watched.installation.broker.delete_queue(&format!("worker.{id}.executions"));
    let text = watched.misses("executions", since).await;
    for part in ["[+] cancels: ok", "[+] packs: ok", "[-] bus: 2 of 3 consumers are confirmed"] {
        assert!(text.contains(part), "{part}: {text}");
    }
    watched.broker.resume();
    watched.comes_back().await;
}
