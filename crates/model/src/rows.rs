//! Rows of the platform's tables, as far as agents and hub use them. Column meanings are facts of the platform's schema.
//!
//! JSON columns stay [`Value`] where only their reader can judge them (placement, schemas); a malformed one is then
//! refused where it is used, with the row named, instead of making the row unreadable.

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::status::{
    ArtifactType, ArtifactVisibility, ExecutionStatus, OutputFormat, OwnerType, ParameterDelivery, ParameterFormat,
    RetentionPolicy, SensorProcessStatus, WorkerRole, WorkerStatus, WorkerType,
};
use crate::{
    ActionId, ArtifactId, ArtifactVersionId, EnforcementId, EventId, ExecutionId, IdentityId, JsonMap, PackId, RuleId,
    RuntimeId, RuntimeVersionId, SensorId, TriggerId, WorkerId,
};

/// Which versions of a log or file artifact are kept; `None` means the configured default.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Retention {
    /// Unit.
    pub policy: Option<RetentionPolicy>,
    /// How many of it, above 0.
    pub limit: Option<i32>,
}

/// Where an action or a sensor may run, as stored; parsed by [`crate::placement`].
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct RawPlacement {
    /// `worker_selector`.
    pub selector: Value,
    /// `worker_tolerations`.
    pub tolerations: Value,
    /// `worker_affinity`.
    pub affinity: Value,
}

/// `pack`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Pack {
    /// Key.
    pub id: PackId,
    /// Unique name, `^[a-z][a-z0-9_-]+$`.
    pub r#ref: String,
    /// For people.
    pub label: String,
    /// For people.
    pub description: Option<String>,
    /// Three-part semantic version.
    pub version: String,
    /// Flat schema of `config`.
    pub conf_schema: Value,
    /// Values that templates read as `pack.config.*`.
    pub config: Value,
    /// Free.
    pub meta: Value,
    /// Free.
    pub tags: Vec<String>,
    /// Runtimes the pack says it needs.
    pub runtime_deps: Vec<String>,
    /// Packs the pack says it needs.
    pub dependencies: Vec<String>,
    /// Whether it ships with the platform.
    pub is_standard: bool,
}

impl Pack {
    /// The key of `meta` that lists the actions which start daemons on purpose. Not a fact of the platform, which leaves
    /// `meta` to packs and those who read it.
    pub const DAEMON_STARTERS: &str = "daemon_starters";

    /// Whether the pack says that this action leaves processes behind on purpose.
    pub fn starts_daemons(&self, action_ref: &str) -> bool {
        let listed = self.meta.get(Self::DAEMON_STARTERS).and_then(Value::as_array);
        listed.is_some_and(|listed| listed.iter().any(|listed| listed == action_ref))
    }
}

/// `runtime`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Runtime {
    /// Key.
    pub id: RuntimeId,
    /// Unique name such as `core.python`.
    pub r#ref: String,
    /// The pack that declares it; none for rows registered by agents.
    pub pack: Option<PackId>,
    /// Its ref.
    pub pack_ref: Option<String>,
    /// For people.
    pub description: Option<String>,
    /// Display name such as `Node.js`; lower-cased it names environment directories.
    pub name: String,
    /// The names it can be asked for by.
    pub aliases: Vec<String>,
    /// Verification data.
    pub distributions: Value,
    /// [`crate::execution_config::ExecutionConfig`] as stored.
    pub execution_config: Value,
}

/// `runtime_version`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RuntimeVersion {
    /// Key.
    pub id: RuntimeVersionId,
    /// Its runtime.
    pub runtime: RuntimeId,
    /// The runtime's ref.
    pub runtime_ref: String,
    /// One to three parts.
    pub version: String,
    /// Replaces the runtime's configuration entirely.
    pub execution_config: Value,
    /// Verification data.
    pub distributions: Value,
    /// Preferred without a constraint.
    pub is_default: bool,
    /// One global flag; not to be trusted for local decisions.
    pub available: bool,
}

/// `worker`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Worker {
    /// Key.
    pub id: WorkerId,
    /// Unique over both roles.
    pub name: String,
    /// Action worker or sensor host.
    pub role: WorkerRole,
    /// Kind of machine.
    pub worker_type: WorkerType,
    /// Host name.
    pub host: Option<String>,
    /// Whether it takes work.
    pub status: WorkerStatus,
    /// See [`crate::capabilities`].
    pub capabilities: JsonMap,
    /// Last sign of life, by the store's clock.
    pub last_heartbeat: Option<DateTime<Utc>>,
    /// Whether an operator keeps new work away.
    pub cordoned: bool,
}

