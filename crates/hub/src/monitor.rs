//! Lost workers and overdue executions, on a timer.

use std::sync::Arc;
use std::time::{Duration, Instant};

use attune_lifecycle::Stop;
use attune_model::rows::Worker;
use attune_model::status::ExecutionStatus;
use attune_store::{CANCELLED_TEXT, EventSource, ExecutionGuard, Intake, NewEvent, Orphan, Overdue, StoreError};
use chrono::{DateTime, Utc};
use serde_json::{Value, json};
use tokio::time::{MissedTickBehavior, interval_at};

use crate::core::Core;
use crate::events;

/// The trigger of alerts; a fact of the platform.
const ALERT_TRIGGER: &str = "core.alert";

/// Who raises them; a fact of the platform.
const ALERT_SOURCE: &str = "attune.system";

/// Who ends executions; a fact of the platform.
const MONITOR: &str = "execution_timeout_monitor";

/// Rows per look.
const BATCH: u32 = 500;

/// Looks until the stop.
pub(crate) async fn run(core: Arc<Core>, stop: Stop) {
    let period = core.config.monitor_period;
    // The first look comes a period after the start: until then workers that live give a sign.
    let mut tick = interval_at(tokio::time::Instant::now() + period, period);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut pace = Pace::new(core.now());
    loop {
        tokio::select! {
            biased;
            () = stop.soft().cancelled() => return,
            _ = tick.tick() => {}
        }
        if pace.has_jumped(core.now(), core.config.heartbeat_limit) {
            tracing::warn!("the clock jumped, perhaps this machine slept; workers get time to give a sign of life");
            continue;
        }
        look(&core, &stop).await;
    }
}

/// Notices that the time of day went on while the machine stood still: every heartbeat then looks old.
#[derive(Debug)]
struct Pace {
    day: DateTime<Utc>,
    steady: Instant,
}

impl Pace {
    fn new(now: DateTime<Utc>) -> Self {
        Self { day: now, steady: Instant::now() }
    }

    fn has_jumped(&mut self, now: DateTime<Utc>, limit: Duration) -> bool {
        let last = std::mem::replace(self, Self::new(now));
        let by_day = now.signed_duration_since(last.day).to_std().unwrap_or_default();
        by_day.saturating_sub(self.steady.duration_since(last.steady)) > limit / 2
    }
}

async fn look(core: &Core, stop: &Stop) {
    let checks = [
        ("look for silent workers", silent_workers(core).await),
        ("look for overdue executions", overdue(core, stop).await),
        ("look for executions of lost workers", orphans(core, stop).await),
    ];
    for (operation, outcome) in checks {
        if let Err(error) = outcome {
            let error: &dyn std::error::Error = &error;
            tracing::error!(error, operation, "storage failed; trying again later");
        }
    }
}

async fn silent_workers(core: &Core) -> Result<(), StoreError> {
    for worker in core.store.retire_silent_workers(core.config.heartbeat_limit).await? {
        tracing::warn!(worker = worker.name, last = ?worker.last_heartbeat, "worker is silent; inactive from now on");
        alert(core, &worker).await?;
    }
    Ok(())
}

/// Raises `core.alert`; skipped where that trigger is not loaded.
async fn alert(core: &Core, worker: &Worker) -> Result<(), StoreError> {
    let limit = core.config.heartbeat_limit.as_secs();
    let event = NewEvent {
        trigger_ref: ALERT_TRIGGER.to_owned(),
        config: None,
        payload: Some(json!({
            "severity": "critical",
            "category": "worker",
            "failure_type": "heartbeat_lost",
            "component_type": "worker",
            "component_id": worker.id,
            "component_ref": worker.name,
            "worker_role": worker.role,
            "observed_at": core.now(),
            "summary": format!("worker {} gave no sign of life for {limit} s", worker.name),
            "details": {"last_heartbeat": worker.last_heartbeat, "limit_seconds": limit},
            "correlation_id": format!("worker:{}:heartbeat_lost", worker.id),
        })),
        source_ref: Some(ALERT_SOURCE.to_owned()),
        rule: None,
    };
    match events::take(core, EventSource::New(&event)).await? {
        Intake::Taken { .. } => {}
        Intake::UnknownTrigger | Intake::UnknownEvent => {
            tracing::debug!("no trigger {ALERT_TRIGGER} is loaded");
        }
    }
    Ok(())
}

