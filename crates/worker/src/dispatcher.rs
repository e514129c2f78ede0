//! The worker in its world: its row, its queues, its slots, and its end.
//!
//! ```text
//!   build   register the row, declare the queues
//!   spawn   end what an earlier life left ─► consume, and take what the bus forgot ─► ready
//!   soft    no new work; runs finish; cancels and heartbeats go on
//!   hard    children are ended and their outcome is written
//!   end     heartbeats stop, the row becomes inactive
//! ```

use std::sync::Arc;
use std::time::Duration;

use attune_bus::{Bus, BusError, Delivery, Requeue, decode};
use attune_lifecycle::{Backoff, CancellationToken, Stop, Tasks};
use attune_model::activity::Observer;
use attune_model::clock::Clock;
use attune_model::message::{Envelope, ExecutionCancelRequested, ExecutionDispatch};
use attune_model::rows::Worker as WorkerRow;
use attune_model::status::{WorkerRole, WorkerStatus};
use attune_model::{ExecutionId, JsonMap, WorkerId};
use attune_runtime::advertise::Tier;
use attune_store::{StoreError, WorkerRegistration, WorkerStore};
use thiserror::Error;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio::time::{MissedTickBehavior, interval, sleep, timeout};
use tracing::Instrument as _;

use crate::announce::Announcer;
use crate::cancellations::{Cancellations, Cancelled};
use crate::capabilities::{self, Verify};
use crate::config::WorkerConfig;
use crate::course::{Course, end_unfinished};
use crate::executor::{Executor, ExecutorError};
use crate::logs::{Logs, chain};
use crate::pack_events;
use crate::patience::Patience;
use crate::readiness::{Part, Readiness};
use crate::runtimes::Runtimes;
use crate::shared::Shared;
use crate::subscription::{Event, Source, Subscription};

/// How long the last write of the row may take.
const FAREWELL_LIMIT: Duration = Duration::from_millis(500);

/// Why a worker could not be built.
#[derive(Debug, Error)]
pub enum BuildError {
    /// A setting makes no sense.
    #[error("the settings of the worker cannot be used")]
    Executor(#[from] ExecutorError),
    /// The row could not be written.
    #[error("worker {name} could not be registered")]
    Register {
        /// The worker's name.
        name: String,
        /// Why.
        #[source]
        source: StoreError,
    },
    /// A queue could not be declared.
    #[error("a queue of worker {name} could not be declared")]
    Declare {
        /// The worker's name.
        name: String,
        /// Why.
        #[source]
        source: BusError,
    },
}

/// A registered worker that does nothing yet.
#[derive(Debug)]
pub struct Worker {
    row: WorkerRow,
    parts: Parts,
    executions: Subscription,
    cancels: Subscription,
    packs: Subscription,
}

/// What the shared state is made from.
#[derive(Debug)]
struct Parts {
    store: Arc<dyn WorkerStore>,
    announcer: Announcer,
    executor: Executor,
    given_capabilities: JsonMap,
    readiness: Readiness,
    slot_count: u16,
    heartbeat_interval: Duration,
}

impl Worker {
    /// Registers the worker's row and declares its queues.
    pub async fn build(
        config: WorkerConfig,
        store: Arc<dyn WorkerStore>,
        bus: Arc<dyn Bus>,
        clock: Arc<dyn Clock>,
        observer: Arc<dyn Observer>,
    ) -> Result<Self, BuildError> {
        let WorkerConfig {
            name,
            worker_type,
            host,
            port,
            capabilities,
            max_concurrent_tasks,
            heartbeat_interval,
            executor,
        } = config;
        let slot_count = max_concurrent_tasks.max(1);
        let executor = Executor::new(executor, clock.clone(), observer)?;
        let given_capabilities = capabilities;
        let capabilities =
            capabilities::complete(&given_capabilities, &executor.advertised(), slot_count);
        let registration = WorkerRegistration {
            name: name.clone(),
            role: WorkerRole::Action,
            worker_type,
            host,
            port,
            capabilities,
        };
        let row = store
            .register_worker(&registration)
            .await
            .map_err(|source| BuildError::Register {
                name: name.clone(),
                source,
            })?;
        let declared = |source| BuildError::Declare {
            name: name.clone(),
            source,
        };
        let executions = Source::executions(row.id, slot_count);
        Ok(Self {
            executions: Subscription::declare(bus.clone(), executions)
                .await
                .map_err(declared)?,
            cancels: Subscription::declare(bus.clone(), Source::cancels(row.id))
                .await
                .map_err(declared)?,
            packs: Subscription::declare(bus.clone(), Source::packs(row.id))
                .await
                .map_err(declared)?,
            row,
            parts: Parts {
                store,
                announcer: Announcer::new(bus, clock),
                executor,
                given_capabilities,
                readiness: Readiness::new(),
                slot_count,
                heartbeat_interval,
            },
        })
    }

