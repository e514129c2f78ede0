//! A small world for a sensor host: a pack on disk, rows in SQLite, the in-process bus, and an API that gives tokens.

pub(crate) mod panicking;
pub(crate) mod relay;
pub(crate) mod remote;

use std::collections::BTreeMap;
use std::fs;
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use attune_bus::{Bus, MemoryBus, Outgoing};
use attune_lifecycle::{Stop, Tasks};
use attune_model::activity::{Activity, Observer};
use attune_model::clock::{Clock, SystemClock};
use attune_model::message::{PackRegistered, RuleEnabled};
use attune_model::rows::SensorProcess;
use attune_model::status::{OutputFormat, ParameterDelivery, ParameterFormat, SensorProcessStatus};
use attune_model::{JsonMap, PackId, RuleId, WorkerId};
use attune_process::Guard;
use attune_runtime::advertise::{Advertised, Tier};
use attune_runtime::host::Host;
use attune_runtime::plan::Planner;
use attune_sensor::{LogLimits, SensorConfig, SensorHost, SensorPaths, SensorTiming, Started, Transport};
use attune_store::{
    HubStore, NewAction, NewPack, NewRule, NewRuntime, NewSensor, NewTrigger, PageRequest, SensorStore,
};
use attune_store_sqlite::SqliteStore;
use attune_testkit::eventually;
use axum::extract::State;
use axum::http::StatusCode;
use axum::routing::{get, post};
use axum::{Json, Router};
use chrono::{TimeDelta, Utc};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::net::TcpListener;

/// The API as far as a sensor host needs it.
#[derive(Debug, Default)]
pub(crate) struct Api {
    pub(crate) requests: Mutex<Vec<Value>>,
    pub(crate) tokens: AtomicUsize,
    pub(crate) is_down: AtomicBool,
    /// Life of the tokens in milliseconds; 0 means what was asked for.
    pub(crate) life_ms: AtomicU64,
    /// Archives of packs that were asked for; none is ever given.
    pub(crate) archives: AtomicUsize,
}

/// Hangs.
async fn archive(State(api): State<Arc<Api>>) -> StatusCode {
    api.archives.fetch_add(1, Ordering::SeqCst);
    std::future::pending().await
}

async fn sensor_token(State(api): State<Arc<Api>>, Json(body): Json<Value>) -> Result<Json<Value>, StatusCode> {
    api.requests.lock().unwrap().push(body.clone());
    if api.is_down.load(Ordering::SeqCst) {
        return Err(StatusCode::SERVICE_UNAVAILABLE);
    }
    let number = api.tokens.fetch_add(1, Ordering::SeqCst) + 1;
    let life = match api.life_ms.load(Ordering::SeqCst) {
        0 => TimeDelta::seconds(body["ttl_seconds"].as_i64().unwrap()),
        life => TimeDelta::milliseconds(i64::try_from(life).unwrap()),
    };
    Ok(Json(json!({"data": {
        "identity_id": 1,
        "sensor_ref": body["sensor_ref"],
        "token": format!("secret-token-{number}"),
        "expires_at": Utc::now() + life,
        "trigger_types": body["trigger_types"],
    }})))
}

/// Remembers everything that was observed.
#[derive(Debug, Default)]
pub(crate) struct Seen(pub(crate) Mutex<Vec<Activity>>);

impl Observer for Seen {
    fn observe(&self, activity: Activity) {
        self.0.lock().unwrap().push(activity);
    }
}

/// Everything around one host.
pub(crate) struct World {
    pub(crate) dir: TempDir,
    pub(crate) store: Arc<SqliteStore>,
    pub(crate) bus: Arc<MemoryBus>,
    pub(crate) api: Arc<Api>,
    pub(crate) address: SocketAddr,
    pub(crate) seen: Arc<Seen>,
    pub(crate) pack: NewPack,
    pub(crate) timing: SensorTiming,
    pub(crate) logs: LogLimits,
    /// The private folder of the host; none by default.
    pub(crate) run: Option<PathBuf>,
    pub(crate) capabilities: JsonMap,
    servers: Tasks,
}

/// A host that runs.
pub(crate) struct Running {
    pub(crate) stop: Stop,
    pub(crate) tasks: Tasks,
    pub(crate) worker: WorkerId,
    pub(crate) started: Started,
}

impl Running {
    pub(crate) fn spawn(host: SensorHost) -> Self {
        let (stop, tasks, worker) = (Stop::new(), Tasks::default(), host.worker());
        let started = host.spawn(&stop, &tasks);
        Self { stop, tasks, worker, started }
    }

    /// Stops it and waits until nothing of it is left.
    pub(crate) async fn stop(self) {
        self.stop.soft().cancel();
        self.tasks.drained().await;
    }
}

