//! Ends and new lives of whole workers.

use std::fs;
use std::time::Duration;

use attune_model::status::{ExecutionStatus, WorkerStatus};
use attune_store::PageRequest;
use attune_testkit::eventually;
use serde_json::json;

use crate::support::rig::{Backend, Rig};
use crate::support::{is_alive, text};

/// An action that waits for the file `go` and leaves the file `started`.
fn waiting() -> (&'static str, String) {
    ("wait", "touch \"$OUT/started\"; while [ ! -e \"$OUT/go\" ]; do sleep 0.01; done; echo done".to_owned())
}

/// Rigs whose actions find their folder in `OUT`.
async fn rig(on: Backend, actions: &[(&str, String)]) -> (Rig, attune_worker::WorkerConfig) {
    let rig = Rig::new(on, actions).await;
    let mut config = rig.config();
    config.executor.passed_environment.push(("OUT".into(), rig.place.path(".").into()));
    (rig, config)
}

async fn worker_status(rig: &Rig) -> WorkerStatus {
    let page = rig.store.workers(PageRequest { page: 1, page_size: 10 }).await.unwrap();
    page.items[0].status
}

async fn a_soft_stop_takes_nothing_new_and_lets_what_runs_finish(on: Backend) {
    let (mut rig, config) = rig(on, &[waiting(), ("mark", "touch \"$OUT/marked\"".to_owned())]).await;
    let life = rig.live_with(config.clone()).await;
    let running = rig.submit(life.id, "wait").await;
    rig.file("started").await;
    life.stop.soft().cancel();
    eventually("it is not ready any more", async || (!*life.ready.borrow()).then_some(())).await;
    let waiting = rig.submit(life.id, "mark").await;
    let before = rig.store.now().await.unwrap();
    eventually("heartbeats go on while draining", async || {
        let page = rig.store.workers(PageRequest { page: 1, page_size: 10 }).await.unwrap();
        (page.items[0].last_heartbeat > Some(before) && page.items[0].status == WorkerStatus::Active).then_some(())
    })
    .await;
    fs::write(rig.place.path("go"), "").unwrap();
    rig.told(running).await;
    life.drained().await;
    assert_eq!(rig.row(running).await.status, ExecutionStatus::Completed);
    assert_eq!(rig.row(waiting).await.status, ExecutionStatus::Scheduled);
    assert_eq!(worker_status(&rig).await, WorkerStatus::Inactive);

    let next = rig.live_with(config).await;
    rig.told(waiting).await;
    assert_eq!(rig.row(waiting).await.status, ExecutionStatus::Completed, "the message waited for the next life");
    next.finish().await;
}

async fn a_hard_stop_ends_a_stubborn_child_and_records_what_became_of_it(on: Backend) {
    let action = (
        "stubborn",
        "trap '' TERM; echo $$ > \"$OUT/pid\"; mv \"$OUT/pid\" \"$OUT/started\"; while true; do sleep 0.01; done"
            .to_owned(),
    );
    let (mut rig, config) = rig(on, &[action]).await;
    let life = rig.live_with(config).await;
    let id = rig.submit(life.id, "stubborn").await;
    let pid = fs::read_to_string(rig.file("started").await).unwrap();
    let begun = std::time::Instant::now();
    life.end().await;
    assert!(begun.elapsed() < attune_lifecycle::HARD_STOP_LIMIT, "{:?}", begun.elapsed());
    assert!(!is_alive(&pid));
    rig.told(id).await;
    let row = rig.row(id).await;
    assert_eq!(row.status, ExecutionStatus::Failed);
    assert_eq!(text(row.result.as_ref().unwrap(), "error"), "worker was stopped while the action ran");
    assert_eq!(worker_status(&rig).await, WorkerStatus::Inactive);
}

async fn what_an_earlier_life_left_running_is_ended_and_what_it_left_scheduled_is_run(on: Backend) {
    let (mut rig, mut config) = rig(on, &[("count", "echo run >> \"$OUT/runs\"".to_owned())]).await;
    let first = rig.live_with(config.clone()).await;
    let id = first.id;
    first.finish().await;
    // Claimed by a process that then died, one of them with a cancel on its way.
    let lost = rig.scheduled(id, "count").await;
    rig.store.claim_execution(lost.id, id, None).await.unwrap();
    let cancelled = rig.scheduled(id, "count").await;
    rig.store.claim_execution(cancelled.id, id, None).await.unwrap();
    rig.store.cancel_execution(cancelled.id, &json!({})).await.unwrap();
    // Scheduled, but the message got lost.
    let forgotten = rig.scheduled(id, "count").await;

    // With a single slot, what was forgotten and what comes have to share it.
    config.max_concurrent_tasks = 1;
    let second = rig.live_with(config).await;
    assert_eq!(second.id, id, "the row is taken over");
    assert_eq!(rig.told(lost.id).await.last().unwrap().payload["status"], "Abandoned");
    rig.ended(forgotten.id).await;
    let row = rig.row(lost.id).await;
    assert_eq!(row.status, ExecutionStatus::Abandoned);
    assert_eq!(
        row.result.unwrap(),
        json!({"succeeded": false, "error": "worker was restarted while the execution ran"})
    );
    assert_eq!(rig.row(cancelled.id).await.status, ExecutionStatus::Cancelled);
    assert_eq!(rig.row(forgotten.id).await.status, ExecutionStatus::Completed);
    assert_eq!(fs::read_to_string(rig.place.path("runs")).unwrap(), "run\n");
    second.finish().await;
}

