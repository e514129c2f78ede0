//! The sensor host: built, then spawned.

use std::sync::Arc;
use std::time::Duration;

use attune_bus::{Bus, BusError};
use attune_http::{BuildError as HttpBuildError, Client, ClientConfig};
use attune_lifecycle::{CancellationToken, Stop, Tasks};
use attune_model::WorkerId;
use attune_model::activity::Observer;
use attune_model::clock::Clock;
use attune_model::status::{WorkerRole, WorkerStatus, WorkerType};
use attune_store::{SensorStore, StoreError, WorkerRegistration};
use thiserror::Error;
use tokio::sync::{Notify, watch};
use tokio::time::timeout;

use crate::config::SensorConfig;
use crate::context::Context;
use crate::dispatcher::Dispatcher;
use crate::heartbeat::beat;
use crate::listener::{listen, queue};
use crate::registry::{Counts, Registry, capabilities};

/// The last word about the host may take so long.
const FAREWELL_LIMIT: Duration = Duration::from_secs(3);

/// A host that could not be built.
#[derive(Debug, Error)]
pub enum BuildError {
    /// Its row could not be written.
    #[error("failed to register sensor host {name}")]
    Register {
        /// Its name.
        name: String,
        /// Why.
        #[source]
        source: StoreError,
    },
    /// Its queue could not be made.
    #[error("failed to make queue {queue}")]
    Queue {
        /// Which.
        queue: String,
        /// Why.
        #[source]
        source: BusError,
    },
    /// Its HTTP client could not be made.
    #[error("failed to make the client for sensor tokens")]
    Http {
        /// Why.
        #[source]
        source: HttpBuildError,
    },
}

/// A registered host that runs nothing yet.
#[derive(Debug)]
pub struct SensorHost {
    config: SensorConfig,
    store: Arc<dyn SensorStore>,
    bus: Arc<dyn Bus>,
    clock: Arc<dyn Clock>,
    observer: Arc<dyn Observer>,
    http: Client,
    worker: WorkerId,
}

/// Tells when the host has tried every sensor that was wanted at its start.
#[derive(Debug, Clone)]
pub struct Started {
    receiver: watch::Receiver<bool>,
}

impl Started {
    /// Waits for it. False when the host stopped before.
    pub async fn wait(&mut self) -> bool {
        self.receiver.wait_for(|started| *started).await.is_ok()
    }
}

impl SensorHost {
    /// Registers the host and makes its queue; from then on no change is missed.
    pub async fn build(
        config: SensorConfig,
        store: Arc<dyn SensorStore>,
        bus: Arc<dyn Bus>,
        clock: Arc<dyn Clock>,
        observer: Arc<dyn Observer>,
    ) -> Result<Self, BuildError> {
        let http = ClientConfig { ca_file: config.ca_file.clone(), ..ClientConfig::default() };
        let http = Client::build(&http).map_err(|source| BuildError::Http { source })?;
        let registration = WorkerRegistration {
            name: config.name.clone(),
            role: WorkerRole::Sensor,
            worker_type: WorkerType::Local,
            host: config.host.clone(),
            port: None,
            capabilities: capabilities(&config, Counts::default()),
        };
        let register = |source| BuildError::Register { name: registration.name.clone(), source };
        let worker = store.register_worker(&registration).await.map_err(register)?.id;
        let stale = store.clear_stale_processes(worker).await.map_err(register)?;
        if stale > 0 {
            tracing::info!(rows = stale, "sensors of an earlier life of this host are recorded as stopped");
        }
        let queue = queue(worker);
        bus.declare(&queue).await.map_err(|source| BuildError::Queue { queue: queue.name.clone(), source })?;
        Ok(Self { config, store, bus, clock, observer, http, worker })
    }

    /// The host's row.
    pub fn worker(&self) -> WorkerId {
        self.worker
    }

    /// Starts everything. The soft stop ends all sensors side by side and then the host; the hard stop kills them.
    pub fn spawn(self, stop: &Stop, tasks: &Tasks) -> Started {
        let (started, receiver) = watch::channel(false);
        let Self { config, store, bus, clock, observer, http, worker } = self;
        let context = Context { config, store, bus, clock, observer, http, worker, stop: stop.clone() };
        tasks.spawn_vital("sensor host", stop, run(Arc::new(context), tasks.clone(), started));
        Started { receiver }
    }
}

async fn run(context: Arc<Context>, tasks: Tasks, started: watch::Sender<bool>) {
    let look_again = Arc::new(Notify::new());
    let registry = Registry::default();
    let listening = listen(context.bus.clone(), queue(context.worker), look_again.clone(), context.stop.soft().clone());
    tasks.spawn(listening);
    let silence = CancellationToken::new();
    let heartbeat = tasks.spawn(beat(context.clone(), registry.clone(), silence.clone()));
    Dispatcher::new(context.clone(), tasks, look_again, registry, started).run().await;
    // The row says `active` until no sensor is left, and nothing writes it after `inactive`.
    silence.cancel();
    if heartbeat.await.is_err() {
        tracing::error!("the heartbeat of the sensor host panicked");
    }
    let farewell = context.store.set_worker_status(context.worker, WorkerStatus::Inactive);
    match timeout(FAREWELL_LIMIT, farewell).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => {
            tracing::warn!(error = %crate::chain(&error), "failed to record that the host is inactive");
        }
        Err(_elapsed) => {
            tracing::warn!("failed to record that the host is inactive: the store does not answer");
        }
    }
}