    /// The worker's row.
    pub fn id(&self) -> WorkerId {
        self.row.id
    }

    /// True while every consumer is confirmed and the row is fresh.
    pub fn ready(&self) -> watch::Receiver<bool> {
        self.parts.readiness.subscribe()
    }

    /// Starts to work, until `stop`.
    pub fn spawn(self, stop: &Stop, tasks: &Tasks) {
        let Self {
            row,
            parts,
            executions,
            cancels,
            packs,
        } = self;
        let Parts {
            store,
            announcer,
            executor,
            given_capabilities,
            readiness,
            slot_count,
            heartbeat_interval,
        } = parts;
        let shared = Arc::new(Shared {
            id: row.id,
            store,
            announcer,
            logs: Logs::new(&executor.config().artifacts_dir),
            runtimes: Runtimes::default(),
            executor,
            given_capabilities,
            cancellations: Cancellations::default(),
            readiness,
            slots: Arc::new(Semaphore::new(usize::from(slot_count))),
            slot_count,
            stop: stop.clone(),
            patience: Patience::new(stop),
            tasks: tasks.clone(),
        });
        let span = tracing::info_span!("worker", worker.id = %row.id, worker.name = row.name);
        let drained = CancellationToken::new();
        let heartbeat = heartbeat(shared.clone(), heartbeat_interval, drained.clone());
        let heartbeat = tasks.spawn_vital("heartbeat", stop, heartbeat.instrument(span.clone()));
        let cancels = consume_cancels(shared.clone(), cancels, drained.clone());
        tasks.spawn_vital("cancels", stop, cancels.instrument(span.clone()));
        tasks.spawn_vital(
            "packs",
            stop,
            pack_events::consume(shared.clone(), packs).instrument(span.clone()),
        );
        let work = async move {
            work(&shared, executions).await;
            let patience = shared.patience.clone();
            tokio::select! {
                _slots = shared.slots.acquire_many(u32::from(shared.slot_count)) => {}
                () = patience.over() => tracing::error!("executions did not end; their rows are left to the next start"),
            }
            drained.cancel();
            // Its last write must not come after ours.
            if heartbeat.await.is_err() {
                tracing::error!("the heartbeat panicked");
            }
            farewell(&shared).await;
        };
        tasks.spawn_vital("worker", stop, work.instrument(span));
    }
}

/// Takes executions until the soft stop.
async fn work(shared: &Arc<Shared>, mut executions: Subscription) {
    end_unfinished(shared, None, "worker was restarted while the execution ran").await;
    let soft = shared.stop.soft();
    if shared.executor.advertised().tier == Tier::Database {
        tokio::select! {
            () = soft.cancelled() => {}
            () = capabilities::verify(shared, Verify::Everything) => {}
        }
    }
    loop {
        // A slot first: what cannot run yet stays with the broker, where its time limit counts.
        let slot = tokio::select! {
            biased;
            () = soft.cancelled() => break,
            Ok(slot) = shared.slots.clone().acquire_owned() => slot,
        };
        let event = tokio::select! {
            biased;
            () = soft.cancelled() => break,
            event = executions.next() => event,
        };
        match event {
            Event::Delivery(delivery) => dispatch(shared, slot, delivery).await,
            Event::Down => shared.readiness.down(Part::Executions),
            Event::Up => {
                shared.readiness.up(Part::Executions);
                shared
                    .tasks
                    .spawn(take_forgotten(shared.clone()).in_current_span());
            }
        }
    }
    shared.readiness.down(Part::Executions);
    executions.end().await;
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
async fn start(
    shared: &Arc<Shared>,
    slot: OwnedSemaphorePermit,
    id: ExecutionId,
    delivery: Option<Delivery>,
) {
    match Course::new(shared.clone(), id, slot) {
        Some(course) => {
            let span = tracing::info_span!("execution", execution.id = %id);
            shared.tasks.spawn(course.run(delivery).instrument(span));
        }
        None => {
            tracing::debug!(execution.id = %id, "dispatch came twice");
            if let Some(delivery) = delivery {
                ack(delivery).await;
            }
        }
    }
}

/// Starts what is scheduled for this worker: a message may have been lost or may have outlived its time.
async fn take_forgotten(shared: Arc<Shared>) {
    let mut backoff = Backoff::new(Duration::from_millis(100), Duration::from_secs(10));
    let soft = shared.stop.soft();
    let scheduled = loop {
        match shared.store.scheduled_executions(shared.id).await {
            Ok(scheduled) => break scheduled,
            Err(error) => tracing::warn!(
                error = chain(&error),
                "scheduled executions cannot be read, trying again"
            ),
        }
        tokio::select! {
            () = sleep(backoff.next_delay()) => {}
            () = soft.cancelled() => return,
        }
    };
    for execution in scheduled {
        tokio::select! {
            biased;
            () = soft.cancelled() => return,
            Ok(slot) = shared.slots.clone().acquire_owned() => start(&shared, slot, execution, None).await,
        }
    }
}

/// Obeys cancels for as long as something runs.
async fn consume_cancels(
    shared: Arc<Shared>,
    mut cancels: Subscription,
    drained: CancellationToken,
) {
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
        };
        let decoded: Result<(Envelope, ExecutionCancelRequested), _> = decode(&delivery.body);
        match decoded {
            Ok((_, payload)) => {
                let what = match shared.cancellations.cancel(payload.execution_id) {
                    Cancelled::InHand => "execution is being cancelled",
                    Cancelled::Remembered => "cancel remembered: the execution is not here",
                };
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

/// Keeps the row fresh and active until everything has ended.
async fn heartbeat(shared: Arc<Shared>, period: Duration, drained: CancellationToken) {
    let mut ticks = interval(period.max(Duration::from_millis(10)));
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            () = drained.cancelled() => return,
            _now = ticks.tick() => {}
        }
        match timeout(
            period,
            shared.store.heartbeat(shared.id, WorkerStatus::Active),
        )
        .await
        {
            Ok(Ok(true)) => shared.readiness.up(Part::Heartbeat),
            Ok(Ok(false)) => {
                tracing::error!("the row of this worker is gone; starting again makes a new one");
                shared.readiness.down(Part::Heartbeat);
                shared.stop.soft().cancel();
                return;
            }
            Ok(Err(error)) => {
                tracing::warn!(error = chain(&error), "no heartbeat");
                shared.readiness.down(Part::Heartbeat);
            }
            Err(_elapsed) => {
                tracing::warn!(
                    period_ms = period.as_millis(),
                    "no heartbeat: storage does not answer"
                );
                shared.readiness.down(Part::Heartbeat);
            }
        }
    }
}

async fn farewell(shared: &Shared) {
    match timeout(
        FAREWELL_LIMIT,
        shared
            .store
            .set_worker_status(shared.id, WorkerStatus::Inactive),
    )
    .await
    {
        Ok(Ok(())) => tracing::info!("worker stopped"),
        Ok(Err(error)) => {
            tracing::warn!(error = chain(&error), "the row could not be set inactive")
        }
        Err(_elapsed) => {
            tracing::warn!("the row could not be set inactive: storage does not answer")
        }
    }
}

/// Answers a message that is dealt with.
pub(crate) async fn ack(delivery: Delivery) {
    if let Err(error) = delivery.ack().await {
        tracing::debug!(%error, "message will come again");
    }
}

/// Answers a message that nobody can deal with.
pub(crate) async fn reject(delivery: Delivery) {
    if let Err(error) = delivery.reject(Requeue::No).await {
        tracing::debug!(%error, "message will come again");
    }
}
