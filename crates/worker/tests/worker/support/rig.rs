//! A worker on real storage and a real bus, embedded or on servers, and somebody who schedules for it.

use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use attune_bus::{Bus, Consumer, ConsumerEvent, MemoryBus, Outgoing, QueueLifetime, QueueSpec};
use attune_bus_amqp::{AmqpBus, AmqpConfig};
use attune_lifecycle::{Stop, Tasks};
use attune_model::activity::{Activity, Observer};
use attune_model::clock::SystemClock;
use attune_model::measure::Measure;
use attune_model::message::{Envelope, Exchange, ExecutionCancelRequested, ExecutionDispatch, MessageType, Payload};
use attune_model::rows::{Execution, RawPlacement, Retention};
use attune_model::status::{OutputFormat, ParameterDelivery, ParameterFormat, WorkerType};
use attune_model::{ExecutionId, IdentityId, JsonMap, Secret, WorkerId};
use attune_store::{ExecutionGuard, NewAction, NewExecution, NewPack, NewRuntime, PlacementOverride, WorkerStore};
use attune_store_postgres::PostgresStore;
use attune_store_sqlite::SqliteStore;
use attune_testkit::database::TestDatabase;
use attune_testkit::store_contract::Store;
use attune_testkit::{TestBroker, eventually};
use attune_worker::{Transports, Worker, WorkerConfig};
use chrono::Utc;
use serde_json::{Value, json};
use sqlx::{Connection as _, Executor as _};

use super::Place;

/// Long enough for anything that is to happen.
const LONG: Duration = Duration::from_hours(1);

/// What a rig is made of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Backend {
    /// SQLite and the bus in the process.
    Embedded,
    /// PostgreSQL and RabbitMQ, a database and a virtual host for each rig.
    Servers,
}

/// Storage, bus and packs; workers come and go.
pub struct Rig {
    /// Folders.
    pub place: Place,
    /// What is told about executions.
    spy: Box<dyn Consumer>,
    /// Rows.
    pub store: Arc<dyn Store>,
    /// Messages.
    pub bus: Arc<dyn Bus>,
    /// What workers counted.
    pub measured: Arc<Measured>,
    /// Go last: dropping them ends every connection.
    servers: Option<(TestDatabase, TestBroker)>,
}

/// Everything that was counted.
#[derive(Debug, Default)]
pub struct Measured(Mutex<Vec<Measure>>);

impl Measured {
    /// How many times this was counted.
    pub fn times(&self, measure: Measure) -> usize {
        self.0.lock().unwrap().iter().filter(|seen| **seen == measure).count()
    }
}

impl Observer for Measured {
    fn observe(&self, _activity: Activity) {}

    fn measure(&self, measure: Measure) {
        self.0.lock().unwrap().push(measure);
    }
}

/// A worker that works.
pub struct Life {
    /// Its row.
    pub id: WorkerId,
    /// Its end.
    pub stop: Stop,
    /// Its tasks.
    pub tasks: Tasks,
    /// Whether it takes work.
    pub ready: tokio::sync::watch::Receiver<bool>,
}

impl Rig {
    /// Shell actions of pack `demo` by name and code.
    pub async fn new(on: Backend, actions: &[(&str, String)]) -> Self {
        let place = Place::new();
        let (store, bus, servers) = match on {
            Backend::Embedded => embedded(&place).await,
            Backend::Servers => servers().await,
        };
        let pack = NewPack {
            r#ref: "demo".to_owned(),
            label: "Demo".to_owned(),
            version: "1.0.0".to_owned(),
            conf_schema: json!({}),
            config: json!({}),
            meta: json!({}),
            runtimes: vec![runtime("shell", json!({"interpreter": {"binary": "/bin/sh", "file_extension": ".sh"}}))],
            actions: actions.iter().map(|(name, _)| new_action(name)).collect(),
            ..NewPack::default()
        };
        for (name, code) in actions {
            place.file(&format!("{name}.sh"), code);
        }
        assert_eq!(store.upsert_pack(&pack).await.unwrap().skipped, []);
        let queue = QueueSpec {
            name: "spy".to_owned(),
            bindings: vec![
                (Exchange::Executions, "execution.status.changed".to_owned()),
                (Exchange::Executions, "execution.completed".to_owned()),
            ],
            message_ttl_ms: None,
            dead_letters: false,
            lifetime: QueueLifetime::Permanent,
        };
        bus.declare(&queue).await.unwrap();
        let spy = bus.consume("spy", "spy", 0).await.unwrap();
        Self { place, spy, store, bus, measured: Arc::default(), servers }
    }

