//! Readiness of the programs on real servers, as their container's health check sees it.

use std::process::Command;

use attune_testkit::Proxy;
use attune_testkit::{eventually, eventually_blocking};

use crate::support::Installation;

/// Exit code and text of a health check in the environment of the installation.
fn health(installation: &Installation, arguments: &[&str]) -> (Option<i32>, String) {
    installation.output(&[&["health"], arguments].concat())
}

pub(crate) async fn becomes(installation: &Installation, code: i32, part: &str) -> String {
    let mut last = String::new();
    eventually(part, async || {
        let (seen, text) = health(installation, &["worker", "--name", installation.database.name()]);
        last.clone_from(&text);
        (seen == Some(code) && text.contains(part)).then_some(text)
    })
    .await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_worker_is_ready_exactly_while_it_can_reach_both_servers() {
    let installation = Installation::new().await;
    let url = installation.database.url();
    let server = url.split_once('@').unwrap().1.split_once('/').unwrap().0;
    let (database, broker) = (Proxy::start(server), Proxy::start(installation.broker.authority()));
    let through = |command: &mut Command| {
        command.env("ATTUNE__DATABASE__URL", url.replace(server, &database.authority()));
        command.env("ATTUNE__MESSAGE_QUEUE__URL", installation.broker.url_via(&broker.authority()));
        command.env("ATTUNE__WORKER__HEARTBEAT_INTERVAL", "1s");
    };
    // Other tests have workers on this machine.
    let name = installation.database.name();
    let worker = installation.start_with("worker", &["worker", "--name", name], through);
    let text = becomes(&installation, 0, "ready").await;
    for part in ["[+] agent: ok", "[+] bus: ok", "[+] executions: ok", "[+] cancels: ok", "[+] row: ok"] {
        assert!(text.contains(part), "{part}: {text}");
    }
    assert!(!text.contains("postgres") && !text.contains("guest"), "{text}");

    broker.refuse();
    broker.cut();
    let text = becomes(&installation, 1, "[-] bus: ").await;
    assert!(text.contains("[+] row: ok"), "the database is there: {text}");
    broker.resume();
    becomes(&installation, 0, "[+] bus: ok").await;

    // Nothing is refused and nothing answered: only the clock can tell.
    database.black_hole_both();
    becomes(&installation, 1, "[-] row: ").await;
    assert_eq!(health(&installation, &["worker", "--name", name, "--ask", "live"]).0, Some(0));
    database.resume();
    becomes(&installation, 0, "[+] row: ok").await;

    let (_, metrics) = health(&installation, &["worker", "--name", name, "--ask", "metrics"]);
    for line in ["attune_ready 1", "attune_connected{server=\"bus\"} 1", "attune_connected{server=\"store\"} 1"] {
        assert!(metrics.lines().any(|seen| seen == line), "{line}: {metrics}");
    }
    let lost = "attune_connection_changes_total{server=\"bus\",state=\"lost\"} ";
    let lost = metrics.lines().find_map(|line| line.strip_prefix(lost)).unwrap();
    assert!(lost.parse::<u32>().unwrap() >= 1, "{lost}");
    worker.stop();
    assert_eq!(health(&installation, &["worker", "--name", name]).0, Some(69));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_program_that_waits_for_its_servers_is_alive_and_not_ready() {
    let installation = Installation::bare().await;
    for role in ["worker", "sensor", "hub"] {
        let place = format!("unix:{}", installation.path(&format!("{role}.sock")).display());
        let program = installation.start_with(role, &[role], |command| {
            command.env("ATTUNE__HEALTH__LISTEN", &place);
            command.env("ATTUNE__DATABASE__URL", "postgresql://postgres@127.0.0.1:9/attune");
        });
        eventually_blocking("it answers", || {
            (health(&installation, &["--socket", &place, "--ask", "live"]).0 == Some(0)).then_some(())
        });
        let (code, text) = health(&installation, &["--socket", &place]);
        assert_eq!(code, Some(1));
        assert!(text.contains("[-] agent: the agent is starting"), "{text}");
        program.stop();
    }
}

/// What is in the status of a worker's health.
fn metric(installation: &Installation, series: &str) -> u32 {
    let name = installation.database.name();
    let (_, metrics) = health(installation, &["worker", "--name", name, "--ask", "metrics"]);
    metrics.lines().find_map(|line| line.strip_prefix(series)?.trim().parse().ok()).unwrap_or(0)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_consumer_that_the_broker_cancels_is_missed_at_once_and_comes_back_by_itself() {
    let installation = Installation::bare().await;
    let name = installation.database.name();
    let worker = installation.start("worker", &["worker", "--name", name]);
    becomes(&installation, 0, "ready").await;
    let id = installation.database.number("SELECT id FROM worker").await;
    let lost = "attune_consumer_changes_total{change=\"lost\"}";
    assert_eq!(metric(&installation, lost), 0);
    for (count, queue) in (1..).zip(["executions", "cancel", "packs"]) {
        installation.broker.delete_queue(&format!("worker.{id}.{queue}"));
        // Told by the broker, not found by a clock.
        eventually("the loss is seen", async || (metric(&installation, lost) == count).then_some(())).await;
        becomes(&installation, 0, "ready").await;
        let confirmed = "attune_consumer_changes_total{change=\"confirmed\"}";
        assert_eq!(metric(&installation, confirmed), 3 + count);
    }
    worker.stop();
}

/// Its id names its queues: with another row it is another worker, and that is for a start to make.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_worker_whose_row_is_gone_ends_with_the_reason_and_starts_as_a_new_one() {
    let installation = Installation::bare().await;
    let name = installation.database.name();
    let begin = || {
        installation.start_with("worker", &["worker", "--name", name], |command| {
            command.env("ATTUNE__WORKER__HEARTBEAT_INTERVAL", "1s");
        })
    };
    let mut worker = begin();
    becomes(&installation, 0, "ready").await;
    installation.database.execute("DELETE FROM worker").await;
    assert_eq!(worker.wait().code(), Some(70));
    assert!(worker.log().contains("the row of this worker is gone"), "{}", worker.log());
    let worker = begin();
    becomes(&installation, 0, "ready").await;
    assert_eq!(installation.database.number("SELECT count(*) FROM worker WHERE status = 'active'").await, 1);
    worker.stop();
}
