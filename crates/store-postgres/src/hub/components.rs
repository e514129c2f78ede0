//! Components of a pack as columns. `ref`, `pack` and `pack_ref` are written for all of them alike, elsewhere.

use attune_store::{NewAction, NewPack, NewRule, NewRuntime, NewRuntimeVersion, NewSensor, NewTrigger};

use super::upsert::{Cell, Column, placement, retention};

pub(super) fn pack_columns(pack: &NewPack) -> Vec<Column> {
    vec![
        ("ref", (&pack.r#ref).into()),
        ("label", (&pack.label).into()),
        ("description", (&pack.description).into()),
        ("version", (&pack.version).into()),
        ("conf_schema", Cell::document(&pack.conf_schema, "{}")),
        ("config", Cell::document(&pack.config, "{}")),
        ("meta", Cell::document(&pack.meta, "{}")),
        ("tags", (&pack.tags).into()),
        ("runtime_deps", (&pack.runtime_deps).into()),
        ("dependencies", (&pack.dependencies).into()),
        ("is_standard", pack.is_standard.into()),
    ]
}

pub(super) fn runtime_columns(runtime: &NewRuntime) -> Vec<Column> {
    vec![
        ("name", (&runtime.name).into()),
        ("description", (&runtime.description).into()),
        ("aliases", (&runtime.aliases).into()),
        ("distributions", Cell::document(&runtime.distributions, "{}")),
        ("installation", (&runtime.installation).into()),
        ("execution_config", Cell::document(&runtime.execution_config, "{}")),
    ]
}

/// `available` is the column's default when the row is made, and the workers' to change afterwards.
pub(super) fn version_columns(version: &NewRuntimeVersion, runtime: i64, runtime_ref: &str) -> Vec<Column> {
    let [major, minor, patch] = parts(&version.version);
    vec![
        ("runtime", runtime.into()),
        ("runtime_ref", runtime_ref.into()),
        ("version", (&version.version).into()),
        ("version_major", major.into()),
        ("version_minor", minor.into()),
        ("version_patch", patch.into()),
        ("execution_config", Cell::document(&version.execution_config, "{}")),
        ("distributions", Cell::document(&version.distributions, "{}")),
        ("is_default", version.is_default.into()),
        ("meta", Cell::document(&version.meta, "{}")),
    ]
}

/// The numbers of a version as far as it has them.
fn parts(version: &str) -> [Option<i64>; 3] {
    let mut parts = version.trim_start_matches('v').splitn(3, '.').map(|part| part.parse().ok());
    [(); 3].map(|()| parts.next().flatten())
}

pub(super) fn trigger_columns(trigger: &NewTrigger) -> Vec<Column> {
    vec![
        ("label", (&trigger.label).into()),
        ("description", (&trigger.description).into()),
        ("enabled", trigger.enabled.into()),
        ("param_schema", (&trigger.param_schema).into()),
        ("out_schema", (&trigger.out_schema).into()),
    ]
}

pub(super) fn action_columns(action: &NewAction, runtime: Option<i64>) -> Vec<Column> {
    let mut columns = vec![
        ("label", (&action.label).into()),
        ("description", (&action.description).into()),
        ("entrypoint", (&action.entrypoint).into()),
        ("runtime", runtime.into()),
        ("param_schema", (&action.param_schema).into()),
        ("out_schema", (&action.out_schema).into()),
        ("parameter_delivery", action.parameter_delivery.as_str().into()),
        ("parameter_format", action.parameter_format.as_str().into()),
        ("output_format", action.output_format.as_str().into()),
        ("timeout_seconds", action.timeout_seconds.map(i64::from).into()),
        ("runtime_version_constraint", (&action.runtime_version_constraint).into()),
        ("required_worker_runtimes", Cell::document(&action.required_worker_runtimes, "{}")),
        ("accesses_mcp", action.accesses_mcp.into()),
        ("default_execution_permission_set_refs", (&action.default_execution_permission_set_refs).into()),
    ];
    columns.extend(placement(&action.placement));
    columns.extend(retention(action.log_retention, action.artifact_retention));
    columns
}

pub(super) fn sensor_columns(sensor: &NewSensor, runtime: Option<i64>) -> Vec<Column> {
    let mut columns = vec![
        ("label", (&sensor.label).into()),
        ("description", (&sensor.description).into()),
        ("entrypoint", (&sensor.entrypoint).into()),
        ("runtime", runtime.into()),
        ("runtime_ref", (&sensor.runtime_ref).into()),
        ("enabled", sensor.enabled.into()),
        ("param_schema", (&sensor.param_schema).into()),
        ("config", (&sensor.config).into()),
        ("runtime_version_constraint", (&sensor.runtime_version_constraint).into()),
    ];
    columns.extend(placement(&sensor.placement));
    columns.extend(retention(sensor.log_retention, sensor.artifact_retention));
    columns
}

pub(super) fn rule_columns(rule: &NewRule, trigger: i64, action: i64) -> Vec<Column> {
    let refs = rule.permission_set_refs.as_ref();
    vec![
        ("label", (&rule.label).into()),
        ("description", (&rule.description).into()),
        ("action", action.into()),
        ("action_ref", (&rule.action_ref).into()),
        ("\"trigger\"", trigger.into()),
        ("trigger_ref", (&rule.trigger_ref).into()),
        ("conditions", Cell::document(&rule.conditions, "[]")),
        ("action_params", Cell::document(&rule.action_params, "{}")),
        ("trigger_params", Cell::document(&rule.trigger_params, "{}")),
        ("permission_set_refs", Cell::List(refs.cloned())),
        ("enabled", rule.enabled.into()),
    ]
}
