//! The end of a worker, idle and busy, with servers that work and without.

use std::time::{Duration, Instant};

use attune_testkit::database::TestDatabase;
use attune_testkit::{Proxy, TestBroker, eventually};
use serde_json::json;

use crate::rig::Rig;
use crate::support::Program;

/// What deployments allow before they kill.
const LIMIT: Duration = Duration::from_secs(45);

const GRACE: &str = "ATTUNE__WORKER__SHUTDOWN_TIMEOUT";

/// Asks for the stop and waits until nothing is taken any more: what is asked for now waits for the next life.
async fn draining(worker: &Program) {
    worker.signal("TERM");
    let begun = async || worker.log().contains("asked to stop").then_some(());
    eventually("the drain to begin", begun).await;
}

fn gone(mut worker: Program) -> String {
    let begun = Instant::now();
    let status = worker.wait();
    assert!(begun.elapsed() < LIMIT, "{:?}", begun.elapsed());
    assert_eq!(status.code(), Some(0), "{}", worker.log());
    worker.log()
}

async fn inactive(rig: &Rig) {
    let inactive = rig.installation.database.number("SELECT count(*) FROM worker WHERE status = 'inactive'").await;
    assert_eq!(inactive, 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_worker_that_drains_is_passed_over_for_another() {
    let rig = Rig::new().await;
    let hub = rig.hub().await;
    let leaving = rig.worker_with(&[(GRACE, "30")]).await;
    let running = rig.ask_gated(1);
    rig.begun(&running).await;
    draining(&leaving).await;
    let tainted = r#"SELECT count(*) FROM worker WHERE capabilities @> '{"taints": [{"key": "draining"}]}'"#;
    rig.installation.wait_for("the worker to ask for it", tainted, |count| count == 1).await;
    let other = rig.installation.start_with("other", &["worker", "--name", "worker-2"], |_command| ());
    let active = "SELECT count(*) FROM worker WHERE status = 'active'";
    rig.installation.wait_for("both to be active", active, |count| count == 2).await;
    // As it would be if each had its turn: one of them waited for the gate.
    rig.completed(&rig.ask(4)).await;
    rig.open();
    gone(leaving);
    rig.completed(&running).await;
    other.stop();

    let back = rig.worker().await;
    assert_eq!(rig.installation.database.number(tainted).await, 0);
    back.stop();
    hub.stop();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_runs_may_finish_and_nothing_new_begins() {
    let rig = Rig::new().await;
    let hub = rig.hub().await;
    let worker = rig.worker_with(&[(GRACE, "30")]).await;
    let running = rig.ask_gated(3);
    rig.begun(&running).await;
    draining(&worker).await;
    let cancelled = running[2];
    assert_eq!(rig.cancel(cancelled), 200);
    rig.until(&[cancelled], "cancelled").await;
    let late = rig.ask(2);
    rig.open();
    gone(worker);
    // Written and published before the exit.
    rig.until(&running[..2], "completed").await;
    rig.ended(&running).await;
    inactive(&rig).await;
    rig.never_begun(&late);
    let worker = rig.worker().await;
    rig.completed(&late).await;
    worker.stop();
    hub.stop();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_does_not_finish_is_ended_recorded_and_announced() {
    let rig = Rig::new().await;
    let hub = rig.hub().await;
    let worker = rig.worker_with(&[(GRACE, "1")]).await;
    let mut running = rig.ask_gated(2);
    running.push(rig.ask_with(&json!({ "GATE": rig.gate(), "STUBBORN": "1" })));
    rig.begun(&running).await;
    worker.signal("TERM");
    gone(worker);
    let open = "SELECT count(*) FROM execution WHERE status IN ('running', 'canceling')";
    assert_eq!(rig.installation.database.number(open).await, 0, "recorded before the exit");
    assert_eq!(rig.actions(), Vec::<u32>::new());
    inactive(&rig).await;
    rig.ended(&running).await;
    hub.stop();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_second_signal_skips_the_grace() {
    let rig = Rig::new().await;
    let hub = rig.hub().await;
    let worker = rig.worker_with(&[(GRACE, "3600")]).await;
    let running = rig.ask_gated(2);
    rig.begun(&running).await;
    draining(&worker).await;
    assert_eq!(rig.actions().len(), 2, "the first one waits");
    worker.signal("INT");
    gone(worker);
    assert_eq!(rig.actions(), Vec::<u32>::new());
    rig.ended(&running).await;
    inactive(&rig).await;
    hub.stop();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn servers_that_do_not_answer_cannot_keep_it() {
    let rig = Rig::on(TestDatabase::new().await, TestBroker::new()).await;
    let hub = rig.hub().await;
    let broker = Proxy::start(rig.installation.broker.authority());
    let database = Proxy::start(rig.installation.database.authority());
    let amqp_url = rig.installation.broker.url_via(&broker.authority());
    let database_url = rig.installation.database.url_via(&database.authority());
    let urls = [("ATTUNE__MESSAGE_QUEUE__URL", amqp_url.as_str()), ("ATTUNE__DATABASE__URL", &database_url)];
    let mut worker = rig.worker_with(&[&urls[..], &[(GRACE, "1")]].concat()).await;
    let running = rig.ask_gated(2);
    rig.begun(&running).await;
    broker.black_hole_both();
    database.black_hole_both();
    let begun = Instant::now();
    worker.signal("TERM");
    // It cannot say that all is well.
    worker.wait();
    assert!(begun.elapsed() < LIMIT, "{:?}", begun.elapsed());
    assert_eq!(rig.actions(), Vec::<u32>::new());
    drop(worker);
    // What it could not write is written by its next life.
    let worker = rig.worker().await;
    rig.ended(&running).await;
    worker.stop();
    hub.stop();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_stops_in_a_row_all_end() {
    let rig = Rig::new().await;
    for _ in 0..50 {
        let worker = rig.installation.start("worker", &["worker", "--name", "worker-1"]);
        rig.active().await;
        worker.signal("TERM");
        let log = gone(worker);
        assert!(!log.contains("ERROR"), "{log}");
    }
    inactive(&rig).await;
}
