//! Results that storage does not take, logs that were left, messages that wait and messages that are late.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::sync::Arc;

use attune_bus::{ConsumerEvent, Outgoing};
use attune_model::measure::Measure;
use attune_model::message::ExecutionDispatch;
use attune_model::status::{ExecutionStatus, RetentionPolicy};
use attune_store::ExecutionGuard;
use attune_testkit::eventually;
use chrono::{TimeDelta, Utc};
use serde_json::json;

use crate::support::flaky::{Flaky, Lost};
use crate::support::rig::{Backend, Rig};
use crate::support::text;

const NEVER: [Lost; 10_000] = [Lost::Call; 10_000];

async fn rig(on: Backend, actions: &[(&str, String)]) -> (Rig, attune_worker::WorkerConfig) {
    let rig = Rig::new(on, actions).await;
    let mut config = rig.config();
    config.executor.passed_environment.push(("OUT".into(), rig.place.path(".").into()));
    (rig, config)
}

fn entries(rig: &Rig, worker: attune_model::WorkerId) -> Vec<PathBuf> {
    let folder = rig.place.path("spool").join(worker.to_string());
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    entries.map(|entry| entry.path()).filter(|path| path.extension().is_some_and(|it| it == "result")).collect()
}

/// A worker that ran an action while storage took no results, and then had to go. Its execution and its id.
async fn life_without_results(
    rig: &Rig,
    config: attune_worker::WorkerConfig,
) -> (attune_model::ExecutionId, attune_model::WorkerId) {
    let store = Flaky::new(rig.store.clone(), &[], &NEVER);
    let has_key = config.executor.encryption_key.is_some();
    let life = rig.live_on(config, Arc::new(store)).await;
    let (worker, id) = (life.id, rig.submit(life.id, "say").await);
    let entry = eventually("the result is kept", async || entries(rig, worker).pop()).await;
    let mode = |path: &std::path::Path| path.metadata().unwrap().permissions().mode() & 0o777;
    assert_eq!((mode(&entry), mode(entry.parent().unwrap())), (0o600, 0o700));
    let sealed = !fs::read_to_string(&entry).unwrap().contains("precious");
    assert_eq!(sealed, has_key, "it is sealed exactly where there is a key");
    assert_eq!(rig.row(id).await.status, ExecutionStatus::Running);
    life.end().await;
    assert_eq!(entries(rig, worker).len(), 1, "it outlives the process");
    assert_eq!(rig.measured.times(Measure::ResultSpooled), 1);
    (id, worker)
}

async fn a_result_that_storage_does_not_take_is_written_by_the_next_life(on: Backend) {
    let (mut rig, config) = rig(on, &[("say", "echo precious; echo trouble >&2".to_owned())]).await;
    let (id, worker) = life_without_results(&rig, config.clone()).await;

    let life = rig.live_with(config).await;
    assert_eq!(rig.told(id).await.last().unwrap().payload["status"], "Completed");
    let row = rig.row(id).await;
    assert_eq!(row.status, ExecutionStatus::Completed);
    let result = row.result.unwrap();
    assert_eq!(text(&result, "stdout"), "precious\n");
    let log = rig.place.path("artifacts/demo/say/stderr/log/v1.txt");
    assert_eq!(text(&result, "stderr_log"), log.to_str().unwrap());
    assert_eq!(fs::read_to_string(log).unwrap(), "trouble\n");
    assert_eq!(entries(&rig, worker), Vec::<PathBuf>::new());
    life.finish().await;
}

/// It may be killed before storage has answered.
async fn a_worker_that_stops_keeps_a_result_before_storage_has_answered(on: Backend) {
    let wait = "touch \"$OUT/started\"; while [ ! -e \"$OUT/go\" ]; do sleep 0.01; done".to_owned();
    let (mut rig, config) = rig(on, &[("wait", wait)]).await;
    let store = Flaky::new(rig.store.clone(), &[], &[Lost::Time]);
    let life = rig.live_on(config, Arc::new(store.clone())).await;
    let (worker, id) = (life.id, rig.submit(life.id, "wait").await);
    rig.file("started").await;
    life.stop.soft().cancel();
    fs::write(rig.place.path("go"), "").unwrap();
    eventually("the result is kept", async || entries(&rig, worker).pop()).await;
    assert_eq!(rig.row(id).await.status, ExecutionStatus::Running);
    store.release();
    assert_eq!(rig.told(id).await.last().unwrap().payload["status"], "Completed");
    life.drained().await;
    assert_eq!(entries(&rig, worker), Vec::<PathBuf>::new(), "it is needed no more");
}

