//! The API over real sockets: health, tokens, bad requests of every kind.

use std::time::Duration;

use attune_bus::Bus as _;
use attune_model::{IdentityId, Secret};
use attune_security::{TokenKey, TokenType, sign_access_token};
use attune_testkit::eventually;
use chrono::{TimeDelta, Utc};
use serde_json::json;
use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpStream;

use crate::support;
use crate::support::http::{get, post, post_text, post_with, raw};
use crate::support::{World, load, sensor_token, token};

#[tokio::test]
async fn health_needs_no_token() {
    let world = World::new().await;
    let answer = get(world.address, "/health", None).await;
    assert_eq!((answer.status, answer.json()), (200, json!({"status": "ok"})));
    let detailed = get(world.address, "/health/detailed", None).await.json();
    assert_eq!((&detailed["status"], &detailed["database"]), (&json!("ok"), &json!("connected")));
    for path in ["/health/ready", "/health/live"] {
        let answer = get(world.address, path, None).await;
        assert_eq!((answer.status, answer.text.as_str()), (200, ""), "{path}");
    }
    world.store.close().await;
    assert_eq!(get(world.address, "/health/ready", None).await.status, 503);
    assert_eq!(get(world.address, "/health/live", None).await.status, 200);
    let detailed = get(world.address, "/health/detailed", None).await;
    assert_eq!((detailed.status, &detailed.json()["database"]), (503, &json!("disconnected")));
    world.stop().await;
}

/// The conditions that are not well.
fn problems(world: &World) -> Vec<&'static str> {
    let mut all = Vec::new();
    world.hub.conditions(&mut all);
    all.into_iter().filter(|condition| !condition.is_well()).map(|condition| condition.name).collect()
}

#[tokio::test]
async fn the_hub_is_well_while_its_storage_answers_and_its_queues_are_consumed() {
    let mut config = support::config();
    config.health_period = Duration::from_millis(20);
    let world = World::with(config).await;
    eventually("all is well", async || problems(&world).is_empty().then_some(())).await;
    world.store.close().await;
    eventually("storage is missed", async || (problems(&world) == ["database"]).then_some(())).await;
    world.bus.close().await;
    eventually("so is the bus", async || (problems(&world) == ["database", "events", "requests"]).then_some(())).await;
    world.stop().await;
}

#[tokio::test]
async fn every_route_wants_a_token_that_is_good_now() {
    let world = World::new().await;
    let foreign = TokenKey::new(&Secret::new("another secret".to_owned())).unwrap();
    let life = Duration::from_hours(1);
    let foreign = sign_access_token(&foreign, IdentityId(1), "x", Utc::now(), life).unwrap();
    let bad = [
        None,
        Some("rubbish".to_owned()),
        Some(foreign.expose().clone()),
        Some(token(TokenType::Access, "late", json!({}), TimeDelta::minutes(62))),
        Some(token(TokenType::Refresh, "refresh", json!({}), TimeDelta::zero())),
    ];
    for token in bad.iter().map(Option::as_deref) {
        for path in ["/api/v1/triggers/web.hook/rules", "/api/v1/executions", "/api/v1/executions/1", "/api/v1/workers"]
        {
            unauthorized(&get(world.address, path, token).await);
        }
        for path in
            ["/auth/sensor-token", "/api/v1/events", "/api/v1/executions/execute", "/api/v1/executions/1/cancel"]
        {
            unauthorized(&post(world.address, path, token, &json!({})).await);
        }
    }
    let just_late = token(TokenType::Access, "late", json!({}), TimeDelta::seconds(3630));
    let answer = get(world.address, "/api/v1/workers", Some(&just_late)).await;
    assert_eq!(answer.status, 200, "clocks may differ by a minute");
    world.stop().await;
}

#[tokio::test]
async fn an_authorization_header_of_another_form_is_no_token() {
    let world = World::new().await;
    for header in ["Basic dXNlcjpwYXNz", "Bearer", "Bearer ", "\u{e9}"] {
        let head = "GET /api/v1/workers HTTP/1.1\r\nhost: h\r\nconnection: close\r\nauthorization: ";
        unauthorized(&raw(world.address, format!("{head}{header}\r\n\r\n").as_bytes()).await);
    }
    world.stop().await;
}

