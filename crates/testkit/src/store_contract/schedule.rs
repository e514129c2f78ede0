//! From the request to the worker.

use std::time::Duration;

use attune_model::rows::Retention;
use attune_model::status::{ExecutionStatus as Status, RetentionPolicy, WorkerRole};
use attune_model::{ExecutionId, IdentityId};
use attune_store::{
    Cancel, ExecutionFilter, ExecutionGuard, KeyOwner, NewExecution, NewKey, PageRequest, PlacementOverride,
    TokenSubject,
};
use futures_util::future::join_all;
use serde_json::json;

use super::Lab;
use super::seed::{LONG, World, worker};

/// A request is scheduled once, whoever hears of it.
pub async fn of_twenty_schedulers_one_gets_the_execution(lab: &dyn Lab) {
    let world = World::new(lab).await;
    let placement =
        PlacementOverride { selector: Some(json!({"zone": "b"})), tolerations: None, affinity: Some(json!({})) };
    let new = NewExecution { placement: placement.clone(), ..world.execution() };
    let execution = world.store.insert_execution(&new).await.unwrap();
    assert_eq!((execution.status, execution.executor), (Status::Requested, Some(IdentityId(1))));
    let claims = join_all((0..20).map(|_| world.store.claim_scheduling(execution.id, LONG))).await;
    let mut claimed: Vec<_> = claims.into_iter().filter_map(|claim| claim.unwrap()).collect();
    assert_eq!(claimed.len(), 1);
    let claimed = claimed.remove(0);
    assert_eq!(claimed.execution.status, Status::Scheduling);
    assert_eq!(claimed.placement, placement);
    assert_eq!(claimed.action.as_ref(), Some(&world.action));
    assert_eq!(claimed.runtime.map(|runtime| runtime.id), world.action.runtime);
    assert_eq!(world.store.claim_scheduling(ExecutionId(4711), LONG).await.unwrap(), None);
}

/// By its own guard the dead one can do no harm any more.
pub async fn a_scheduler_that_died_is_replaced_after_a_while(lab: &dyn Lab) {
    let world = World::new(lab).await;
    let execution = world.requested().await;
    let first = world.store.claim_scheduling(execution.id, LONG).await.unwrap().unwrap();
    assert_eq!(world.store.claim_scheduling(execution.id, LONG).await.unwrap(), None);
    let second = world.store.claim_scheduling(execution.id, Duration::ZERO).await.unwrap().unwrap();
    let late = ExecutionGuard::from(&first.execution);
    assert_eq!(world.store.assign_worker(&late, world.worker.id).await.unwrap(), None);
    assert!(!world.store.give_back(&late).await.unwrap());
    let ended = world.store.end_execution(&late, Status::Failed, &json!({})).await;
    assert_eq!(ended.unwrap(), None);
    let guard = ExecutionGuard::from(&second.execution);
    let row = world.store.assign_worker(&guard, world.worker.id).await.unwrap().unwrap();
    assert_eq!((row.status, row.worker), (Status::Scheduled, Some(world.worker.id)));
    assert_eq!(world.store.claim_scheduling(execution.id, Duration::ZERO).await.unwrap(), None);
}

/// Every write makes `updated` a new one, however fast writes follow each other.
pub async fn a_guard_holds_for_one_step(lab: &dyn Lab) {
    let world = World::new(lab).await;
    let execution = world.requested().await;
    let mut seen = vec![execution.updated];
    for _ in 0..5 {
        let claimed = world.store.claim_scheduling(execution.id, LONG).await.unwrap().unwrap();
        let guard = ExecutionGuard::from(&claimed.execution);
        assert!(world.store.give_back(&guard).await.unwrap());
        assert!(!world.store.give_back(&guard).await.unwrap());
        let row = world.row(execution.id).await;
        assert_eq!(row.status, Status::Requested);
        assert!(!world.store.give_back(&ExecutionGuard::from(&row)).await.unwrap(), "it is not being scheduled");
        assert_eq!(world.store.assign_worker(&ExecutionGuard::from(&row), world.worker.id).await.unwrap(), None);
        seen.extend([claimed.execution.updated, row.updated]);
    }
    assert!(seen.is_sorted_by(|one, next| one < next), "{seen:?}");
}

