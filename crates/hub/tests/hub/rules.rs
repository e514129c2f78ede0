//! Events to enforcements and packs to messages, through storage and bus.

use attune_bus::{Bus as _, Outgoing};
use attune_model::ExecutionId;
use attune_model::message::{EventCreated, MessageType};
use attune_store::{HubStore as _, NewPack, NewRule, SensorStore as _};
use attune_testkit::eventually;
use chrono::Utc;
use serde_json::{Value, json};

use crate::support::http::post;
use crate::support::{World, action, core_pack, load, pack, rule, sensor_token, trigger, web_pack};

async fn send(world: &World, body: Value) -> Value {
    post(world.address, "/api/v1/events", Some(&sensor_token(&["web.hook"])), &body).await.data()
}

async fn configs(world: &World) -> Vec<Option<Value>> {
    let mut configs = Vec::new();
    for id in 1.. {
        match world.store.execution(ExecutionId(id)).await.unwrap() {
            Some(view) => configs.push(view.execution.config),
            None => break,
        }
    }
    configs
}

#[tokio::test]
async fn only_rules_that_an_event_meets_lead_to_executions() {
    let world = World::new().await;
    let with = |name: &str, conditions: Value| NewRule { conditions, ..rule(name, json!({"rule": name})) };
    let mut disabled = rule("web.disabled", json!({"rule": "disabled"}));
    disabled.enabled = false;
    let rules = vec![
        with("web.all", json!([])),
        with("web.big", json!({"expression": "event.payload.n > 10"})),
        with("web.small", json!([{"field": "n", "operator": "equals", "value": 5}])),
        with("web.broken", json!({"expression": "event.payload.n >"})),
        with("web.misfit", json!([{"field": "missing", "operator": "equals", "value": 5}])),
        disabled,
    ];
    load(&world, rules).await;
    send(&world, json!({"trigger_ref": "web.hook", "payload": {"n": 5}})).await;
    assert_eq!(configs(&world).await, [Some(json!({"rule": "web.all"})), Some(json!({"rule": "web.small"}))]);
    world.stop().await;
}

#[tokio::test]
async fn an_event_for_one_rule_reaches_that_rule_only() {
    let world = World::new().await;
    load(&world, vec![rule("web.one", json!({"r": 1})), rule("web.two", json!({"r": 2}))]).await;
    let trigger = world.store.trigger("web.hook").await.unwrap().unwrap();
    let page = attune_store::PageRequest { page: 1, page_size: 10 };
    let rules = world.store.trigger_rules(trigger.id, page).await.unwrap().items;
    let instance = |text: String| json!({"trigger_ref": "web.hook", "trigger_instance_id": text});
    let event = send(&world, instance(format!("rule_{}", rules[1].id))).await;
    assert_eq!((&event["rule"], &event["rule_ref"]), (&json!(rules[1].id), &json!("web.two")));
    assert_eq!(configs(&world).await, [Some(json!({"r": 2}))]);
    let event = send(&world, instance("rule_4711".to_owned())).await;
    assert_eq!((&event["rule"], configs(&world).await.len()), (&json!(null), 1), "a rule that is gone fires nothing");
    send(&world, instance("something else".to_owned())).await;
    assert_eq!(configs(&world).await.len(), 3, "other instances are ignored");
    world.stop().await;
}

#[tokio::test]
async fn events_that_others_stored_count_once_and_our_own_messages_are_not_taken_again() {
    let world = World::new().await;
    let mut alert = rule("web.alert", json!({"what": "{{ event.payload.summary }}"}));
    alert.trigger_ref = "core.alert".into();
    load(&world, vec![alert, rule("web.rule", json!({"own": true}))]).await;
    send(&world, json!({"trigger_ref": "web.hook"})).await;
    let payload = json!({"summary": "sensor died"});
    let message = world.store.insert_alert(payload.as_object().unwrap()).await.unwrap().unwrap();
    let message = Outgoing::new(&message, "system-alert", Utc::now()).unwrap();
    let unknown = EventCreated { event_id: attune_model::EventId(4711), ..decoded(&message) };
    let unknown = Outgoing::new(&unknown, "system-alert", Utc::now()).unwrap();
    let mut broken = message.clone();
    broken.envelope.payload = json!(5);
    world.bus.publish(&[broken, unknown, message.clone(), message]).await.unwrap();
    let expected = vec![Some(json!({"own": true})), Some(json!({"what": "sensor died"}))];
    eventually("the rule on the alert", async || (configs(&world).await == expected).then_some(())).await;
    // What comes behind them in the queue proves that both copies and our own message were handled.
    let last = world.store.insert_alert(json!({"summary": "last"}).as_object().unwrap()).await.unwrap().unwrap();
    world.bus.publish(&[Outgoing::new(&last, "system-alert", Utc::now()).unwrap()]).await.unwrap();
    eventually("the last alert", async || (configs(&world).await.len() > 2).then_some(())).await;
    assert_eq!(configs(&world).await[2..], [Some(json!({"what": "last"}))]);
    assert_eq!(world.seen.of(MessageType::EnforcementCreated).len(), 3);
    world.stop().await;
}