impl World {
    pub(crate) async fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let store = Arc::new(SqliteStore::open(&dir.path().join("attune.db")).await.unwrap());
        let api = Arc::new(Api::default());
        let app = Router::new()
            .route("/auth/internal/sensor-token", post(sensor_token))
            .route("/api/v1/internal/packs/{pack_ref}/archive", get(archive))
            .with_state(api.clone());
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let servers = Tasks::default();
        servers.spawn(async move { axum::serve(listener, app).await.unwrap() });
        for folder in ["packs/demo/sensors", "facts", "artifacts"] {
            fs::create_dir_all(dir.path().join(folder)).unwrap();
        }
        Self {
            dir,
            store,
            bus: Arc::new(MemoryBus::new()),
            api,
            address,
            seen: Arc::default(),
            pack: empty_pack(),
            timing: timing(),
            logs: LogLimits::default(),
            run: None,
            capabilities: capabilities(),
            servers,
        }
    }

    pub(crate) fn path(&self, relative: &str) -> PathBuf {
        self.dir.path().join(relative)
    }

    /// Adds a sensor with its trigger, an enabled rule and its script.
    pub(crate) fn add_sensor(&mut self, name: &str, runtime: &str, script: &str) {
        let trigger_ref = format!("demo.{name}_trigger");
        self.pack.triggers.push(NewTrigger { r#ref: trigger_ref.clone(), enabled: true, ..NewTrigger::default() });
        self.pack.sensors.push(NewSensor {
            r#ref: format!("demo.{name}"),
            entrypoint: name.to_owned(),
            runtime_ref: format!("core.{runtime}"),
            trigger_refs: vec![trigger_ref],
            enabled: true,
            config: Some(json!({"path": "/x"})),
            ..NewSensor::default()
        });
        self.add_rule(&format!("{name}_rule"), name, &json!({"n": 1}));
        self.write_script(name, script);
    }

    pub(crate) fn add_rule(&mut self, rule: &str, sensor: &str, params: &Value) {
        self.pack.rules.push(NewRule {
            r#ref: format!("demo.{rule}"),
            action_ref: "demo.noop".to_owned(),
            trigger_ref: format!("demo.{sensor}_trigger"),
            trigger_params: params.clone(),
            enabled: true,
            ..NewRule::default()
        });
    }

    pub(crate) fn write_script(&self, name: &str, script: &str) {
        let path = self.path("packs/demo/sensors").join(name);
        fs::write(&path, script).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
    }

    /// Stores the pack as it is now.
    pub(crate) async fn load(&self) {
        let changes = self.store.upsert_pack(&self.pack).await.unwrap();
        assert!(changes.skipped.is_empty(), "{:?}", changes.skipped);
    }

    /// Publishes a message about some rule: a hint to look again.
    pub(crate) async fn hint(&self) {
        let message = RuleEnabled {
            rule_id: RuleId(1),
            rule_ref: "demo.some".to_owned(),
            trigger_ref: "demo.some".to_owned(),
            trigger_params: None,
        };
        self.bus.publish(&[Outgoing::new(&message, "test", Utc::now()).unwrap()]).await.unwrap();
    }

    /// Publishes that the pack was registered.
    pub(crate) async fn register(&self) {
        let message = PackRegistered {
            pack_id: PackId(1),
            pack_ref: "demo".to_owned(),
            version: "1.0.0".to_owned(),
            runtime_names: Vec::new(),
        };
        self.bus.publish(&[Outgoing::new(&message, "test", Utc::now()).unwrap()]).await.unwrap();
    }

    pub(crate) fn config(&self) -> SensorConfig {
        let mut config = host_config(self.dir.path(), self.address);
        config.capabilities.clone_from(&self.capabilities);
        config.timing = self.timing.clone();
        config.logs = self.logs;
        config.paths.run.clone_from(&self.run);
        config
    }

    /// What [`run_host_from`] needs.
    pub(crate) fn settings(&self) -> String {
        self.address.to_string()
    }

    /// Loads the pack and starts a host.
    pub(crate) async fn start(&self) -> Running {
        self.load().await;
        self.start_host().await
    }

    pub(crate) async fn start_host(&self) -> Running {
        self.start_host_with(self.config(), Arc::new(SystemClock)).await
    }

    pub(crate) async fn start_host_with(&self, config: SensorConfig, clock: Arc<dyn Clock>) -> Running {
        Running::spawn(self.build_host(config, clock).await)
    }

    pub(crate) async fn build_host(&self, config: SensorConfig, clock: Arc<dyn Clock>) -> SensorHost {
        let host = SensorHost::build(config, self.store.clone(), self.bus.clone(), clock, self.seen.clone());
        host.await.unwrap()
    }

    /// The lines that sensors wrote into the file of that name in `$FACTS`.
    pub(crate) fn facts(&self, name: &str) -> Vec<String> {
        let text = fs::read_to_string(self.path("facts").join(name)).unwrap_or_default();
        // A line that is being written is no fact yet.
        let whole = text.rfind('\n').map_or("", |end| &text[..end]);
        whole.lines().map(str::to_owned).collect()
    }

    /// Waits for at least `count` lines.
    pub(crate) async fn eventually_facts(&self, name: &str, count: usize) -> Vec<String> {
        let what = format!("{count} lines in {name}");
        eventually(&what, async || Some(self.facts(name)).filter(|facts| facts.len() >= count)).await
    }

    pub(crate) async fn row(&self, worker: WorkerId, sensor_ref: &str) -> Option<SensorProcess> {
        self.store.processes(worker).await.unwrap().into_iter().find(|row| row.sensor_ref == sensor_ref)
    }

    pub(crate) async fn worker_id(&self, name: &str) -> Option<WorkerId> {
        let workers = self.store.workers(PageRequest { page: 1, page_size: 50 }).await.unwrap();
        workers.items.into_iter().find(|worker| worker.name == name).map(|worker| worker.id)
    }

    /// When a host gave its last sign of life.
    pub(crate) async fn heartbeat_of(&self, worker: WorkerId) -> chrono::DateTime<Utc> {
        let workers = self.store.workers(PageRequest { page: 1, page_size: 50 }).await.unwrap();
        workers.items.into_iter().find(|row| row.id == worker).unwrap().last_heartbeat.unwrap()
    }

    /// The row of a sensor on the host of that name.
    pub(crate) async fn row_of(&self, name: &str, sensor_ref: &str) -> Option<SensorProcess> {
        self.row(self.worker_id(name).await?, sensor_ref).await
    }

    /// The pids of the rows, of all hosts, that say that the sensor runs.
    pub(crate) async fn running_rows(&self, sensor_ref: &str) -> Vec<i32> {
        let workers = self.store.workers(PageRequest { page: 1, page_size: 50 }).await.unwrap();
        let mut pids = Vec::new();
        for worker in workers.items {
            let row = self.row(worker.id, sensor_ref).await;
            pids.extend(row.filter(|row| row.status == SensorProcessStatus::Running).and_then(|row| row.pid));
        }
        pids
    }

    /// Another way to the rows.
    pub(crate) async fn database(&self) -> sqlx::SqlitePool {
        let options = sqlx::sqlite::SqliteConnectOptions::new().filename(self.path("attune.db"));
        sqlx::SqlitePool::connect_with(options).await.unwrap()
    }

    /// Keeps everybody from writing until it is dropped.
    pub(crate) async fn lock_store(&self) -> sqlx::Transaction<'static, sqlx::Sqlite> {
        self.database().await.begin_with("BEGIN IMMEDIATE").await.unwrap()
    }

    /// Waits until the row is as `fits` wants it.
    pub(crate) async fn eventually_row(
        &self,
        worker: WorkerId,
        sensor_ref: &str,
        fits: impl Fn(&SensorProcess) -> bool,
    ) -> SensorProcess {
        let what = format!("the row of {sensor_ref}");
        eventually(&what, async || self.row(worker, sensor_ref).await.filter(|row| fits(row))).await
    }

    /// Waits until the sensor is recorded as running.
    pub(crate) async fn eventually_running(&self, worker: WorkerId, sensor_ref: &str) -> SensorProcess {
        self.eventually_row(worker, sensor_ref, |row| row.status == SensorProcessStatus::Running).await
    }
}

