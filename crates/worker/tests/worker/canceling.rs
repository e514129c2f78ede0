//! A row that is found `canceling`, at each place where the worker can find that, and what others then read: the messages and
//! the row. No message told this worker of the cancel: the row alone knows.

use std::collections::BTreeMap;
use std::fs::{self, DirEntry};
use std::io;
use std::sync::Arc;
use std::time::Duration;

use attune_model::status::ExecutionStatus;
use attune_model::{ExecutionId, WorkerId};
use attune_testkit::eventually;
use attune_worker::WorkerConfig;
use serde_json::{Map, Value, json};

use crate::support::flaky::{Flaky, Lost};
use crate::support::golden::{assert_golden, named};
use crate::support::rig::{Backend, Life, Rig};

const NEVER: [Lost; 10_000] = [Lost::Call; 10_000];

/// Says that it has begun, and goes on when it may.
const WAIT: &str = "echo begun; touch \"$OUT/begun.$ATTUNE_EXEC_ID\"
    while [ ! -e \"$OUT/go.$ATTUNE_EXEC_ID\" ]; do sleep 0.01; done";

/// A rig and what was found so far.
struct Finds {
    rig: Rig,
    config: WorkerConfig,
    found: Map<String, Value>,
}

impl Finds {
    async fn new(on: Backend) -> Self {
        let (good, bad) = (WAIT.to_owned(), format!("{WAIT}\necho no luck >&2; exit 3"));
        let rig = Rig::new(on, &[("good", good), ("bad", bad)]).await;
        let mut config = rig.config();
        config.executor.passed_environment.push(("OUT".into(), rig.place.path(".").into()));
        Self { rig, config, found: Map::new() }
    }

    /// The way to a store that fails like this.
    async fn life(&self, claims: &[Lost], finishes: &[Lost]) -> Life {
        let store = Flaky::new(self.rig.store.clone(), claims, finishes);
        self.rig.live_on(self.config.clone(), Arc::new(store)).await
    }

    async fn begun(&self, worker: WorkerId, action: &str) -> ExecutionId {
        let id = self.rig.submit(worker, action).await;
        self.rig.file(&format!("begun.{id}")).await;
        id
    }

    /// Cancels in the row only.
    async fn cancel(&self, id: ExecutionId) {
        self.rig.store.cancel_execution(id, &json!({})).await.unwrap();
        assert_eq!(self.rig.row(id).await.status, ExecutionStatus::Canceling);
    }

    fn go(&self, id: ExecutionId) {
        fs::write(self.rig.place.path(&format!("go.{id}")), "").unwrap();
    }

    /// What was told, and the row.
    async fn note(&mut self, place: &str, id: ExecutionId) {
        let messages = self.rig.told(id).await.into_iter().map(|told| {
            let mut message = serde_json::to_value(&told).unwrap();
            if let Some(result) = message["payload"].get_mut("result") {
                *result = sorted(result.take());
            }
            json!({"message_type": message["message_type"], "payload": message["payload"]})
        });
        let messages: Vec<Value> = messages.collect();
        let row = self.rig.row(id).await;
        let result = sorted(row.result.unwrap());
        let row = json!({"status": row.status, "started_at": row.started_at, "result": result});
        self.found.insert(place.to_owned(), named(json!({"messages": messages, "row": row}), id.0));
    }
}

/// Databases have an order of their own for keys.
fn sorted(result: Value) -> Value {
    let keys: BTreeMap<String, Value> = serde_json::from_value(result).unwrap();
    json!(keys)
}

async fn a_row_that_is_canceling_ends_as_cancelled_wherever_that_is_found(on: Backend) {
    let mut finds = Finds::new(on).await;
    let worker = at_the_claim_and_at_the_end(&mut finds).await;
    when_answers_are_lost(&mut finds).await;
    by_the_next_life(&mut finds, worker).await;
    // Where the shared folder is differs; that a path is there does not.
    let artifacts = finds.rig.place.path("artifacts").to_str().unwrap().to_owned();
    let found = serde_json::to_string(&finds.found).unwrap().replace(&artifacts, "<artifacts>");
    assert_golden(&serde_json::from_str(&found).unwrap(), include_str!("golden/canceling.json"));
}

async fn at_the_claim_and_at_the_end(finds: &mut Finds) -> WorkerId {
    let life = finds.rig.live_with(finds.config.clone()).await;
    let worker = life.id;
    let scheduled = finds.rig.scheduled(worker, "good").await;
    finds.rig.sql("UPDATE execution SET status = 'canceling'").await;
    finds.rig.dispatch(&scheduled).await;
    finds.note("at the claim", scheduled.id).await;
    for (place, action) in [("at the end of a success", "good"), ("at the end of a failure", "bad")] {
        let id = finds.begun(worker, action).await;
        finds.cancel(id).await;
        finds.go(id);
        finds.note(place, id).await;
    }
    life.finish().await;
    let limit = std::mem::replace(&mut finds.config.executor.time_limit, Duration::from_secs(1));
    let life = finds.rig.live_with(finds.config.clone()).await;
    let id = finds.begun(worker, "good").await;
    finds.cancel(id).await;
    finds.note("at the end of a run that took too long", id).await;
    finds.config.executor.time_limit = limit;
    life.finish().await;
    worker
}

async fn when_answers_are_lost(finds: &mut Finds) {
    // The lost calls leave time for the cancel.
    let life = finds.life(&[Lost::Answer, Lost::Call, Lost::Call, Lost::Call, Lost::Call, Lost::Call], &[]).await;
    let id = finds.rig.submit(life.id, "good").await;
    let running = async || (finds.rig.row(id).await.status == ExecutionStatus::Running).then_some(());
    eventually("the claim gets through", running).await;
    finds.cancel(id).await;
    finds.note("after a claim whose answer was lost", id).await;
    life.finish().await;
    let life = finds.life(&[], &[Lost::Answer]).await;
    let id = finds.begun(life.id, "good").await;
    finds.cancel(id).await;
    finds.go(id);
    finds.note("after an end whose answer was lost", id).await;
    life.finish().await;
}

async fn by_the_next_life(finds: &mut Finds, worker: WorkerId) {
    // Claimed by a process that then died.
    let lost = finds.rig.scheduled(worker, "good").await;
    finds.rig.store.claim_execution(lost.id, worker, None).await.unwrap();
    finds.cancel(lost.id).await;
    let life = finds.rig.live_with(finds.config.clone()).await;
    finds.note("by the next life, without a result", lost.id).await;
    life.finish().await;
    let life = finds.life(&[], &NEVER).await;
    let id = finds.begun(worker, "good").await;
    finds.go(id);
    let kept = finds.rig.place.path("spool").join(worker.to_string());
    let is_result = |entry: io::Result<DirEntry>| entry.unwrap().path().extension() == Some("result".as_ref());
    let is_kept = || fs::read_dir(&kept).is_ok_and(|mut entries| entries.any(is_result));
    eventually("the result is kept", async || is_kept().then_some(())).await;
    life.end().await;
    finds.cancel(id).await;
    let life = finds.rig.live_with(finds.config.clone()).await;
    finds.note("by the next life, with a result that was kept", id).await;
    life.finish().await;
}

/// Nobody sends it again.
#[tokio::test]
async fn a_cancel_that_went_with_its_queue_is_found_in_the_row() {
    let finds = Finds::new(Backend::Servers).await;
    let life = finds.rig.live_with(finds.config.clone()).await;
    let id = finds.begun(life.id, "good").await;
    finds.cancel(id).await;
    finds.rig.delete_queue(&format!("worker.{}.cancel", life.id));
    assert_eq!(finds.rig.ended(id).await.status, ExecutionStatus::Cancelled);
    life.finish().await;
}

attune_testkit::tests_on_each! {
    embedded: Backend::Embedded, servers: Backend::Servers => [
        a_row_that_is_canceling_ends_as_cancelled_wherever_that_is_found
    ]
}
