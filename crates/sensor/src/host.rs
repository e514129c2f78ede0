//! The sensor host: built, then spawned.

use std::sync::Arc;

use attune_bus::{Bus, BusError, Subscription};
use attune_http::{
    AgentToken, BuildError as HttpBuildError, Client, ClientConfig, PackSync, PlatformApi, shares_artifacts,
    shares_packs,
};
use attune_lifecycle::{CancellationToken, Stop, Tasks};
use attune_model::WorkerId;
use attune_model::activity::Observer;
use attune_model::chain;
use attune_model::clock::Clock;
use attune_model::status::{WorkerRole, WorkerStatus, WorkerType};
use attune_runtime::environment::Environments;
use attune_security::Agent;
use attune_store::{SensorStore, StoreError, WorkerRegistration};
use thiserror::Error;
use tokio::sync::{Notify, mpsc, watch};
use tokio::task::JoinHandle;
use tokio::time::timeout;
use uuid::Uuid;

use crate::config::SensorConfig;
use crate::context::{Context, STORE_LIMIT, Turns};
use crate::control::{CONTROL_SOCKET, serve};
use crate::courier::{self, Courier, Outbox};
use crate::deadline::Deadline;
use crate::dispatcher::{Dispatcher, Wanted};
use crate::heartbeat::beat;
use crate::lease::{Keeper, Leases, Terms};
use crate::listener::{listen, queue, source};
use crate::log::LogHome;
use crate::packs::Packs;
use crate::recorder::Recorder;
use crate::registrations::Registrations;
use crate::registry::{Counts, Registry, capabilities};
use crate::rundir::RunDir;
use crate::vitals::{Overview, Vitals};

/// Commands of operators that wait for the dispatcher.
const COMMANDS: usize = 16;

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
    #[error("failed to make the client for the API")]
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
    api: PlatformApi,
    packs_by_api: bool,
    /// Its row, and this process of all that have ever had that.
    row: (WorkerId, Uuid),
    changes: Subscription,
    /// None when it could not be read: the first comparison will say why.
    wanted: Option<Wanted>,
    registry: Registry,
    vitals: Vitals,
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
        let packs_by_api = packs_by_api(&config);
        let http = Client::build(&http).map_err(|source| BuildError::Http { source })?;
        let token = AgentToken::new(Agent::Sensor, config.token_key.clone(), clock.clone());
        let api = PlatformApi::new(http, &config.api_url, token);
        let registration = WorkerRegistration {
            name: config.name.clone(),
            role: WorkerRole::Sensor,
            worker_type: WorkerType::Local,
            runtime: None,
            host: config.host.clone(),
            port: None,
            capabilities: capabilities(&config, Counts::default()),
        };
        let register = |source| BuildError::Register { name: registration.name.clone(), source };
        let worker = store.register_worker(&registration).await.map_err(register)?.id;
        let process = Uuid::new_v4();
        let queue = queue(worker, process);
        let name = queue.name.clone();
        let changes = async {
            let changes = Subscription::declare(bus.clone(), source(queue)).await;
            changes.map_err(|source| BuildError::Queue { queue: name, source })
        };
        let rows = async {
            if config.artifacts.is_api(|| shares_artifacts(&config.paths.artifacts)) {
                courier::adopt(&config.paths.artifacts, worker, store.as_ref()).await;
            }
            // With leases an earlier life may go on until this one begins.
            if config.timing.lease_time.is_none() {
                tell_stale(store.clear_stale_processes(worker).await.map_err(register)?);
            }
            // What changes before the queue is heard is seen by the look at the store that follows then.
            Ok(timeout(STORE_LIMIT, Wanted::read(store.as_ref())).await.ok().and_then(Result::ok))
        };
        // Together: the broker takes as long as the database.
        let (changes, wanted) = tokio::try_join!(changes, rows)?;
        let vitals = Vitals::new(config.timing.heartbeat_interval, observer.clone());
        let registry = Registry::default();
        let row = (worker, process);
        Ok(Self { config, store, bus, clock, observer, api, packs_by_api, row, changes, wanted, registry, vitals })
    }

    /// The host's row.
    pub fn worker(&self) -> WorkerId {
        self.row.0
    }

    /// A look at it from outside, also while it works.
    pub fn overview(&self) -> Overview {
        Overview { worker: self.worker(), registry: self.registry.clone(), vitals: self.vitals.clone() }
    }

    /// Starts everything. The soft stop ends all sensors side by side and then the host; the hard stop kills them.
    pub fn spawn(self, stop: &Stop, tasks: &Tasks) -> Started {
        let (started, receiver) = watch::channel(false);
        let Self { config, store, bus, clock, observer, api, packs_by_api, row, changes, wanted, registry, vitals } =
            self;
        let ((worker, process), hard) = (row, stop.hard().clone());
        let terms = config.timing.lease_time.map(|life| Terms::new(life, config.timing.stop_grace));
        let (leases, words) = if terms.is_some() { Leases::shared(hard) } else { Leases::alone(hard) };
        let guard = config.guard.clone();
        let outbox = outbox(&config, worker);
        let courier = outbox.clone().map(|outbox| {
            let folders = (outbox, config.paths.artifacts.clone());
            Courier::new(api.clone(), store.clone(), folders, config.timing.delivery)
        });
        let logs = logs(outbox, &config);
        let look_again = Arc::<Notify>::default();
        let packs = packs_by_api.then(|| packs(&config, api.clone(), (look_again.clone(), stop, tasks)));
        let registered = config.restarts_registered.then(Registrations::default);
        let run_dir = run_dir(&config);
        let environments =
            Environments::new(config.build_host.clone(), observer.clone()).with_policy(config.policy.as_ref());
        let deadline = Deadline::new(stop.soft().clone(), config.timing.stop_grace);
        let host = (worker, config.name.clone(), process);
        let (recorder, changes_of_rows) = Recorder::new(store.clone(), host, deadline.clone());
        let context = Arc::new(Context {
            config,
            store,
            bus,
            logs,
            clock,
            observer,
            api,
            worker,
            process,
            leases,
            changes: changes_of_rows,
            turns: Turns::default(),
            guard,
            run_dir,
            vitals,
            environments,
            packs,
            registered,
            look_again,
            stop: stop.clone(),
            deadline: deadline.clone(),
        });
        let silence = CancellationToken::new();
        tasks.spawn_vital("recorder of states", stop, recorder.run(silence.clone()));
        if let Some(courier) = courier {
            tasks.spawn_vital("courier of logs", stop, courier.run(silence.clone(), deadline));
        }
        let keeper = terms.zip(words).map(|(terms, words)| {
            let keeper = Keeper::new(context.clone(), tasks.clone(), terms, words, silence.clone());
            tasks.spawn_vital("keeper of leases", stop, keeper.run())
        });
        tasks.spawn_vital(
            "sensor host",
            stop,
            run(context, tasks.clone(), (started, changes, registry), wanted, (silence, keeper)),
        );
        Started { receiver }
    }
}

