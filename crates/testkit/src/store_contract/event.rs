//! Events and what they lead to.

use attune_model::rows::Event;
use attune_model::status::ExecutionStatus;
use attune_model::{EventId, RuleId};
use attune_store::{EventSource, Intake, NewEnforcement, NewEvent, NewExecution, RuleTarget};
use serde_json::json;

use super::Lab;
use super::seed::{World, demo, empty, rule, secret};

const ROWS: &str = "SELECT (SELECT count(*) FROM event) + (SELECT count(*) FROM enforcement) \
                    + (SELECT count(*) FROM execution) + (SELECT count(*) FROM execution_secret_value)";

fn tick() -> NewEvent {
    NewEvent {
        trigger_ref: "demo.tick".to_owned(),
        config: Some(json!({"every": 5})),
        payload: Some(json!({"text": "hi", "n": 1})),
        source_ref: Some("demo.clock".to_owned()),
        rule: None,
    }
}

fn enforcement(target: &RuleTarget, execution: Option<NewExecution>) -> NewEnforcement {
    NewEnforcement {
        rule: target.rule.id,
        rule_ref: target.rule.r#ref.clone(),
        config: json!({"text": "hi"}),
        payload: json!({"text": "hi", "n": 1}),
        conditions: json!([]),
        secrets: Vec::new(),
        execution,
    }
}

fn taken(intake: Intake) -> (Event, Vec<attune_store::Enforced>) {
    match intake {
        Intake::Taken { event, enforced } => (*event, enforced),
        other => panic!("not taken: {other:?}"),
    }
}

/// An acknowledged event is never lost: all of it is there or nothing.
pub async fn an_event_leads_to_executions_in_one_unit(lab: &dyn Lab) {
    let world = World::new(lab).await;
    let mut other = empty("alpha");
    other.rules = vec![rule("alpha.rule", "demo.tick", "demo.plain")];
    world.store.upsert_pack(&other).await.unwrap();
    let decide = |_: &Event, targets: &[RuleTarget]| {
        let disabled = enforcement(&targets[1], None);
        vec![enforcement(&targets[0], Some(world.execution())), disabled]
    };
    let intake = world.store.take_event(EventSource::New(&tick()), &decide).await;
    let (_, enforced) = taken(intake.unwrap());
    assert_eq!(enforced.len(), 2);
    assert_eq!(enforced[0].rule_ref, "demo.on_tick");
    assert_eq!(enforced[0].payload, json!({"text": "hi", "n": 1}));
    assert_eq!(enforced[1].execution, None);
    let execution = enforced[0].execution.as_ref().unwrap();
    assert_eq!(execution.status, ExecutionStatus::Requested);
    assert_eq!(execution.enforcement, Some(enforced[0].id));
    assert_eq!(execution.config, Some(json!({"text": "hi"})), "of the enforcement");
    let view = world.store.execution(execution.id).await.unwrap().unwrap();
    assert_eq!(view.execution, *execution);
    assert_eq!(view.rule_ref.as_deref(), Some("demo.on_tick"));
    assert_eq!(view.trigger_ref.as_deref(), Some("demo.tick"));
    for (status, resolved) in [("processed", "NOT NULL"), ("disabled", "NULL")] {
        let rows = format!("SELECT count(*) FROM enforcement WHERE status = '{status}' AND resolved_at IS {resolved}");
        assert_eq!(lab.number(&rows).await, 1, "{status}");
    }
}

