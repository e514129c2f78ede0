//! A hub on a real store and a real bus, spoken to over real sockets.

pub(crate) mod http;
pub(crate) mod place;

use std::net::SocketAddr;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use attune_bus::{Bus, ConsumerEvent, MemoryBus, QueueLifetime, QueueSpec};
use attune_hub::{Folders, Hub, HubConfig, HubHandle};
use attune_lifecycle::{Stop, Tasks};
use attune_model::clock::SystemClock;
use attune_model::message::{Envelope, Exchange, MessageType};
use attune_model::rows::{Execution, RawPlacement, Retention, Worker};
use attune_model::status::{OutputFormat, ParameterDelivery, ParameterFormat, WorkerRole, WorkerType};
use attune_model::{ExecutionId, IdentityId, JsonMap, Secret};
use attune_security::{Claims, SealingKey, TokenKey, TokenType};
use attune_store::{
    AgentStore as _, HubStore as _, NewAction, NewPack, NewRule, NewRuntime, NewSensor, NewTrigger, WorkerRegistration,
};
use attune_store_sqlite::SqliteStore;
use attune_testkit::eventually;
use chrono::{TimeDelta, Utc};
use serde_json::{Value, json};
use tempfile::TempDir;

pub(crate) const JWT_SECRET: &str = "signing secret of the tests";

/// A running hub.
pub(crate) struct World {
    pub(crate) store: Arc<SqliteStore>,
    pub(crate) bus: MemoryBus,
    pub(crate) hub: HubHandle,
    pub(crate) address: SocketAddr,
    pub(crate) seen: Seen,
    stop: Stop,
    tasks: Tasks,
    folder: Arc<TempDir>,
}

/// Every message that was published.
#[derive(Clone, Default)]
pub(crate) struct Seen(Arc<Mutex<Vec<(String, Envelope)>>>);

pub(crate) fn token_key() -> TokenKey {
    TokenKey::new(&Secret::new(JWT_SECRET.to_owned())).unwrap()
}

pub(crate) fn sealing_key() -> SealingKey {
    SealingKey::new(&Secret::new("encryption key of the tests, long".to_owned())).unwrap()
}

/// [`config`] of a hub with folders in `dir`, which takes files of at most so many bytes.
pub(crate) fn config_with_folders(dir: &Path, upload_limit_bytes: u64) -> HubConfig {
    let (packs_dir, artifacts_dir) = (dir.join("packs"), dir.join("artifacts"));
    HubConfig { folders: Some(Folders { packs_dir, artifacts_dir, upload_limit_bytes }), ..config() }
}

/// Short periods, so that what happens on a timer happens soon.
pub(crate) fn config() -> HubConfig {
    let mut config = HubConfig::new("127.0.0.1:0".parse().unwrap(), token_key(), sealing_key());
    config.fleet_period = Duration::from_millis(10);
    config
}

impl World {
    pub(crate) async fn new() -> Self {
        Self::with(config()).await
    }

    pub(crate) async fn with(config: HubConfig) -> Self {
        let bus = MemoryBus::new();
        Self::with_bus(config, Arc::new(bus.clone()), bus).await
    }

    /// `bus` is what the hub gets, `inner` what it stands in front of.
    pub(crate) async fn with_bus(config: HubConfig, bus: Arc<dyn Bus>, inner: MemoryBus) -> Self {
        let folder = Arc::new(TempDir::new().unwrap());
        let store = Arc::new(SqliteStore::open(&folder.path().join("attune.db")).await.unwrap());
        Self::on(config, store, (bus, inner), folder).await
    }

    async fn on(
        config: HubConfig,
        store: Arc<SqliteStore>,
        buses: (Arc<dyn Bus>, MemoryBus),
        folder: Arc<TempDir>,
    ) -> Self {
        let (stop, tasks, seen) = (Stop::new(), Tasks::default(), Seen::default());
        let (bus, inner) = buses;
        seen.watch(&inner, &stop, &tasks).await;
        let hub = Hub::build(config, store.clone(), bus, Arc::new(SystemClock)).await.unwrap();
        let (handle, address) = (hub.handle(), hub.local_addr());
        hub.spawn(&stop, &tasks);
        Self { store, bus: inner, hub: handle, address, seen, stop, tasks, folder }
    }

