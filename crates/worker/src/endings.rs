//! Terminal statuses: written as long as it takes, once, and by the one who owns the run.

use std::path::Path;
use std::time::Duration;

use attune_lifecycle::Backoff;
use attune_model::ExecutionId;
use attune_model::measure::{FinishAnswer, Measure};
use attune_model::rows::Execution;
use attune_model::status::ExecutionStatus;
use attune_store::{Decision, Fence, SecretValue};
use serde_json::{Value, json};
use tokio::time::{Instant, sleep};

use crate::announce::End;
use crate::logs::{LogOwner, chain};
use crate::result::CANCELLED_TEXT;
use crate::shared::Shared;

/// An end to be written.
#[derive(Debug)]
pub(crate) struct Ended {
    /// The right to write it.
    pub(crate) fence: Fence,
    /// The status.
    pub(crate) status: ExecutionStatus,
    /// The result.
    pub(crate) result: Value,
    /// Its secret parts.
    pub(crate) secrets: Vec<SecretValue>,
}

/// Writes the end of a run, however long storage is away. Returns what is in the row; none when it is not ours.
pub(crate) async fn write_end(shared: &Shared, end: Ended) -> Option<(ExecutionStatus, Value)> {
    let begun = Instant::now();
    let (answer, written) = match write(shared, end).await {
        Written::Ours(status, result) => (FinishAnswer::Written, Some((status, result))),
        Written::NotOurs => (FinishAnswer::NotOurs, None),
        Written::GivenUp => (FinishAnswer::GivenUp, None),
    };
    shared.observer.measure(Measure::Finish { answer, took: begun.elapsed() });
    written
}

/// What became of an end.
enum Written {
    /// It is in the row, as this.
    Ours(ExecutionStatus, Value),
    /// Somebody else has ended the execution.
    NotOurs,
    /// It is not in the row.
    GivenUp,
}

async fn write(shared: &Shared, mut end: Ended) -> Written {
    let mut backoff = Backoff::new(Duration::from_millis(100), Duration::from_secs(5));
    let mut reduced = false;
    loop {
        let written = shared.store.finish_execution(&end.fence, end.status, &end.result, &end.secrets).await;
        let error = match written {
            Ok(true) => return Written::Ours(end.status, end.result),
            Ok(false) if backoff.attempts() > 0 && is_written(shared, &end).await => {
                return Written::Ours(end.status, end.result);
            }
            Ok(false) => {
                tracing::warn!(status = %end.status, "result dropped: the execution was ended by somebody else");
                return Written::NotOurs;
            }
            Err(error) => error,
        };
        if error.decision() == Decision::Fail {
            if reduced {
                tracing::error!(error = chain(&error), "the end of the execution cannot be stored");
                return Written::GivenUp;
            }
            tracing::error!(error = chain(&error), "result cannot be stored; the execution ends as failed");
            reduced = true;
            end.status = ExecutionStatus::Failed;
            end.result = json!({"succeeded": false, "error": format!("result could not be stored: {}", chain(&error))});
            end.secrets.clear();
            continue;
        }
        tracing::warn!(error = chain(&error), "the end of the execution cannot be stored, trying again");
        if !shared.patience.wait(backoff.next_delay()).await {
            tracing::error!("the end of the execution is not stored; the next start of this worker ends it");
            return Written::GivenUp;
        }
    }
}

/// Whether an earlier attempt, whose answer was lost, has written this end.
async fn is_written(shared: &Shared, end: &Ended) -> bool {
    matches!(shared.store.execution_status(end.fence.execution).await, Ok(Some(status)) if status == end.status)
}

/// Ends what is running under this worker's id without being in hand: all of it, or `only` one.
///
/// Nothing is run again silently: the action may have had its effect.
pub(crate) async fn end_unfinished(shared: &Shared, only: Option<ExecutionId>, reason: &str) {
    let mut backoff = Backoff::new(Duration::from_millis(100), Duration::from_secs(5));
    let unfinished = loop {
        match shared.store.unfinished_executions(shared.id).await {
            Ok(unfinished) => break unfinished,
            Err(error) => tracing::warn!(error = chain(&error), "unfinished executions cannot be read, trying again"),
        }
        tokio::select! {
            () = sleep(backoff.next_delay()) => {}
            () = shared.stop.soft().cancelled() => return,
        }
    };
    for (fence, execution) in unfinished {
        if only.is_none_or(|only| only == execution.id) {
            end_one(shared, fence, &execution, reason).await;
        }
    }
}

async fn end_one(shared: &Shared, fence: Fence, execution: &Execution, reason: &str) {
    let owner = LogOwner::new(execution, None, shared.executor.config().log_retention);
    let stderr_log = shared.logs.file(&*shared.store, &owner).await;
    let (status, mut result) = if execution.status == ExecutionStatus::Canceling {
        let result = json!({"succeeded": false, "cancelled": true, "error": CANCELLED_TEXT});
        (ExecutionStatus::Cancelled, result)
    } else {
        (ExecutionStatus::Abandoned, json!({"succeeded": false, "error": reason}))
    };
    if let (Some(path), Some(result)) = (stderr_log.as_deref().and_then(Path::to_str), result.as_object_mut()) {
        result.insert("stderr_log".to_owned(), path.into());
    }
    tracing::warn!(execution.id = %execution.id, action = execution.action_ref, %status, reason, "execution ended without a result");
    let end = Ended { fence, status, result, secrets: Vec::new() };
    let Some((status, result)) = write_end(shared, end).await else {
        return;
    };
    shared.observer.measure(Measure::ExecutionEnded { status, took: None });
    let end = End { execution, previous: execution.status, action: None, status, result: &result };
    shared.announcer.ended(&end, &shared.patience).await;
}
