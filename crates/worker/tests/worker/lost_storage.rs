//! Storage that goes away at the two moments that matter: the claim and the end.

use std::fs;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use attune_model::ExecutionId;
use attune_model::message::ExecutionDispatch;
use attune_model::status::ExecutionStatus;
use attune_testkit::eventually;
use attune_worker::WorkerConfig;

use crate::support::flaky::{Flaky, Lost};
use crate::support::rig::{Backend, Life, Rig};
use crate::support::text;

/// With an action that counts its runs in the file `runs`, for workers as [`counting`] has them.
async fn counting_rig(on: Backend) -> Rig {
    Rig::new(on, &[("count", "echo run >> \"$OUT/runs\"".to_owned())]).await
}

fn counting(rig: &Rig) -> WorkerConfig {
    let mut config = rig.config();
    config.executor.passed_environment.push(("OUT".into(), rig.place.path(".").into()));
    config
}

/// Runs one execution of an action that counts its runs; returns the row, how often it ran and the announced status.
async fn run(on: Backend, claims: &[Lost], finishes: &[Lost]) -> (attune_model::rows::Execution, usize, String) {
    let mut rig = counting_rig(on).await;
    let store = Flaky::new(rig.store.clone(), claims, finishes);
    let life = rig.live_on(counting(&rig), Arc::new(store.clone())).await;
    let id = rig.submit(life.id, "count").await;
    let told = rig.told(id).await;
    let row = rig.row(id).await;
    assert!(store.is_over(), "every planned failure happened");
    life.finish().await;
    let runs = fs::read_to_string(rig.place.path("runs")).unwrap_or_default();
    (row, runs.lines().count(), text(&told.last().unwrap().payload, "status").to_owned())
}

async fn a_claim_that_does_not_get_through_is_repeated(on: Backend) {
    let (row, runs, announced) = run(on, &[Lost::Call, Lost::Call], &[]).await;
    assert_eq!((row.status, runs, announced.as_str()), (ExecutionStatus::Completed, 1, "Completed"));
}

async fn a_claim_whose_answer_is_lost_ends_the_execution_instead_of_leaving_it_running(on: Backend) {
    let (row, runs, announced) = run(on, &[Lost::Answer], &[]).await;
    assert_eq!((row.status, runs, announced.as_str()), (ExecutionStatus::Abandoned, 0, "Abandoned"));
    assert_eq!(
        text(row.result.as_ref().unwrap(), "error"),
        "worker lost its connection to storage while it started the execution"
    );
}

/// A worker that stops while its claim gets no answer.
async fn claiming(on: Backend, lost: Lost) -> (Rig, Flaky, Life, ExecutionId) {
    let rig = counting_rig(on).await;
    let store = Flaky::new(rig.store.clone(), &[lost], &[]);
    let life = rig.live_on(counting(&rig), Arc::new(store.clone())).await;
    let id = rig.submit(life.id, "count").await;
    let asked = async || {
        let is_claimed = rig.row(id).await.status == ExecutionStatus::Running;
        (store.is_over() && (lost == Lost::CallLater || is_claimed)).then_some(())
    };
    eventually("the claim", asked).await;
    life.stop.soft().cancel();
    (rig, store, life, id)
}

async fn a_claim_whose_answer_is_lost_while_the_worker_stops_is_not_left_running(on: Backend) {
    let (mut rig, store, life, id) = claiming(on, Lost::AnswerLater).await;
    store.release();
    life.drained().await;
    assert_eq!(rig.row(id).await.status, ExecutionStatus::Abandoned);
    assert_eq!(rig.told(id).await.last().unwrap().payload["status"], "Abandoned");
    assert!(!rig.place.path("runs").exists());
}

async fn a_claim_that_fails_while_the_worker_stops_is_left_to_the_next_life(on: Backend) {
    let (mut rig, store, life, id) = claiming(on, Lost::CallLater).await;
    store.release();
    life.drained().await;
    assert_eq!(rig.row(id).await.status, ExecutionStatus::Scheduled);
    let life = rig.live_with(counting(&rig)).await;
    assert_eq!(rig.told(id).await.last().unwrap().payload["status"], "Completed");
    life.finish().await;
    assert_eq!(fs::read_to_string(rig.place.path("runs")).unwrap(), "run\n");
}

async fn storage_that_falls_silent_after_a_claim_keeps_no_worker_from_stopping(on: Backend) {
    let (mut rig, store, life, id) = claiming(on, Lost::AnswerLater).await;
    store.fall_silent();
    store.release();
    life.end().await;
    assert_eq!(rig.row(id).await.status, ExecutionStatus::Running);
    let life = rig.live().await;
    assert_eq!(rig.told(id).await.last().unwrap().payload["status"], "Abandoned");
    life.finish().await;
}

