//! Ending executions, and what an earlier life left behind.

use attune_model::status::ExecutionStatus;
use attune_model::{ExecutionId, WorkerId};
use attune_store::{ExecutionGuard, Fence};
use chrono::TimeDelta;
use serde_json::json;

use super::Lab;
use super::seed::{World, secret};

const SECRETS: &str = "SELECT count(*) FROM execution_secret_value WHERE entity_type = 'execution_result'";

/// A second end of the same run is dropped.
pub async fn an_end_is_written_once(lab: &dyn Lab) {
    let world = World::new(lab).await;
    let fence = world.running().await.fence;
    let result = json!({"succeeded": true, "exit_code": 0, "data": {"z": 1, "a": [null, "ü\n"]}});
    assert!(world.store.finish_execution(&fence, ExecutionStatus::Completed, &result, &[]).await.unwrap().is_some());
    let row = world.row(fence.execution).await;
    assert_eq!(row.status, ExecutionStatus::Completed);
    assert_eq!(row.result.as_ref(), Some(&result));
    assert_eq!(world.store.finish_execution(&fence, ExecutionStatus::Failed, &json!({}), &[]).await.unwrap(), None);
    assert_eq!(world.row(fence.execution).await, row);
}

/// Worker and start both count.
pub async fn only_the_claim_that_runs_may_end_the_run(lab: &dyn Lab) {
    let world = World::new(lab).await;
    let fence = world.running().await.fence;
    let before = world.row(fence.execution).await;
    let microsecond = TimeDelta::microseconds(1);
    for wrong in [
        Fence { worker: WorkerId(fence.worker.0 + 1), ..fence },
        Fence { started_at: fence.started_at + microsecond, ..fence },
        Fence { started_at: fence.started_at - microsecond, ..fence },
    ] {
        assert_eq!(
            world.store.finish_execution(&wrong, ExecutionStatus::Completed, &json!({}), &[]).await.unwrap(),
            None
        );
    }
    assert_eq!(world.row(fence.execution).await, before);
    assert!(world.store.finish_execution(&fence, ExecutionStatus::Completed, &json!({}), &[]).await.unwrap().is_some());
}

/// Somebody took the execution away while it ran.
pub async fn an_end_after_somebody_elses_end_is_dropped(lab: &dyn Lab) {
    let world = World::new(lab).await;
    for end in [ExecutionStatus::Abandoned, ExecutionStatus::Cancelled, ExecutionStatus::Failed] {
        let claimed = world.running().await;
        let guard = ExecutionGuard::from(&claimed.execution);
        world.store.end_execution(&guard, end, &json!({"by": "monitor"})).await.unwrap().unwrap();
        let late =
            world.store.finish_execution(&claimed.fence, ExecutionStatus::Completed, &json!({"late": true}), &[]).await;
        assert_eq!(late.unwrap(), None);
        let row = world.row(claimed.execution.id).await;
        assert_eq!((row.status, row.result), (end, Some(json!({"by": "monitor"}))));
    }
}

/// The cancel came first, and whoever asked for it was told so: no other end takes its place.
pub async fn a_run_that_is_being_cancelled_ends_as_cancelled(lab: &dyn Lab) {
    let world = World::new(lab).await;
    let result = json!({"succeeded": true, "exit_code": 0, "data": {"z": 1}, "error": "late"});
    let cancelled = json!({"succeeded": false, "cancelled": true, "exit_code": 0, "data": {"z": 1},
                           "error": "Execution cancelled by user"});
    for end in ExecutionStatus::ALL.iter().copied().filter(|status| status.is_terminal()) {
        let fence = world.running().await.fence;
        world.store.cancel_execution(fence.execution, &json!({})).await.unwrap();
        let written = world.store.finish_execution(&fence, end, &result, &[]).await.unwrap().unwrap();
        let row = world.row(fence.execution).await;
        assert_eq!(written, row.status, "{end}");
        let (status, kept) = match end {
            ExecutionStatus::Abandoned | ExecutionStatus::Cancelled => (end, &result),
            _ => (ExecutionStatus::Cancelled, &cancelled),
        };
        assert_eq!((row.status, row.result.as_ref()), (status, Some(kept)), "{end}");
    }
}

