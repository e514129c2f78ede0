//! Packs: the store becomes equal to the files.

use std::sync::Arc;

use attune_model::rows::Rule;
use attune_model::status::{OutputFormat, ParameterDelivery, ParameterFormat};
use attune_store::{PageRequest, RuleChange, StoreError};
use serde_json::json;

use super::seed::{World, action, demo, empty, rule, runtime, sensor, trigger};
use super::{Lab, Store};

const COMPONENTS: &str = "SELECT (SELECT count(*) FROM runtime) + (SELECT count(*) FROM runtime_version) \
                          + (SELECT count(*) FROM \"trigger\") + (SELECT count(*) FROM action) \
                          + (SELECT count(*) FROM sensor) + (SELECT count(*) FROM rule)";

fn changed(changes: &[RuleChange]) -> Vec<(&str, bool, bool)> {
    changes
        .iter()
        .map(|change| {
            let rule = change.before.as_ref().or(change.after.as_ref()).unwrap();
            (rule.r#ref.as_str(), change.before.is_some(), change.after.is_some())
        })
        .collect()
}

async fn rules(store: &Arc<dyn Store>, trigger_ref: &str) -> Vec<Rule> {
    let trigger = store.trigger(trigger_ref).await.unwrap().unwrap();
    store.trigger_rules(trigger.id, PageRequest { page: 1, page_size: 100 }).await.unwrap().items
}

/// Every column of the pack and its actions.
pub async fn a_pack_is_read_back_as_it_was_loaded(lab: &dyn Lab) {
    let world = World::new(lab).await;
    let loaded = demo();
    let pack = world.store.pack("demo").await.unwrap().unwrap();
    assert_eq!(pack, world.pack);
    assert_eq!((&pack.label, &pack.version), (&loaded.label, &loaded.version));
    assert_eq!(pack.description, loaded.description);
    assert_eq!(pack.conf_schema, loaded.conf_schema);
    assert_eq!((&pack.config, &pack.meta), (&loaded.config, &loaded.meta));
    assert_eq!((&pack.tags, &pack.dependencies), (&loaded.tags, &loaded.dependencies));
    assert_eq!(pack.runtime_deps, loaded.runtime_deps);

    let (action, echo) = (&world.action, &loaded.actions[0]);
    assert_eq!((action.pack, action.pack_ref.as_str()), (pack.id, "demo"));
    assert_eq!(action.entrypoint, "echo.py");
    assert_eq!(action.param_schema, echo.param_schema);
    assert_eq!(action.out_schema, echo.out_schema);
    assert_eq!(action.parameter_delivery, ParameterDelivery::File);
    assert_eq!(action.parameter_format, ParameterFormat::Yaml);
    assert_eq!(action.output_format, OutputFormat::Jsonl);
    assert_eq!(action.timeout_seconds, Some(17));
    assert_eq!(action.runtime_version_constraint.as_deref(), Some(">=3.11"));
    assert_eq!(action.required_worker_runtimes, json!({"shell": "*"}));
    assert_eq!(action.placement, echo.placement);
    assert_eq!(action.default_execution_permission_set_refs, ["standard"]);
    assert_eq!(action.log_retention, echo.log_retention);
    assert!(!action.is_adhoc);
    let plain = world.store.action("demo.plain").await.unwrap().unwrap();
    assert_eq!(plain.runtime, None);
}

/// Sensors with their triggers, rules with both their ends.
pub async fn refs_are_resolved_when_a_pack_is_loaded(lab: &dyn Lab) {
    let world = World::new(lab).await;
    let store = &world.store;
    let loaded = demo();
    let (sensor, triggers) = store.sensor("demo.clock").await.unwrap().unwrap();
    assert_eq!(sensor.runtime, world.action.runtime.unwrap());
    assert_eq!(sensor.runtime_ref, "demo.python");
    assert_eq!((sensor.enabled, sensor.entrypoint.as_str()), (true, "clock.py"));
    assert_eq!(sensor.placement.selector, json!({}), "no placement is no constraint");
    let linked = triggers.iter();
    let linked: Vec<_> = linked.map(|found| (found.r#ref.as_str(), found.sensor)).collect();
    assert_eq!(linked, [("demo.tick", Some(sensor.id)), ("demo.tock", Some(sensor.id))]);
    assert_eq!(triggers[0].sensor_ref.as_deref(), Some("demo.clock"));

    let rule = rules(store, "demo.tick").await.remove(0);
    assert_eq!((rule.action, rule.trigger), (Some(world.action.id), Some(triggers[0].id)));
    assert_eq!(rule.action_params, loaded.rules[0].action_params);
    assert_eq!(rule.trigger_params, loaded.rules[0].trigger_params);
    assert_eq!(rule.permission_set_refs, Some(vec!["admin".to_owned()]));
    for unknown in ["demo", "demo.none"] {
        assert_eq!(store.action(unknown).await.unwrap(), None);
        assert_eq!(store.sensor(unknown).await.unwrap(), None);
        assert_eq!(store.trigger(unknown).await.unwrap(), None);
    }
    assert_eq!(store.pack("none").await.unwrap(), None);
}

/// A restart must not look like a change to anybody.
pub async fn loading_the_same_pack_again_writes_nothing(lab: &dyn Lab) {
    let world = World::new(lab).await;
    let before = (world.store.desired_sensors().await.unwrap(), rules(&world.store, "demo.tick").await);
    let changes = world.store.upsert_pack(&demo()).await.unwrap();
    assert_eq!((changes.pack, changes.rules, changes.skipped), (world.pack.clone(), vec![], vec![]));
    let after = (world.store.desired_sensors().await.unwrap(), rules(&world.store, "demo.tick").await);
    assert_eq!(after, before, "`updated` included");
    assert_eq!(world.store.packs().await.unwrap(), [world.pack]);
}

/// Rules, executions and environments refer to ids.
pub async fn a_changed_component_keeps_its_id(lab: &dyn Lab) {
    let world = World::new(lab).await;
    let rule_before = rules(&world.store, "demo.tick").await.remove(0);
    let mut pack = demo();
    pack.version = String::from("1.3.0");
    pack.actions[0].timeout_seconds = None;
    pack.sensors[0].config = None;
    pack.rules[0].trigger_params = json!({"every": 10});
    pack.runtimes[0].versions[0].is_default = true;
    let versions = world.store.runtime_versions().await.unwrap();
    let changes = world.store.upsert_pack(&pack).await.unwrap();
    assert_eq!((changes.pack.id, changes.pack.version.as_str()), (world.pack.id, "1.3.0"));
    let action = world.store.action("demo.echo").await.unwrap().unwrap();
    assert_eq!((action.id, action.timeout_seconds), (world.action.id, None));
    let (sensor, _) = world.store.sensor("demo.clock").await.unwrap().unwrap();
    assert_eq!((sensor.id, sensor.config), (world.sensor.id, None));
    let after = world.store.runtime_versions().await.unwrap();
    assert_eq!(after[0].id, versions[0].id);
    assert!(after[0].is_default);

    assert_eq!(changed(&changes.rules), [("demo.on_tick", true, true)]);
    assert_eq!(changes.rules[0].before.as_ref(), Some(&rule_before));
    let rule = changes.rules[0].after.as_ref().unwrap();
    assert_eq!((rule.id, &rule.trigger_params), (rule_before.id, &json!({"every": 10})));
    assert!(rule.updated >= rule_before.updated);
}

/// Of every kind.
pub async fn what_vanished_from_the_files_is_removed(lab: &dyn Lab) {
    let world = World::new(lab).await;
    let mut pack = demo();
    pack.runtimes[0].versions.remove(0);
    pack.triggers.remove(1);
    pack.actions.remove(1);
    pack.rules.remove(1);
    pack.sensors[0].trigger_refs = vec!["demo.tick".to_owned()];
    let changes = world.store.upsert_pack(&pack).await.unwrap();
    assert_eq!(changes.skipped, []);
    assert_eq!(changed(&changes.rules), [("demo.on_tock", true, false)]);
    assert_eq!(world.store.trigger("demo.tock").await.unwrap(), None);
    assert_eq!(world.store.action("demo.plain").await.unwrap(), None);
    assert_eq!(world.store.runtime_versions().await.unwrap().len(), 1);
    assert_eq!(lab.number(COMPONENTS).await, 6);

    let changes = world.store.upsert_pack(&empty("demo")).await.unwrap();
    assert_eq!(changed(&changes.rules), [("demo.on_tick", true, false)]);
    assert_eq!(lab.number(COMPONENTS).await, 0);
}

/// One bad reference costs its component, not the pack; what is left out counts as not in the pack.
pub async fn what_refers_to_nothing_is_left_out_with_the_reason(lab: &dyn Lab) {
    let world = World::new(lab).await;
    let mut pack = demo();
    pack.runtimes.clear();
    pack.triggers.remove(1);
    let changes = world.store.upsert_pack(&pack).await.unwrap();
    let skipped: Vec<_> =
        changes.skipped.iter().map(|skipped| (skipped.kind, skipped.r#ref.as_str(), skipped.reason.as_str())).collect();
    assert_eq!(
        skipped,
        [
            ("action", "demo.echo", "runtime demo.python does not exist"),
            ("sensor", "demo.clock", "runtime demo.python does not exist"),
            ("rule", "demo.on_tick", "action demo.echo does not exist"),
            ("rule", "demo.on_tock", "trigger demo.tock does not exist"),
        ]
    );
    assert_eq!(changed(&changes.rules), [("demo.on_tick", true, false), ("demo.on_tock", true, false)]);
    assert_eq!(world.store.action("demo.echo").await.unwrap(), None);
    let tick = world.store.trigger("demo.tick").await.unwrap().unwrap();
    assert_eq!((tick.sensor, tick.sensor_ref), (None, None));
}

/// Two sensors would both emit its events.
pub async fn a_trigger_has_one_sensor(lab: &dyn Lab) {
    let world = World::new(lab).await;
    let mut pack = empty("alpha");
    pack.triggers = vec![trigger("alpha.own")];
    pack.sensors = vec![
        sensor("alpha.thief", "demo.python", &["demo.tick"]),
        sensor("alpha.first", "demo.python", &["alpha.own"]),
        sensor("alpha.second", "demo.python", &["alpha.own"]),
        sensor("alpha.lost", "demo.python", &["alpha.none"]),
    ];
    let changes = world.store.upsert_pack(&pack).await.unwrap();
    let skipped: Vec<_> =
        changes.skipped.iter().map(|skipped| (skipped.r#ref.as_str(), skipped.reason.as_str())).collect();
    assert_eq!(
        skipped,
        [
            ("alpha.thief", "trigger demo.tick belongs to sensor demo.clock"),
            ("alpha.second", "trigger alpha.own belongs to sensor alpha.first"),
            ("alpha.lost", "trigger alpha.none does not exist"),
        ]
    );
    let tick = world.store.trigger("demo.tick").await.unwrap().unwrap();
    assert_eq!(tick.sensor, Some(world.sensor.id));
}

/// Inside one pack the files decide.
pub async fn a_trigger_moves_to_another_sensor_of_its_pack(lab: &dyn Lab) {
    let world = World::new(lab).await;
    let mut pack = demo();
    pack.sensors =
        vec![sensor("demo.new", "demo.python", &["demo.tick"]), sensor("demo.clock", "demo.python", &["demo.tock"])];
    let changes = world.store.upsert_pack(&pack).await.unwrap();
    assert_eq!(changes.skipped, []);
    let (_, triggers) = world.store.sensor("demo.new").await.unwrap().unwrap();
    assert_eq!(triggers[0].r#ref, "demo.tick");
    assert_eq!(triggers[0].sensor_ref.as_deref(), Some("demo.new"));
    let (clock, triggers) = world.store.sensor("demo.clock").await.unwrap().unwrap();
    assert_eq!((clock.id, triggers.len()), (world.sensor.id, 1));
}

/// The whole load is one unit.
pub async fn a_ref_of_another_pack_is_a_conflict_and_nothing_is_written(lab: &dyn Lab) {
    let world = World::new(lab).await;
    let mut pack = empty("alpha");
    pack.actions = vec![action("alpha.fine", None), action("demo.echo", None)];
    let error = world.store.upsert_pack(&pack).await.unwrap_err();
    let StoreError::Conflict(text) = error else { panic!("{error}") };
    assert_eq!(text, "action demo.echo belongs to pack demo");
    assert_eq!(world.store.pack("alpha").await.unwrap(), None);
    assert_eq!(world.store.action("alpha.fine").await.unwrap(), None);
}

/// Packs come and go independently.
pub async fn rules_find_their_trigger_and_action_again(lab: &dyn Lab) {
    let world = World::new(lab).await;
    let mut pack = empty("alpha");
    pack.rules = vec![rule("alpha.rule", "demo.tick", "demo.echo")];
    world.store.upsert_pack(&pack).await.unwrap();

    let removal = world.store.delete_pack("demo").await.unwrap().unwrap();
    assert_eq!(
        changed(&removal.rules),
        [("alpha.rule", true, true), ("demo.on_tick", true, false), ("demo.on_tock", true, false)]
    );
    let after = removal.rules[0].after.as_ref().unwrap();
    assert_eq!((after.trigger, after.action), (None, None));
    assert_eq!(after.trigger_ref, "demo.tick");

    let changes = world.store.upsert_pack(&demo()).await.unwrap();
    assert_eq!(
        changed(&changes.rules),
        [("alpha.rule", true, true), ("demo.on_tick", false, true), ("demo.on_tock", false, true)]
    );
    let linked = changes.rules[0].after.as_ref().unwrap();
    assert_eq!(linked.trigger, world.store.trigger("demo.tick").await.unwrap().map(|trigger| trigger.id));
    assert_eq!(linked.action, world.store.action("demo.echo").await.unwrap().map(|action| action.id));
}

/// Rows that are marked as made by hand are nobody's files.
pub async fn what_people_made_by_hand_stays(lab: &dyn Lab) {
    let world = World::new(lab).await;
    lab.execute("UPDATE rule SET is_adhoc = TRUE WHERE ref = 'demo.on_tock'").await;
    lab.execute("UPDATE action SET is_adhoc = TRUE WHERE ref = 'demo.plain'").await;
    let mut pack = demo();
    pack.rules.clear();
    pack.actions.truncate(1);
    let changes = world.store.upsert_pack(&pack).await.unwrap();
    assert_eq!(changed(&changes.rules), [("demo.on_tick", true, false)]);
    assert!(world.store.action("demo.plain").await.unwrap().unwrap().is_adhoc);
}

/// Foreign sensors would vanish with it, foreign actions would lose what runs them.
pub async fn a_runtime_that_others_use_cannot_be_removed(lab: &dyn Lab) {
    let world = World::new(lab).await;
    let mut user = empty("alpha");
    user.actions = vec![action("alpha.act", Some("demo.python"))];
    world.store.upsert_pack(&user).await.unwrap();
    let mut pack = demo();
    pack.runtimes = vec![runtime("demo.other", "Other", &[])];
    for error in [world.store.upsert_pack(&pack).await.unwrap_err(), world.store.delete_pack("demo").await.unwrap_err()]
    {
        let StoreError::Conflict(text) = error else { panic!("{error}") };
        assert_eq!(text, "runtime demo.python cannot be removed: action alpha.act uses it");
    }
    assert_eq!(world.store.action("demo.echo").await.unwrap().unwrap().id, world.action.id);
    world.store.delete_pack("alpha").await.unwrap().unwrap();
    world.store.delete_pack("demo").await.unwrap().unwrap();
}

/// History outlives what it is about.
pub async fn a_removed_pack_leaves_its_executions(lab: &dyn Lab) {
    let world = World::new(lab).await;
    let execution = world.requested().await;
    let key = attune_store::NewKey {
        r#ref: "demo.key".to_owned(),
        owner: attune_store::KeyOwner::Pack(world.pack.id),
        name: "key".to_owned(),
        encrypted_value: json!("c2VjcmV0"),
        encryption_key_hash: "d1ge57".to_owned(),
    };
    world.store.put_key(&key).await.unwrap();
    let removal = world.store.delete_pack("demo").await.unwrap().unwrap();
    assert_eq!(removal.pack, world.pack);
    assert_eq!(lab.number(COMPONENTS).await, 0);
    assert_eq!(lab.number("SELECT count(*) FROM key").await, 0);
    let row = world.row(execution.id).await;
    assert_eq!((row.action, row.action_ref.as_str()), (None, "demo.echo"));
    assert_eq!(world.store.delete_pack("demo").await.unwrap(), None);
    assert_eq!(world.store.packs().await.unwrap(), []);
}

/// What an agent that keeps packs and environments looks at.
pub async fn packs_come_with_their_actions(lab: &dyn Lab) {
    let world = World::new(lab).await;
    world.store.upsert_pack(&empty("alpha")).await.unwrap();
    let found = world.store.packs_with_actions(None).await.unwrap();
    let told: Vec<(&str, Vec<&str>)> = found
        .iter()
        .map(|(pack, actions)| (pack.r#ref.as_str(), actions.iter().map(|action| action.r#ref.as_str()).collect()))
        .collect();
    assert_eq!(told, [("alpha", vec![]), ("demo", vec!["demo.echo", "demo.plain"])]);
    assert_eq!(found[1], (world.pack.clone(), found[1].1.clone()));
    assert_eq!(found[1].1[0], world.action);
    assert_eq!(world.store.packs_with_actions(Some("demo")).await.unwrap(), found[1..]);
    assert_eq!(world.store.packs_with_actions(Some("gone")).await.unwrap(), []);
}
