//! Executions through the API: asking, looking, cancelling.

use attune_model::ExecutionId;
use attune_model::message::MessageType;
use attune_security::{TokenType, redacted};
use attune_store::{Claim, WorkerStore as _};
use attune_testkit::eventually;
use chrono::TimeDelta;
use serde_json::{Value, json};

use crate::support;
use crate::support::http::{Answer, get, post};
use crate::support::{World, ask, load, rule, sensor_token, token};

#[tokio::test]
async fn an_execution_is_asked_for_with_its_secrets_encrypted() {
    let world = World::new().await;
    load(&world, vec![]).await;
    let worker = world.worker("w", &["python"]).await;
    let body = json!({"action_ref": "web.secret", "parameters": {"token": "t0p", "x": 1}, "env_vars": {"A": "b"}});
    let data = post(world.address, "/api/v1/executions/execute", Some(&world.user()), &body).await.data();
    assert_eq!(data["config"], json!({"token": redacted(), "x": 1}));
    assert_eq!((&data["status"], &data["parent"], &data["executor"]), (&json!("requested"), &json!(null), &json!(1)));
    let id = data["id"].as_i64().unwrap();
    let row = world.eventually_status(id, "scheduled").await;
    let Claim::Claimed(claimed) = world.store.claim_execution(row.id, worker.id, None).await.unwrap() else { panic!() };
    let [secret] = &claimed.secret_values[..] else { panic!("one secret: {:?}", claimed.secret_values) };
    let key = support::sealing_key();
    assert_eq!(key.open(&secret.encrypted_value, secret.encryption_key_hash.as_deref()).unwrap(), "t0p");
    assert_eq!((secret.json_path.as_str(), claimed.execution.env_vars.clone()), ("/token", Some(json!({"A": "b"}))));
    let dispatch = eventually("the dispatch", async || world.seen.with_key("execution.dispatch.worker.1").pop()).await;
    assert_eq!(dispatch["config"], json!({"token": redacted(), "x": 1, "count": 3}));
    assert_eq!(claimed.execution.config, Some(json!({"token": redacted(), "x": 1})));
    world.stop().await;
}

#[tokio::test]
async fn what_a_running_action_asks_for_is_its_child_and_has_no_more_rights() {
    let world = World::new().await;
    load(&world, vec![]).await;
    let ask =
        async |token: &str, body: Value| post(world.address, "/api/v1/executions/execute", Some(token), &body).await;
    let parent = ask(&world.user(), json!({"action_ref": "web.greet"})).await.data()["id"].clone();
    let rights = json!({"execution_id": parent, "permission_set_refs": ["standard", "deploy"]});
    let token = token(TokenType::Execution, &format!("execution:{parent}"), rights, TimeDelta::zero());
    let child = ask(&token, json!({"action_ref": "web.greet", "permission_set_refs": ["deploy"]})).await.data();
    assert_eq!((&child["parent"], &child["permission_set_refs"]), (&parent, &json!(["deploy"])));
    let refused = ask(&token, json!({"action_ref": "web.greet", "permission_set_refs": ["admin", "deploy"]})).await;
    assert!(refused.error(403, "FORBIDDEN").ends_with("permission sets admin"));
    world.stop().await;
}

#[tokio::test]
async fn a_request_for_an_execution_is_checked() {
    let world = World::new().await;
    load(&world, vec![]).await;
    let user = world.user();
    let ask = async |body: Value| post(world.address, "/api/v1/executions/execute", Some(&user), &body).await;
    assert!(ask(json!({"action_ref": "web.nothing"})).await.error(404, "NOT_FOUND").contains("web.nothing"));
    for (key, value, part) in [
        ("parameters", json!([1]), "parameters must be an object"),
        ("env_vars", json!({"A": 1}), "value of \"A\" must be a text"),
        ("env_vars", json!({"A=B": "x"}), "not a name"),
        ("env_vars", json!({"A": "x\u{0}"}), "without NUL"),
        ("env_vars", json!(["A"]), "env_vars must be an object"),
        ("worker_selector", json!({"zone": 5}), "worker_selector"),
        ("worker_tolerations", json!({}), "worker_tolerations"),
        ("worker_affinity", json!({"required": 1}), "worker_affinity"),
        ("artifact_retention_limit", json!(0), "above 0"),
        ("artifact_retention_policy", json!("ever"), "unknown variant"),
        ("permission_set_refs", json!("standard"), "invalid type"),
    ] {
        let mut body = json!({"action_ref": "web.greet"});
        body[key] = value;
        let message = ask(body).await.error(422, "VALIDATION_ERROR");
        assert!(message.contains(part), "{message}");
    }
    let listed = get(world.address, "/api/v1/executions", Some(&user)).await.json();
    assert_eq!(listed["pagination"]["total_items"], 0);
    world.stop().await;
}