/// A mistake of whoever gave the names, or a second process that starts before the first has ended.
async fn what_another_process_of_the_name_runs_is_left_to_it_until_it_has_gone(on: Backend) {
    let (mut rig, config) = rig(on, &[waiting(), ("mark", "echo run >> \"$OUT/runs\"".to_owned())]).await;
    let first = rig.live_with(config.clone()).await;
    let running = rig.submit(first.id, "wait").await;
    rig.file("started").await;
    let second = rig.live_with(config).await;
    assert_eq!(second.id, first.id);
    // Of neither of them, as far as they know.
    let lost = rig.scheduled(first.id, "mark").await;
    rig.store.claim_execution(lost.id, first.id, None).await.unwrap();
    let mut beats = std::collections::BTreeSet::new();
    eventually("the second has looked for the first a few times", async || {
        let page = rig.store.workers(PageRequest { page: 1, page_size: 10 }).await.unwrap();
        beats.insert(page.items[0].last_heartbeat);
        (beats.len() > 10).then_some(())
    })
    .await;
    for id in [running, lost.id] {
        assert_eq!(rig.row(id).await.status, ExecutionStatus::Running);
    }
    fs::write(rig.place.path("go"), "").unwrap();
    rig.told(running).await;
    assert_eq!(rig.row(running).await.status, ExecutionStatus::Completed);
    first.finish().await;
    assert_eq!(rig.told(lost.id).await.last().unwrap().payload["status"], "Abandoned");
    let next = rig.submit(second.id, "mark").await;
    rig.told(next).await;
    assert_eq!(rig.row(next).await.status, ExecutionStatus::Completed);
    second.finish().await;
}

/// The embedded bus only: the one to a broker is closed by its own process and by nobody else, and what a broker can do is in
/// `tests/platform_faults`.
async fn a_lost_bus_costs_no_result_and_does_not_hold_up_the_stop(on: Backend) {
    let (rig, mut config) = rig(on, &[waiting()]).await;
    config.heartbeat_interval = Duration::from_millis(200);
    let life = rig.live_with(config).await;
    let id = rig.submit(life.id, "wait").await;
    rig.file("started").await;
    rig.bus.close().await;
    eventually("it is not ready any more", async || (!*life.ready.borrow()).then_some(())).await;
    // It lives on, well beyond the time after which consumers are made again.
    let mut beats = std::collections::BTreeSet::new();
    eventually("heartbeats go on", async || {
        let page = rig.store.workers(PageRequest { page: 1, page_size: 10 }).await.unwrap();
        beats.insert(page.items[0].last_heartbeat);
        (beats.len() > 10 || life.stop.soft().is_cancelled()).then_some(())
    })
    .await;
    assert!(!life.stop.soft().is_cancelled(), "a lost bus is no reason to stop");
    fs::write(rig.place.path("go"), "").unwrap();
    assert_eq!(rig.ended(id).await.status, ExecutionStatus::Completed);
    assert!(!life.stop.soft().is_cancelled(), "a lost bus is no reason to stop");
    life.end().await;
    assert_eq!(worker_status(&rig).await, WorkerStatus::Inactive);
}

#[tokio::test]
async fn a_result_waits_for_storage_that_is_away() {
    use sqlx::{Connection, Executor};
    let (mut rig, config) = rig(Backend::Embedded, &[waiting()]).await;
    let life = rig.live_with(config).await;
    let id = rig.submit(life.id, "wait").await;
    rig.file("started").await;
    let url = format!("sqlite://{}", rig.place.path("attune.db").display());
    let mut blocker = sqlx::SqliteConnection::connect(&url).await.unwrap();
    blocker.execute("BEGIN IMMEDIATE").await.unwrap();
    fs::write(rig.place.path("go"), "").unwrap();
    eventually("heartbeats fail too", async || (!*life.ready.borrow()).then_some(())).await;
    assert_eq!(rig.row(id).await.status, ExecutionStatus::Running);
    blocker.execute("ROLLBACK").await.unwrap();
    rig.told(id).await;
    assert_eq!(rig.row(id).await.status, ExecutionStatus::Completed);
    eventually("it is ready again", async || life.ready.borrow().then_some(())).await;
    life.finish().await;
}

/// RabbitMQ 4 takes 16 MiB, and closes the channel of whoever sends more: to send it again would never end.
async fn a_result_that_is_too_long_for_a_message_is_in_the_row_alone(on: Backend) {
    // Each byte is six in JSON.
    let mut rig = Rig::new(on, &[("loud", "head -c 3000000 /dev/zero | tr '\\0' '\\1'".to_owned())]).await;
    let life = rig.live().await;
    let id = rig.submit(life.id, "loud").await;
    let told = rig.told(id).await;
    let completed = &told.last().unwrap().payload;
    assert_eq!((&completed["status"], &completed["result"]), (&"Completed".into(), &serde_json::Value::Null));
    assert_eq!(rig.row(id).await.result.unwrap()["stdout"].as_str().unwrap().len(), 3_000_000);
    life.finish().await;
}

attune_testkit::tests_on_each! {
    embedded: Backend::Embedded, servers: Backend::Servers => [
        a_result_that_is_too_long_for_a_message_is_in_the_row_alone,
        a_soft_stop_takes_nothing_new_and_lets_what_runs_finish,
        a_hard_stop_ends_a_stubborn_child_and_records_what_became_of_it,
        what_an_earlier_life_left_running_is_ended_and_what_it_left_scheduled_is_run,
        what_another_process_of_the_name_runs_is_left_to_it_until_it_has_gone,
        a_lost_bus_costs_no_result_and_does_not_hold_up_the_stop,
    ]
}