#[track_caller]
fn unauthorized(answer: &support::http::Answer) {
    assert_eq!(answer.status, 401, "{answer:?}");
    let body = answer.json();
    assert_eq!(body["error"]["code"], 401, "{body}");
    assert!(body["error"]["message"].is_string(), "{body}");
    assert!(answer.head.contains("www-authenticate: bearer"), "{}", answer.head);
}

#[tokio::test]
async fn bad_bodies_are_answered_with_what_is_wrong() {
    let world = World::new().await;
    load(&world, vec![]).await;
    let token = sensor_token(&["web.hook"]);
    let send = async |body: &str| post_text(world.address, "/api/v1/events", Some(&token), body).await;
    for body in ["", "{", "{\"trigger_ref\": \"web.hook\",}", "\u{0}", "nul"] {
        let message = send(body).await.error(400, "BAD_REQUEST");
        assert!(message.contains("not valid JSON"), "{message}");
    }
    let deep = format!("{{\"trigger_ref\":\"web.hook\",\"payload\":{}1{}}}", "[".repeat(9999), "]".repeat(9999));
    send(&deep).await.error(400, "BAD_REQUEST");
    for (body, part) in [
        ("[]", "invalid"),
        ("{}", "missing field `trigger_ref`"),
        (r#"{"trigger_ref": 5}"#, "invalid type"),
        (r#"{"trigger_ref": "web.hook", "trigger_instance_id": 5}"#, "invalid type"),
    ] {
        let answer = send(body).await;
        let message = answer.error(422, "VALIDATION_ERROR");
        assert!(message.contains(part), "{message}");
        assert!(answer.json()["details"].is_array());
    }
    let large = format!(r#"{{"trigger_ref":"web.hook","payload":"{}"}}"#, "x".repeat(2 * 1024 * 1024));
    let message = send(&large).await.error(413, "PAYLOAD_TOO_LARGE");
    assert!(message.contains("2097152"), "{message}");
    let bearer = format!("authorization: Bearer {token}\r\n");
    for kind in ["", "content-type: text/plain\r\n", "content-type: application/x-www-form-urlencoded\r\n"] {
        let headers = format!("{bearer}{kind}");
        let answer = post_with(world.address, "/api/v1/events", &headers, r#"{"trigger_ref":"web.hook"}"#).await;
        answer.error(415, "UNSUPPORTED_MEDIA_TYPE");
    }
    assert_eq!(send(r#"{"trigger_ref":"web.hook"}"#).await.status, 201);
    world.stop().await;
}

#[tokio::test]
async fn unknown_paths_and_methods_have_the_same_shape() {
    let world = World::new().await;
    assert!(get(world.address, "/nothing/here", None).await.error(404, "NOT_FOUND").contains("/nothing/here"));
    let answer = raw(world.address, b"DELETE /health HTTP/1.1\r\nhost: h\r\nconnection: close\r\n\r\n").await;
    assert!(answer.error(405, "METHOD_NOT_ALLOWED").contains("DELETE"));
    for path in ["/api/v1/executions/abc", "/api/v1/executions/99999999999999999999", "/api/v1/executions/%ff"] {
        get(world.address, path, Some(&world.user())).await.error(400, "BAD_REQUEST");
    }
    world.stop().await;
}

#[tokio::test]
async fn rubbish_and_slow_clients_harm_nobody_else() {
    let world = World::new().await;
    assert_eq!(raw(world.address, b"\x16\x03\x01 not http\r\n\r\n").await.status, 400);
    let mut open = Vec::new();
    for _ in 0..50 {
        let mut stream = TcpStream::connect(world.address).await.unwrap();
        stream.write_all(b"POST /auth/internal/sensor-token HTTP/1.1\r\nhost: h\r\ncontent-le").await.unwrap();
        open.push(stream);
    }
    let mut stalled = TcpStream::connect(world.address).await.unwrap();
    let head = "POST /auth/internal/sensor-token HTTP/1.1\r\nhost: h\r\ncontent-type: application/json\r\n";
    stalled.write_all(format!("{head}content-length: 100\r\n\r\n{{").as_bytes()).await.unwrap();
    assert_eq!(get(world.address, "/health", None).await.status, 200);
    drop((open, stalled));
    world.stop().await;
}