/// Rows of an earlier life were set to `stopped`.
pub(crate) fn tell_stale(rows: u64) {
    if rows > 0 {
        tracing::info!(rows, "sensors of an earlier life of this host are recorded as stopped");
    }
}

/// Whether packs come through the API. Decided once, at the start.
fn packs_by_api(config: &SensorConfig) -> bool {
    let folder = &config.paths.packs;
    let is_api = config.packs.is_api(|| shares_packs(folder));
    if is_api {
        tracing::info!(api = config.api_url, folder = %folder.display(), "no shared folder of packs: they come through the API");
    }
    is_api
}

fn packs(config: &SensorConfig, api: PlatformApi, (look_again, stop, tasks): (Arc<Notify>, &Stop, &Tasks)) -> Packs {
    let timing = config.timing.fetching;
    let sync = PackSync::new(&config.paths.packs, api.with_call_limit(timing.call_limit));
    Packs::new(sync, timing, (look_again, stop.clone(), tasks.clone()))
}

/// What the logs go through; none where the platform finds them in the folder of artifacts. Decided once, here.
fn outbox(config: &SensorConfig, worker: WorkerId) -> Option<Outbox> {
    let artifacts = &config.paths.artifacts;
    if !config.artifacts.is_api(|| shares_artifacts(artifacts)) {
        return None;
    }
    tracing::info!(api = config.api_url, "no shared folder of artifacts: logs of sensors go through the API");
    Some(Outbox::open(courier::folder(artifacts, worker)))
}

fn logs(outbox: Option<Outbox>, config: &SensorConfig) -> LogHome {
    match outbox {
        Some(outbox) => LogHome::sent(outbox, config.logs),
        None => LogHome::shared(config.paths.artifacts.clone(), config.logs),
    }
}

/// Without it sensors run as well; only their tokens cannot be renewed without a restart.
fn run_dir(config: &SensorConfig) -> Option<RunDir> {
    let root = config.paths.run.as_ref()?;
    let user = config.policy.as_ref().and_then(|policy| policy.user.as_ref()).map(|user| user.uid);
    match RunDir::make(root, user) {
        Ok(made) => Some(made),
        Err(error) => {
            tracing::warn!(folder = %root.display(), %error,
                "no private folder: tokens are renewed by restarts, and sensors are neither watched nor controlled");
            None
        }
    }
}

async fn run(
    context: Arc<Context>,
    tasks: Tasks,
    (started, changes, registry): (watch::Sender<bool>, Subscription, Registry),
    wanted: Option<Wanted>,
    (silence, keeper): (CancellationToken, Option<JoinHandle<()>>),
) {
    let listening = listen(context.clone(), changes);
    tasks.spawn_guarded("listener", &context.stop, listening);
    let beating = beat(context.clone(), registry.clone(), silence.clone());
    let heartbeat = tasks.spawn_vital("heartbeat", &context.stop, beating);
    let (commands, obeyed) = mpsc::channel(COMMANDS);
    if let Some(root) = context.config.paths.run.as_ref().filter(|_| context.run_dir.is_some()) {
        tasks.spawn(serve(root.join(CONTROL_SOCKET), commands, context.stop.soft().clone()));
    }
    Dispatcher::new(context.clone(), tasks, registry, wanted, (started, obeyed)).run().await;
    // The row says `active` until no sensor is left, and nothing writes it after `inactive`.
    silence.cancel();
    if heartbeat.await.is_err() {
        tracing::error!("the heartbeat of the sensor host panicked");
    }
    if let Some(keeper) = keeper
        && keeper.await.is_err()
    {
        tracing::error!("the keeper of the leases panicked");
    }
    if context.is_replaced().await {
        tracing::info!("another host has the name {}: its row stays as it is", context.config.name);
        return;
    }
    let farewell = context.store.set_worker_status(context.worker, WorkerStatus::Inactive);
    match context.deadline.within(STORE_LIMIT, farewell).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => {
            tracing::warn!(error = %chain(&error), "failed to record that the host is inactive");
        }
        Err(late) => tracing::warn!(error = %late, "failed to record that the host is inactive"),
    }
}