fn decoded(message: &Outgoing) -> EventCreated {
    serde_json::from_value(message.envelope.payload.clone()).unwrap()
}

async fn reload(world: &World, rules: Vec<NewRule>) {
    world.hub.packs().register(&NewPack { rules, ..web_pack() }).await.unwrap();
}

#[tokio::test]
async fn a_pack_tells_that_it_was_loaded_and_removed() {
    let world = World::new().await;
    load(&world, vec![]).await;
    let web = |message: &Value| message["pack_ref"] == "web";
    let registered = world.seen.eventually(MessageType::PackRegistered, web).await;
    assert_eq!(registered["version"], "1.0.0");
    assert_eq!(registered["runtime_names"], json!(["python"]), "shell has no environment");
    world.hub.packs().remove("web").await.unwrap().unwrap();
    world.seen.eventually(MessageType::PackDeleted, web).await;
    assert!(world.hub.packs().remove("web").await.unwrap().is_none());
    world.stop().await;
}

#[tokio::test]
async fn rules_that_come_and_go_are_announced() {
    let world = World::new().await;
    let off = NewRule { enabled: false, ..rule("web.off", json!({})) };
    load(&world, vec![rule("web.rule", json!({})), off.clone()]).await;
    let created = async |name: &str| world.seen.eventually(MessageType::RuleCreated, |m| m["rule_ref"] == name).await;
    assert_eq!(created("web.rule").await["enabled"], true);
    assert_eq!(created("web.off").await["enabled"], false);
    reload(&world, vec![off]).await;
    world.seen.eventually(MessageType::RuleDisabled, |m| m["rule_ref"] == "web.rule").await;
    reload(&world, vec![]).await;
    let registered = async || world.seen.of(MessageType::PackRegistered).len();
    eventually("the last load", async || (registered().await == 4).then_some(())).await;
    assert_eq!(world.seen.of(MessageType::RuleDisabled).len(), 1, "one was disabled before");
    world.stop().await;
}

#[tokio::test]
async fn changes_of_a_rule_are_announced_when_they_concern_its_sensor() {
    let world = World::new().await;
    let off = NewRule { enabled: false, ..rule("web.rule", json!({})) };
    load(&world, vec![off.clone()]).await;
    let on = NewRule { enabled: true, ..off };
    reload(&world, vec![on.clone()]).await;
    world.seen.eventually(MessageType::RuleEnabled, |m| m["trigger_ref"] == "web.hook").await;
    let moved = NewRule { trigger_ref: "web.other".into(), ..on };
    reload(&world, vec![moved.clone()]).await;
    world.seen.eventually(MessageType::RuleDisabled, |m| m["trigger_ref"] == "web.hook").await;
    world.seen.eventually(MessageType::RuleEnabled, |m| m["trigger_ref"] == "web.other").await;
    reload(&world, vec![NewRule { label: "Another".into(), ..moved.clone() }]).await;
    let changed = NewRule { trigger_params: json!({"n": 2}), ..moved };
    reload(&world, vec![changed]).await;
    let with_params = |message: &Value| message["trigger_params"] == json!({"n": 2});
    world.seen.eventually(MessageType::RuleEnabled, with_params).await;
    assert_eq!(world.seen.of(MessageType::RuleEnabled).len(), 3, "a label concerns no sensor");
    world.stop().await;
}

#[tokio::test]
async fn rules_of_other_packs_follow_a_trigger_that_goes_and_comes_back() {
    let world = World::new().await;
    load(&world, vec![]).await;
    let mut foreign = rule("app.rule", json!({}));
    foreign.action_ref = "app.act".into();
    let app = NewPack {
        actions: vec![action("app.act", "core.shell", json!({}))],
        triggers: vec![trigger("app.unused")],
        rules: vec![foreign],
        ..pack("app")
    };
    assert_eq!(world.hub.packs().register(&app).await.unwrap().skipped, []);
    world.hub.packs().remove("web").await.unwrap().unwrap();
    world.seen.eventually(MessageType::RuleDisabled, |m| m["rule_ref"] == "app.rule").await;
    world.hub.packs().register(&web_pack()).await.unwrap();
    world.seen.eventually(MessageType::RuleEnabled, |m| m["rule_ref"] == "app.rule").await;
    send(&world, json!({"trigger_ref": "web.hook"})).await;
    assert_eq!(configs(&world).await.len(), 1);
    world.stop().await;
}

#[tokio::test]
async fn what_refers_to_nothing_is_left_out_and_named() {
    let world = World::new().await;
    world.hub.packs().register(&core_pack()).await.unwrap();
    let mut broken = rule("web.broken", json!({}));
    broken.action_ref = "web.nothing".into();
    let mut actions = web_pack().actions;
    actions.push(action("web.lua", "core.lua", json!({})));
    let changes = world.hub.packs().register(&NewPack { rules: vec![broken], actions, ..web_pack() }).await.unwrap();
    let skipped: Vec<(&str, &str)> = changes.skipped.iter().map(|s| (s.kind, s.r#ref.as_str())).collect();
    assert_eq!(skipped, [("action", "web.lua"), ("rule", "web.broken")]);
    assert!(changes.skipped[0].reason.contains("core.lua"), "{:?}", changes.skipped);
    world.stop().await;
}