    pub(crate) fn is_stopping(&self) -> bool {
        self.stop.soft().is_cancelled()
    }

    /// Stops this hub and starts another one on the same store, with a bus that has forgotten everything.
    pub(crate) async fn restarted(self, config: HubConfig) -> Self {
        self.stop.soft().cancel();
        tokio::time::timeout(attune_testkit::PATIENCE, self.tasks.drained()).await.unwrap();
        let bus = MemoryBus::new();
        Self::on(config, self.store, (Arc::new(bus.clone()), bus), self.folder).await
    }

    /// Stops, and proves that everything ends.
    pub(crate) async fn stop(self) {
        self.stop.soft().cancel();
        tokio::time::timeout(attune_testkit::PATIENCE, self.tasks.drained()).await.unwrap();
    }

    pub(crate) fn user(&self) -> String {
        self.hub.access_token(Duration::from_hours(1)).unwrap().expose().clone()
    }

    pub(crate) async fn worker(&self, name: &str, runtimes: &[&str]) -> Worker {
        let Value::Object(capabilities) = json!({ "runtimes": runtimes }) else { unreachable!() };
        register(&self.store, name, capabilities).await
    }

    pub(crate) async fn execution(&self, id: i64) -> Execution {
        self.store.execution(ExecutionId(id)).await.unwrap().unwrap().execution
    }

    pub(crate) async fn eventually_status(&self, id: i64, status: &str) -> Execution {
        let what = format!("execution {id} to be {status}");
        eventually(&what, async || {
            let execution = self.execution(id).await;
            (execution.status.as_str() == status).then_some(execution)
        })
        .await
    }
}

pub(crate) async fn register(store: &SqliteStore, name: &str, capabilities: JsonMap) -> Worker {
    let registration = WorkerRegistration {
        name: name.into(),
        role: WorkerRole::Action,
        worker_type: WorkerType::Local,
        runtime: None,
        host: None,
        port: None,
        capabilities,
    };
    store.register_worker(&registration).await.unwrap()
}

impl Seen {
    async fn watch(&self, bus: &MemoryBus, stop: &Stop, tasks: &Tasks) {
        let bindings = vec![(Exchange::Events, "#".to_owned()), (Exchange::Executions, "#".to_owned())];
        let spec = QueueSpec {
            name: "tests".into(),
            bindings,
            message_ttl_ms: None,
            dead_letters: false,
            lifetime: QueueLifetime::Permanent,
        };
        bus.declare(&spec).await.unwrap();
        let mut consumer = bus.consume("tests", "tests", 0).await.unwrap();
        let (seen, stop) = (self.clone(), stop.clone());
        tasks.spawn(async move {
            loop {
                let event = tokio::select! {
                    () = stop.soft().cancelled() => return,
                    event = consumer.next() => event,
                };
                let Some(ConsumerEvent::Delivery(delivery)) = event else {
                    return;
                };
                let envelope = serde_json::from_slice(&delivery.body).unwrap();
                seen.0.lock().unwrap().push((delivery.routing_key.clone(), envelope));
                delivery.ack().await.unwrap();
            }
        });
    }

    /// Payloads of a type, in order.
    pub(crate) fn of(&self, kind: MessageType) -> Vec<Value> {
        let seen = self.0.lock().unwrap();
        seen.iter().filter(|(_, envelope)| envelope.message_type == kind).map(|(_, e)| e.payload.clone()).collect()
    }

    /// Payloads with a routing key, in order.
    pub(crate) fn with_key(&self, key: &str) -> Vec<Value> {
        let seen = self.0.lock().unwrap();
        seen.iter().filter(|(found, _)| found == key).map(|(_, e)| e.payload.clone()).collect()
    }

    pub(crate) async fn eventually(&self, kind: MessageType, wanted: impl Fn(&Value) -> bool) -> Value {
        eventually(&format!("a {kind:?} message"), async || self.of(kind).into_iter().find(&wanted)).await
    }
}

/// A token of any kind, issued `age` ago for an hour.
pub(crate) fn token(kind: TokenType, login: &str, metadata: Value, age: TimeDelta) -> String {
    let now = Utc::now() - age;
    let mut claims = Claims::new(kind, IdentityId(1).to_string(), login.into(), now, Duration::from_hours(1));
    claims.metadata = Some(metadata);
    token_key().sign(&claims).unwrap().expose().clone()
}