/// Monitors look first and write later; somebody may have been faster.
pub async fn an_execution_is_ended_from_the_state_that_was_seen(lab: &dyn Lab) {
    let world = World::new(lab).await;
    let requested = world.requested().await;
    let seen = ExecutionGuard::from(&requested);
    let result = json!({"error": "unschedulable"});
    assert_eq!(world.store.end_execution(&seen, Status::Completed, &result).await.unwrap(), None, "it never ran");
    let scheduled = world.schedule(requested.id, world.worker.id).await;
    assert_eq!(world.store.end_execution(&seen, Status::Failed, &result).await.unwrap(), None);
    let guard = ExecutionGuard::from(&scheduled);
    let row = world.store.end_execution(&guard, Status::Failed, &result).await.unwrap().unwrap();
    assert_eq!((row.status, row.result.as_ref()), (Status::Failed, Some(&result)));
    assert_eq!(world.store.end_execution(&guard, Status::Abandoned, &result).await.unwrap(), None);
    let ended = ExecutionGuard::from(&row);
    assert_eq!(world.store.end_execution(&ended, Status::Abandoned, &result).await.unwrap(), None);
    assert_eq!(world.row(requested.id).await, row);
}

/// What has not started is cancelled, what runs is told.
pub async fn a_cancel_does_what_the_status_asks_for(lab: &dyn Lab) {
    let world = World::new(lab).await;
    let store = &world.store;
    let result = json!({"error": "Cancelled by user before execution started"});
    assert_eq!(store.cancel_execution(ExecutionId(4711), &result).await.unwrap(), Cancel::Unknown);

    let requested = world.requested().await.id;
    let scheduling = world.requested().await.id;
    store.claim_scheduling(scheduling, LONG).await.unwrap().unwrap();
    let scheduled = world.scheduled().await.id;
    for (id, status) in
        [(requested, Status::Requested), (scheduling, Status::Scheduling), (scheduled, Status::Scheduled)]
    {
        let Cancel::Cancelled { before, execution } = store.cancel_execution(id, &result).await.unwrap() else {
            panic!("{status} is not cancelled");
        };
        assert_eq!((before, execution.status, execution.result.as_ref()), (status, Status::Cancelled, Some(&result)));
        assert_eq!(*execution, world.row(id).await);
        assert_eq!(store.cancel_execution(id, &result).await.unwrap(), Cancel::Ended { execution });
    }

    let running = world.running().await.execution.id;
    let Cancel::Canceling { execution } = store.cancel_execution(running, &result).await.unwrap() else {
        panic!("not canceling");
    };
    assert_eq!((execution.status, execution.result.as_ref()), (Status::Canceling, None));
    assert_eq!(execution.worker, Some(world.worker.id));
    assert_eq!(store.cancel_execution(running, &result).await.unwrap(), Cancel::Already { execution });
}

/// Only action workers, by name.
pub async fn workers_come_with_their_load(lab: &dyn Lab) {
    let world = World::new(lab).await;
    let store = &world.store;
    let idle = store.register_worker(&worker("idle", WorkerRole::Action)).await.unwrap();
    store.register_worker(&worker("host", WorkerRole::Sensor)).await.unwrap();
    world.scheduled().await;
    let canceling = world.running().await.execution.id;
    store.cancel_execution(canceling, &json!({})).await.unwrap();
    let ended = world.running().await;
    store.finish_execution(&ended.fence, Status::Completed, &json!({}), &[]).await.unwrap();
    world.running().await;
    world.requested().await;

    lab.execute("UPDATE worker SET last_heartbeat = NULL WHERE name = 'idle'").await;
    let found = store.action_workers().await.unwrap();
    let loads: Vec<_> =
        found.iter().map(|found| (found.worker.id, found.load, found.heartbeat_age.is_some())).collect();
    assert_eq!(loads, [(idle.id, 0, false), (world.worker.id, 3, true)]);
    assert!(found[1].heartbeat_age.unwrap() < LONG);
    let page = store.workers(PageRequest { page: 1, page_size: 10 }).await.unwrap();
    let names: Vec<_> = page.items.iter().map(|worker| worker.name.as_str()).collect();
    assert_eq!((names, page.total), (vec!["host", "idle", "runner"], 3));
}

