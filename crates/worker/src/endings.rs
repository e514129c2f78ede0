//! Terminal statuses: written as long as it takes, once, and by the one who owns the run; then announced.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use attune_lifecycle::Backoff;
use attune_model::measure::{FinishAnswer, Measure};
use attune_model::rows::Execution;
use attune_model::status::ExecutionStatus;
use attune_model::{ActionId, ExecutionId, chain};
use attune_store::{Decision, Fence, SecretValue, StoreError, cancelled_result, cancelled_status};
use serde_json::{Value, json};
use tokio::time::{Instant, sleep, timeout};
use tracing::Instrument as _;

use crate::announce::End;
use crate::filing::{Entered, Placed};
use crate::logs::LogOwner;
use crate::patience::trying_again;
use crate::running;
use crate::shared::Shared;
use crate::spool::Kept;
use crate::untold::Owed;

/// How long an end is not announced because its files are under way to the API. Who hears of it looks for them, but the slot
/// of the platform's scheduler waits for it as well.
pub(crate) const PLACES_LIMIT: Duration = Duration::from_secs(5);

/// An end to be written.
#[derive(Debug)]
pub(crate) struct Ended {
    /// The right to write it.
    pub(crate) fence: Fence,
    /// The row as the run saw it.
    pub(crate) execution: Execution,
    /// The action, when the row does not name it.
    pub(crate) action: Option<ActionId>,
    /// The status.
    pub(crate) status: ExecutionStatus,
    /// The result.
    pub(crate) result: Value,
    /// Its secret parts.
    pub(crate) secrets: Vec<SecretValue>,
    /// Whose logs are to be filed with it; none when they are.
    pub(crate) logs: Option<LogOwner>,
    /// Logs that are entered but whose files have no place yet.
    pub(crate) entered: Option<(LogOwner, Entered)>,
    /// What it counts as until it is written; none for the end of an earlier life.
    pub(crate) running: Option<running::Entered>,
    /// To be announced; none before it is about to be written.
    pub(crate) owed: Option<Owed>,
}

/// Writes an end that an earlier life left, and then tells it.
pub(crate) async fn end(shared: &Arc<Shared>, end: Ended, kept: Option<Kept>) {
    // The start of a worker does not wait for files of its earlier life.
    if let Some(written) = write_end(shared, end, kept, Duration::ZERO).await {
        shared.observer.measure(Measure::ExecutionEnded { status: written.status, took: None });
        tell(shared, written).await;
    }
}

/// Tells a written end.
pub(crate) async fn tell(shared: &Shared, mut end: Ended) {
    let owed = end.owed.take();
    let told = End { execution: &end.execution, action: end.action, status: end.status, result: &end.result };
    shared.announcer.ended(&told, owed, &shared.patience).await;
}

/// Announces what an earlier life has written and perhaps could not announce.
pub(crate) async fn tell_untold(shared: &Shared) {
    let mut owed = shared.untold.left();
    if owed.is_empty() {
        return;
    }
    let left: Vec<ExecutionId> = owed.keys().copied().collect();
    let read = || shared.store.ended_executions(shared.id, &left);
    let Some(ended) = shared.patience.insist("ends that were not announced cannot be read", read).await else { return };
    // Who ends an execution in a worker's place announces it as well.
    let own = |status| !matches!(status, ExecutionStatus::Abandoned | ExecutionStatus::Timeout);
    for execution in ended.iter().filter(|execution| own(execution.status)) {
        tracing::info!(execution.id = %execution.id, status = %execution.status, "an earlier life may not have announced this end");
        let result = execution.result.as_ref().unwrap_or(&Value::Null);
        let end = End { execution, action: None, status: execution.status, result };
        shared.announcer.ended(&end, owed.remove(&execution.id), &shared.patience).await;
    }
    // Of these there is nothing to be said.
    owed.into_values().for_each(Owed::settle);
}