async fn an_end_that_does_not_get_through_is_repeated(on: Backend) {
    let (row, runs, announced) = run(on, &[], &[Lost::Call, Lost::Call, Lost::Call]).await;
    assert_eq!((row.status, runs, announced.as_str()), (ExecutionStatus::Completed, 1, "Completed"));
}

async fn an_end_whose_answer_is_lost_is_announced_all_the_same(on: Backend) {
    let (row, runs, announced) = run(on, &[], &[Lost::Call, Lost::Answer]).await;
    assert_eq!((row.status, runs, announced.as_str()), (ExecutionStatus::Completed, 1, "Completed"));
}

async fn a_result_that_storage_refuses_ends_the_execution_as_failed_with_the_reason(on: Backend) {
    let (row, _, announced) = run(on, &[], &[Lost::Refused]).await;
    assert_eq!((row.status, announced.as_str()), (ExecutionStatus::Failed, "Failed"));
    assert!(text(row.result.as_ref().unwrap(), "error").starts_with("result could not be stored: "), "{row:?}");
}

/// With one slot, the second execution shows that the first one has given its own back, and its message too.
async fn a_bug_in_the_course_of_an_execution_ends_it_as_failed_and_costs_no_slot(on: Backend) {
    let mut rig = Rig::new(on, &[("say", "echo fine".to_owned())]).await;
    let mut config = rig.config();
    config.max_concurrent_tasks = 1;
    let plans: [(&[Lost], &[Lost]); 3] =
        [(&[Lost::CallerLater], &[]), (&[], &[Lost::Caller]), (&[], &[Lost::Call, Lost::Caller])];
    for (claims, finishes) in plans {
        let store = Flaky::new(rig.store.clone(), claims, finishes);
        let life = rig.live_on(config.clone(), Arc::new(store)).await;
        let id = rig.submit(life.id, "say").await;
        assert_eq!(rig.told(id).await.last().unwrap().payload["status"], "Failed");
        let row = rig.row(id).await;
        let error = row.result.as_ref().map(|result| text(result, "error"));
        assert_eq!(
            (row.status, error),
            (ExecutionStatus::Failed, Some("the worker failed while it had the execution"))
        );
        let next = rig.submit(life.id, "say").await;
        assert_eq!(rig.told(next).await.last().unwrap().payload["status"], "Completed");
        life.finish().await;
    }
}

/// Nobody has claimed it: the row is for the scheduler to decide about, and the message does not keep its place.
async fn a_bug_before_the_claim_leaves_the_row_and_keeps_no_message(on: Backend) {
    let mut rig = Rig::new(on, &[("say", "echo fine".to_owned())]).await;
    let mut config = rig.config();
    config.max_concurrent_tasks = 1;
    let store = Flaky::new(rig.store.clone(), &[Lost::Caller], &[]);
    let life = rig.live_on(config, Arc::new(store)).await;
    let id = rig.submit(life.id, "say").await;
    let next = rig.submit(life.id, "say").await;
    assert_eq!(rig.told(next).await.last().unwrap().payload["status"], "Completed");
    assert_eq!(rig.row(id).await.status, ExecutionStatus::Scheduled);
    life.finish().await;
}

async fn a_bug_while_logs_are_filed_keeps_no_other_from_being_filed(on: Backend) {
    let mut rig = Rig::new(on, &[("say", "echo fine".to_owned())]).await;
    let store = Flaky::new(rig.store.clone(), &[], &[]).filing(&[Lost::Caller]);
    let life = rig.live_on(rig.config(), Arc::new(store)).await;
    for _ in 0..2 {
        let id = rig.submit(life.id, "say").await;
        assert_eq!(rig.told(id).await.last().unwrap().payload["status"], "Completed");
    }
    for version in 1..=2 {
        rig.file(&format!("artifacts/demo/say/stdout/log/v{version}.txt")).await;
    }
    life.finish().await;
}

attune_testkit::tests_on_each! {
    embedded: Backend::Embedded, servers: Backend::Servers => [
        a_claim_that_does_not_get_through_is_repeated,
        a_claim_whose_answer_is_lost_ends_the_execution_instead_of_leaving_it_running,
        a_claim_whose_answer_is_lost_while_the_worker_stops_is_not_left_running,
        a_claim_that_fails_while_the_worker_stops_is_left_to_the_next_life,
        storage_that_falls_silent_after_a_claim_keeps_no_worker_from_stopping,
        an_end_that_does_not_get_through_is_repeated,
        an_end_whose_answer_is_lost_is_announced_all_the_same,
        a_result_that_storage_refuses_ends_the_execution_as_failed_with_the_reason,
        a_bug_in_the_course_of_an_execution_ends_it_as_failed_and_costs_no_slot,
        a_bug_before_the_claim_leaves_the_row_and_keeps_no_message,
        a_bug_while_logs_are_filed_keeps_no_other_from_being_filed,
    ]
}

