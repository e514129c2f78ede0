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

use attune_bus::{Bus, BusError, Subscription};
use attune_lifecycle::{CancellationToken, Stop, Tasks};
use attune_model::activity::Observer;
use attune_model::clock::Clock;
use attune_model::measure::Measure;
use attune_model::rows::Worker as WorkerRow;
use attune_model::status::WorkerRole;
use attune_model::{JsonMap, WorkerId};
use attune_store::{StoreError, WorkerRegistration, WorkerStore};
use thiserror::Error;
use tokio::sync::{Notify, watch};
use tracing::Instrument as _;

use crate::announce::Announcer;
use crate::cancellations::Cancellations;
use crate::config::WorkerConfig;
use crate::executor::{Executor, ExecutorError};
use crate::filing::Filing;
use crate::logs::Logs;
use crate::namesakes::Namesakes;
use crate::patience::Patience;
use crate::readiness::Readiness;
use crate::room::Rooms;
use crate::running::{Overview, Running};
use crate::runtimes::Runtimes;
use crate::shared::Shared;
use crate::spool::Spool;
use crate::subscription;
use crate::transport::Transport;
use crate::untold::Untold;
use crate::{capabilities, detected, heartbeat, intake, pack_events};

/// Why a worker could not be built.
#[derive(Debug, Error)]
pub enum BuildError {
    /// A setting makes no sense.
    #[error("the settings of the worker cannot be used")]
    Executor(#[from] ExecutorError),
    /// The client for the API could not be made.
    #[error("the client for the API cannot be made")]
    Client(#[from] attune_http::BuildError),
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
    observer: Arc<dyn Observer>,
    running: Running,
    announcer: Announcer,
    executor: Executor,
    given_capabilities: JsonMap,
    readiness: Readiness,
    transport: Transport,
    spool: Spool,
    namesakes: Namesakes,
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
            runtime,
            capabilities,
            max_concurrent_tasks,
            heartbeat_interval,
            registers_runtimes,
            spool_dir,
            transports,
            executor,
        } = config;
        let slot_count = max_concurrent_tasks.max(1);
        let executor = Executor::new(executor, observer.clone())?;
        let transport = Transport::new(&transports, &executor, &clock)?;
        if registers_runtimes {
            detected::register(&*store, &executor.advertised().detected_interpreters).await;
        }
        let given_capabilities = capabilities;
        let capabilities = capabilities::complete(&given_capabilities, &executor.advertised(), slot_count);
        let registration = WorkerRegistration {
            name: name.clone(),
            role: WorkerRole::Action,
            worker_type,
            runtime,
            host,
            port,
            capabilities,
        };
        let row = store
            .register_worker(&registration)
            .await
            .map_err(|source| BuildError::Register { name: name.clone(), source })?;
        let declared = |source| BuildError::Declare { name: name.clone(), source };
        let [executions, cancels, packs] = subscription::declare(&bus, row.id, slot_count).await.map_err(declared)?;
        let namesakes = Namesakes::find(bus.clone(), row.id, cancels.others(), heartbeat_interval).await;
        Ok(Self {
            executions,
            cancels,
            packs,
            parts: Parts {
                transport,
                spool: Spool::new(spool_dir.join(row.id.to_string()), executor.secrets.key().cloned()),
                store,
                namesakes,
                announcer: Announcer::new(bus, clock, observer.clone()),
                executor,
                given_capabilities,
                readiness: Readiness::new(heartbeat_interval, observer.clone()),
                running: Running::new(observer.clone()),
                observer,
                slot_count,
                heartbeat_interval,
            },
            row,
        })
    }

    /// The worker's row.
    pub fn id(&self) -> WorkerId {
        self.row.id
    }

    /// A look at it from outside, also while it works.
    pub fn overview(&self) -> Overview {
        let Parts { readiness, running, slot_count, .. } = &self.parts;
        Overview { id: self.row.id, slot_count: *slot_count, readiness: readiness.clone(), running: running.clone() }
    }

    /// True while every consumer is confirmed and the row is fresh.
    pub fn ready(&self) -> watch::Receiver<bool> {
        self.parts.readiness.subscribe()
    }

    /// Starts to work, until `stop`.
    pub fn spawn(self, stop: &Stop, tasks: &Tasks) {
        let Self { row, parts, executions, cancels, packs } = self;
        let (slot_count, heartbeat_interval) = (parts.slot_count, parts.heartbeat_interval);
        let Parts {
            store,
            observer,
            running,
            announcer,
            executor,
            given_capabilities,
            readiness,
            transport,
            spool,
            namesakes,
            ..
        } = parts;
        observer.measure(Measure::Slots(slot_count));
        let logs = Logs::new(&executor.config().artifacts_dir);
        let (filing, clerk) = Filing::new(logs, transport.files, store.clone(), (spool.folder(), observer.clone()));
        tasks.spawn(clerk.work());
        let shared = Arc::new(Shared {
            id: row.id,
            store,
            observer,
            running,
            announcer,
            filing,
            namesakes,
            untold: Untold::open(spool.folder()),
            spool,
            packs: transport.packs,
            rescheduled: Notify::new(),
            runtimes: Runtimes::default(),
            executor,
            given_capabilities,
            cancellations: Cancellations::default(),
            readiness,
            rooms: Rooms::new(slot_count),
            slot_count,
            stop: stop.clone(),
            patience: Patience::new(stop),
            tasks: tasks.clone(),
        });
        let span = tracing::info_span!("worker", worker.id = %row.id, worker.name = row.name);
        let drained = CancellationToken::new();
        let heartbeat = heartbeat::beat(shared.clone(), heartbeat_interval, drained.clone());
        let heartbeat = tasks.spawn_vital("heartbeat", stop, heartbeat.instrument(span.clone()));
        let cancels = intake::take_cancels(shared.clone(), cancels, drained.clone());
        tasks.spawn_vital("cancels", stop, cancels.instrument(span.clone()));
        tasks.spawn_vital("packs", stop, pack_events::consume(shared.clone(), packs).instrument(span.clone()));
        let work = async move {
            intake::take_executions(&shared, executions).await;
            drain(&shared).await;
            drained.cancel();
            // Its last write must not come after ours.
            if heartbeat.await.is_err() {
                tracing::error!("the heartbeat panicked");
            }
            heartbeat::farewell(&shared).await;
        };
        tasks.spawn_vital("worker", stop, work.instrument(span));
    }
}

/// Until nothing is in hand any more.
async fn drain(shared: &Shared) {
    let passed_over = async {
        capabilities::ask_to_be_passed_over(shared).await;
        std::future::pending().await
    };
    tokio::select! {
        // Whoever has nothing in hand is gone before anybody could pass it over.
        biased;
        () = shared.rooms.empty() => {}
        () = passed_over => {}
        () = shared.patience.over() => tracing::error!("executions did not end; their rows are left to the next start"),
    }
}