/// `trigger`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Trigger {
    /// Key.
    pub id: TriggerId,
    /// Unique, `pack.name`.
    pub r#ref: String,
    /// Owning pack.
    pub pack: Option<PackId>,
    /// Its ref.
    pub pack_ref: Option<String>,
    /// For people.
    pub label: String,
    /// For people.
    pub description: Option<String>,
    /// Whether its events count.
    pub enabled: bool,
    /// Flat schema of `rule.trigger_params`.
    pub param_schema: Option<Value>,
    /// Flat schema of event payloads.
    pub out_schema: Option<Value>,
    /// The one sensor that emits it.
    pub sensor: Option<SensorId>,
    /// Its ref.
    pub sensor_ref: Option<String>,
}

/// `sensor`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Sensor {
    /// Key.
    pub id: SensorId,
    /// Unique, `pack.name`.
    pub r#ref: String,
    /// Owning pack.
    pub pack: Option<PackId>,
    /// Its ref.
    pub pack_ref: Option<String>,
    /// For people.
    pub label: String,
    /// For people.
    pub description: Option<String>,
    /// File in the pack's `sensors/`.
    pub entrypoint: String,
    /// What runs it.
    pub runtime: RuntimeId,
    /// Its ref.
    pub runtime_ref: String,
    /// Whether it may run.
    pub enabled: bool,
    /// Flat schema of `config`.
    pub param_schema: Option<Value>,
    /// Its settings.
    pub config: Option<Value>,
    /// Constraint on versions of its runtime.
    pub runtime_version_constraint: Option<String>,
    /// Where it may run.
    pub placement: RawPlacement,
    /// Of its two log artifacts.
    pub log_retention: Retention,
}

/// `rule`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Rule {
    /// Key.
    pub id: RuleId,
    /// Unique, `pack.name`.
    pub r#ref: String,
    /// Owning pack.
    pub pack: PackId,
    /// Its ref.
    pub pack_ref: String,
    /// For people.
    pub label: String,
    /// For people.
    pub description: Option<String>,
    /// What it starts; none when that action is gone.
    pub action: Option<ActionId>,
    /// Its ref.
    pub action_ref: String,
    /// What it waits for; none when that trigger is gone.
    pub trigger: Option<TriggerId>,
    /// Its ref.
    pub trigger_ref: String,
    /// Which events count.
    pub conditions: Value,
    /// Parameters with templates.
    pub action_params: Value,
    /// Settings that its trigger's sensor reads.
    pub trigger_params: Value,
    /// Rights of the executions; none means the action's default.
    pub permission_set_refs: Option<Vec<String>>,
    /// Whether it counts.
    pub enabled: bool,
    /// When the row was made.
    pub created: DateTime<Utc>,
    /// When the row was last changed.
    pub updated: DateTime<Utc>,
}

/// `event`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Event {
    /// Key.
    pub id: EventId,
    /// Its trigger.
    pub trigger: Option<TriggerId>,
    /// Its trigger's ref.
    pub trigger_ref: String,
    /// Settings of the trigger instance.
    pub config: Option<Value>,
    /// What happened.
    pub payload: Option<Value>,
    /// The sensor that said so.
    pub source: Option<SensorId>,
    /// Its ref.
    pub source_ref: Option<String>,
    /// The one rule it is meant for.
    pub rule: Option<RuleId>,
    /// That rule's ref.
    pub rule_ref: Option<String>,
    /// When it was stored.
    pub created: DateTime<Utc>,
}

/// `action`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Action {
    /// Key.
    pub id: ActionId,
    /// Unique, `pack.name`.
    pub r#ref: String,
    /// Owning pack.
    pub pack: PackId,
    /// Its ref.
    pub pack_ref: String,
    /// For people.
    pub label: String,
    /// For people.
    pub description: Option<String>,
    /// File in the pack's `actions/`, or shell text.
    pub entrypoint: String,
    /// What runs it; none means by file extension.
    pub runtime: Option<RuntimeId>,
    /// Flat schema of the parameters.
    pub param_schema: Option<Value>,
    /// Flat schema of the result's `data`.
    pub out_schema: Option<Value>,
    /// How parameters reach the child.
    pub parameter_delivery: ParameterDelivery,
    /// In which encoding.
    pub parameter_format: ParameterFormat,
    /// How standard output is read.
    pub output_format: OutputFormat,
    /// Whether it was made by hand instead of by a pack.
    pub is_adhoc: bool,
    /// Time limit in seconds, when above 0.
    pub timeout_seconds: Option<i32>,
    /// Constraint on versions of its runtime.
    pub runtime_version_constraint: Option<String>,
    /// Runtimes its worker must have besides, name to constraint.
    pub required_worker_runtimes: Value,
    /// Where it may run.
    pub placement: RawPlacement,
    /// Rights of its executions unless the caller names others.
    pub default_execution_permission_set_refs: Vec<String>,
    /// Of its two log artifacts.
    pub log_retention: Retention,
}

