//! A small world for contracts: one pack, one action worker, one sensor host.

use std::sync::Arc;

use attune_model::rows::{Action, Execution, Pack, RawPlacement, Retention, Sensor, Worker};
use attune_model::status::{OutputFormat, ParameterDelivery, ParameterFormat, WorkerRole, WorkerType};
use attune_model::{ExecutionId, IdentityId, JsonMap, WorkerId};
use attune_store::{
    Claim, ClaimedExecution, ExecutionGuard, NewAction, NewExecution, NewPack, NewRule, NewRuntime, NewRuntimeVersion,
    NewSensor, NewTrigger, PlacementOverride, SecretValue, WorkerRegistration,
};
use chrono::{DateTime, Utc};
use serde_json::{Value, json};
use std::time::Duration;

use super::{Lab, Store};

/// Longer than any test.
pub const LONG: Duration = Duration::from_hours(1);

/// A store with the pack [`demo`] loaded and an action worker registered.
#[derive(Debug)]
pub struct World {
    /// The store.
    pub store: Arc<dyn Store>,
    /// `demo`.
    pub pack: Pack,
    /// `demo.echo`.
    pub action: Action,
    /// `demo.clock`.
    pub sensor: Sensor,
    /// `runner`.
    pub worker: Worker,
}

impl World {
    /// Fills the lab's store.
    pub async fn new(lab: &dyn Lab) -> Self {
        Self::of(lab.store()).await
    }

    /// Fills `store`.
    pub async fn of(store: Arc<dyn Store>) -> Self {
        let changes = store.upsert_pack(&demo()).await.unwrap();
        assert_eq!(changes.skipped, []);
        Self {
            pack: changes.pack,
            action: store.action("demo.echo").await.unwrap().unwrap(),
            sensor: store.sensor("demo.clock").await.unwrap().unwrap().0,
            worker: store.register_worker(&worker("runner", WorkerRole::Action)).await.unwrap(),
            store,
        }
    }

    /// An execution of `demo.echo`, `requested`.
    pub async fn requested(&self) -> Execution {
        self.store.insert_execution(&self.execution()).await.unwrap()
    }

    /// What [`Self::requested`] stores.
    pub fn execution(&self) -> NewExecution {
        NewExecution {
            action: self.action.id,
            action_ref: self.action.r#ref.clone(),
            config: json!({"text": "hello"}),
            secrets: Vec::new(),
            env_vars: None,
            parent: None,
            executor: IdentityId(1),
            permission_set_refs: Vec::new(),
            artifact_retention: None,
            placement: PlacementOverride::default(),
        }
    }

    /// Gives a `requested` execution to `worker`.
    pub async fn schedule(&self, execution: ExecutionId, worker: WorkerId) -> Execution {
        let claimed = self.store.claim_scheduling(execution, LONG).await.unwrap().unwrap();
        let guard = ExecutionGuard::from(&claimed.execution);
        self.store.assign_worker(&guard, worker).await.unwrap().unwrap()
    }

    /// An execution of `demo.echo` that is `scheduled` for the worker.
    pub async fn scheduled(&self) -> Execution {
        let execution = self.requested().await;
        self.schedule(execution.id, self.worker.id).await
    }

    /// Claims a scheduled execution for the worker.
    pub async fn claim(&self, execution: ExecutionId) -> ClaimedExecution {
        match self.store.claim_execution(execution, self.worker.id, None).await.unwrap() {
            Claim::Claimed(claimed) => *claimed,
            other => panic!("not claimed: {other:?}"),
        }
    }

    /// An execution of `demo.echo` that runs on the worker.
    pub async fn running(&self) -> ClaimedExecution {
        let execution = self.scheduled().await;
        self.claim(execution.id).await
    }

    /// The row as it is now.
    pub async fn row(&self, execution: ExecutionId) -> Execution {
        self.store.execution(execution).await.unwrap().unwrap().execution
    }
}

/// A registration with recognisable capabilities.
pub fn worker(name: &str, role: WorkerRole) -> WorkerRegistration {
    WorkerRegistration {
        name: name.to_owned(),
        role,
        worker_type: WorkerType::Local,
        runtime: None,
        host: Some("here".to_owned()),
        port: None,
        capabilities: object(&json!({"runtimes": ["python"]})),
    }
}

/// The members of an object.
pub fn object(value: &Value) -> JsonMap {
    value.as_object().unwrap().clone()
}

/// An encrypted value at `path`.
pub fn secret(path: &str, text: &str) -> SecretValue {
    SecretValue {
        json_path: path.to_owned(),
        source_kind: "parameter_schema".to_owned(),
        source_ref: Some(path.to_owned()),
        encrypted_value: json!(text),
        encryption_key_hash: Some("d1ge57".to_owned()),
    }
}

/// A point in time that is certainly over.
pub fn long_ago() -> DateTime<Utc> {
    DateTime::from_timestamp_micros(1_000_000_000_000_001).unwrap()
}