/// Writes an end, however long storage is away; `kept` is where it is on disk already. Returns what is in the row; none
/// when it is not ours, or when it has to wait for the next life of the worker. Its files get `patience` to arrive.
pub(crate) async fn write_end(
    shared: &Arc<Shared>,
    mut end: Ended,
    mut kept: Option<Kept>,
    patience: Duration,
) -> Option<Ended> {
    let begun = Instant::now();
    if let Some(owner) = end.logs.as_ref().filter(|_| !shared.filing.is_instant()) {
        shared.filing.logs().mark(owner.execution());
    }
    let owed = shared.untold.owe(end.fence.execution);
    let answer = write(shared, &mut end, &mut kept).await;
    shared.observer.measure(Measure::Finish { answer, took: begun.elapsed() });
    if let Some(kept) = kept
        && answer != FinishAnswer::GivenUp
    {
        kept.remove();
    }
    // Whatever became of the row: their versions are there.
    if let Some((owner, entered)) = end.entered.take() {
        place_soon(shared, owner, entered, patience).await;
    }
    if answer != FinishAnswer::Written {
        owed.settle();
        return None;
    }
    end.owed = Some(owed);
    Some(end)
}

/// Waits until the files of an end are in their places, but no longer than `patience`.
async fn place_soon(shared: &Arc<Shared>, owner: LogOwner, entered: Entered, patience: Duration) {
    let (own, on_their_way) = (shared.clone(), shared.filing.begin(owner.execution()));
    let placing = async move {
        let given_up = own.stop.hard().child_token();
        // A stop waits for nothing else, perhaps.
        let out_of_time = async {
            own.stop.soft().cancelled().await;
            sleep(PLACES_LIMIT).await;
            given_up.cancel();
        };
        let place = own.filing.place(&owner, entered, &given_up);
        tokio::pin!(place);
        tokio::select! {
            _placed = &mut place => {}
            () = out_of_time => drop(place.await),
        }
        drop(on_their_way);
    };
    match timeout(patience, shared.tasks.spawn(placing.in_current_span())).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => tracing::error!(%error, "filing logs panicked; this is a bug of the worker"),
        Err(_elapsed) => tracing::info!("the end is announced, and its logs are still under way to the API"),
    }
}

async fn write(shared: &Shared, end: &mut Ended, kept: &mut Option<Kept>) -> FinishAnswer {
    let mut backoff = Backoff::new(Duration::from_millis(100), Duration::from_secs(5));
    let mut reduced = false;
    let was_kept = kept.is_some();
    // A process that has to go waits no longer for storage than storage may take for one answer.
    if !was_kept && shared.stop.soft().is_cancelled() {
        *kept = shared.spool.keep(end).await;
    }
    loop {
        let written = match store(shared, end).await {
            // The answer to an earlier attempt may be what was lost.
            Ok(None) if backoff.attempts() > 0 || was_kept => found_written(shared, end).await,
            other => other,
        };
        let error = match written {
            Ok(Some(status)) => {
                if status != end.status {
                    tracing::info!(status = %end.status, "execution was cancelled before its end could be written");
                    end.result = cancelled_result(&end.result);
                    end.status = status;
                }
                return FinishAnswer::Written;
            }
            Ok(None) => {
                tracing::warn!(execution.id = %end.fence.execution, status = %end.status, "result dropped: the execution was ended by somebody else");
                return FinishAnswer::NotOurs;
            }
            Err(error) => error,
        };
        if error.decision() == Decision::Fail {
            if reduced {
                tracing::error!(error = chain(&error), "the end of the execution cannot be stored");
                return FinishAnswer::GivenUp;
            }
            tracing::error!(error = chain(&error), "result cannot be stored; the execution ends as failed");
            reduced = true;
            reduce(end, &error);
            continue;
        }
        trying_again(&backoff, "the end of the execution cannot be stored", &error);
        if !was_kept && backoff.attempts() == 0 {
            if kept.is_none() {
                *kept = shared.spool.keep(end).await;
            }
            if kept.is_some() {
                shared.observer.measure(Measure::ResultSpooled);
            }
        }
        if !shared.patience.wait(backoff.next_delay()).await {
            tracing::error!("the end of the execution is not stored; the next start of this worker sees to it");
            return FinishAnswer::GivenUp;
        }
    }
}