/// `execution`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Execution {
    /// Key.
    pub id: ExecutionId,
    /// What runs; none when the action is gone.
    pub action: Option<ActionId>,
    /// Its ref.
    pub action_ref: String,
    /// Flat parameter object.
    pub config: Option<Value>,
    /// Extra variables of the child, name to text.
    pub env_vars: Option<Value>,
    /// The execution that asked for it.
    pub parent: Option<ExecutionId>,
    /// The enforcement that asked for it.
    pub enforcement: Option<EnforcementId>,
    /// On whose behalf.
    pub executor: Option<IdentityId>,
    /// Rights of its token; empty means no token.
    pub permission_set_refs: Vec<String>,
    /// The worker it was given to.
    pub worker: Option<WorkerId>,
    /// Where it stands.
    pub status: ExecutionStatus,
    /// Outcome, in the shape of the worker contract.
    pub result: Option<Value>,
    /// When a worker began; also the fence of the worker's later writes.
    pub started_at: Option<DateTime<Utc>>,
    /// Workflow data, with `timeout_seconds` for a task.
    pub workflow_task: Option<Value>,
    /// When the row was made.
    pub created: DateTime<Utc>,
    /// When the row was last changed.
    pub updated: DateTime<Utc>,
}

/// `sensor_process`: what became of one sensor on one host.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SensorProcess {
    /// Its sensor.
    pub sensor: SensorId,
    /// That sensor's ref.
    pub sensor_ref: String,
    /// Its host.
    pub worker: WorkerId,
    /// That host's name.
    pub worker_name: String,
    /// Where it stands.
    pub status: SensorProcessStatus,
    /// Leader of its process group.
    pub pid: Option<i32>,
    /// Since the last healthy period.
    pub consecutive_failures: i32,
    /// Of the last end.
    pub last_exit_code: Option<i32>,
    /// Of the last end.
    pub last_signal: Option<i32>,
    /// Last start.
    pub last_started_at: Option<DateTime<Utc>>,
    /// Last end.
    pub last_stopped_at: Option<DateTime<Utc>>,
    /// When it is started again.
    pub next_restart_at: Option<DateTime<Utc>>,
    /// The last lines of its standard error.
    pub stderr_excerpt: Option<String>,
    /// Where the whole of it is.
    pub log_artifact_ref: Option<String>,
    /// Enabled rules on its triggers.
    pub active_rule_count: i32,
    /// At which count of failures an alert was last raised.
    pub last_alerted_failure_count: i32,
}

/// `artifact`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Artifact {
    /// Key.
    pub id: ArtifactId,
    /// Name, parts separated by dots. Not unique; the lowest id counts.
    pub r#ref: String,
    /// What owns it.
    pub scope: OwnerType,
    /// That owner's ref.
    pub owner: String,
    /// Kind.
    pub r#type: ArtifactType,
    /// Who may read it.
    pub visibility: ArtifactVisibility,
    /// For people.
    pub name: Option<String>,
    /// For people.
    pub description: Option<String>,
    /// Of the newest version.
    pub content_type: Option<String>,
    /// Of the newest version; none while its writer has not said.
    pub size_bytes: Option<i64>,
    /// Entries of progress, an address, or what else is no file.
    pub data: Option<Value>,
    /// Unit of retention.
    pub retention_policy: RetentionPolicy,
    /// How many of it.
    pub retention_limit: i32,
    /// Row's birth.
    pub created: DateTime<Utc>,
    /// Last change.
    pub updated: DateTime<Utc>,
}

/// `artifact_version`, without `content`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ArtifactVersion {
    /// Key.
    pub id: ArtifactVersionId,
    /// Of which artifact.
    pub artifact: ArtifactId,
    /// From 1.
    pub version: i32,
    /// Which execution made it.
    pub execution: Option<ExecutionId>,
    /// MIME type.
    pub content_type: Option<String>,
    /// None while its writer has not said.
    pub size_bytes: Option<i64>,
    /// The content, when it is a document.
    pub content_json: Option<Value>,
    /// Where the content is below the folder of artifacts, when it is a file.
    pub file_path: Option<String>,
    /// Free.
    pub meta: Option<Value>,
    /// For people.
    pub created_by: Option<String>,
    /// Row's birth.
    pub created: DateTime<Utc>,
}
