//! What sensors ask for: tokens, the rules of their triggers, taking their events.

use std::net::{IpAddr, Ipv4Addr, UdpSocket};

use attune_security::TokenType;
use attune_store::NewRule;
use chrono::{DateTime, TimeDelta, Utc};
use serde_json::{Value, json};

use crate::support::http::{Answer, get, post, post_with};
use crate::support::{World, config, load, rule, sensor_token, token};

const INTERNAL: &str = "/auth/internal/sensor-token";

#[tokio::test]
async fn a_sensor_on_this_machine_gets_a_token_for_its_own_triggers() {
    let world = World::new().await;
    load(&world, vec![]).await;
    let ask = async |body: Value| post(world.address, "/auth/internal/sensor-token", None, &body).await;
    let data = ask(json!({"sensor_ref": "web.sensor", "trigger_types": ["web.hook"]})).await.data();
    assert_eq!((&data["sensor_ref"], &data["trigger_types"]), (&json!("web.sensor"), &json!(["web.hook"])));
    let expires: DateTime<Utc> = data["expires_at"].as_str().unwrap().parse().unwrap();
    let life = (expires - Utc::now()).num_seconds();
    assert!((86_000..=86_400).contains(&life), "{life}");
    let again = ask(json!({"sensor_ref": "web.sensor", "trigger_types": ["web.hook"], "ttl_seconds": 3600})).await;
    assert_eq!(again.data()["identity_id"], data["identity_id"]);
    let event = json!({"trigger_type": "web.hook", "payload": {"n": 1}});
    let token = data["token"].as_str().unwrap();
    let created = post(world.address, "/api/v1/events", Some(token), &event).await;
    assert_eq!((created.status, &created.data()["source_ref"]), (201, &json!("web.sensor")));
    let renewed = json!({"sensor_ref": "web.sensor", "trigger_types": ["web.hook"]});
    assert_eq!(post(world.address, "/auth/sensor-token", Some(token), &renewed).await.status, 200);
    world.stop().await;
}

#[tokio::test]
async fn a_request_for_a_sensor_token_is_checked() {
    let world = World::new().await;
    load(&world, vec![]).await;
    let good = json!({"sensor_ref": "web.sensor", "trigger_types": ["web.hook"]});
    for (key, value, part) in [
        ("sensor_ref", json!(""), "sensor_ref must have 1 to 255"),
        ("sensor_ref", json!("x".repeat(256)), "not 256"),
        ("sensor_ref", json!(null), "invalid type: null"),
        ("trigger_types", json!([]), "at least one"),
        ("trigger_types", json!([""]), "empty texts"),
        ("trigger_types", json!(["web.hook", "web.other"]), "web.other is not a trigger of"),
        ("ttl_seconds", json!(3599), "3600 to 259200"),
        ("ttl_seconds", json!(259_201), "not 259201"),
        ("ttl_seconds", json!(-1), "invalid value"),
    ] {
        let mut body = good.clone();
        body[key] = value;
        let message = post(world.address, INTERNAL, None, &body).await.error(422, "VALIDATION_ERROR");
        assert!(message.contains(part), "{message}");
    }
    let several = json!({"sensor_ref": "", "trigger_types": []});
    let several = post(world.address, INTERNAL, None, &several).await.json();
    assert_eq!(several["details"].as_array().map(Vec::len), Some(2));
    let unknown = json!({"sensor_ref": "web.nobody", "trigger_types": ["web.hook"]});
    let unknown = post(world.address, INTERNAL, None, &unknown).await;
    assert!(unknown.error(404, "NOT_FOUND").contains("web.nobody"));
    world.stop().await;
}

#[tokio::test]
async fn web_pages_get_no_sensor_tokens() {
    let world = World::new().await;
    load(&world, vec![]).await;
    let headers = "content-type: application/json\r\norigin: http://evil.example\r\n";
    let good = r#"{"sensor_ref":"web.sensor","trigger_types":["web.hook"]}"#;
    post_with(world.address, INTERNAL, headers, good).await.error(403, "FORBIDDEN");
    world.stop().await;
}

#[tokio::test]
async fn sensor_hosts_on_other_machines_show_that_they_belong_to_the_installation() {
    let mut config = config();
    config.listen = "0.0.0.0:0".parse().unwrap();
    let world = World::with(config).await;
    load(&world, vec![]).await;
    let body = json!({"sensor_ref": "web.sensor", "trigger_types": ["web.hook"]});
    let port = world.address.port();
    let local = (Ipv4Addr::LOCALHOST, port).into();
    assert_eq!(post(local, INTERNAL, None, &body).await.status, 200);
    // A machine without a network has no other address.
    if let Some(address) = address_in_the_network() {
        let address = (address, port).into();
        assert_eq!(post(address, INTERNAL, None, &body).await.status, 401);
        post(address, INTERNAL, Some(&world.user()), &body).await.error(403, "FORBIDDEN");
        let agent = token(TokenType::Worker, "worker:sensor-1", json!({}), TimeDelta::zero());
        assert_eq!(post(address, INTERNAL, Some(&agent), &body).await.status, 200);
        assert_eq!(post(address, "/auth/sensor-token", Some(&world.user()), &body).await.status, 200);
    }
    world.stop().await;
}