/// Such a worker could not keep secrets apart in the row either; the file is its own.
async fn a_worker_without_a_key_keeps_results_for_its_own_eyes(on: Backend) {
    let (mut rig, mut config) = rig(on, &[("say", "echo precious".to_owned())]).await;
    config.executor.encryption_key = None;
    let (id, worker) = life_without_results(&rig, config.clone()).await;
    let life = rig.live_with(config).await;
    assert_eq!(rig.told(id).await.last().unwrap().payload["status"], "Completed");
    assert_eq!(text(&rig.row(id).await.result.unwrap(), "stdout"), "precious\n");
    assert_eq!(entries(&rig, worker), Vec::<PathBuf>::new());
    life.finish().await;
}

async fn a_kept_result_is_dropped_when_the_row_moved_on(on: Backend) {
    let (rig, config) = rig(on, &[("say", "echo precious".to_owned())]).await;
    let (id, worker) = life_without_results(&rig, config.clone()).await;
    let guard = ExecutionGuard::from(&rig.row(id).await);
    let by_monitor = json!({"error": "worker lost"});
    rig.store.end_execution(&guard, ExecutionStatus::Abandoned, &by_monitor).await.unwrap().unwrap();

    let life = rig.live_with(config).await;
    let row = rig.row(id).await;
    assert_eq!((row.status, row.result), (ExecutionStatus::Abandoned, Some(by_monitor)));
    assert_eq!(entries(&rig, worker), Vec::<PathBuf>::new());
    // Its log is kept all the same.
    rig.file("artifacts/demo/say/stdout/log/v1.txt").await;
    life.finish().await;
}

async fn a_disk_that_takes_nothing_costs_only_the_next_life_its_copy(on: Backend) {
    let (mut rig, mut config) = rig(on, &[("say", "echo precious".to_owned())]).await;
    let blocked = rig.place.path("blocked");
    fs::write(&blocked, "no folder").unwrap();
    config.spool_dir = blocked;
    let store = Flaky::new(rig.store.clone(), &[], &[Lost::Call, Lost::Call]);
    let life = rig.live_on(config, Arc::new(store)).await;
    let id = rig.submit(life.id, "say").await;
    assert_eq!(rig.told(id).await.last().unwrap().payload["status"], "Completed");
    life.finish().await;
}

async fn an_entry_that_cannot_be_read_is_put_aside_and_harms_nothing_else(on: Backend) {
    let (mut rig, config) = rig(on, &[("say", "echo precious".to_owned())]).await;
    let first = rig.live_with(config.clone()).await;
    let folder = rig.place.path("spool").join(first.id.to_string());
    first.finish().await;
    fs::create_dir_all(&folder).unwrap();
    fs::write(folder.join("bad.result"), "{").unwrap();
    fs::write(folder.join("worse.result"), "\"c2hvcnQ=\"").unwrap();
    let life = rig.live_with(config).await;
    let id = rig.submit(life.id, "say").await;
    assert_eq!(rig.told(id).await.last().unwrap().payload["status"], "Completed");
    for name in ["bad.unreadable", "worse.unreadable"] {
        assert!(folder.join(name).exists(), "{name}");
    }
    life.finish().await;
}