#[tokio::test]
async fn an_execution_whose_pack_cannot_be_read_ends_and_the_worker_goes_on() {
    let mut rig = Rig::new(Backend::Servers, &[("say", "echo fine".to_owned())]).await;
    let life = rig.live().await;
    // Something that no platform of today writes.
    rig.sql("UPDATE pack SET tags = ARRAY[NULL]::text[]").await;
    let id = rig.submit(life.id, "say").await;
    assert_eq!(rig.told(id).await.last().unwrap().payload["status"], "Failed");
    let result = rig.row(id).await.result.unwrap();
    assert!(text(&result, "error").starts_with("the execution cannot be read: "), "{result}");
    rig.sql("UPDATE pack SET tags = '{}'").await;
    let id = rig.submit(life.id, "say").await;
    rig.told(id).await;
    assert_eq!(rig.row(id).await.status, ExecutionStatus::Completed);
    life.finish().await;
}

/// Neither the slot nor the next start waits for a row that nobody can read.
#[tokio::test]
async fn an_execution_that_cannot_be_read_ends_and_holds_up_no_life() {
    let mut rig = Rig::new(Backend::Servers, &[("say", "echo fine".to_owned())]).await;
    let mut config = rig.config();
    config.max_concurrent_tasks = 1;
    let life = rig.live_with(config.clone()).await;
    let (row, other) = (rig.scheduled(life.id, "say").await, rig.scheduled(life.id, "say").await);
    // Something that no platform of today writes.
    rig.sql("UPDATE execution SET permission_set_refs = ARRAY[NULL]::text[]").await;
    rig.sql("UPDATE execution SET status = 'running', started_at = now() WHERE id = (SELECT max(id) FROM execution)")
        .await;
    let payload = ExecutionDispatch {
        execution_id: row.id,
        worker_id: life.id,
        action_ref: row.action_ref.clone(),
        config: None,
        scheduled_attempt_updated_at: None,
    };
    rig.publish(&payload).await;
    assert_eq!(rig.told(row.id).await.last().unwrap().payload["status"], "Failed");
    let next = rig.submit(life.id, "say").await;
    assert_eq!(rig.told(next).await.last().unwrap().payload["status"], "Completed");
    life.finish().await;

    let life = rig.live_with(config).await;
    assert_eq!(rig.told(other.id).await.last().unwrap().payload["status"], "Abandoned");
    let next = rig.submit(life.id, "say").await;
    assert_eq!(rig.told(next).await.last().unwrap().payload["status"], "Completed");
    life.finish().await;
}

/// Counts what an operator is told.
struct Told(Arc<AtomicUsize>);

impl tracing::Subscriber for Told {
    fn enabled(&self, metadata: &tracing::Metadata<'_>) -> bool {
        *metadata.level() <= tracing::Level::WARN && metadata.target().starts_with("attune_worker")
    }

    fn new_span(&self, _span: &tracing::span::Attributes<'_>) -> tracing::span::Id {
        tracing::span::Id::from_u64(1)
    }

    fn record(&self, _span: &tracing::span::Id, _values: &tracing::span::Record<'_>) {}

    fn record_follows_from(&self, _span: &tracing::span::Id, _follows: &tracing::span::Id) {}

    fn event(&self, _event: &tracing::Event<'_>) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }

    fn enter(&self, _span: &tracing::span::Id) {}

    fn exit(&self, _span: &tracing::span::Id) {}
}

/// However long it takes: a whole worker waits, for hours perhaps.
#[tokio::test]
async fn storage_that_is_away_is_told_once_and_not_with_every_attempt() {
    let told = Arc::new(AtomicUsize::new(0));
    tracing::subscriber::set_global_default(Told(told.clone())).unwrap();
    let lost = [Lost::Call; 3];
    let mut rig = Rig::new(Backend::Embedded, &[("say", "echo fine; echo trouble >&2".to_owned())]).await;
    let store = Flaky::new(rig.store.clone(), &lost, &lost).filing(&lost);
    let mut config = rig.config();
    // A beat that a busy machine misses would be told as well.
    config.heartbeat_interval = std::time::Duration::from_hours(1);
    let life = rig.live_on(config, Arc::new(store)).await;
    let id = rig.submit(life.id, "say").await;
    assert_eq!(rig.told(id).await.last().unwrap().payload["status"], "Completed");
    assert!(told.load(Ordering::Relaxed) <= 3, "claim, logs, end: {}", told.load(Ordering::Relaxed));
    life.finish().await;
}
