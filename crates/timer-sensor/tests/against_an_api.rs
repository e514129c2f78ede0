//! The timers against a real HTTP server that plays the platform's API.
#![expect(clippy::unwrap_used, reason = "tests")]

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use attune_lifecycle::{CancellationToken, Tasks};
use attune_model::Secret;
use attune_testkit::eventually;
use attune_timer_sensor::{TimerError, TimerSensorConfig, run};
use axum::extract::{Path, Query, State};
use axum::http::{HeaderMap, StatusCode};
use axum::routing::{get, post};
use axum::{Json, Router};
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::net::TcpListener;

/// What the server knows and what it was told.
#[derive(Default)]
struct World {
    rules: Vec<Value>,
    events: Vec<Value>,
    refuse_token: bool,
    /// Answers 503 to so many events first.
    failures_to_come: usize,
    pages_read: usize,
}

type Shared = Arc<Mutex<World>>;

#[derive(Deserialize)]
struct PageQuery {
    page: usize,
    page_size: usize,
}

async fn rules(
    State(world): State<Shared>,
    Path(trigger): Path<String>,
    Query(query): Query<PageQuery>,
) -> Result<Json<Value>, StatusCode> {
    let mut world = world.lock().unwrap();
    if world.refuse_token {
        return Err(StatusCode::UNAUTHORIZED);
    }
    world.pages_read += 1;
    let all: Vec<Value> = world.rules.iter().filter(|rule| rule["trigger_ref"] == trigger.as_str()).cloned().collect();
    let begin = (query.page - 1) * query.page_size;
    let items: Vec<Value> = all.iter().skip(begin).take(query.page_size).cloned().collect();
    let has_next = begin + items.len() < all.len();
    Ok(Json(json!({"items": items, "pagination": {"page": query.page, "has_next": has_next}})))
}

async fn events(
    State(world): State<Shared>,
    headers: HeaderMap,
    Json(event): Json<Value>,
) -> Result<(StatusCode, Json<Value>), StatusCode> {
    let mut world = world.lock().unwrap();
    if world.refuse_token || headers["authorization"] != "Bearer t0ken" {
        return Err(StatusCode::UNAUTHORIZED);
    }
    if world.failures_to_come > 0 {
        world.failures_to_come -= 1;
        return Err(StatusCode::SERVICE_UNAVAILABLE);
    }
    world.events.push(event);
    Ok((StatusCode::CREATED, Json(json!({"data": {"id": world.events.len()}}))))
}

async fn serve(world: &Shared, tasks: &Tasks) -> SocketAddr {
    let app = Router::new()
        .route("/api/v1/triggers/{trigger}/rules", get(rules))
        .route("/api/v1/events", post(events))
        .with_state(world.clone());
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tasks.spawn(async move { axum::serve(listener, app).await.unwrap() });
    address
}

fn every_second(id: i64) -> Value {
    json!({"id": id, "ref": format!("demo.rule{id}"), "trigger_ref": "core.intervaltimer", "enabled": true,
           "trigger_params": {"unit": "seconds", "interval": 1}})
}

fn config(address: SocketAddr) -> TimerSensorConfig {
    TimerSensorConfig {
        ca_file: None,
        api_url: format!("http://{address}/"),
        api_token_file: None,
        api_token: Secret::new("t0ken".to_owned()),
        triggers: None,
        trigger_refs: None,
        poll_interval: Duration::from_millis(20),
    }
}

#[tokio::test]
async fn events_are_bound_to_their_rule_and_follow_the_rules_of_the_api() {
    let (world, tasks, stop) = (Shared::default(), Tasks::default(), CancellationToken::new());
    let mut disabled = every_second(8);
    disabled["enabled"] = json!(false);
    world.lock().unwrap().rules = vec![every_second(7), disabled];
    let address = serve(&world, &tasks).await;
    let sensor = tasks.spawn({
        let stop = stop.clone();
        async move { run(config(address), &stop).await }
    });
    let event = eventually("an event", async || world.lock().unwrap().events.first().cloned()).await;
    assert_eq!(event["trigger_ref"], "core.intervaltimer");
    assert_eq!(event["trigger_instance_id"], "rule_7");
    assert_eq!((&event["payload"]["type"], &event["payload"]["count"]), (&json!("interval"), &json!(1)));
    world.lock().unwrap().rules = vec![every_second(9)];
    eventually("the new rule's event", async || {
        let world = world.lock().unwrap();
        world.events.iter().any(|event| event["trigger_instance_id"] == "rule_9").then_some(())
    })
    .await;
    let of_others = |event: &&Value| event["trigger_instance_id"] == "rule_8";
    assert_eq!(world.lock().unwrap().events.iter().filter(of_others).count(), 0, "a disabled rule is silent");
    stop.cancel();
    sensor.await.unwrap().unwrap();
}

#[tokio::test]
async fn rules_of_the_environment_fire_although_the_api_fails_at_first_and_events_are_sent_again() {
    let (world, tasks, stop) = (Shared::default(), Tasks::default(), CancellationToken::new());
    world.lock().unwrap().failures_to_come = 2;
    world.lock().unwrap().rules = vec![every_second(7)];
    let address = serve(&world, &tasks).await;
    let mut config = config(address);
    config.triggers = Some(r#"[{"config":{"unit":"seconds","interval":1},"id":7,"ref":"demo.rule7"}]"#.to_owned());
    config.trigger_refs = Some(r#"["core.intervaltimer"]"#.to_owned());
    let sensor = tasks.spawn({
        let stop = stop.clone();
        async move { run(config, &stop).await }
    });
    let event = eventually("an event", async || world.lock().unwrap().events.first().cloned()).await;
    assert_eq!(event["payload"]["rule_ref"], "demo.rule7");
    assert_eq!(world.lock().unwrap().failures_to_come, 0);
    stop.cancel();
    sensor.await.unwrap().unwrap();
}

#[tokio::test]
async fn every_page_of_rules_is_read() {
    let (world, tasks, stop) = (Shared::default(), Tasks::default(), CancellationToken::new());
    world.lock().unwrap().rules = (1..=150).map(every_second).collect();
    let address = serve(&world, &tasks).await;
    let sensor = tasks.spawn({
        let stop = stop.clone();
        async move { run(config(address), &stop).await }
    });
    eventually("the last rule's event", async || {
        let world = world.lock().unwrap();
        world.events.iter().any(|event| event["trigger_instance_id"] == "rule_150").then_some(())
    })
    .await;
    stop.cancel();
    sensor.await.unwrap().unwrap();
}

#[tokio::test]
async fn a_token_that_stays_refused_ends_the_sensor_with_an_error() {
    let (world, tasks, stop) = (Shared::default(), Tasks::default(), CancellationToken::new());
    world.lock().unwrap().refuse_token = true;
    let address = serve(&world, &tasks).await;
    let ended = run(config(address), &stop).await;
    assert!(matches!(ended, Err(TimerError::Unauthorized { .. })), "{ended:?}");
    assert!(!format!("{ended:?}").contains("t0ken"));
}