async fn logs_that_a_life_left_are_filed_by_the_next_one(on: Backend) {
    let (mut rig, config) = rig(on, &[("say", "echo precious".to_owned())]).await;
    let life = rig.live_with(config.clone()).await;
    let id = rig.submit(life.id, "say").await;
    rig.told(id).await;
    life.finish().await;
    // As if it had died between the end and its logs; the other one is not this worker's.
    let filed = rig.place.path("artifacts/demo/say/stdout/log/v1.txt");
    for execution in [id.0, 4711] {
        let folder = rig.place.path(&format!("artifacts/execution_{execution}"));
        fs::create_dir(&folder).unwrap();
        fs::copy(&filed, folder.join("stdout.log")).unwrap();
    }
    fs::remove_file(&filed).unwrap();
    let life = rig.live_with(config).await;
    assert_eq!(fs::read_to_string(rig.file("artifacts/demo/say/stdout/log/v1.txt").await).unwrap(), "precious\n");
    assert_eq!(rig.store.log_versions(id).await.unwrap().len(), 1);
    let folder = rig.place.path(&format!("artifacts/execution_{id}"));
    eventually("the folder is gone", async || (!folder.exists()).then_some(())).await;
    assert!(rig.place.path("artifacts/execution_4711/stdout.log").exists());
    life.finish().await;
}

async fn logs_that_a_life_left_are_kept_as_long_as_their_action_says(on: Backend) {
    let (mut rig, config) = rig(on, &[("say", "echo precious".to_owned()), ("run", "true".to_owned())]).await;
    rig.sql("UPDATE action SET log_retention_policy = 'versions', log_retention_limit = 3").await;
    let life = rig.live_with(config.clone()).await;
    let ended = rig.submit(life.id, "say").await;
    rig.told(ended).await;
    let running = rig.scheduled(life.id, "run").await;
    life.finish().await;
    // One had ended and one was still running when the worker died.
    rig.store.claim_execution(running.id, running.worker.unwrap(), None).await.unwrap();
    for execution in [ended, running.id] {
        let folder = rig.place.path(&format!("artifacts/execution_{execution}"));
        fs::create_dir(&folder).unwrap();
        fs::write(folder.join("stdout.log"), "left").unwrap();
    }
    let life = rig.live_with(config).await;
    for action in ["say", "run"] {
        let log = rig.place.path(&format!("artifacts/demo/{action}/stdout/log/v1.txt"));
        let is_filed = async || fs::read_to_string(&log).is_ok_and(|text| text == "left").then_some(());
        eventually("the log is filed", is_filed).await;
        let artifact = rig.store.artifact_of_ref(&format!("demo.{action}.stdout.log")).await.unwrap().unwrap();
        assert_eq!((artifact.retention_policy, artifact.retention_limit), (RetentionPolicy::Versions, 3), "{action}");
    }
    life.finish().await;
}

async fn a_full_worker_gives_waiting_messages_back(on: Backend) {
    let wait = "touch \"$OUT/started\"; while [ ! -e \"$OUT/go\" ]; do sleep 0.01; done".to_owned();
    let (mut rig, mut config) = rig(on, &[("wait", wait)]).await;
    config.max_concurrent_tasks = 1;
    let life = rig.live_with(config).await;
    let running = rig.submit(life.id, "wait").await;
    rig.file("started").await;
    let waiting = rig.submit(life.id, "wait").await;
    // Whoever else consumes the queue gets it: it is in the queue and not in the worker.
    let queue = format!("worker.{}.executions", life.id);
    let mut other = rig.bus.consume(&queue, "other", 1).await.unwrap();
    let event = tokio::time::timeout(attune_testkit::PATIENCE, other.next()).await.unwrap();
    let Some(ConsumerEvent::Delivery(delivery)) = event else { panic!("{event:?}") };
    assert!(*life.ready.borrow(), "to be full is no fault");
    delivery.reject(attune_bus::Requeue::Yes).await.unwrap();
    drop(other);
    fs::write(rig.place.path("go"), "").unwrap();
    for id in [running, waiting] {
        rig.told(id).await;
        assert_eq!(rig.row(id).await.status, ExecutionStatus::Completed);
    }
    life.finish().await;
}

