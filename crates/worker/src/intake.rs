//! What comes in while the worker lives: executions until the soft stop, cancels until everything has ended.

use std::collections::BTreeSet;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use attune_bus::{Delivery, Event, Subscription, ack, decode, reject};
use attune_lifecycle::{Backoff, CancellationToken};
use attune_model::ExecutionId;
use attune_model::chain;
use attune_model::measure::{CancelTarget, Measure};
use attune_model::message::{Envelope, ExecutionCancelRequested, ExecutionDispatch};
use attune_model::status::ExecutionStatus;
use attune_runtime::advertise::Tier;
use attune_store::Decision;
use chrono::{DateTime, Utc};
use tokio::time::sleep;
use tracing::Instrument as _;

use crate::cancellations::Cancelled;
use crate::capabilities::{self, Verify};
use crate::course::Course;
use crate::endings::{end_unfinished, file_left_logs, tell_untold, write_kept};
use crate::packs;
use crate::patience::trying_again;
use crate::readiness::Part;
use crate::room::Room;
use crate::shared::Shared;

/// A worker that was full for this long gives waiting messages back: in the queue their time limit counts and others see
/// them, here nothing would.
const FULL_FOR: Duration = Duration::from_secs(1);

/// How long the message of a new attempt may be under way before its row is looked for.
const LOOK_AGAIN_AFTER: Duration = Duration::from_secs(5);

/// Why an execution ends that another life of this worker ran.
const RESTARTED: &str = "worker was restarted while the execution ran";

/// Ends what an earlier life left, then takes executions until the soft stop.
pub(crate) async fn take_executions(shared: &Arc<Shared>, mut executions: Subscription) {
    tokio::select! {
        () = shared.stop.soft().cancelled() => {}
        () = start_up(shared) => {}
    }
    let soft = shared.stop.soft();
    let mut forgotten = Forgotten::default();
    let mut paused = false;
    loop {
        // Room first: what cannot run yet stays with the broker, where its time limit counts.
        let room = tokio::select! {
            biased;
            () = soft.cancelled() => break,
            room = shared.rooms.enter() => room,
            () = sleep(FULL_FOR), if !paused => {
                executions.pause().await;
                paused = true;
                continue;
            }
        };
        let event = tokio::select! {
            biased;
            () = soft.cancelled() => break,
            found = ended(&mut forgotten.search) => {
                forgotten.search = None;
                forgotten.found.extend(found);
                continue;
            }
            event = executions.next() => event,
            () = shared.rescheduled.notified() => {
                forgotten.search(shared, LOOK_AGAIN_AFTER);
                continue;
            }
            // Only while no message waits: the queue knows better what is new.
            execution = oldest(&mut forgotten.found) => {
                start(shared, room, Asked { execution, scheduled_at: None, delivery: None }).await;
                continue;
            }
        };
        match event {
            Event::Delivery(delivery) => dispatch(shared, room, delivery, &mut forgotten).await,
            // A closed bus is no reason to stop: what runs has results, and who closed it says when to stop.
            Event::Down | Event::Closed => shared.readiness.down(Part::Executions),
            Event::Up => {
                shared.readiness.up(Part::Executions);
                if !std::mem::take(&mut paused) {
                    forgotten.search(shared, Duration::ZERO);
                }
            }
        }
    }
    shared.readiness.down(Part::Executions);
    executions.end().await;
}

/// What has to be done before the first execution.
async fn start_up(shared: &Arc<Shared>) {
    // Their logs are filed with them, and by nobody else.
    let looking = shared.filing.looking.lock().await;
    tell_untold(shared).await;
    write_kept(shared).await;
    if shared.namesakes.were_there() {
        let own = shared.clone();
        shared.tasks.spawn(async move { survive_namesakes(&own).await }.in_current_span());
    } else {
        end_unfinished(shared, None, (ExecutionStatus::Abandoned, RESTARTED)).await;
    }
    drop(looking);
    let (left, missing) = (shared.clone(), shared.clone());
    // An API that is away, or does not answer, holds up nothing that does not need it.
    shared.tasks.spawn(async move { packs::fetch_missing(&missing).await }.in_current_span());
    if shared.executor.advertised().tier == Tier::Database {
        capabilities::verify(shared, Verify::Everything).await;
    }
    shared.tasks.spawn(async move { file_left_logs(&left).await }.in_current_span());
}

/// Ends what other processes of this worker's name have left, once there are none any more.
async fn survive_namesakes(shared: &Arc<Shared>) {
    tracing::warn!(
        "another process of this worker's name is alive: they share row, queues and cancels, and what that one runs is left to \
         it; give each worker a name of its own"
    );
    tokio::select! {
        () = shared.namesakes.gone(&shared.readiness) => {}
        () = shared.stop.soft().cancelled() => return,
    }
    tracing::info!("no other process of this worker's name is alive any more");
    let _looking = shared.filing.looking.lock().await;
    end_unfinished(shared, None, (ExecutionStatus::Abandoned, RESTARTED)).await;
}

type Search = Pin<Box<dyn Future<Output = Vec<ExecutionId>> + Send>>;

/// What is scheduled for this worker without a message that says so: one may have been lost or outlived its time.
#[derive(Default)]
struct Forgotten {
    search: Option<Search>,
    found: BTreeSet<ExecutionId>,
}

impl Forgotten {
    /// Looks for them after a while, unless that is being done.
    fn search(&mut self, shared: &Arc<Shared>, after: Duration) {
        let shared = shared.clone();
        self.search.get_or_insert_with(|| {
            Box::pin(async move {
                sleep(after).await;
                scheduled(shared).await
            })
        });
    }
}

