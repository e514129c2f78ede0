//! Lost workers and overdue executions.

use std::time::Duration;

use attune_model::ExecutionId;
use attune_model::message::MessageType;
use attune_model::rows::Worker;
use attune_store::{Claim, HubStore as _, WorkerStore as _};
use attune_testkit::eventually;
use serde_json::json;

use crate::support::http::post;
use crate::support::{World, ask, config, load, rule};

/// A world in which workers are lost soon.
async fn impatient() -> World {
    let mut config = config();
    config.heartbeat_limit = Duration::from_millis(400);
    config.monitor_period = Duration::from_millis(50);
    World::with(config).await
}

/// An execution that `worker` has begun.
async fn running(world: &World, worker: &Worker) -> i64 {
    let id = ask(world, "web.greet").await;
    world.eventually_status(id, "scheduled").await;
    let claim = world.store.claim_execution(ExecutionId(id), worker.id, None).await.unwrap();
    assert!(matches!(claim, Claim::Claimed(_)), "{claim:?}");
    id
}

#[tokio::test]
async fn executions_of_a_lost_worker_end() {
    let world = impatient().await;
    load(&world, vec![]).await;
    let worker = world.worker("w", &["shell"]).await;
    let lost = running(&world, &worker).await;
    let canceling = running(&world, &worker).await;
    let path = format!("/api/v1/executions/{canceling}/cancel");
    post(world.address, &path, Some(&world.user()), &json!({})).await.data();
    let abandoned = world.eventually_status(lost, "abandoned").await.result.unwrap();
    assert_eq!(abandoned["abandoned_by"], "execution_timeout_monitor");
    // Whichever of the two looks comes first: the one for silent workers says inactive, the one for executions still active.
    let error = abandoned["error"].as_str().unwrap();
    assert!(error.contains("worker w is inactive") || error.contains("worker w is active and gave"), "{abandoned}");
    let cancelled = world.eventually_status(canceling, "cancelled").await.result.unwrap();
    assert_eq!(cancelled["cancelled"], true);
    for id in [lost, canceling] {
        world.seen.eventually(MessageType::ExecutionCompleted, |m| m["execution_id"] == id).await;
    }
    world.stop().await;
}

#[tokio::test]
async fn a_silent_worker_raises_an_alert_that_rules_can_act_on() {
    let world = impatient().await;
    let mut alert = rule("web.alert", json!({"name": "{{ event.payload.component_ref }}"}));
    alert.trigger_ref = "core.alert".into();
    load(&world, vec![alert]).await;
    world.worker("w", &["shell"]).await;
    let event = world.seen.eventually(MessageType::EventCreated, |m| m["trigger_ref"] == "core.alert").await;
    assert_eq!((&event["payload"]["component_ref"], &event["sensor_ref"]), (&json!("w"), &json!("attune.system")));
    let reaction =
        eventually("the rule on the alert", async || world.store.execution(ExecutionId(1)).await.unwrap()).await;
    assert_eq!(reaction.execution.config, Some(json!({"name": "w"})));
    world.stop().await;
}

#[tokio::test]
async fn an_execution_that_its_worker_does_not_start_fails() {
    let mut config = config();
    config.scheduled_limit = Duration::from_millis(50);
    config.monitor_period = Duration::from_millis(20);
    let world = World::with(config).await;
    load(&world, vec![]).await;
    world.worker("w", &["shell"]).await;
    let id = ask(&world, "web.greet").await;
    let result = world.eventually_status(id, "failed").await.result.unwrap();
    assert_eq!(
        (&result["failed_by"], &result["original_status"]),
        (&json!("execution_timeout_monitor"), &json!("scheduled"))
    );
    assert!(result["timeout_seconds"].is_u64() && result["age_seconds"].is_u64(), "{result}");
    world.seen.eventually(MessageType::ExecutionCompleted, |m| m["execution_id"] == id).await;
    world.stop().await;
}
