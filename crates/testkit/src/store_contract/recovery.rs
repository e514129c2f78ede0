//! What fell behind.

use std::time::Duration;

use attune_model::status::{ExecutionStatus as Status, WorkerRole, WorkerStatus};
use serde_json::json;

use super::Lab;
use super::seed::{LONG, World, worker};

/// Requests at once, half-done scheduling after a while.
pub async fn what_nobody_schedules_is_found(lab: &dyn Lab) {
    let world = World::new(lab).await;
    let store = &world.store;
    let stuck = world.requested().await.id;
    let first = world.requested().await.id;
    let second = world.requested().await.id;
    world.scheduled().await;
    world.running().await;
    store.claim_scheduling(stuck, LONG).await.unwrap().unwrap();
    assert_eq!(store.unscheduled(LONG, 10).await.unwrap(), [first, second]);
    assert_eq!(store.unscheduled(LONG, 1).await.unwrap(), [first]);
    assert_eq!(store.unscheduled(Duration::ZERO, 10).await.unwrap(), [first, second, stuck]);
}

/// A bus that forgot its messages has to be told all of them.
pub async fn scheduled_executions_come_in_portions_with_their_action(lab: &dyn Lab) {
    let world = World::new(lab).await;
    let mut ids = Vec::new();
    for _ in 0..5 {
        ids.push(world.scheduled().await.id);
    }
    world.requested().await;
    world.running().await;
    let mut found = Vec::new();
    let mut after = None;
    loop {
        let portion = world.store.scheduled(after, 2).await.unwrap();
        let Some((last, _)) = portion.last() else {
            break;
        };
        after = Some(last.id);
        assert!(portion.len() <= 2);
        assert!(portion.iter().all(|(_, action)| action.as_ref() == Some(&world.action)));
        found.extend(portion.iter().map(|(execution, _)| execution.id));
    }
    assert_eq!(found, ids);
    world.store.delete_pack("demo").await.unwrap().unwrap();
    assert_eq!(world.store.scheduled(None, 1).await.unwrap()[0].1, None);
}

/// Its age is measured by the store's clock.
pub async fn what_its_worker_did_not_start_is_overdue(lab: &dyn Lab) {
    let world = World::new(lab).await;
    let first = world.scheduled().await;
    let second = world.scheduled().await;
    world.requested().await;
    world.running().await;
    assert_eq!(world.store.overdue(LONG, 10).await.unwrap(), []);
    let overdue = world.store.overdue(Duration::ZERO, 10).await.unwrap();
    let rows: Vec<_> = overdue.iter().map(|overdue| &overdue.execution).collect();
    assert_eq!(rows, [&first, &second]);
    assert!(overdue[0].age >= overdue[1].age && overdue[0].age < LONG);
    assert_eq!(world.store.overdue(Duration::ZERO, 1).await.unwrap().len(), 1);
}

/// A worker is lost when it is gone, not active, or silent.
pub async fn executions_of_lost_workers_are_orphans(lab: &dyn Lab) {
    let world = World::new(lab).await;
    let store = &world.store;
    let running = world.running().await.execution.id;
    let canceling = world.running().await.execution.id;
    store.cancel_execution(canceling, &json!({})).await.unwrap();
    world.scheduled().await;
    let ended = world.running().await;
    store.finish_execution(&ended.fence, Status::Completed, &json!({}), &[]).await.unwrap();
    assert_eq!(store.orphans(LONG, 10).await.unwrap(), []);

    let ids =
        |orphans: &[attune_store::Orphan]| -> Vec<_> { orphans.iter().map(|orphan| orphan.execution.id).collect() };
    let silent = store.orphans(Duration::ZERO, 10).await.unwrap();
    assert_eq!(ids(&silent), [running, canceling]);
    assert!(silent[0].heartbeat_age.is_some());
    assert_eq!(ids(&store.orphans(Duration::ZERO, 1).await.unwrap()), [running]);

    for status in [WorkerStatus::Inactive, WorkerStatus::Error] {
        store.set_worker_status(world.worker.id, status).await.unwrap();
        let orphans = store.orphans(LONG, 10).await.unwrap();
        assert_eq!(ids(&orphans), [running, canceling]);
        assert_eq!(orphans[0].worker.as_ref().map(|worker| worker.status), Some(status));
    }
    store.set_worker_status(world.worker.id, WorkerStatus::Active).await.unwrap();
    lab.execute("UPDATE worker SET last_heartbeat = NULL").await;
    let orphans = store.orphans(LONG, 10).await.unwrap();
    assert_eq!((ids(&orphans), orphans[0].heartbeat_age), (vec![running, canceling], None));
    lab.execute("DELETE FROM worker").await;
    let orphans = store.orphans(LONG, 10).await.unwrap();
    assert_eq!((ids(&orphans), orphans[0].worker.as_ref()), (vec![running, canceling], None));
}

/// Of both roles; a second look finds nothing new.
pub async fn silent_workers_become_inactive_once(lab: &dyn Lab) {
    let world = World::new(lab).await;
    let store = &world.store;
    store.register_worker(&worker("host", WorkerRole::Sensor)).await.unwrap();
    let gone = store.register_worker(&worker("gone", WorkerRole::Action)).await.unwrap();
    store.set_worker_status(gone.id, WorkerStatus::Inactive).await.unwrap();
    assert_eq!(store.retire_silent_workers(LONG).await.unwrap(), []);
    let retired = store.retire_silent_workers(Duration::ZERO).await.unwrap();
    let names: Vec<_> = retired.iter().map(|worker| (worker.name.as_str(), worker.status)).collect();
    assert_eq!(names, [("host", WorkerStatus::Inactive), ("runner", WorkerStatus::Inactive)]);
    assert_eq!(store.retire_silent_workers(Duration::ZERO).await.unwrap(), []);
    assert!(store.heartbeat(world.worker.id, WorkerStatus::Active).await.unwrap());
    lab.execute("UPDATE worker SET last_heartbeat = NULL WHERE name = 'runner'").await;
    assert_eq!(store.retire_silent_workers(LONG).await.unwrap().len(), 1, "it never gave a sign");
}