async fn a_message_of_an_earlier_attempt_starts_nothing_and_the_row_is_found_all_the_same(on: Backend) {
    let (mut rig, config) = rig(on, &[("count", "echo run >> \"$OUT/runs\"".to_owned())]).await;
    let life = rig.live_with(config).await;
    let row = rig.scheduled(life.id, "count").await;
    let stale = ExecutionDispatch {
        execution_id: row.id,
        worker_id: life.id,
        action_ref: row.action_ref.clone(),
        config: None,
        scheduled_attempt_updated_at: Some(row.updated - TimeDelta::seconds(1)),
    };
    rig.publish(&stale).await;
    // The one after it is served meanwhile.
    let other = rig.submit(life.id, "count").await;
    rig.told(other).await;
    assert_eq!(rig.row(row.id).await.status, ExecutionStatus::Scheduled);
    assert_eq!(rig.ended(row.id).await.status, ExecutionStatus::Completed);
    // And a message that comes late does not run it again.
    rig.publish(&stale).await;
    let fresh = ExecutionDispatch { scheduled_attempt_updated_at: Some(row.updated), ..stale };
    rig.bus.publish(&[Outgoing::new(&fresh, "test", Utc::now()).unwrap()]).await.unwrap();
    let last = rig.submit(life.id, "count").await;
    rig.ended(last).await;
    life.finish().await;
    assert_eq!(fs::read_to_string(rig.place.path("runs")).unwrap(), "run\nrun\nrun\n");
}

/// The old message is answered by what the row was before it was scheduled anew.
#[tokio::test]
async fn a_message_that_comes_while_an_earlier_one_is_in_hand_is_not_lost() {
    // The embedded storage lets nobody set a status back.
    let (mut rig, config) = rig(Backend::Servers, &[("say", "echo fine".to_owned())]).await;
    let store = Flaky::new(rig.store.clone(), &[Lost::AnswerInTime], &[]);
    let life = rig.live_on(config, Arc::new(store.clone())).await;
    let row = rig.scheduled(life.id, "say").await;
    rig.sql("UPDATE execution SET status = 'scheduling'").await;
    rig.dispatch(&row).await;
    eventually("the first claim is made", async || store.is_over().then_some(())).await;
    rig.sql("UPDATE execution SET status = 'scheduled'").await;
    rig.dispatch(&rig.row(row.id).await).await;
    // The queue keeps its order: after this one the second message was taken.
    let other = rig.submit(life.id, "say").await;
    rig.told(other).await;
    assert_eq!(rig.row(row.id).await.status, ExecutionStatus::Scheduled);
    store.release();
    assert_eq!(rig.ended(row.id).await.status, ExecutionStatus::Completed);
    life.finish().await;
}

#[tokio::test]
async fn what_a_killed_life_has_half_written_takes_no_room_for_ever() {
    let (rig, config) = rig(Backend::Embedded, &[("say", "echo fine".to_owned())]).await;
    let life = rig.live_with(config.clone()).await;
    let half = rig.place.path(&format!("spool/{}/.00000000000000000004-7", life.id));
    life.finish().await;
    fs::create_dir_all(half.parent().unwrap()).unwrap();
    fs::write(&half, "{\"worker").unwrap();
    let life = rig.live_with(config).await;
    eventually("it goes", async || (!half.exists()).then_some(())).await;
    life.finish().await;
}

attune_testkit::tests_on_each! {
    embedded: Backend::Embedded, servers: Backend::Servers => [
        a_result_that_storage_does_not_take_is_written_by_the_next_life,
        a_worker_without_a_key_keeps_results_for_its_own_eyes,
        a_worker_that_stops_keeps_a_result_before_storage_has_answered,
        a_kept_result_is_dropped_when_the_row_moved_on,
        a_disk_that_takes_nothing_costs_only_the_next_life_its_copy,
        an_entry_that_cannot_be_read_is_put_aside_and_harms_nothing_else,
        logs_that_a_life_left_are_filed_by_the_next_one,
        logs_that_a_life_left_are_kept_as_long_as_their_action_says,
        a_full_worker_gives_waiting_messages_back,
        a_message_of_an_earlier_attempt_starts_nothing_and_the_row_is_found_all_the_same,
    ]
}
