//! The wiring: which store, which bus, and the three services on them.

use std::ffi::OsString;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use attune_bus::{Bus, MemoryBus};
use attune_config::SENSOR_RUNTIMES;
use attune_hub::{DEFAULT_UPLOAD_LIMIT_BYTES, Folders, Hub, HubConfig, HubError, HubHandle};
use attune_lifecycle::{Stop, Tasks};
use attune_model::activity::Observer;
use attune_model::clock::{Clock, SystemClock};
use attune_model::status::{RetentionPolicy, WorkerType};
use attune_model::{JsonMap, Secret};
use attune_process::SIGTERM;
use attune_runtime::plan::Planner;
use attune_runtime::{Advertised, Host};
use attune_security::{SealingKey, TokenKey};
use attune_sensor::{LogLimits, SensorConfig, SensorHost, SensorPaths, SensorTiming, Started, Transport};
use attune_store::HubStore;
use attune_store_sqlite::SqliteStore;
use attune_worker::{
    CHILD_GRACE, DEFAULT_OUTPUT_LIMIT, DEFAULT_TIME_LIMIT, ExecutorConfig, Overview, PackFolders, Transports, Worker,
    WorkerConfig,
};
use serde_json::json;
use tokio::sync::watch;

use crate::applets::machine::builtins;
use crate::applets::user_code;
use crate::exit::{Exit, Failure};

use super::data::Data;

/// Executions at once. One machine, one person: more would only make the fans louder.
const SLOTS: u16 = 10;

/// A pack author changes code all the time; waiting five seconds for the next try would be four too many.
const FIRST_BACKOFF: Duration = Duration::from_secs(1);

/// `dev` is watched by a person, so a lost worker may be noticed soon.
const HEARTBEAT: Duration = Duration::from_secs(10);

/// The files, keys and rows below everything else.
#[derive(Debug)]
pub(super) struct Ground {
    pub(super) store: Arc<SqliteStore>,
    pub(super) bus: Arc<dyn Bus>,
    pub(super) clock: Arc<dyn Clock>,
}

impl Ground {
    /// Opens the database and an empty bus.
    pub(super) async fn open(data: &Data) -> Result<Self, Failure> {
        let store =
            SqliteStore::open(&data.database()).await.map_err(|error| Failure::new(Exit::OperatingSystem, error))?;
        Ok(Self { store: Arc::new(store), bus: Arc::new(MemoryBus::new()), clock: Arc::new(SystemClock) })
    }

    /// The store as the hub sees it.
    pub(super) fn hub_store(&self) -> Arc<dyn HubStore> {
        self.store.clone()
    }

    /// Ends the bus and closes the database.
    pub(super) async fn close(&self) {
        self.bus.close().await;
        self.store.close().await;
    }
}

/// What the agents know about this machine and about themselves.
#[derive(Debug)]
pub(super) struct Machine {
    /// Name of the host; rows of both agents are found by it again.
    pub(super) host: String,
    /// This program.
    pub(super) program: PathBuf,
    /// Variables that user code may see.
    pub(super) passed: Vec<(OsString, OsString)>,
    /// Where parameter files go.
    pub(super) temp: PathBuf,
    /// What the worker offers.
    pub(super) worker: Advertised,
    /// What the sensor host offers.
    pub(super) sensor: Advertised,
}

/// Binds the hub.
pub(super) async fn build_hub(listen: SocketAddr, ground: &Ground, data: &Data) -> Result<Hub, Failure> {
    let token_key = TokenKey::new(data.key()).map_err(|error| Failure::new(Exit::Configuration, error))?;
    let sealing_key = SealingKey::new(data.key()).map_err(|error| Failure::new(Exit::Configuration, error))?;
    let mut config = HubConfig::new(listen, token_key, sealing_key);
    config.folders = Some(Folders {
        packs_dir: data.packs(),
        artifacts_dir: data.artifacts(),
        upload_limit_bytes: DEFAULT_UPLOAD_LIMIT_BYTES,
    });
    Hub::build(config, ground.hub_store(), ground.bus.clone(), ground.clock.clone()).await.map_err(hub_failed)
}

/// Where programs on this machine reach a hub that listens on `address`.
pub(super) fn api_url(address: SocketAddr) -> String {
    let host: IpAddr = match address.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        ip => ip,
    };
    format!("http://{}", SocketAddr::new(host, address.port()))
}

/// Turns an error of the hub into the end of the program.
pub(crate) fn hub_failed(error: HubError) -> Failure {
    let exit = match &error {
        HubError::AddressInUse(_) | HubError::Bind { .. } => Exit::Unavailable,
        HubError::Store { .. } | HubError::Bus { .. } | HubError::Token(_) => Exit::Internal,
    };
    Failure::new(exit, error)
}

/// The agents, at work.
#[derive(Debug)]
pub(super) struct Agents {
    worker: watch::Receiver<bool>,
    overviews: (Overview, attune_sensor::Overview),
    sensor: Started,
}