/// Result and secrets belong together.
pub async fn secrets_are_written_with_the_end_or_not_at_all(lab: &dyn Lab) {
    let world = World::new(lab).await;
    let fence = world.running().await.fence;
    let secrets = [secret("/data/token", "b25l"), secret("/data/key", "dHdv"), secret("/data/key", "bmV3")];
    let wrong = Fence { started_at: fence.started_at + TimeDelta::microseconds(1), ..fence };
    assert_eq!(
        world.store.finish_execution(&wrong, ExecutionStatus::Completed, &json!({}), &secrets).await.unwrap(),
        None
    );
    assert_eq!(lab.number(SECRETS).await, 0);
    assert!(
        world.store.finish_execution(&fence, ExecutionStatus::Completed, &json!({}), &secrets).await.unwrap().is_some()
    );
    assert_eq!(lab.number(SECRETS).await, 2, "one for each path, the last one counts");
    let newest = format!("{SECRETS} AND json_path = '/data/key' AND encrypted_value = '\"bmV3\"'");
    assert_eq!(lab.number(&newest).await, 1);
}

/// A run cannot end in a state that is no end.
pub async fn a_status_that_is_no_end_is_refused(lab: &dyn Lab) {
    let world = World::new(lab).await;
    let fence = world.running().await.fence;
    let before = world.row(fence.execution).await;
    for status in ExecutionStatus::ALL.iter().copied().filter(|status| !status.is_terminal()) {
        world.store.finish_execution(&fence, status, &json!({}), &[]).await.unwrap_err();
        world.store.end_execution(&ExecutionGuard::from(&before), status, &json!({})).await.unwrap_err();
    }
    assert_eq!(world.row(fence.execution).await, before);
}

/// With fences that still hold, so that the new life can end them.
pub async fn an_earlier_life_left_what_was_running_or_canceling(lab: &dyn Lab) {
    let world = World::new(lab).await;
    let running = world.running().await;
    let canceling = world.running().await;
    world.store.cancel_execution(canceling.execution.id, &json!({})).await.unwrap();
    let ended = world.running().await;
    assert!(
        world.store.finish_execution(&ended.fence, ExecutionStatus::Failed, &json!({}), &[]).await.unwrap().is_some()
    );
    world.scheduled().await;

    assert_eq!(world.store.unfinished_executions(WorkerId(4711)).await.unwrap(), []);
    let left = world.store.unfinished_executions(world.worker.id).await.unwrap();
    let fences: Vec<Fence> = left.iter().map(|(fence, _)| *fence).collect();
    assert_eq!(fences, [running.fence, canceling.fence]);
    assert_eq!(left[0].1, running.execution);
    assert_eq!(left[1].1.status, ExecutionStatus::Canceling);
    for fence in fences {
        assert!(
            world.store.finish_execution(&fence, ExecutionStatus::Abandoned, &json!({}), &[]).await.unwrap().is_some()
        );
    }
    assert_eq!(world.store.unfinished_executions(world.worker.id).await.unwrap(), []);
}

/// Also what is to be cancelled before it ever started: nobody else would end it.
pub async fn what_was_scheduled_is_told_again_oldest_first(lab: &dyn Lab) {
    let world = World::new(lab).await;
    let first = world.requested().await;
    let second = world.requested().await;
    let third = world.requested().await;
    for execution in [&third, &first, &second] {
        world.schedule(execution.id, world.worker.id).await;
    }
    world.running().await;
    lab.execute(&format!("UPDATE execution SET status = 'canceling' WHERE id = {}", second.id)).await;
    let scheduled = world.store.scheduled_executions(world.worker.id).await.unwrap();
    assert_eq!(scheduled, [first.id, second.id, third.id]);
    assert_eq!(world.store.scheduled_executions(WorkerId(4711)).await.unwrap(), []);
}

/// A worker that died between an end and its logs finds them by their folders; those of others are not its own.
pub async fn ended_executions_of_a_worker_are_told_from_others(lab: &dyn Lab) {
    let world = World::new(lab).await;
    let me = world.worker.id;
    let (ended, running) = (world.running().await, world.running().await.execution.id);
    let fence = ended.fence;
    assert!(
        world.store.finish_execution(&fence, ExecutionStatus::Failed, &json!({"a": 1}), &[]).await.unwrap().is_some()
    );
    let asked = [running, ExecutionId(4711), fence.execution, world.requested().await.id];
    assert_eq!(world.store.ended_executions(me, &asked).await.unwrap(), [world.row(fence.execution).await]);
    assert_eq!(world.store.ended_executions(WorkerId(me.0 + 1), &asked).await.unwrap(), []);
    assert_eq!(world.store.ended_executions(me, &[]).await.unwrap(), []);
}
