//! A pack as its files say it, and what storing it changed.

use attune_model::rows::{Pack, RawPlacement, Retention, Rule};
use attune_model::status::{OutputFormat, ParameterDelivery, ParameterFormat};
use serde_json::Value;

/// A whole pack as its files say it; references are by ref.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct NewPack {
    /// Unique name.
    pub r#ref: String,
    /// For people.
    pub label: String,
    /// For people.
    pub description: Option<String>,
    /// Three-part semantic version.
    pub version: String,
    /// Flat schema of `config`.
    pub conf_schema: Value,
    /// Values that templates read.
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
    /// `runtimes/`.
    pub runtimes: Vec<NewRuntime>,
    /// `triggers/`.
    pub triggers: Vec<NewTrigger>,
    /// `actions/`.
    pub actions: Vec<NewAction>,
    /// `rules/`.
    pub rules: Vec<NewRule>,
    /// `sensors/`.
    pub sensors: Vec<NewSensor>,
}

/// `runtime`, with its versions.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct NewRuntime {
    /// Unique name such as `core.python`.
    pub r#ref: String,
    /// Display name.
    pub name: String,
    /// For people.
    pub description: Option<String>,
    /// The names it can be asked for by.
    pub aliases: Vec<String>,
    /// Verification data.
    pub distributions: Value,
    /// Informational.
    pub installation: Option<Value>,
    /// How it starts code.
    pub execution_config: Value,
    /// Its versions; stored as available.
    pub versions: Vec<NewRuntimeVersion>,
}

/// `runtime_version`.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct NewRuntimeVersion {
    /// One to three parts, unique in the runtime.
    pub version: String,
    /// Replaces the runtime's configuration entirely.
    pub execution_config: Value,
    /// Verification data.
    pub distributions: Value,
    /// Preferred without a constraint.
    pub is_default: bool,
    /// Free.
    pub meta: Value,
}

/// `trigger`.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct NewTrigger {
    /// Unique, `pack.name`.
    pub r#ref: String,
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
}

/// `action`.
#[derive(Debug, Clone, PartialEq)]
pub struct NewAction {
    /// Unique, `pack.name`.
    pub r#ref: String,
    /// For people.
    pub label: String,
    /// For people.
    pub description: Option<String>,
    /// File in the pack's `actions/`, or shell text.
    pub entrypoint: String,
    /// Ref of its runtime; none means by file extension.
    pub runtime_ref: Option<String>,
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
    /// Time limit in seconds.
    pub timeout_seconds: Option<i32>,
    /// Constraint on versions of its runtime.
    pub runtime_version_constraint: Option<String>,
    /// Runtimes its worker must have besides, name to constraint.
    pub required_worker_runtimes: Value,
    /// Where it may run.
    pub placement: RawPlacement,
    /// Whether it talks to the platform's tool server.
    pub accesses_mcp: bool,
    /// Rights of its executions unless the caller names others.
    pub default_execution_permission_set_refs: Vec<String>,
    /// Of its two log artifacts.
    pub log_retention: Retention,
    /// Of artifacts that its executions make.
    pub artifact_retention: Retention,
}

/// `rule`.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct NewRule {
    /// Unique, `pack.name`.
    pub r#ref: String,
    /// For people.
    pub label: String,
    /// For people.
    pub description: Option<String>,
    /// What it starts.
    pub action_ref: String,
    /// What it waits for.
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
}

/// `sensor`.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct NewSensor {
    /// Unique, `pack.name`.
    pub r#ref: String,
    /// For people.
    pub label: String,
    /// For people.
    pub description: Option<String>,
    /// File in the pack's `sensors/`.
    pub entrypoint: String,
    /// Ref of its runtime.
    pub runtime_ref: String,
    /// Refs of the triggers it emits; each gets `trigger.sensor` set to it.
    pub trigger_refs: Vec<String>,
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
    /// Of other artifacts.
    pub artifact_retention: Retention,
}

/// A component that was left out because something it refers to is not there (or is somebody else's).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Skipped {
    /// `action`, `sensor`, `rule`.
    pub kind: &'static str,
    /// Its ref.
    pub r#ref: String,
    /// What is missing, for example `runtime core.lua does not exist`.
    pub reason: String,
}

/// A rule that is not what it was. Both are set for a change, one for a new or a removed rule.
#[derive(Debug, Clone, PartialEq)]
pub struct RuleChange {
    /// The row before.
    pub before: Option<Rule>,
    /// The row now.
    pub after: Option<Rule>,
}

/// What [`crate::HubStore::upsert_pack`] did.
#[derive(Debug, Clone, PartialEq)]
pub struct PackChanges {
    /// The row now.
    pub pack: Pack,
    /// Rules of this or any pack that were made, changed in any column but `updated`, or removed; by ref.
    pub rules: Vec<RuleChange>,
    /// Components that were left out.
    pub skipped: Vec<Skipped>,
}

/// What [`crate::HubStore::delete_pack`] removed.
#[derive(Debug, Clone, PartialEq)]
pub struct PackRemoval {
    /// The row before.
    pub pack: Pack,
    /// Rules that were removed with it (`after` is none) or lost their trigger or action (both set); by ref.
    pub rules: Vec<RuleChange>,
}
