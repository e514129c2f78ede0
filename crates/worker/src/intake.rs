//! What comes in while the worker lives: executions until the soft stop, cancels until everything has ended.

use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use attune_bus::{Delivery, Event, Subscription, ack, decode, reject};
use attune_lifecycle::{Backoff, CancellationToken};
use attune_model::ExecutionId;
use attune_model::measure::{CancelTarget, Measure};
use attune_model::message::{Envelope, ExecutionCancelRequested, ExecutionDispatch};
use attune_runtime::advertise::Tier;
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::sleep;
use tracing::Instrument as _;

use crate::cancellations::Cancelled;
use crate::capabilities::{self, Verify};
use crate::course::Course;
use crate::endings::end_unfinished;
use crate::logs::chain;
use crate::readiness::Part;
use crate::shared::Shared;

/// Ends what an earlier life left, then takes executions until the soft stop.
pub(crate) async fn take_executions(shared: &Arc<Shared>, mut executions: Subscription) {
    end_unfinished(shared, None, "worker was restarted while the execution ran").await;
    let soft = shared.stop.soft();
    if shared.executor.advertised().tier == Tier::Database {
        tokio::select! {
            () = soft.cancelled() => {}
            () = capabilities::verify(shared, Verify::Everything) => {}
        }
    }
    let mut forgotten = Forgotten::default();
    loop {
        // A slot first: what cannot run yet stays with the broker, where its time limit counts.
        let slot = tokio::select! {
            biased;
            () = soft.cancelled() => break,
            Ok(slot) = shared.slots.clone().acquire_owned() => slot,
        };
        if let Some(execution) = forgotten.found.pop_front() {
            start(shared, slot, execution, None).await;
            continue;
        }
        let event = tokio::select! {
            biased;
            () = soft.cancelled() => break,
            () = forgotten.look() => continue,
            event = executions.next() => event,
        };
        match event {
            Event::Delivery(delivery) => dispatch(shared, slot, delivery).await,
            Event::Down => shared.readiness.down(Part::Executions),
            Event::Closed => break,
            Event::Up => {
                shared.readiness.up(Part::Executions);
                forgotten.search = Some(Box::pin(scheduled(shared.clone())));
            }
        }
    }
    shared.readiness.down(Part::Executions);
    executions.end().await;
}

type Search = Pin<Box<dyn Future<Output = Vec<ExecutionId>> + Send>>;

/// What is scheduled for this worker without a message that says so: one may have been lost or outlived its time.
#[derive(Default)]
struct Forgotten {
    search: Option<Search>,
    found: VecDeque<ExecutionId>,
}

impl Forgotten {
    /// Comes when a search has ended. Cancel-safe: the search goes on with the next call.
    async fn look(&mut self) {
        match &mut self.search {
            Some(search) => {
                let found = search.await;
                self.found.extend(found);
                self.search = None;
            }
            None => std::future::pending().await,
        }
    }
}

async fn scheduled(shared: Arc<Shared>) -> Vec<ExecutionId> {
    let mut backoff = Backoff::new(Duration::from_millis(100), Duration::from_secs(10));
    loop {
        match shared.store.scheduled_executions(shared.id).await {
            Ok(scheduled) => return scheduled,
            Err(error) => {
                let error = chain(&error);
                tracing::warn!(error, "scheduled executions cannot be read, trying again");
            }
        }
        sleep(backoff.next_delay()).await;
    }
}

async fn dispatch(shared: &Arc<Shared>, slot: OwnedSemaphorePermit, delivery: Delivery) {
    let payload = match decode::<ExecutionDispatch>(&delivery.body) {
        Ok((_, payload)) if payload.worker_id == shared.id => payload,
        Ok((_, payload)) => {
            tracing::warn!(execution.id = %payload.execution_id, other = %payload.worker_id, "dispatch for another worker");
            return reject(delivery).await;
        }
        Err(error) => {
            tracing::warn!(error = chain(&error), "dispatch cannot be read");
            return reject(delivery).await;
        }
    };
    start(shared, slot, payload.execution_id, Some(delivery)).await;
}

/// Starts the course of an execution in a task of its own.
async fn start(shared: &Arc<Shared>, slot: OwnedSemaphorePermit, id: ExecutionId, delivery: Option<Delivery>) {
    if let Some(course) = Course::new(shared.clone(), id, slot) {
        let span = tracing::info_span!("execution", execution.id = %id);
        shared.tasks.spawn(course.run(delivery).instrument(span));
    } else {
        tracing::debug!(execution.id = %id, "dispatch came twice");
        if let Some(delivery) = delivery {
            ack(delivery).await;
        }
    }
}

/// Obeys cancels for as long as something runs.
pub(crate) async fn take_cancels(shared: Arc<Shared>, mut cancels: Subscription, drained: CancellationToken) {
    loop {
        let event = tokio::select! {
            () = drained.cancelled() => break,
            event = cancels.next() => event,
        };
        let delivery = match event {
            Event::Delivery(delivery) => delivery,
            Event::Up => {
                shared.readiness.up(Part::Cancels);
                continue;
            }
            Event::Down => {
                shared.readiness.down(Part::Cancels);
                continue;
            }
            Event::Closed => break,
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