/// One attempt. Where standard error is has to be in the result, so its logs come first; others are filed at the same time.
async fn store(shared: &Shared, end: &mut Ended) -> Result<Option<ExecutionStatus>, StoreError> {
    if let Some(owner) = end.logs.take_if(|owner| shared.filing.logs().has_stderr(owner)) {
        match shared.filing.enter(&owner).await {
            Ok(entered) => {
                let path = entered.stderr_log.as_deref().and_then(Path::to_str).map(Value::from);
                if let (Some(path), Some(result)) = (path, end.result.as_object_mut()) {
                    result.insert("stderr_log".to_owned(), path);
                }
                place(shared, end, owner, entered).await;
            }
            // Storage is away: the result would not be stored either.
            Err(error) if error.decision == Decision::Retry => {
                end.logs = Some(owner.again());
                let operation = format!("file the logs of execution {}", end.fence.execution);
                return Err(StoreError::Unavailable { operation, source: Box::new(error) });
            }
            // Logs never decide about an execution.
            Err(_reported) => {}
        }
    }
    let running = &mut end.running;
    let finish = async {
        let finished = shared.store.finish_execution(&end.fence, end.status, &end.result, &end.secrets).await;
        if finished.is_ok() {
            *running = None;
        }
        finished
    };
    let Some(owner) = end.logs.clone() else {
        return finish.await;
    };
    let (finished, entered) = tokio::join!(finish, shared.filing.enter(&owner));
    match entered {
        Ok(entered) => {
            end.logs = None;
            place(shared, end, owner, entered).await;
        }
        Err(_reported) => end.logs = Some(owner.again()),
    }
    finished
}

/// Gives entered logs their places, at once where that costs nothing, else when the row is written.
async fn place(shared: &Shared, end: &mut Ended, owner: LogOwner, entered: Entered) {
    if shared.filing.is_instant() {
        let _what_is_left_is_found: Placed = shared.filing.place(&owner, entered, shared.stop.hard()).await;
    } else {
        end.entered = Some((owner, entered));
    }
}

fn reduce(end: &mut Ended, error: &StoreError) {
    end.status = ExecutionStatus::Failed;
    end.result = json!({"succeeded": false, "error": format!("result could not be stored: {}", chain(error))});
    end.secrets.clear();
}

/// What an earlier attempt, whose answer was lost, has written: this end, or that of a cancel before it.
async fn found_written(shared: &Shared, end: &Ended) -> Result<Option<ExecutionStatus>, StoreError> {
    let status = shared.store.execution_status(end.fence.execution).await?;
    Ok(status.filter(|status| [end.status, cancelled_status(end.status)].contains(status)))
}

/// Writes the ends that an earlier life could only keep on disk, unless their rows moved on.
pub(crate) async fn write_kept(shared: &Arc<Shared>) {
    for path in shared.spool.left().await {
        // One at a time: together they may be larger than memory.
        let Some((kept, ended)) = shared.spool.read(path).await else { continue };
        if ended.fence.worker != shared.id {
            tracing::warn!(worker = %ended.fence.worker, "entry of the spool belongs to another worker");
            continue;
        }
        tracing::info!(execution.id = %ended.fence.execution, status = %ended.status, "result was kept on disk");
        tokio::select! {
            () = end(shared, ended, Some(kept)) => {}
            () = shared.stop.soft().cancelled() => return,
        }
    }
}

/// Ends what is running under this worker's id without being in hand: all of it, or `only` one.
///
/// Nothing is run again silently: the action may have had its effect.
pub(crate) async fn end_unfinished(
    shared: &Arc<Shared>,
    only: Option<ExecutionId>,
    (status, reason): (ExecutionStatus, &str),
) {
    let read = || shared.store.unfinished_executions(shared.id);
    let Some(unfinished) = shared.patience.insist("unfinished executions cannot be read", read).await else { return };
    let ends = |id| only.map_or_else(|| !shared.cancellations.has(id), |only| only == id);
    for (fence, execution) in unfinished {
        if ends(execution.id) {
            end_one(shared, fence, execution, (status, reason)).await;
        }
    }
}

