//! Claiming executions.

use attune_model::status::{ExecutionStatus, OwnerType, WorkerRole};
use attune_model::{ExecutionId, WorkerId};
use attune_store::{
    Claim, EventSource, ExecutionGuard, Intake, KeyOwner, NewEnforcement, NewEvent, NewExecution, NewKey, RuleTarget,
};
use chrono::TimeDelta;
use futures_util::future::join_all;
use serde_json::json;

use super::Lab;
use super::seed::{World, demo, secret, worker};

/// An execution is started at most once per claim.
pub async fn of_twenty_claims_at_once_one_is_granted(lab: &dyn Lab) {
    let world = World::new(lab).await;
    let execution = world.scheduled().await;
    let claims = join_all((0..20).map(|_| world.store.claim_execution(execution.id, world.worker.id, None))).await;
    let mut granted = 0;
    for claim in claims {
        match claim.unwrap() {
            Claim::Claimed(claimed) => {
                granted += 1;
                assert_eq!(claimed.execution.status, ExecutionStatus::Running);
            }
            Claim::NotOurs { status } => assert_eq!(status, Some(ExecutionStatus::Running)),
            other @ Claim::Cancelled(_) => panic!("{other:?}"),
        }
    }
    assert_eq!(granted, 1);
}

/// Keys of every owner with the same name; their values are their refs.
async fn put_keys(world: &World) {
    for (r#ref, owner, name) in [
        ("action.key", KeyOwner::Action(world.action.id), "token"),
        ("pack.key", KeyOwner::Pack(world.pack.id), "token"),
        ("system.key", KeyOwner::System, "token"),
        ("system.other", KeyOwner::System, "other"),
    ] {
        let key = NewKey {
            r#ref: r#ref.to_owned(),
            owner,
            name: name.to_owned(),
            encrypted_value: json!(r#ref),
            encryption_key_hash: "d1ge57".to_owned(),
        };
        world.store.put_key(&key).await.unwrap();
    }
}

/// An execution that `demo.on_tick` asked for, as a child of another one, scheduled for the worker.
async fn enforced(world: &World) -> ExecutionId {
    let new = NewExecution {
        parent: Some(world.requested().await.id),
        env_vars: Some(json!({"A": "1"})),
        permission_set_refs: vec!["standard".to_owned()],
        ..world.execution()
    };
    let event = NewEvent {
        trigger_ref: "demo.tick".to_owned(),
        config: None,
        payload: Some(json!({"text": "hi"})),
        source_ref: Some("demo.clock".to_owned()),
        rule: None,
    };
    let decide = |_: &_, targets: &[RuleTarget]| {
        vec![NewEnforcement {
            rule: targets[0].rule.id,
            rule_ref: targets[0].rule.r#ref.clone(),
            config: json!({"b": 1, "a": {"$attune_secret": true, "redacted": true}}),
            payload: json!({"text": "hi"}),
            conditions: json!([]),
            secrets: vec![secret("/a", "c2VjcmV0")],
            execution: Some(new.clone()),
        }]
    };
    let intake = world.store.take_event(EventSource::New(&event), &decide).await;
    let Intake::Taken { enforced, .. } = intake.unwrap() else {
        panic!("not taken");
    };
    let id = enforced[0].execution.as_ref().unwrap().id;
    world.schedule(id, world.worker.id).await;
    id
}

/// The one read of a run.
pub async fn a_claim_brings_all_that_the_run_needs(lab: &dyn Lab) {
    let world = World::new(lab).await;
    let execution = enforced(&world).await;
    let claimed = world.claim(execution).await;
    assert_eq!(claimed.fence.execution, execution);
    assert_eq!(claimed.fence.worker, world.worker.id);
    assert_eq!(Some(claimed.fence.started_at), claimed.execution.started_at);
    let config = json!({"b": 1, "a": {"$attune_secret": true, "redacted": true}});
    assert_eq!(claimed.execution.config, Some(config));
    assert_eq!(claimed.execution.env_vars, Some(json!({"A": "1"})));
    assert_eq!(claimed.execution.permission_set_refs, ["standard"]);
    assert_eq!(claimed.action.as_ref(), Some(&world.action));
    assert_eq!(claimed.pack.as_ref(), Some(&world.pack));
    assert_eq!(claimed.runtime.unwrap().r#ref, "demo.python");
    let versions = claimed.runtime_versions.iter();
    let versions: Vec<_> = versions.map(|version| version.version.as_str()).collect();
    assert_eq!(versions, ["3.11", "3.12.1"]);
    let by = ("demo.on_tick".to_owned(), "demo.tick".to_owned());
    assert_eq!(claimed.enforcement, Some(by));
    assert_eq!(claimed.parent_action_ref.as_deref(), Some("demo.echo"));
    assert_eq!(claimed.secret_values, [secret("/a", "c2VjcmV0")]);
}

/// Those of other packs and actions are not shown.
pub async fn keys_come_in_the_order_in_which_they_override(lab: &dyn Lab) {
    let world = World::new(lab).await;
    put_keys(&world).await;
    let claimed = world.running().await;
    let keys = claimed.keys.iter();
    let keys: Vec<_> = keys.map(|key| (key.owner_type, key.name.as_str(), &key.value)).collect();
    assert_eq!(
        keys,
        [
            (OwnerType::System, "token", &json!("system.key")),
            (OwnerType::System, "other", &json!("system.other")),
            (OwnerType::Pack, "token", &json!("pack.key")),
            (OwnerType::Action, "token", &json!("action.key")),
        ]
    );
    assert_eq!(claimed.keys[0].encryption_key_hash.as_deref(), Some("d1ge57"));

    let plain = world.store.action("demo.plain").await.unwrap().unwrap();
    let new = NewExecution { action: plain.id, action_ref: plain.r#ref, ..world.execution() };
    let execution = world.store.insert_execution(&new).await.unwrap().id;
    world.schedule(execution, world.worker.id).await;
    assert_eq!(world.claim(execution).await.keys.len(), 3, "not the other action's");
}

/// Nothing is started for somebody who wants it to end.
pub async fn a_claim_of_a_canceling_execution_cancels_it(lab: &dyn Lab) {
    let world = World::new(lab).await;
    let execution = world.scheduled().await;
    lab.execute("UPDATE execution SET status = 'canceling'").await;
    let Claim::Cancelled(row) = world.store.claim_execution(execution.id, world.worker.id, None).await.unwrap() else {
        panic!("not cancelled");
    };
    assert_eq!(row.status, ExecutionStatus::Cancelled);
    assert_eq!(
        row.result,
        Some(json!({"succeeded": false, "cancelled": true, "error": "Execution cancelled by user"}))
    );
    assert_eq!(*row, world.row(execution.id).await);
    let again = world.store.claim_execution(execution.id, world.worker.id, None).await.unwrap();
    assert_eq!(again, Claim::NotOurs { status: Some(ExecutionStatus::Cancelled) });
}

/// The message was a hint and the hint was wrong.
pub async fn a_claim_of_anything_else_is_not_ours(lab: &dyn Lab) {
    let world = World::new(lab).await;
    let other = worker("other", WorkerRole::Action);
    let other = world.store.register_worker(&other).await.unwrap().id;
    let me = world.worker.id;

    assert_eq!(refused(&world, ExecutionId(4711), me).await, None);
    let requested = world.requested().await.id;
    assert_eq!(refused(&world, requested, me).await, Some(ExecutionStatus::Requested));

    let scheduled = world.scheduled().await;
    assert_eq!(refused(&world, scheduled.id, other).await, Some(ExecutionStatus::Scheduled));
    assert_eq!(world.row(scheduled.id).await, scheduled, "nothing was written");

    // A run that is being cancelled belongs to the claim that started it.
    let running = world.running().await.execution.id;
    world.store.cancel_execution(running, &json!({})).await.unwrap();
    for worker in [me, other] {
        assert_eq!(refused(&world, running, worker).await, Some(ExecutionStatus::Canceling));
    }

    for status in [ExecutionStatus::Failed, ExecutionStatus::Abandoned] {
        let scheduled = world.scheduled().await;
        let guard = ExecutionGuard::from(&scheduled);
        let ended = world.store.end_execution(&guard, status, &json!({})).await;
        assert!(ended.unwrap().is_some());
        assert_eq!(refused(&world, scheduled.id, me).await, Some(status));
    }
}

/// What a claim that must not be granted says.
async fn refused(world: &World, execution: ExecutionId, worker: WorkerId) -> Option<ExecutionStatus> {
    match world.store.claim_execution(execution, worker, None).await.unwrap() {
        Claim::NotOurs { status } => status,
        other => panic!("{other:?}"),
    }
}

/// A pack that was removed and loaded again has other ids.
pub async fn an_action_that_came_back_is_found_by_its_ref(lab: &dyn Lab) {
    let world = World::new(lab).await;
    let execution = world.scheduled().await;
    world.store.delete_pack("demo").await.unwrap().unwrap();
    world.store.upsert_pack(&demo()).await.unwrap();
    let claimed = world.claim(execution.id).await;
    assert_eq!(claimed.execution.action, None);
    let action = claimed.action.unwrap();
    assert_eq!(action.r#ref, "demo.echo");
    assert_eq!(claimed.pack.unwrap().id, action.pack);
}

/// So that its end can be written with the reason.
pub async fn a_claim_is_granted_even_when_the_action_is_gone(lab: &dyn Lab) {
    let world = World::new(lab).await;
    let execution = world.scheduled().await;
    world.store.delete_pack("demo").await.unwrap().unwrap();
    let claimed = world.claim(execution.id).await;
    assert_eq!((claimed.action, claimed.pack, claimed.runtime), (None, None, None));
    assert_eq!(claimed.execution.action_ref, "demo.echo");
}

/// A fence that was rounded would shut its own worker out.
pub async fn the_start_is_read_back_exactly_as_the_fence_has_it(lab: &dyn Lab) {
    let world = World::new(lab).await;
    for _ in 0..20 {
        let claimed = world.running().await;
        assert_eq!(world.row(claimed.execution.id).await.started_at, Some(claimed.fence.started_at));
    }
    let fences = world.store.unfinished_executions(world.worker.id).await.unwrap();
    for (fence, _) in &fences {
        assert!(
            world.store.finish_execution(fence, ExecutionStatus::Completed, &json!({}), &[]).await.unwrap().is_some()
        );
    }
    assert_eq!(fences.len(), 20);
}

/// The row was scheduled anew since the message was sent; another message is on its way.
pub async fn a_message_of_an_earlier_attempt_claims_nothing(lab: &dyn Lab) {
    let world = World::new(lab).await;
    let (id, me) = (world.requested().await.id, world.worker.id);
    let row = world.schedule(id, me).await;
    let earlier = row.updated - TimeDelta::microseconds(1);
    for stale in [row.created - TimeDelta::seconds(1), earlier] {
        let claim = world.store.claim_execution(id, me, Some(stale)).await.unwrap();
        assert_eq!(claim, Claim::NotOurs { status: Some(ExecutionStatus::Scheduled) });
    }
    assert_eq!(world.row(id).await, row, "nothing was written");
    let claim = world.store.claim_execution(id, me, Some(row.updated)).await.unwrap();
    assert!(matches!(claim, Claim::Claimed(_)), "{claim:?}");

    // Whoever is to be cancelled is, by whatever message.
    let canceling = world.scheduled().await;
    lab.execute(&format!("UPDATE execution SET status = 'canceling' WHERE id = {}", canceling.id)).await;
    let claim = world.store.claim_execution(canceling.id, me, Some(earlier)).await.unwrap();
    assert!(matches!(claim, Claim::Cancelled(_)), "{claim:?}");
}