#[tokio::test]
async fn executions_are_listed_newest_first_and_filtered() {
    let world = World::new().await;
    load(&world, vec![]).await;
    for action in ["web.greet", "web.secret", "web.greet"] {
        ask(&world, action).await;
    }
    for (query, expected) in [
        ("", json!([3, 2, 1])),
        ("?action_ref=web.secret", json!([2])),
        ("?action_ref=web.greet&page=2&page_size=1", json!([1])),
        ("?status=completed,%20failed", json!([])),
        ("?status=requested,scheduling&page_size=1", json!([3])),
    ] {
        let path = format!("/api/v1/executions{query}");
        let listed = get(world.address, &path, Some(&world.user())).await.json();
        let items = listed["items"].as_array().unwrap();
        let ids: Vec<&Value> = items.iter().map(|item| &item["id"]).collect();
        assert_eq!(json!(ids), expected, "{query}");
    }
    let unknown = get(world.address, "/api/v1/executions?status=done", Some(&world.user())).await;
    assert!(unknown.error(422, "VALIDATION_ERROR").contains("done"));
    world.stop().await;
}

#[tokio::test]
async fn an_execution_tells_where_it_came_from() {
    let world = World::new().await;
    load(&world, vec![rule("web.rule", json!({"name": "event"}))]).await;
    let event = json!({"trigger_ref": "web.hook"});
    let token = sensor_token(&["web.hook"]);
    post(world.address, "/api/v1/events", Some(&token), &event).await.data();
    let user = world.user();
    let one = get(world.address, "/api/v1/executions/1", Some(&user)).await.data();
    assert_eq!(one["rule_ref"], "web.rule");
    assert_eq!(one["trigger_ref"], "web.hook");
    assert_eq!(one["config"], json!({"name": "event"}));
    let missing = get(world.address, "/api/v1/executions/99", Some(&user)).await;
    assert!(missing.error(404, "NOT_FOUND").contains("99"));
    world.stop().await;
}

#[tokio::test]
async fn workers_are_listed() {
    let world = World::new().await;
    world.worker("w", &["shell", "python"]).await;
    let listed = get(world.address, "/api/v1/workers", Some(&world.user())).await.json();
    assert_eq!(listed["pagination"]["total_items"], 1);
    let worker = &listed["items"][0];
    assert_eq!((&worker["name"], &worker["status"]), (&json!("w"), &json!("active")));
    assert_eq!(worker["capabilities"]["runtimes"], json!(["shell", "python"]));
    world.stop().await;
}

async fn cancel(world: &World, id: i64) -> Answer {
    let path = format!("/api/v1/executions/{id}/cancel");
    post(world.address, &path, Some(&world.user()), &json!(null)).await
}

#[tokio::test]
async fn what_has_not_started_is_cancelled_at_once() {
    let world = World::new().await;
    load(&world, vec![]).await;
    let waiting = ask(&world, "web.greet").await;
    let cancelled = cancel(&world, waiting).await.data();
    assert_eq!(cancelled["status"], "cancelled");
    let error = "Cancelled by user before execution started";
    assert_eq!(cancelled["result"], json!({ "error": error }));
    world.worker("w", &["shell"]).await;
    let scheduled = ask(&world, "web.greet").await;
    world.eventually_status(scheduled, "scheduled").await;
    assert_eq!(cancel(&world, scheduled).await.data()["status"], "cancelled");
    for id in [waiting, scheduled] {
        let wanted = |message: &Value| message["execution_id"] == id;
        let told = world.seen.eventually(MessageType::ExecutionCompleted, wanted).await;
        assert_eq!(told["status"], "Cancelled");
    }
    assert_eq!(world.seen.of(MessageType::ExecutionCancelRequested).len(), 0);
    assert!(cancel(&world, waiting).await.error(409, "CONFLICT").contains("cancelled"));
    assert!(cancel(&world, 99).await.error(404, "NOT_FOUND").contains("99"));
    world.stop().await;
}

#[tokio::test]
async fn the_worker_of_what_runs_is_told_once() {
    let world = World::new().await;
    load(&world, vec![]).await;
    let worker = world.worker("w", &["shell"]).await;
    let id = ask(&world, "web.greet").await;
    world.eventually_status(id, "scheduled").await;
    let claim = world.store.claim_execution(ExecutionId(id), worker.id, None).await.unwrap();
    assert!(matches!(claim, Claim::Claimed(_)), "{claim:?}");
    assert_eq!(cancel(&world, id).await.data()["status"], "canceling");
    assert_eq!(cancel(&world, id).await.data()["status"], "canceling");
    let about = |message: &Value| message["execution_id"] == id;
    let changed = world.seen.eventually(MessageType::ExecutionStatusChanged, about).await;
    assert_eq!(changed["previous_status"], "running");
    assert_eq!(changed["new_status"], "canceling");
    // The execution behind it proves that a second message would have been seen.
    let later = ask(&world, "web.greet").await;
    world.seen.eventually(MessageType::ExecutionRequested, |m| m["execution_id"] == later).await;
    let told = world.seen.with_key(&format!("execution.cancel.worker.{}", worker.id));
    assert_eq!(told, [json!({"execution_id": id, "worker_id": worker.id})]);
    world.stop().await;
}