/// `scheduled` rows that their worker did not start.
async fn overdue(core: &Core, stop: &Stop) -> Result<(), StoreError> {
    let limit = core.config.scheduled_limit;
    for Overdue { execution, age } in core.store.overdue(limit, BATCH).await? {
        if stop.soft().is_cancelled() {
            break;
        }
        let result = json!({
            "succeeded": false,
            "error": format!("Execution was not started by its worker within {} seconds of scheduling", limit.as_secs()),
            "failed_by": MONITOR,
            "timeout_seconds": limit.as_secs(),
            "age_seconds": age.as_secs(),
            "original_status": ExecutionStatus::Scheduled,
        });
        end(core, &ExecutionGuard::from(&execution), ExecutionStatus::Failed, &result).await?;
    }
    Ok(())
}

/// Executions whose worker cannot end them any more.
async fn orphans(core: &Core, stop: &Stop) -> Result<(), StoreError> {
    for orphan in core.store.orphans(core.config.heartbeat_limit, BATCH).await? {
        if stop.soft().is_cancelled() {
            break;
        }
        let reason = reason(&orphan);
        let before = orphan.execution.status;
        let (status, error) = match before {
            ExecutionStatus::Canceling => (ExecutionStatus::Cancelled, format!("{CANCELLED_TEXT}; {reason}")),
            _ => (ExecutionStatus::Abandoned, format!("Execution abandoned: {reason}")),
        };
        let mut result = json!({
            "succeeded": false,
            "error": error,
            "abandoned_by": MONITOR,
            "worker_id": orphan.execution.worker,
            "heartbeat_age_seconds": orphan.heartbeat_age.map(|age| age.as_secs()),
            "original_status": before,
        });
        if status == ExecutionStatus::Cancelled {
            result["cancelled"] = Value::Bool(true);
        }
        end(core, &ExecutionGuard::from(&orphan.execution), status, &result).await?;
    }
    Ok(())
}

fn reason(orphan: &Orphan) -> String {
    match (&orphan.worker, orphan.heartbeat_age) {
        (None, _) => "its worker does not exist any more".to_owned(),
        (Some(worker), None) => format!("worker {} never gave a sign of life", worker.name),
        (Some(worker), Some(age)) => {
            format!(
                "worker {} is {} and gave its last sign of life {} s ago",
                worker.name,
                worker.status,
                age.as_secs()
            )
        }
    }
}

async fn end(core: &Core, guard: &ExecutionGuard, status: ExecutionStatus, result: &Value) -> Result<(), StoreError> {
    if let Some(execution) = core.end(guard, status, result).await? {
        let error = result["error"].as_str();
        tracing::warn!(execution = execution.id.0, action = execution.action_ref, %status, error, "execution ended");
    } else {
        tracing::debug!(execution = guard.execution.0, "somebody else ended the execution");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clock_that_leaps_is_noticed_once_and_one_that_walks_is_not() {
        let start = DateTime::from_timestamp(1_700_000_000, 0).unwrap();
        let limit = Duration::from_secs(90);
        let mut pace = Pace::new(start);
        assert!(!pace.has_jumped(start, limit));
        let leap = start + Duration::from_mins(10);
        assert!(pace.has_jumped(leap, limit));
        assert!(!pace.has_jumped(leap, limit));
        assert!(!pace.has_jumped(start, limit), "a clock that is set back makes nothing look old");
    }
}