async fn end_one(shared: &Arc<Shared>, fence: Fence, execution: Execution, (status, reason): (ExecutionStatus, &str)) {
    let (status, result) = if execution.status == ExecutionStatus::Canceling {
        (ExecutionStatus::Cancelled, cancelled_result(&Value::Null))
    } else {
        (status, json!({"succeeded": false, "error": reason}))
    };
    tracing::warn!(execution.id = %execution.id, action = execution.action_ref, %status, reason, "execution ended without a result");
    let logs = match left_owner(shared, &execution).await {
        Ok(owner) => Some(owner),
        Err(error) => {
            tracing::warn!(error = chain(&error), "logs of the execution are filed later");
            shared.filing.leave();
            None
        }
    };
    let ended = Ended {
        fence,
        execution,
        action: None,
        status,
        result,
        secrets: Vec::new(),
        logs,
        entered: None,
        running: None,
        owed: None,
    };
    end(shared, ended, None).await;
}

/// The owner of logs that an earlier life has left. How long they are kept is for their action to say, as ever.
async fn left_owner(shared: &Shared, execution: &Execution) -> Result<LogOwner, StoreError> {
    let pack_ref = execution.action_ref.split('.').next();
    let packs = match shared.store.packs_with_actions(pack_ref).await {
        Err(error) if error.decision() == Decision::Fail => {
            tracing::warn!(error = chain(&error), "logs are kept as long as those of actions that say nothing");
            Vec::new()
        }
        packs => packs?,
    };
    let action = packs.iter().flat_map(|(_, actions)| actions).find(|action| action.r#ref == execution.action_ref);
    Ok(LogOwner::new(execution, action, shared.executor.config().log_retention).again())
}

/// Files the logs of executions that have ended, whoever ended them, and whose files are still where they were written.
pub(crate) async fn file_left_logs(shared: &Shared) {
    let filing = &shared.filing;
    let Ok(_looking) = filing.looking.try_lock() else { return };
    filing.begin_to_look();
    let placed = file_left(shared).await.unwrap_or_else(|error| {
        tracing::warn!(error = chain(&error), "logs that were left cannot be filed yet");
        Placed::NothingGoes
    });
    if placed != Placed::Completely {
        filing.leave();
    }
    if placed != Placed::NothingGoes {
        filing.remove_expired(shared.stop.soft()).await;
    }
}

/// One at a time, and only until nothing goes any more: the next heartbeat is soon enough.
async fn file_left(shared: &Shared) -> Result<Placed, StoreError> {
    let mut placed = Placed::Completely;
    let left = shared.filing.logs().left();
    if left.is_empty() {
        return Ok(placed);
    }
    for execution in shared.store.ended_executions(shared.id, &left).await? {
        let one = file_one_left(shared, &execution).await?;
        if one == Placed::Completely {
            tracing::info!(execution.id = %execution.id, "logs filed that were left");
        }
        placed = placed.max(one);
        if placed == Placed::NothingGoes {
            break;
        }
    }
    Ok(placed)
}

async fn file_one_left(shared: &Shared, execution: &Execution) -> Result<Placed, StoreError> {
    // Whoever has it in hand may leave it yet.
    if shared.cancellations.has(execution.id) {
        return Ok(Placed::InPart);
    }
    let Some(_on_their_way) = shared.filing.begin(execution.id) else { return Ok(Placed::InPart) };
    let owner = left_owner(shared, execution).await?;
    match shared.filing.enter(&owner).await {
        Ok(entered) => Ok(shared.filing.place(&owner, entered, shared.stop.soft()).await),
        Err(error) if error.decision == Decision::Fail => Ok(Placed::InPart),
        Err(_reported) => Ok(Placed::NothingGoes),
    }
}