/// Comes when a search has ended. Cancel-safe: the search goes on with the next call.
async fn ended(search: &mut Option<Search>) -> Vec<ExecutionId> {
    match search {
        Some(search) => search.await,
        None => std::future::pending().await,
    }
}

/// The oldest of what was found; waits for ever when there is none.
async fn oldest(found: &mut BTreeSet<ExecutionId>) -> ExecutionId {
    match found.pop_first() {
        Some(execution) => execution,
        None => std::future::pending().await,
    }
}

async fn scheduled(shared: Arc<Shared>) -> Vec<ExecutionId> {
    let mut backoff = Backoff::new(Duration::from_millis(100), Duration::from_secs(10));
    loop {
        match shared.store.scheduled_executions(shared.id).await {
            Ok(scheduled) => return scheduled,
            Err(error) => trying_again(&backoff, "scheduled executions cannot be read", &error),
        }
        sleep(backoff.next_delay()).await;
    }
}

/// An execution that is to run, and who says so.
struct Asked {
    execution: ExecutionId,
    scheduled_at: Option<DateTime<Utc>>,
    delivery: Option<Delivery>,
}

async fn dispatch(shared: &Arc<Shared>, room: Room, delivery: Delivery, forgotten: &mut Forgotten) {
    let payload = match decode::<ExecutionDispatch>(&delivery.body) {
        Ok((_, payload)) if payload.worker_id == shared.id => payload,
        Ok((_, payload)) => {
            tracing::warn!(execution.id = %payload.execution_id, other = %payload.worker_id, "dispatch for another worker");
            return reject(delivery).await;
        }
        Err(error) => {
            tracing::warn!(error = chain(&error), "dispatch cannot be read");
            // Perhaps its row can.
            shared.rescheduled.notify_one();
            return reject(delivery).await;
        }
    };
    forgotten.found.remove(&payload.execution_id);
    let scheduled_at = payload.scheduled_attempt_updated_at;
    start(shared, room, Asked { execution: payload.execution_id, scheduled_at, delivery: Some(delivery) }).await;
}

/// Starts the course of an execution in a task of its own.
async fn start(shared: &Arc<Shared>, room: Room, asked: Asked) {
    let Asked { execution, scheduled_at, delivery } = asked;
    let Room { slot, place } = room;
    if let Some(course) = Course::new(shared.clone(), execution, scheduled_at, place) {
        let span = tracing::info_span!("execution", execution.id = %execution);
        shared.tasks.spawn(course.run(slot, delivery).instrument(span));
    } else {
        tracing::debug!(execution.id = %execution, "dispatch came twice");
        // It may be for a newer attempt than the one in hand, which is perhaps not ours to start.
        shared.rescheduled.notify_one();
        if let Some(delivery) = delivery {
            ack(delivery).await;
        }
    }
}

/// Obeys cancels for as long as something runs.
pub(crate) async fn take_cancels(shared: Arc<Shared>, mut cancels: Subscription, drained: CancellationToken) {
    let mut was_lost = false;
    loop {
        let event = tokio::select! {
            () = drained.cancelled() => break,
            event = cancels.next() => event,
        };
        let delivery = match event {
            Event::Delivery(delivery) => delivery,
            Event::Up => {
                shared.readiness.up(Part::Cancels);
                if std::mem::take(&mut was_lost) {
                    let own = shared.clone();
                    shared.tasks.spawn(async move { find_cancels(&own).await }.in_current_span());
                }
                continue;
            }
            Event::Down | Event::Closed => {
                was_lost = true;
                shared.readiness.down(Part::Cancels);
                continue;
            }
        };
        let decoded: Result<(Envelope, ExecutionCancelRequested), _> = decode(&delivery.body);
        match decoded {
            Ok((_, payload)) => {
                let (target, what) = match shared.cancellations.cancel(payload.execution_id) {
                    Cancelled::InHand => (CancelTarget::InHand, "execution is being cancelled"),
                    Cancelled::Remembered => (CancelTarget::Unknown, "cancel remembered: the execution is not here"),
                };
                shared.observer.measure(Measure::Cancel(target));
                tracing::info!(execution.id = %payload.execution_id, "{what}");
                ack(delivery).await;
            }
            Err(error) => {
                tracing::warn!(error = chain(&error), "cancel cannot be read");
                reject(delivery).await;
            }
        }
    }
    cancels.end().await;
}

/// Obeys the cancels of what is in hand that only the rows know of: a message that went with its queue is not sent again.
async fn find_cancels(shared: &Shared) {
    let mut backoff = Backoff::new(Duration::from_millis(100), Duration::from_secs(10));
    let unfinished = loop {
        match shared.store.unfinished_executions(shared.id).await {
            Ok(unfinished) => break unfinished,
            Err(error) if error.decision() == Decision::Fail => {
                tracing::warn!(error = chain(&error), "cancels cannot be looked for");
                return;
            }
            Err(error) => trying_again(&backoff, "cancels cannot be looked for", &error),
        }
        tokio::select! {
            () = sleep(backoff.next_delay()) => {}
            // What comes meanwhile is told by messages, and ends say what the row says.
            () = shared.stop.soft().cancelled() => return,
        }
    };
    let canceling = unfinished.into_iter().filter(|(_, row)| row.status == ExecutionStatus::Canceling);
    for (_, row) in canceling.filter(|(_, row)| shared.cancellations.has(row.id)) {
        tracing::info!(execution.id = %row.id, "execution is being cancelled: its row says so");
        shared.cancellations.cancel(row.id);
    }
}