    /// Settings of the worker.
    pub fn config(&self) -> WorkerConfig {
        WorkerConfig {
            name: "runner".to_owned(),
            worker_type: WorkerType::Local,
            host: Some("here".to_owned()),
            port: None,
            capabilities: JsonMap::new(),
            max_concurrent_tasks: 4,
            // A beat that takes longer than the interval is a failed one: servers of a busy machine need their time.
            heartbeat_interval: Duration::from_millis(if self.servers.is_some() { 500 } else { 20 }),
            runtime: None,
            registers_runtimes: false,
            spool_dir: self.place.path("spool"),
            transports: Transports::default(),
            executor: self.place.config(),
        }
    }

    /// A worker that is ready.
    pub async fn live(&self) -> Life {
        self.live_with(self.config()).await
    }

    /// A worker with these settings that is ready.
    pub async fn live_with(&self, config: WorkerConfig) -> Life {
        self.live_on(config, self.store.clone()).await
    }

    /// A worker that sees storage through `store`.
    pub async fn live_on(&self, config: WorkerConfig, store: Arc<dyn WorkerStore>) -> Life {
        let worker = Worker::build(config, store, self.bus.clone(), Arc::new(SystemClock), self.measured.clone());
        let worker = worker.await.unwrap();
        let (stop, tasks, mut ready) = (Stop::new(), Tasks::default(), worker.ready());
        let id = worker.id();
        worker.spawn(&stop, &tasks);
        tokio::time::timeout(LONG, ready.wait_for(|ready| *ready)).await.unwrap().unwrap();
        Life { id, stop, tasks, ready }
    }

    /// An execution that is scheduled for the worker, without a message.
    pub async fn scheduled(&self, worker: WorkerId, action: &str) -> Execution {
        let action = self.store.action(&format!("demo.{action}")).await.unwrap().unwrap();
        let execution = NewExecution {
            action: action.id,
            action_ref: action.r#ref.clone(),
            config: json!({}),
            secrets: Vec::new(),
            env_vars: None,
            parent: None,
            executor: IdentityId(1),
            permission_set_refs: Vec::new(),
            artifact_retention: None,
            placement: PlacementOverride::default(),
        };
        let execution = self.store.insert_execution(&execution).await.unwrap();
        let claimed = self.store.claim_scheduling(execution.id, LONG).await.unwrap().unwrap();
        let guard = ExecutionGuard::from(&claimed.execution);
        self.store.assign_worker(&guard, worker).await.unwrap().unwrap()
    }

    /// Tells the worker about it.
    pub async fn dispatch(&self, execution: &Execution) {
        let payload = ExecutionDispatch {
            execution_id: execution.id,
            worker_id: execution.worker.unwrap(),
            action_ref: execution.action_ref.clone(),
            config: None,
            scheduled_attempt_updated_at: Some(execution.updated),
        };
        self.publish(&payload).await;
    }

    /// Schedules and tells.
    pub async fn submit(&self, worker: WorkerId, action: &str) -> ExecutionId {
        let execution = self.scheduled(worker, action).await;
        self.dispatch(&execution).await;
        execution.id
    }

    /// Tells a worker to cancel, whatever the row says.
    pub async fn send_cancel(&self, worker: WorkerId, execution: ExecutionId) {
        self.publish(&ExecutionCancelRequested { execution_id: execution, worker_id: worker }).await;
    }