/// A pack with a runtime in two versions, two triggers, two actions, a sensor and two rules.
pub fn demo() -> NewPack {
    NewPack {
        r#ref: "demo".to_owned(),
        label: "Demo".to_owned(),
        description: Some("For tests".to_owned()),
        version: "1.2.3".to_owned(),
        conf_schema: json!({"colour": {"type": "string"}}),
        config: json!({"zebra": 1, "ape": [true, null, 1.5, "ünï"]}),
        meta: json!({"a": 1}),
        tags: vec!["one".to_owned(), "two".to_owned()],
        runtime_deps: vec!["demo.python".to_owned()],
        dependencies: vec!["core".to_owned()],
        is_standard: false,
        runtimes: vec![runtime("demo.python", "Python", &["3.11", "3.12.1"])],
        triggers: vec![trigger("demo.tick"), trigger("demo.tock")],
        actions: vec![action("demo.echo", Some("demo.python")), action("demo.plain", None)],
        rules: vec![rule("demo.on_tick", "demo.tick", "demo.echo"), rule("demo.on_tock", "demo.tock", "demo.plain")],
        sensors: vec![sensor("demo.clock", "demo.python", &["demo.tock", "demo.tick"])],
    }
}

/// A pack with nothing in it.
pub fn empty(r#ref: &str) -> NewPack {
    NewPack { r#ref: r#ref.to_owned(), label: r#ref.to_owned(), version: "0.1.0".to_owned(), ..NewPack::default() }
}

/// A runtime with versions; the last one is the default.
pub fn runtime(r#ref: &str, name: &str, versions: &[&str]) -> NewRuntime {
    NewRuntime {
        r#ref: r#ref.to_owned(),
        name: name.to_owned(),
        description: None,
        aliases: vec![name.to_lowercase()],
        distributions: json!({"verification": {}}),
        installation: None,
        execution_config: json!({"interpreter": {"binary": "python3"}}),
        versions: versions
            .iter()
            .map(|version| NewRuntimeVersion {
                version: (*version).to_owned(),
                execution_config: json!({"interpreter": {"binary": format!("python{version}")}}),
                distributions: json!({}),
                is_default: Some(version) == versions.last(),
                meta: json!({}),
            })
            .collect(),
    }
}

/// An enabled trigger.
pub fn trigger(r#ref: &str) -> NewTrigger {
    NewTrigger {
        r#ref: r#ref.to_owned(),
        label: r#ref.to_owned(),
        description: None,
        enabled: true,
        param_schema: Some(json!({"every": {"type": "integer"}})),
        out_schema: None,
    }
}

/// An action with every column set to something else than its default.
pub fn action(r#ref: &str, runtime: Option<&str>) -> NewAction {
    NewAction {
        r#ref: r#ref.to_owned(),
        label: r#ref.to_owned(),
        description: Some("Says it".to_owned()),
        entrypoint: "echo.py".to_owned(),
        runtime_ref: runtime.map(str::to_owned),
        param_schema: Some(json!({"text": {"type": "string", "required": true}})),
        out_schema: Some(json!({"said": {"type": "string"}})),
        parameter_delivery: ParameterDelivery::File,
        parameter_format: ParameterFormat::Yaml,
        output_format: OutputFormat::Jsonl,
        timeout_seconds: Some(17),
        runtime_version_constraint: Some(">=3.11".to_owned()),
        required_worker_runtimes: json!({"shell": "*"}),
        placement: RawPlacement {
            selector: json!({"zone": "a"}),
            tolerations: json!([{"key": "gpu", "operator": "exists"}]),
            affinity: json!({"required": []}),
        },
        accesses_mcp: true,
        default_execution_permission_set_refs: vec!["standard".to_owned()],
        log_retention: Retention { policy: Some(attune_model::status::RetentionPolicy::Days), limit: Some(3) },
        artifact_retention: Retention::default(),
    }
}

/// An enabled sensor.
pub fn sensor(r#ref: &str, runtime: &str, triggers: &[&str]) -> NewSensor {
    NewSensor {
        r#ref: r#ref.to_owned(),
        label: r#ref.to_owned(),
        entrypoint: "clock.py".to_owned(),
        runtime_ref: runtime.to_owned(),
        trigger_refs: triggers.iter().map(|&trigger| trigger.to_owned()).collect(),
        enabled: true,
        config: Some(json!({"resolution": 5})),
        ..NewSensor::default()
    }
}

/// An enabled rule.
pub fn rule(r#ref: &str, trigger: &str, action: &str) -> NewRule {
    NewRule {
        r#ref: r#ref.to_owned(),
        label: r#ref.to_owned(),
        description: None,
        action_ref: action.to_owned(),
        trigger_ref: trigger.to_owned(),
        conditions: json!([]),
        action_params: json!({"text": "{{ event.payload.text }}"}),
        trigger_params: json!({"every": 5}),
        permission_set_refs: Some(vec!["admin".to_owned()]),
        enabled: true,
    }
}