/// Nothing is sent: the kernel only chooses from where it would be.
fn address_in_the_network() -> Option<IpAddr> {
    let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).ok()?;
    socket.connect((Ipv4Addr::new(192, 0, 2, 1), 9)).ok()?;
    socket.local_addr().ok().map(|address| address.ip()).filter(|address| !address.is_loopback())
}

#[tokio::test]
async fn events_are_taken_from_those_who_may_send_them() {
    let world = World::new().await;
    load(&world, vec![]).await;
    let send = async |token: &str, body: Value| post(world.address, "/api/v1/events", Some(token), &body).await;
    let own = sensor_token(&["web.hook"]);
    let body = json!({"trigger_ref": "web.hook", "payload": {"a": [1]}, "config": {"c": 1}, "unknown": true});
    let data = send(&own, body).await.data();
    assert!(data["id"].is_i64() && data["trigger"].is_i64() && data["source"].is_i64(), "{data}");
    assert_eq!((&data["payload"], &data["config"]), (&json!({"a": [1]}), &json!({"c": 1})));
    assert_eq!((&data["rule"], &data["rule_ref"]), (&json!(null), &json!(null)));
    let foreign = send(&own, json!({"trigger_ref": "web.other"})).await.error(403, "FORBIDDEN");
    assert!(foreign.contains("web.sensor") && foreign.contains("web.other"), "{foreign}");
    send(&world.user(), json!({"trigger_ref": "web.hook"})).await.error(403, "FORBIDDEN");
    let stale = sensor_token(&["web.gone"]);
    assert!(send(&stale, json!({"trigger_ref": "web.gone"})).await.error(404, "NOT_FOUND").contains("web.gone"));
    let worker = token(TokenType::Worker, "worker:w", json!({}), TimeDelta::zero());
    let data = send(&worker, json!({"trigger_ref": "web.other"})).await.data();
    assert_eq!((&data["source_ref"], &data["payload"]), (&json!(null), &json!(null)));
    world.stop().await;
}

async fn rules(world: &World, query: &str) -> Answer {
    let path = format!("/api/v1/triggers/web.hook/rules{query}");
    get(world.address, &path, Some(&sensor_token(&["web.hook"]))).await
}

#[tokio::test]
async fn rules_of_a_trigger_are_listed_with_disabled_ones() {
    let world = World::new().await;
    let off = NewRule { enabled: false, ..rule("web.off", json!({})) };
    load(&world, vec![rule("web.on", json!({"n": 1})), off]).await;
    let listed = rules(&world, "").await.json();
    let [on, off] = &listed["items"].as_array().unwrap()[..] else { panic!("two rules: {listed}") };
    assert_eq!((&on["enabled"], &off["enabled"]), (&json!(true), &json!(false)));
    let keys: Vec<&str> = on.as_object().unwrap().keys().map(String::as_str).collect();
    let contract = "id ref pack_ref label description action_ref trigger_ref action_params trigger_params \
                    permission_set_refs enabled created updated";
    assert_eq!(keys, contract.split_whitespace().collect::<Vec<_>>());
    let path = "/api/v1/triggers/web.nothing/rules";
    get(world.address, path, Some(&world.user())).await.error(404, "NOT_FOUND");
    world.stop().await;
}

#[tokio::test]
async fn lists_come_in_pages() {
    let world = World::new().await;
    load(&world, (0..5).map(|n| rule(&format!("web.rule{n}"), json!({}))).collect()).await;
    let second = rules(&world, "?page=2&page_size=2").await.json();
    assert_eq!(second["items"][0]["ref"], "web.rule2");
    assert_eq!(
        second["pagination"],
        json!({"page": 2, "page_size": 2, "total_items": 5, "total_pages": 3, "has_previous": true, "has_next": true})
    );
    let last = rules(&world, "?page=3&page_size=2").await.json();
    assert_eq!(last["pagination"]["has_next"], false);
    assert_eq!(rules(&world, "?page_size=5000").await.json()["pagination"]["page_size"], 100);
    assert_eq!(rules(&world, "?page=4000000000").await.json()["items"], json!([]));
    let wrong = ["?page=0", "?page_size=0", "?page=-1", "?page=x", "?page=1&page=2", "?page=99999999999"];
    for query in wrong {
        rules(&world, query).await.error(422, "VALIDATION_ERROR");
    }
    world.stop().await;
}