    /// Publishes.
    pub async fn publish<P: Payload>(&self, payload: &P) {
        let message = Outgoing::new(payload, "test", Utc::now()).unwrap();
        self.bus.publish(&[message]).await.unwrap();
    }

    /// Changes rows as no interface does.
    pub async fn sql(&self, sql: &'static str) {
        if let Some((database, _)) = &self.servers {
            return database.execute(sql).await;
        }
        let url = format!("sqlite://{}", self.place.path("attune.db").display());
        let mut connection = sqlx::SqliteConnection::connect(&url).await.unwrap();
        connection.execute(sql).await.unwrap();
    }

    /// Deletes a queue with all that is in it.
    pub fn delete_queue(&self, name: &str) {
        let (_, broker) = self.servers.as_ref().expect("a broker");
        broker.delete_queue(name);
    }

    /// The row.
    pub async fn row(&self, id: ExecutionId) -> Execution {
        self.store.execution(id).await.unwrap().unwrap().execution
    }

    /// The row when it has ended.
    pub async fn ended(&self, id: ExecutionId) -> Execution {
        eventually("the execution ends", async || Some(self.row(id).await).filter(|row| row.status.is_terminal())).await
    }

    /// Until a file exists.
    pub async fn file(&self, name: &str) -> PathBuf {
        let path = self.place.path(name);
        eventually(name, async || path.exists().then_some(())).await;
        path
    }

    /// The next message about any execution.
    pub async fn heard(&mut self) -> Envelope {
        let next = tokio::time::timeout(attune_testkit::PATIENCE, self.spy.next()).await.unwrap();
        let Some(ConsumerEvent::Delivery(delivery)) = next else { panic!("the bus is gone") };
        let envelope = serde_json::from_slice(&delivery.body).unwrap();
        delivery.ack().await.unwrap();
        envelope
    }

    /// Messages up to and including `ExecutionCompleted` of that execution.
    pub async fn told(&mut self, id: ExecutionId) -> Vec<Envelope> {
        let mut seen = Vec::new();
        loop {
            let envelope = self.heard().await;
            if envelope.payload["execution_id"] == id.0 {
                let last = envelope.message_type == MessageType::ExecutionCompleted;
                seen.push(envelope);
                if last {
                    return seen;
                }
            }
        }
    }
}

impl Life {
    /// Takes nothing new and finishes.
    pub async fn finish(self) {
        self.stop.soft().cancel();
        self.drained().await;
    }

    /// Stops now.
    pub async fn end(self) {
        self.stop.hard().cancel();
        self.drained().await;
    }

    /// Until every task has ended.
    pub async fn drained(self) {
        tokio::time::timeout(attune_testkit::PATIENCE, self.tasks.drained()).await.unwrap();
    }
}

type Parts = (Arc<dyn Store>, Arc<dyn Bus>, Option<(TestDatabase, TestBroker)>);

async fn embedded(place: &Place) -> Parts {
    let store = SqliteStore::open(&place.path("attune.db")).await.unwrap();
    (Arc::new(store), Arc::new(MemoryBus::new()), None)
}

async fn servers() -> Parts {
    let (database, broker) = (TestDatabase::new().await, TestBroker::new());
    let store = PostgresStore::connect(&database.config()).await.unwrap();
    let bus = AmqpBus::connect(&AmqpConfig::new(Secret::new(broker.url()), "test")).await.unwrap();
    (Arc::new(store), Arc::new(bus), Some((database, broker)))
}

/// A runtime of the pack.
pub fn runtime(name: &str, execution_config: Value) -> NewRuntime {
    NewRuntime {
        r#ref: format!("demo.{name}"),
        name: name.to_owned(),
        aliases: vec![name.to_owned()],
        distributions: json!({}),
        execution_config,
        ..NewRuntime::default()
    }
}

/// A shell action that names no runtime: its extension chooses it.
pub fn new_action(name: &str) -> NewAction {
    NewAction {
        r#ref: format!("demo.{name}"),
        label: name.to_owned(),
        description: None,
        entrypoint: format!("{name}.sh"),
        runtime_ref: None,
        param_schema: None,
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
