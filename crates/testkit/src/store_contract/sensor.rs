//! Desired sensors, and alerts.

use attune_model::status::WorkerRole;
use serde_json::json;

use super::Lab;
use super::seed::{World, demo, empty, object, rule, runtime, sensor, trigger, worker};

/// Triggers by ref, their rules in row order; a sensor without any of them is listed too.
pub async fn desired_sensors_come_by_ref_with_all_that_decides(lab: &dyn Lab) {
    let world = World::new(lab).await;
    let mut pack = empty("alpha");
    pack.runtimes = vec![runtime("alpha.node", "Node.js", &["22"])];
    pack.triggers = vec![trigger("alpha.hook"), trigger("alpha.free")];
    pack.sensors = vec![sensor("alpha.web", "alpha.node", &["alpha.hook"])];
    // Rows of demo.tick in this order: demo.on_tick, alpha.z, alpha.a.
    pack.rules = vec![rule("alpha.z", "demo.tick", "demo.echo"), rule("alpha.a", "demo.tick", "demo.echo")];
    pack.rules.push(rule("alpha.other", "alpha.free", "demo.echo"));
    world.store.upsert_pack(&pack).await.unwrap();

    let desired = world.store.desired_sensors().await.unwrap();
    assert_eq!(desired.len(), 2);
    assert_eq!(desired[0].sensor.r#ref, "alpha.web");
    assert_eq!(desired[0].runtime.r#ref, "alpha.node");
    assert_eq!(desired[0].runtime_versions.len(), 1);
    assert_eq!(desired[0].triggers.len(), 1);
    assert_eq!(desired[0].rules, []);

    let clock = &desired[1];
    assert_eq!(clock.sensor, world.sensor);
    assert_eq!(clock.sensor.config, Some(json!({"resolution": 5})));
    assert_eq!(clock.runtime.r#ref, "demo.python");
    let versions: Vec<_> = clock.runtime_versions.iter().map(|version| version.version.as_str()).collect();
    assert_eq!(versions, ["3.11", "3.12.1"]);
    let triggers: Vec<_> = clock.triggers.iter().map(|trigger| trigger.r#ref.as_str()).collect();
    assert_eq!(triggers, ["demo.tick", "demo.tock"]);
    let rules: Vec<_> = clock.rules.iter().map(|rule| rule.r#ref.as_str()).collect();
    assert_eq!(rules, ["demo.on_tick", "alpha.z", "alpha.a", "demo.on_tock"]);
    assert_eq!(clock.rules[0].trigger_params, json!({"every": 5}));
}

/// A disabled trigger does not stop its sensor (a fact of the platform), a disabled rule does not count.
pub async fn only_enabled_sensors_and_rules_are_desired(lab: &dyn Lab) {
    let world = World::new(lab).await;
    let mut pack = demo();
    pack.rules[0].enabled = false;
    pack.triggers[1].enabled = false;
    world.store.upsert_pack(&pack).await.unwrap();
    let desired = world.store.desired_sensors().await.unwrap();
    let rules: Vec<_> = desired[0].rules.iter().map(|rule| rule.r#ref.as_str()).collect();
    assert_eq!(rules, ["demo.on_tock"]);
    assert_eq!(desired[0].triggers.len(), 2);
    pack.sensors[0].enabled = false;
    world.store.upsert_pack(&pack).await.unwrap();
    assert_eq!(world.store.desired_sensors().await.unwrap(), []);
}

/// Whatever is changed.
pub async fn the_digest_of_desired_sensors_changes_when_they_do_and_not_otherwise(lab: &dyn Lab) {
    let world = World::new(lab).await;
    let mut pack = demo();
    let mut seen = vec![world.store.desired_digest().await.unwrap()];
    assert_eq!(world.store.desired_digest().await.unwrap(), seen[0]);
    let changes: [fn(&mut attune_store::NewPack); 5] = [
        |pack| pack.rules[0].enabled = false,
        |pack| pack.rules[1].trigger_params = json!({"every": 6}),
        |pack| pack.sensors[0].config = Some(json!({"resolution": 6})),
        |pack| "other".clone_into(&mut pack.triggers[1].label),
        |pack| pack.runtimes[0].execution_config = json!({"interpreter": {"binary": "other"}}),
    ];
    for (number, change) in changes.into_iter().enumerate() {
        change(&mut pack);
        world.store.upsert_pack(&pack).await.unwrap();
        let digest = world.store.desired_digest().await.unwrap();
        assert!(!seen.contains(&digest), "change {number} is not seen");
        seen.push(digest);
    }
    let before = world.store.desired_digest().await.unwrap();
    world.store.register_worker(&worker("host", WorkerRole::Sensor)).await.unwrap();
    assert_eq!(world.store.desired_digest().await.unwrap(), before);
}

/// Whatever is changed of it, and nothing of another.
pub async fn the_stamp_of_a_pack_changes_when_it_does_and_not_otherwise(lab: &dyn Lab) {
    let world = World::new(lab).await;
    let mut pack = demo();
    let stamp = async |name: &str| world.store.pack_stamps().await.unwrap().remove(name);
    let first = stamp("demo").await.unwrap();
    world.store.upsert_pack(&pack).await.unwrap();
    world.store.upsert_pack(&empty("other")).await.unwrap();
    assert_eq!(stamp("demo").await.unwrap(), first);
    "2.0.0".clone_into(&mut pack.version);
    world.store.upsert_pack(&pack).await.unwrap();
    assert_ne!(stamp("demo").await.unwrap(), first);
    world.store.delete_pack("demo").await.unwrap();
    assert_eq!(stamp("demo").await, None);
    assert!(stamp("other").await.is_some());
}

/// An installation without the core pack has no alerts.
pub async fn an_alert_needs_its_trigger(lab: &dyn Lab) {
    let store = lab.store();
    let payload = object(&json!({"severity": "error", "details": {"sensor_id": 1}}));
    assert_eq!(store.insert_alert(&payload).await.unwrap(), None);
    assert_eq!(lab.number("SELECT count(*) FROM event").await, 0);

    let mut core = empty("core");
    core.triggers = vec![trigger("core.alert")];
    store.upsert_pack(&core).await.unwrap();
    let created = store.insert_alert(&payload).await.unwrap().unwrap();
    let trigger = store.trigger("core.alert").await.unwrap().unwrap();
    assert_eq!((created.trigger_id, created.trigger_ref.as_str()), (Some(trigger.id), "core.alert"));
    assert_eq!((created.sensor_id, created.sensor_ref.as_deref()), (None, Some("attune.system")));
    assert_eq!(created.payload, Some(json!({"severity": "error", "details": {"sensor_id": 1}})));
    let row = format!(
        "SELECT count(*) FROM event WHERE id = {} AND source IS NULL AND source_ref = 'attune.system'",
        created.event_id
    );
    assert_eq!(lab.number(&row).await, 1);
}