/// Newest executions first, rules and workers in their own order; the total is that of all pages.
pub async fn lists_come_in_pages(lab: &dyn Lab) {
    let world = World::new(lab).await;
    let store = &world.store;
    let mut ids = Vec::new();
    for _ in 0..5 {
        ids.push(world.requested().await.id);
    }
    world.schedule(ids[1], world.worker.id).await;
    let page = |page, page_size| PageRequest { page, page_size };
    let all = ExecutionFilter::default();
    let mut listed = Vec::new();
    for number in 1..=3 {
        let found = store.executions(&all, page(number, 2)).await.unwrap();
        assert_eq!(found.total, 5);
        listed.extend(found.items.iter().map(|view| view.execution.id));
    }
    ids.reverse();
    assert_eq!(listed, ids);
    assert_eq!(store.executions(&all, page(4, 2)).await.unwrap().items, []);

    let filter = ExecutionFilter {
        statuses: vec![Status::Scheduled, Status::Running],
        action_ref: Some("demo.echo".to_owned()),
    };
    let found = store.executions(&filter, page(1, 10)).await.unwrap();
    assert_eq!((found.items[0].execution.id, found.total), (ids[3], 1));
    let other = ExecutionFilter { action_ref: Some("demo.plain".to_owned()), ..all };
    assert_eq!(store.executions(&other, page(1, 10)).await.unwrap().total, 0);

    let trigger = store.trigger("demo.tick").await.unwrap().unwrap();
    let found = store.trigger_rules(trigger.id, page(1, 1)).await.unwrap();
    assert_eq!((found.items.len(), found.total), (1, 1));
    let found = store.trigger_rules(trigger.id, page(2, 1)).await.unwrap();
    assert_eq!((found.items.len(), found.total), (0, 1));
}

/// What a run sees of them is a contract of claims.
pub async fn keys_are_replaced_by_ref(lab: &dyn Lab) {
    let world = World::new(lab).await;
    let key = |r#ref: &str, owner, value: &str| NewKey {
        r#ref: r#ref.to_owned(),
        owner,
        name: r#ref.to_owned(),
        encrypted_value: json!(value),
        encryption_key_hash: "d1ge57".to_owned(),
    };
    world.store.put_key(&key("one", KeyOwner::System, "b2xk")).await.unwrap();
    world.store.put_key(&key("two", KeyOwner::System, "dHdv")).await.unwrap();
    world.store.put_key(&key("one", KeyOwner::Pack(world.pack.id), "bmV3")).await.unwrap();
    let seen = world.running().await.keys;
    let seen: Vec<_> = seen.iter().map(|key| (key.name.as_str(), &key.value, key.encrypted)).collect();
    assert_eq!(seen, [("two", &json!("dHdv"), true), ("one", &json!("bmV3"), true)]);
    assert_eq!(lab.number("SELECT count(*) FROM key WHERE owner_pack_ref = 'demo'").await, 1);
    world.store.ping().await.unwrap();
}

/// Identity 1 is the system's; retention of artifacts is the action's unless the caller says otherwise.
pub async fn identities_are_made_once(lab: &dyn Lab) {
    let world = World::new(lab).await;
    let store = &world.store;
    assert_eq!(store.system_identity().await.unwrap(), IdentityId(1));
    assert_eq!(store.system_identity().await.unwrap(), IdentityId(1));
    let subject = async |sensor_ref: &str| store.token_subject(sensor_ref).await.unwrap();
    let trigger_refs = vec!["demo.tick".to_owned(), "demo.tock".to_owned()];
    let unnamed = TokenSubject { trigger_refs, identity: None };
    assert_eq!(subject("demo.clock").await, Some(unnamed.clone()), "it is read and not made");
    assert_eq!(subject("demo.none").await, None);
    let sensor = store.identity("sensor:demo.clock").await.unwrap();
    assert_eq!(subject("demo.clock").await, Some(TokenSubject { identity: Some(sensor), ..unnamed }));
    assert_ne!(sensor, IdentityId(1));
    assert_eq!(store.identity("sensor:demo.clock").await.unwrap(), sensor);
    assert_eq!(store.identity("system").await.unwrap(), IdentityId(1));

    lab.execute("UPDATE action SET artifact_retention_policy = 'hours', artifact_retention_limit = 9").await;
    world.requested().await;
    let own = Retention { policy: Some(RetentionPolicy::Versions), limit: None };
    let new = NewExecution { artifact_retention: Some(own), executor: sensor, ..world.execution() };
    let row = store.insert_execution(&new).await.unwrap();
    assert_eq!(row.executor, Some(sensor));
    let copied = "SELECT count(*) FROM execution WHERE artifact_retention_policy = 'hours' \
                  AND artifact_retention_limit = 9";
    assert_eq!(lab.number(copied).await, 1);
    let given = "SELECT count(*) FROM execution WHERE artifact_retention_policy = 'versions' \
                 AND artifact_retention_limit IS NULL";
    assert_eq!(lab.number(given).await, 1);
}