impl Agents {
    /// Builds and spawns both, side by side.
    pub(super) async fn start(
        machine: &Machine,
        api: &str,
        (ground, data): (&Ground, &Data),
        observer: Arc<dyn Observer>,
        (stop, tasks): (&Stop, &Tasks),
    ) -> Result<Self, Failure> {
        let worker = Worker::build(
            worker_config(machine, api, data),
            ground.store.clone(),
            ground.bus.clone(),
            ground.clock.clone(),
            observer.clone(),
        );
        let sensor = SensorHost::build(
            sensor_config(machine, api, data),
            ground.store.clone(),
            ground.bus.clone(),
            ground.clock.clone(),
            observer,
        );
        let (worker, sensor) = tokio::join!(worker, sensor);
        let worker = worker.map_err(|error| Failure::new(Exit::Internal, error))?;
        let sensor = sensor.map_err(|error| Failure::new(Exit::Internal, error))?;
        let (ready, overviews) = (worker.ready(), (worker.overview(), sensor.overview()));
        worker.spawn(stop, tasks);
        Ok(Self { worker: ready, overviews, sensor: sensor.spawn(stop, tasks) })
    }

    /// A look at both.
    pub(super) fn overviews(&self) -> (Overview, attune_sensor::Overview) {
        self.overviews.clone()
    }

    /// Waits until the worker takes work and every wanted sensor had its first start.
    pub(super) async fn ready(&mut self) -> bool {
        // The value that `wait_for` gives is a lock: kept for as long as the sensors take, it would stop the worker.
        let worker = async { self.worker.wait_for(|ready| *ready).await.is_ok() };
        let (worker, sensor) = tokio::join!(worker, self.sensor.wait());
        worker && sensor
    }
}

fn worker_config(machine: &Machine, api: &str, data: &Data) -> WorkerConfig {
    WorkerConfig {
        name: format!("worker-{}", machine.host),
        worker_type: WorkerType::Local,
        host: Some(machine.host.clone()),
        port: None,
        // The worker says itself what it can run, and keeps that fresh.
        capabilities: JsonMap::new(),
        max_concurrent_tasks: SLOTS,
        heartbeat_interval: HEARTBEAT,
        runtime: None,
        // The packs bring them.
        registers_runtimes: false,
        spool_dir: data.artifacts().join("_spool"),
        transports: Transports::default(),
        executor: ExecutorConfig {
            time_limit: DEFAULT_TIME_LIMIT,
            packs: PackFolders::base(data.packs()),
            advertised: machine.worker.clone(),
            builtins: Vec::new(),
            runtime_envs_dir: data.runtime_envs(),
            artifacts_dir: data.artifacts(),
            temp_dir: machine.temp.clone(),
            api_url: api.to_owned(),
            agent_bin: machine.program.clone(),
            passed_environment: machine.passed.clone(),
            max_stdout_bytes: DEFAULT_OUTPUT_LIMIT,
            max_stderr_bytes: DEFAULT_OUTPUT_LIMIT,
            log_retention: (RetentionPolicy::Days, 7),
            policy: Some(user_code::unconfigured()),
            child_signal: SIGTERM,
            child_grace: CHILD_GRACE,
            encryption_key: Some(data.key().clone()),
            jwt_secret: Some(data.key().clone()),
        },
    }
}

fn sensor_config(machine: &Machine, api: &str, data: &Data) -> SensorConfig {
    let host = Arc::new(Host::new(machine.passed.clone()));
    let planner =
        Planner::new(host.clone(), data.packs(), data.runtime_envs(), &machine.sensor).with_builtins(builtins());
    SensorConfig {
        name: format!("sensor-{}", machine.host),
        host: Some(machine.host.clone()),
        capabilities: capabilities(&machine.sensor),
        max_concurrent_sensors: 50,
        paths: SensorPaths {
            packs: data.packs(),
            artifacts: data.artifacts(),
            agent_binary: machine.program.clone(),
            run: Some(machine.temp.join(format!("attune-dev-{}", std::process::id()))),
        },
        api_url: api.to_owned(),
        ca_file: None,
        // On this machine the hub asks for none.
        token_key: None,
        mq_url: None::<Secret>,
        base_environment: sensor_environment(machine),
        planner,
        build_host: host,
        policy: Some(user_code::unconfigured()),
        guard: None,
        timing: SensorTiming {
            heartbeat_interval: HEARTBEAT,
            backoff_min: FIRST_BACKOFF,
            // The data folder is locked, so nobody else can run these sensors.
            lease_time: None,
            ..SensorTiming::default()
        },
        logs: LogLimits::default(),
        artifacts: Transport::Folder,
        packs: Transport::Folder,
        restarts_registered: false,
    }
}

/// Sensors see what their host offers under the name by which an operator would choose it.
fn sensor_environment(machine: &Machine) -> Vec<(OsString, OsString)> {
    let handed_on = machine.sensor.handed_on.iter().map(|runtimes| (SENSOR_RUNTIMES.into(), runtimes.into()));
    machine.passed.iter().cloned().chain(handed_on).collect()
}

fn capabilities(advertised: &Advertised) -> JsonMap {
    let mut capabilities = JsonMap::new();
    capabilities.insert("runtimes".to_owned(), json!(advertised.runtimes));
    capabilities.insert("runtime_versions".to_owned(), json!(advertised.runtime_versions));
    capabilities.insert("detected_interpreters".to_owned(), json!(advertised.detected_interpreters));
    capabilities
}

/// Removes packs of an earlier life that are not in use any more.
pub(super) async fn remove_unused(
    hub: &HubHandle,
    store: &dyn HubStore,
    used: impl Fn(&str) -> bool,
) -> Result<Vec<String>, Failure> {
    let known = store.packs().await.map_err(|error| Failure::new(Exit::Internal, error))?;
    let unused: Vec<String> = known.into_iter().map(|pack| pack.r#ref).filter(|pack_ref| !used(pack_ref)).collect();
    for pack_ref in &unused {
        hub.packs().remove(pack_ref).await.map_err(hub_failed)?;
    }
    Ok(unused)
}