impl Drop for World {
    fn drop(&mut self) {
        // The API lives as long as the runtime of the test; nothing else is to be left.
        assert!(self.servers.len() <= 1);
    }
}

/// Whether a process (not a zombie) has that id.
pub(crate) fn is_alive(pid: &str) -> bool {
    let stat = fs::read_to_string(Path::new("/proc").join(pid).join("stat")).unwrap_or_default();
    let state = stat.rsplit(')').next().unwrap_or_default().trim_start().chars().next();
    state.is_some_and(|state| state != 'Z')
}

fn empty_pack() -> NewPack {
    let runtime = |name: &str, config: Value| NewRuntime {
        r#ref: format!("core.{}", name.to_lowercase()),
        name: name.to_owned(),
        aliases: vec![name.to_lowercase()],
        execution_config: config,
        ..NewRuntime::default()
    };
    NewPack {
        r#ref: "demo".to_owned(),
        label: "demo".to_owned(),
        version: "1.0.0".to_owned(),
        runtimes: vec![
            runtime("Shell", json!({"interpreter": {"binary": "/bin/sh"}})),
            runtime("Python", json!({"interpreter": {"binary": "python3", "args": ["-u"]}})),
            runtime("Native", json!({})),
            runtime("Missing", json!({"interpreter": {"binary": "no-such-interpreter"}})),
            runtime("Ruby", json!({"interpreter": {"binary": "ruby"}})),
        ],
        triggers: vec![NewTrigger { r#ref: "core.alert".to_owned(), enabled: true, ..NewTrigger::default() }],
        actions: vec![NewAction {
            r#ref: "demo.noop".to_owned(),
            label: "noop".to_owned(),
            description: None,
            entrypoint: "true".to_owned(),
            runtime_ref: Some("core.shell".to_owned()),
            param_schema: None,
            out_schema: None,
            parameter_delivery: ParameterDelivery::Stdin,
            parameter_format: ParameterFormat::Json,
            output_format: OutputFormat::Text,
            timeout_seconds: None,
            runtime_version_constraint: None,
            required_worker_runtimes: json!({}),
            placement: attune_model::rows::RawPlacement::default(),
            accesses_mcp: false,
            default_execution_permission_set_refs: Vec::new(),
            log_retention: attune_model::rows::Retention::default(),
            artifact_retention: attune_model::rows::Retention::default(),
        }],
        ..NewPack::default()
    }
}

fn capabilities() -> JsonMap {
    json!({"runtimes": ["shell", "python", "native"]}).as_object().unwrap().clone()
}

fn timing() -> SensorTiming {
    SensorTiming {
        heartbeat_interval: Duration::from_millis(50),
        // Long: what the tests see comes from messages.
        reconcile_interval: Duration::from_hours(1),
        change_window: Duration::from_millis(20),
        backoff_min: Duration::from_millis(40),
        backoff_max: Duration::from_millis(400),
        ..SensorTiming::default()
    }
}

/// What the host found on this machine: nothing.
pub(crate) fn advertised() -> Advertised {
    Advertised {
        tier: Tier::Detected,
        runtimes: Vec::new(),
        runtime_versions: BTreeMap::new(),
        detected_interpreters: Vec::new(),
        handed_on: None,
        warnings: Vec::new(),
    }
}

fn host_config(dir: &Path, address: SocketAddr) -> SensorConfig {
    let env = vec![
        ("PATH".into(), "/usr/local/bin:/usr/bin:/bin".into()),
        ("FACTS".into(), dir.join("facts").into_os_string()),
    ];
    let host = Arc::new(Host::new(env.clone()));
    SensorConfig {
        name: "sensor-test".to_owned(),
        host: Some("here".to_owned()),
        capabilities: capabilities(),
        max_concurrent_sensors: 10,
        paths: SensorPaths {
            packs: dir.join("packs"),
            artifacts: dir.join("artifacts"),
            agent_binary: PathBuf::from("/opt/attune/agent/attune-agents"),
            run: None,
        },
        api_url: format!("http://{address}"),
        ca_file: None,
        token_key: None,
        mq_url: None,
        base_environment: env,
        planner: Planner::new(host.clone(), dir.join("packs"), dir.join("envs"), &advertised()),
        build_host: host,
        // The test's own binary has no applet that could apply one.
        policy: None,
        guard: None,
        timing: timing(),
        logs: LogLimits::default(),
        artifacts: Transport::Folder,
        packs: Transport::Folder,
        restarts_registered: true,
    }
}

/// Runs a host in the working folder, which is that of another process's world, until SIGTERM.
pub(crate) async fn run_host_from(settings: &str, name: &str, lease: Duration, guard: Arc<Guard>) {
    // Here, and not first in main, because libtest has that.
    let notes = attune_process::prepare();
    assert_eq!(notes, Vec::<String>::new());
    let dir = std::env::current_dir().unwrap();
    let mut config = host_config(&dir, settings.parse().unwrap());
    name.clone_into(&mut config.name);
    config.guard = Some(guard);
    config.timing.lease_time = Some(lease);
    config.timing.reconcile_interval = Duration::from_millis(200);
    config.timing.stop_grace = lease / 4;
    let lifecycle = attune_lifecycle::Lifecycle::new().unwrap();
    let store = Arc::new(SqliteStore::open(&dir.join("attune.db")).await.unwrap());
    let host =
        SensorHost::build(config, store, Arc::new(MemoryBus::new()), Arc::new(SystemClock), Arc::new(Seen::default()));
    host.await.unwrap().spawn(lifecycle.stop(), lifecycle.tasks());
    lifecycle.run(Duration::from_secs(10)).await.unwrap();
}
