//! Messages that come twice, too late, or make no sense.

use attune_bus::{Bus as _, Outgoing};
use attune_model::message::{ExecutionCancelRequested, ExecutionDispatch};
use attune_model::{ExecutionId, WorkerId};
use attune_testkit::eventually;
use chrono::Utc;
use serde_json::{Value, json};

use crate::rig::Rig;

/// More than a worker is ever sent in earnest.
const OVERSIZED: usize = 20 << 20;

fn dispatch(worker: i64, execution: i64, config: Option<Value>) -> Outgoing {
    let payload = ExecutionDispatch {
        execution_id: ExecutionId(execution),
        worker_id: WorkerId(worker),
        action_ref: "faults.mark".to_owned(),
        config,
        scheduled_attempt_updated_at: None,
    };
    Outgoing::new(&payload, "test", Utc::now()).unwrap()
}

/// The queue's messages that are neither answered nor taken, as the broker counts them every few seconds.
async fn empty(rig: &Rig, queue: &str) {
    let broker = &rig.installation.broker;
    let empty = async || (broker.queue(queue)?["messages"] == 0).then_some(());
    eventually("the queue to be empty", empty).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn messages_that_make_no_sense_harm_nothing() {
    let rig = Rig::new().await;
    let hub = rig.hub().await;
    let worker = rig.worker().await;
    rig.completed(&rig.ask(1)).await;
    let id = rig.worker_id().await;
    let broker = &rig.installation.broker;
    let (work, cancel) = (format!("execution.dispatch.worker.{id}"), format!("execution.cancel.worker.{id}"));
    let well_formed = serde_json::to_value(dispatch(id, 1, None).envelope).unwrap();
    let mut unknown_type = well_formed.clone();
    unknown_type["message_type"] = "SomethingNew".into();
    let mut no_payload = well_formed.clone();
    no_payload["payload"] = json!({"execution_id": "one"});
    let mut wide = well_formed;
    wide["payload"]["execution_id"] = json!(f64::MAX);
    let deep = format!("{}{}", "[".repeat(100_000), "]".repeat(100_000));
    for key in [&work, &cancel] {
        for body in ["", "{", "null", "\u{0}", "[]", &deep] {
            broker.publish_raw("attune.executions", key, body);
        }
        for body in [&unknown_type, &no_payload, &wide] {
            broker.publish_raw("attune.executions", key, &body.to_string());
        }
    }
    for pattern in ["pack.registered", "pack.deleted"] {
        broker.publish_raw("attune.events", pattern, "{}");
    }
    rig.completed(&rig.ask(5)).await;
    for queue in ["executions", "cancel", "packs"] {
        empty(&rig, &format!("worker.{id}.{queue}")).await;
    }
    worker.stop();
    hub.stop();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn messages_that_come_twice_late_or_for_another_run_nothing() {
    let rig = Rig::new().await;
    let hub = rig.hub().await;
    let worker = rig.worker().await;
    let id = rig.worker_id().await;
    let ended = rig.ask(1);
    rig.completed(&ended).await;
    let running = rig.ask_gated(2);
    rig.begun(&running).await;
    let bus = &rig.spy.bus;
    let mut again = Vec::new();
    for execution in ended.iter().chain(&running) {
        // Also with other parameters: the row decides.
        again.extend([dispatch(id, *execution, None), dispatch(id, *execution, Some(json!({"other": true})))]);
    }
    again.extend([dispatch(id, 4_711_000, None), dispatch(id, i64::MAX, None), dispatch(id, -1, None)]);
    bus.publish(&again).await.unwrap();
    // To this worker's queue, but for another.
    let mut stray = dispatch(id + 1, running[0], None);
    stray.routing_key = format!("execution.dispatch.worker.{id}");
    bus.publish(&[stray]).await.unwrap();
    // Nobody runs this, so nobody is cancelled.
    let cancel = |execution| {
        let payload = ExecutionCancelRequested { execution_id: ExecutionId(execution), worker_id: WorkerId(id) };
        Outgoing::new(&payload, "test", Utc::now()).unwrap()
    };
    bus.publish(&[cancel(4_711_000), cancel(ended[0]), cancel(i64::MAX)]).await.unwrap();
    rig.completed(&rig.ask(3)).await;
    rig.open();
    rig.completed(&running).await;
    bus.publish(&again).await.unwrap();
    rig.completed(&rig.ask(1)).await;
    empty(&rig, &format!("worker.{id}.executions")).await;
    rig.completed(&ended).await;
    assert!(ended.iter().chain(&running).all(|id| rig.spy.ends_of(*id).len() == 1));
    worker.stop();
    hub.stop();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_oversized_message_harms_nothing() {
    let rig = Rig::new().await;
    let hub = rig.hub().await;
    let worker = rig.worker().await;
    let id = rig.worker_id().await;
    let running = rig.ask_gated(1);
    rig.begun(&running).await;
    let big = dispatch(id, running[0], Some(json!({ "big": "x".repeat(OVERSIZED) })));
    rig.spy.bus.publish(&[big]).await.unwrap();
    rig.completed(&rig.ask(3)).await;
    rig.open();
    rig.completed(&running).await;
    empty(&rig, &format!("worker.{id}.executions")).await;
    worker.stop();
    hub.stop();
}