pub(crate) fn sensor_token(trigger_types: &[&str]) -> String {
    token(TokenType::Sensor, "web.sensor", json!({ "trigger_types": trigger_types }), TimeDelta::zero())
}

/// Pack `core` with the runtimes shell and python and the trigger of alerts.
pub(crate) fn core_pack() -> NewPack {
    let runtime = |name: &str| NewRuntime {
        r#ref: format!("core.{}", name.to_lowercase()),
        name: name.into(),
        distributions: json!({}),
        execution_config: match name {
            "Python" => {
                json!({"interpreter": {"binary": "python3"}, "environment": {"env_type": "virtualenv"}})
            }
            _ => json!({"interpreter": {"binary": "sh"}}),
        },
        ..NewRuntime::default()
    };
    NewPack {
        runtimes: vec![runtime("Shell"), runtime("Python")],
        triggers: vec![trigger("core.alert")],
        ..pack("core")
    }
}

/// Pack `web`: sensor `web.sensor` with trigger `web.hook`, trigger `web.other` without sensor, action `web.greet` in
/// shell and `web.secret` in Python.
pub(crate) fn web_pack() -> NewPack {
    let secret_schema = json!({
        "token": {"type": "string", "secret": true}, "count": {"type": "integer", "default": 3},
    });
    NewPack {
        triggers: vec![trigger("web.hook"), trigger("web.other")],
        actions: vec![
            action("web.greet", "core.shell", json!({"name": {"type": "string", "default": "world"}})),
            action("web.secret", "core.python", secret_schema),
        ],
        sensors: vec![NewSensor {
            r#ref: "web.sensor".into(),
            label: "Sensor".into(),
            entrypoint: "sensor.sh".into(),
            runtime_ref: "core.shell".into(),
            trigger_refs: vec!["web.hook".into()],
            enabled: true,
            ..NewSensor::default()
        }],
        ..pack("web")
    }
}

pub(crate) fn pack(name: &str) -> NewPack {
    NewPack {
        r#ref: name.into(),
        label: name.into(),
        version: "1.0.0".into(),
        conf_schema: json!({}),
        config: json!({}),
        meta: json!({}),
        ..NewPack::default()
    }
}

pub(crate) fn trigger(name: &str) -> NewTrigger {
    NewTrigger { r#ref: name.into(), label: name.into(), enabled: true, ..NewTrigger::default() }
}

pub(crate) fn action(name: &str, runtime: &str, param_schema: Value) -> NewAction {
    NewAction {
        r#ref: name.into(),
        label: name.into(),
        description: None,
        entrypoint: "run.sh".into(),
        runtime_ref: Some(runtime.into()),
        param_schema: Some(param_schema),
        out_schema: None,
        parameter_delivery: ParameterDelivery::Stdin,
        parameter_format: ParameterFormat::Json,
        output_format: OutputFormat::Text,
        timeout_seconds: None,
        runtime_version_constraint: None,
        required_worker_runtimes: json!({}),
        placement: RawPlacement { selector: json!({}), tolerations: json!([]), affinity: json!({}) },
        accesses_mcp: false,
        default_execution_permission_set_refs: Vec::new(),
        log_retention: Retention::default(),
        artifact_retention: Retention::default(),
    }
}

/// An enabled rule from `web.hook` to `web.greet`.
pub(crate) fn rule(name: &str, params: Value) -> NewRule {
    NewRule {
        r#ref: name.into(),
        label: name.into(),
        action_ref: "web.greet".into(),
        trigger_ref: "web.hook".into(),
        conditions: json!([]),
        action_params: params,
        trigger_params: json!({}),
        enabled: true,
        ..NewRule::default()
    }
}

/// Core and web packs with these rules.
pub(crate) async fn load(world: &World, rules: Vec<NewRule>) {
    world.hub.packs().register(&core_pack()).await.unwrap();
    let changes = world.hub.packs().register(&NewPack { rules, ..web_pack() }).await.unwrap();
    assert_eq!(changes.skipped, []);
}

/// Asks for an execution as a person.
pub(crate) async fn ask(world: &World, action: &str) -> i64 {
    let body = json!({"action_ref": action});
    let answer = http::post(world.address, "/api/v1/executions/execute", Some(&world.user()), &body).await;
    answer.data()["id"].as_i64().unwrap()
}