/// The row as it is stored, and every rule in row order with what it needs.
pub async fn who_decides_sees_the_event_and_its_rules(lab: &dyn Lab) {
    let world = World::new(lab).await;
    let mut other = empty("alpha");
    other.rules = vec![rule("alpha.rule", "demo.tick", "demo.plain")];
    other.config = json!({"colour": "red"});
    world.store.upsert_pack(&other).await.unwrap();
    let shown = std::sync::Mutex::new(None);
    let decide = |event: &Event, targets: &[RuleTarget]| {
        *shown.lock().unwrap() = Some((event.clone(), targets.to_vec()));
        Vec::new()
    };
    let intake = world.store.take_event(EventSource::New(&tick()), &decide).await;
    let (event, enforced) = taken(intake.unwrap());
    assert_eq!(enforced, []);
    assert_eq!(event.payload, Some(json!({"text": "hi", "n": 1})));
    assert_eq!(event.config, Some(json!({"every": 5})));
    assert_eq!(event.trigger_ref, "demo.tick");
    assert_eq!(event.source, Some(world.sensor.id));
    assert_eq!(event.source_ref.as_deref(), Some("demo.clock"));
    assert_eq!((event.rule, event.rule_ref.as_ref()), (None, None));

    let (seen, targets) = shown.into_inner().unwrap().unwrap();
    assert_eq!(seen, event);
    let rules: Vec<_> = targets.iter().map(|target| target.rule.r#ref.as_str()).collect();
    assert_eq!(rules, ["demo.on_tick", "alpha.rule"]);
    assert_eq!(targets[1].pack.config, json!({"colour": "red"}));
    assert_eq!(targets[0].action.as_ref(), Some(&world.action));
    assert_eq!(targets[0].owner, None);
}

/// There is nothing to decide.
pub async fn an_unknown_trigger_or_event_stores_nothing(lab: &dyn Lab) {
    let world = World::new(lab).await;
    let decide = |_: &Event, _: &[RuleTarget]| panic!("asked");
    let unknown = NewEvent { trigger_ref: "demo.none".to_owned(), ..tick() };
    let intake = world.store.take_event(EventSource::New(&unknown), &decide).await.unwrap();
    assert_eq!(intake, Intake::UnknownTrigger);
    let intake = world.store.take_event(EventSource::Stored(EventId(4711)), &decide).await.unwrap();
    assert_eq!(intake, Intake::UnknownEvent);
    assert_eq!(lab.number(ROWS).await, 0);
}

/// The message about an event may come twice.
pub async fn an_event_is_enforced_once_per_rule(lab: &dyn Lab) {
    let world = World::new(lab).await;
    let decide = |_: &Event, targets: &[RuleTarget]| vec![enforcement(&targets[0], Some(world.execution()))];
    let (event, enforced) = taken(world.store.take_event(EventSource::New(&tick()), &decide).await.unwrap());
    assert_eq!(enforced.len(), 1);
    let before = lab.number(ROWS).await;
    let (again, enforced) = taken(world.store.take_event(EventSource::Stored(event.id), &decide).await.unwrap());
    assert_eq!((again, enforced), (event, vec![]));
    assert_eq!(lab.number(ROWS).await, before);
}

/// Both switches count, the event is kept either way.
pub async fn only_enabled_rules_of_enabled_triggers_are_reached(lab: &dyn Lab) {
    let world = World::new(lab).await;
    let nobody = |_: &Event, targets: &[RuleTarget]| {
        assert!(targets.is_empty());
        Vec::new()
    };
    let mut pack = demo();
    pack.rules[0].enabled = false;
    world.store.upsert_pack(&pack).await.unwrap();
    let (first, _) = taken(world.store.take_event(EventSource::New(&tick()), &nobody).await.unwrap());
    let mut pack = demo();
    pack.triggers[0].enabled = false;
    world.store.upsert_pack(&pack).await.unwrap();
    world.store.take_event(EventSource::New(&tick()), &nobody).await.unwrap();
    world.store.take_event(EventSource::Stored(first.id), &nobody).await.unwrap();
    assert_eq!(lab.number("SELECT count(*) FROM event").await, 2);
    // The trigger and its rules may be gone altogether.
    world.store.delete_pack("demo").await.unwrap().unwrap();
    let (event, _) = taken(world.store.take_event(EventSource::Stored(first.id), &nobody).await.unwrap());
    assert_eq!((event.trigger, event.trigger_ref.as_str()), (None, "demo.tick"));
}

/// Also when that rule is of another trigger, or does not exist any more.
pub async fn an_event_for_one_rule_reaches_no_other(lab: &dyn Lab) {
    let world = World::new(lab).await;
    let mut other = empty("alpha");
    other.rules = vec![rule("alpha.rule", "demo.tick", "demo.plain")];
    world.store.upsert_pack(&other).await.unwrap();
    let reached = std::sync::Mutex::new(Vec::new());
    let look = |_: &Event, targets: &[RuleTarget]| {
        *reached.lock().unwrap() = targets.iter().map(|target| target.rule.clone()).collect();
        Vec::new()
    };
    world.store.take_event(EventSource::New(&tick()), &look).await.unwrap();
    let both = reached.lock().unwrap().clone();
    assert_eq!(both.len(), 2);

    let meant = NewEvent { rule: Some(both[1].id), ..tick() };
    let (event, _) = taken(world.store.take_event(EventSource::New(&meant), &look).await.unwrap());
    assert_eq!((event.rule, event.rule_ref.as_deref()), (Some(both[1].id), Some("alpha.rule")));
    assert_eq!(*reached.lock().unwrap(), [both[1].clone()]);

    let of_another_trigger = NewEvent { trigger_ref: "demo.tock".to_owned(), ..meant.clone() };
    let of_nothing = NewEvent { rule: Some(RuleId(4711)), ..tick() };
    for wrong in [of_another_trigger, of_nothing] {
        let (event, _) = taken(world.store.take_event(EventSource::New(&wrong), &look).await.unwrap());
        assert_eq!((event.rule, event.rule_ref), (None, None));
        assert_eq!(*reached.lock().unwrap(), []);
    }

    world.store.delete_pack("alpha").await.unwrap().unwrap();
    world.store.take_event(EventSource::Stored(event.id), &look).await.unwrap();
    assert_eq!(*reached.lock().unwrap(), [], "its rule was removed since");
}

/// They travel encrypted, beside the parameters.
pub async fn secrets_of_an_enforcement_reach_the_worker(lab: &dyn Lab) {
    let world = World::new(lab).await;
    let decide = |_: &Event, targets: &[RuleTarget]| {
        let secrets = vec![secret("/text", "b25l"), secret("/deep/er", "dHdv")];
        vec![NewEnforcement { secrets, ..enforcement(&targets[0], Some(world.execution())) }]
    };
    let (_, enforced) = taken(world.store.take_event(EventSource::New(&tick()), &decide).await.unwrap());
    let execution = enforced[0].execution.as_ref().unwrap().id;
    world.schedule(execution, world.worker.id).await;
    let claimed = world.claim(execution).await;
    assert_eq!(claimed.secret_values, [secret("/text", "b25l"), secret("/deep/er", "dHdv")]);
    let stored = "SELECT count(*) FROM execution_secret_value WHERE entity_type = 'enforcement_config'";
    assert_eq!(lab.number(stored).await, 2);

    let direct = NewExecution { secrets: vec![secret("/text", "b25l")], ..world.execution() };
    let execution = world.store.insert_execution(&direct).await.unwrap().id;
    world.schedule(execution, world.worker.id).await;
    assert_eq!(world.claim(execution).await.secret_values, [secret("/text", "b25l")]);
}

/// The first enforcement is fine, the second one names a rule that does not exist.
pub async fn a_failure_half_way_leaves_nothing(lab: &dyn Lab) {
    let world = World::new(lab).await;
    let decide = |_: &Event, targets: &[RuleTarget]| {
        let fine = enforcement(&targets[0], Some(world.execution()));
        let wrong = NewEnforcement { rule: RuleId(4711), ..fine.clone() };
        vec![fine, wrong]
    };
    world.store.take_event(EventSource::New(&tick()), &decide).await.unwrap_err();
    assert_eq!(lab.number(ROWS).await, 0);
    // … and the store works on.
    world.store.take_event(EventSource::New(&tick()), &|_, _| Vec::new()).await.unwrap();
    assert_eq!(lab.number(ROWS).await, 1);
}
