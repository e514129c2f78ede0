//! Rows of the schema as rows of the model. Every function takes what `to_json` makes of a row with all its columns.

use attune_model::JsonMap;
use attune_model::rows::{
    Action, Artifact, ArtifactVersion, Event, Execution, Pack, RawPlacement, Retention, Rule, Runtime, RuntimeVersion,
    Sensor, SensorProcess, Trigger, Worker,
};
use attune_store::StoreError;

use crate::columns::{Columns, JsonRow};

pub(crate) fn pack(row: JsonRow<'_>) -> Result<Pack, StoreError> {
    let mut of = Columns::new("pack", row);
    Ok(Pack {
        id: of.get("id")?,
        r#ref: of.get("ref")?,
        label: of.get("label")?,
        description: of.get("description")?,
        version: of.get("version")?,
        conf_schema: of.get("conf_schema")?,
        config: of.get("config")?,
        meta: of.get("meta")?,
        tags: of.get("tags")?,
        runtime_deps: of.get("runtime_deps")?,
        dependencies: of.get("dependencies")?,
        is_standard: of.get("is_standard")?,
    })
}

pub(crate) fn runtime(row: JsonRow<'_>) -> Result<Runtime, StoreError> {
    let mut of = Columns::new("runtime", row);
    Ok(Runtime {
        id: of.get("id")?,
        r#ref: of.get("ref")?,
        pack: of.get("pack")?,
        pack_ref: of.get("pack_ref")?,
        description: of.get("description")?,
        name: of.get("name")?,
        aliases: of.get("aliases")?,
        distributions: of.get("distributions")?,
        execution_config: of.get("execution_config")?,
    })
}

pub(crate) fn runtime_version(row: JsonRow<'_>) -> Result<RuntimeVersion, StoreError> {
    let mut of = Columns::new("runtime_version", row);
    Ok(RuntimeVersion {
        id: of.get("id")?,
        runtime: of.get("runtime")?,
        runtime_ref: of.get("runtime_ref")?,
        version: of.get("version")?,
        execution_config: of.get("execution_config")?,
        distributions: of.get("distributions")?,
        is_default: of.get("is_default")?,
        available: of.get("available")?,
    })
}

pub(crate) fn worker(row: JsonRow<'_>) -> Result<Worker, StoreError> {
    let mut of = Columns::new("worker", row);
    Ok(Worker {
        id: of.get("id")?,
        name: of.get("name")?,
        role: of.get("worker_role")?,
        worker_type: of.get("worker_type")?,
        host: of.get("host")?,
        status: of.get("status")?,
        capabilities: of.get::<Option<JsonMap>>("capabilities")?.unwrap_or_default(),
        last_heartbeat: of.get("last_heartbeat")?,
        cordoned: of.get("cordoned")?,
    })
}

pub(crate) fn trigger(row: JsonRow<'_>) -> Result<Trigger, StoreError> {
    let mut of = Columns::new("trigger", row);
    Ok(Trigger {
        id: of.get("id")?,
        r#ref: of.get("ref")?,
        pack: of.get("pack")?,
        pack_ref: of.get("pack_ref")?,
        label: of.get("label")?,
        description: of.get("description")?,
        enabled: of.get("enabled")?,
        param_schema: of.get("param_schema")?,
        out_schema: of.get("out_schema")?,
        sensor: of.get("sensor")?,
        sensor_ref: of.get("sensor_ref")?,
    })
}

pub(crate) fn sensor(row: JsonRow<'_>) -> Result<Sensor, StoreError> {
    let mut of = Columns::new("sensor", row);
    Ok(Sensor {
        id: of.get("id")?,
        r#ref: of.get("ref")?,
        pack: of.get("pack")?,
        pack_ref: of.get("pack_ref")?,
        label: of.get("label")?,
        description: of.get("description")?,
        entrypoint: of.get("entrypoint")?,
        runtime: of.get("runtime")?,
        runtime_ref: of.get("runtime_ref")?,
        enabled: of.get("enabled")?,
        param_schema: of.get("param_schema")?,
        config: of.get("config")?,
        runtime_version_constraint: of.get("runtime_version_constraint")?,
        placement: placement(&mut of)?,
        log_retention: log_retention(&mut of)?,
    })
}

pub(crate) fn rule(row: JsonRow<'_>) -> Result<Rule, StoreError> {
    let mut of = Columns::new("rule", row);
    Ok(Rule {
        id: of.get("id")?,
        r#ref: of.get("ref")?,
        pack: of.get("pack")?,
        pack_ref: of.get("pack_ref")?,
        label: of.get("label")?,
        description: of.get("description")?,
        action: of.get("action")?,
        action_ref: of.get("action_ref")?,
        trigger: of.get("trigger")?,
        trigger_ref: of.get("trigger_ref")?,
        conditions: of.get("conditions")?,
        action_params: of.get("action_params")?,
        trigger_params: of.get("trigger_params")?,
        permission_set_refs: of.get("permission_set_refs")?,
        enabled: of.get("enabled")?,
        created: of.get("created")?,
        updated: of.get("updated")?,
    })
}

pub(crate) fn event(row: JsonRow<'_>) -> Result<Event, StoreError> {
    let mut of = Columns::new("event", row);
    Ok(Event {
        id: of.get("id")?,
        trigger: of.get("trigger")?,
        trigger_ref: of.get("trigger_ref")?,
        config: of.get("config")?,
        payload: of.get("payload")?,
        source: of.get("source")?,
        source_ref: of.get("source_ref")?,
        rule: of.get("rule")?,
        rule_ref: of.get("rule_ref")?,
        created: of.get("created")?,
    })
}

pub(crate) fn action(row: JsonRow<'_>) -> Result<Action, StoreError> {
    let mut of = Columns::new("action", row);
    Ok(Action {
        id: of.get("id")?,
        r#ref: of.get("ref")?,
        pack: of.get("pack")?,
        pack_ref: of.get("pack_ref")?,
        label: of.get("label")?,
        description: of.get("description")?,
        entrypoint: of.get("entrypoint")?,
        runtime: of.get("runtime")?,
        param_schema: of.get("param_schema")?,
        out_schema: of.get("out_schema")?,
        parameter_delivery: of.get("parameter_delivery")?,
        parameter_format: of.get("parameter_format")?,
        output_format: of.get("output_format")?,
        is_adhoc: of.get("is_adhoc")?,
        timeout_seconds: of.get("timeout_seconds")?,
        runtime_version_constraint: of.get("runtime_version_constraint")?,
        required_worker_runtimes: of.get("required_worker_runtimes")?,
        placement: placement(&mut of)?,
        default_execution_permission_set_refs: of.get("default_execution_permission_set_refs")?,
        log_retention: log_retention(&mut of)?,
    })
}

pub(crate) fn execution(row: JsonRow<'_>) -> Result<Execution, StoreError> {
    let mut of = Columns::new("execution", row);
    Ok(Execution {
        id: of.get("id")?,
        action: of.get("action")?,
        action_ref: of.get("action_ref")?,
        config: of.get("config")?,
        env_vars: of.get("env_vars")?,
        parent: of.get("parent")?,
        enforcement: of.get("enforcement")?,
        executor: of.get("executor")?,
        permission_set_refs: of.get("permission_set_refs")?,
        worker: of.get("worker")?,
        status: of.get("status")?,
        result: of.get("result")?,
        started_at: of.get("started_at")?,
        workflow_task: of.get("workflow_task")?,
        created: of.get("created")?,
        updated: of.get("updated")?,
    })
}

/// An execution of which not everything can be read: as much as it takes to end it.
pub(crate) fn execution_to_end(row: JsonRow<'_>) -> Result<Execution, StoreError> {
    execution(row.clone()).or_else(|_unreadable| {
        let mut of = Columns::new("execution", row);
        Ok(Execution {
            id: of.get("id")?,
            action: of.get("action")?,
            action_ref: of.get("action_ref")?,
            config: None,
            env_vars: None,
            parent: None,
            enforcement: None,
            executor: None,
            permission_set_refs: Vec::new(),
            worker: of.get("worker")?,
            status: of.get("status")?,
            result: None,
            started_at: of.get("started_at")?,
            workflow_task: None,
            created: of.get("created")?,
            updated: of.get("updated")?,
        })
    })
}

pub(crate) fn sensor_process(row: JsonRow<'_>) -> Result<SensorProcess, StoreError> {
    let mut of = Columns::new("sensor_process", row);
    Ok(SensorProcess {
        sensor: of.get("sensor")?,
        sensor_ref: of.get("sensor_ref")?,
        worker: of.get("worker")?,
        worker_name: of.get("worker_name")?,
        status: of.get("status")?,
        pid: of.get("pid")?,
        consecutive_failures: of.get("consecutive_failures")?,
        last_exit_code: of.get("last_exit_code")?,
        last_signal: of.get("last_signal")?,
        last_started_at: of.get("last_started_at")?,
        last_stopped_at: of.get("last_stopped_at")?,
        next_restart_at: of.get("next_restart_at")?,
        stderr_excerpt: of.get("stderr_excerpt")?,
        log_artifact_ref: of.get("log_artifact_ref")?,
        active_rule_count: of.get("active_rule_count")?,
        last_alerted_failure_count: of.get("last_alerted_failure_count")?,
    })
}

fn placement(of: &mut Columns<'_>) -> Result<RawPlacement, StoreError> {
    Ok(RawPlacement {
        selector: of.get("worker_selector")?,
        tolerations: of.get("worker_tolerations")?,
        affinity: of.get("worker_affinity")?,
    })
}

fn log_retention(of: &mut Columns<'_>) -> Result<Retention, StoreError> {
    Ok(Retention { policy: of.get("log_retention_policy")?, limit: of.get("log_retention_limit")? })
}

pub(crate) fn artifact(row: JsonRow<'_>) -> Result<Artifact, StoreError> {
    let mut of = Columns::new("artifact", row);
    Ok(Artifact {
        id: of.get("id")?,
        r#ref: of.get("ref")?,
        scope: of.get("scope")?,
        owner: of.get("owner")?,
        r#type: of.get("type")?,
        visibility: of.get("visibility")?,
        name: of.get("name")?,
        description: of.get("description")?,
        content_type: of.get("content_type")?,
        size_bytes: of.get("size_bytes")?,
        data: of.get("data")?,
        retention_policy: of.get("retention_policy")?,
        retention_limit: of.get("retention_limit")?,
        created: of.get("created")?,
        updated: of.get("updated")?,
    })
}

/// Takes a row without `content`.
pub(crate) fn artifact_version(row: JsonRow<'_>) -> Result<ArtifactVersion, StoreError> {
    let mut of = Columns::new("artifact_version", row);
    Ok(ArtifactVersion {
        id: of.get("id")?,
        artifact: of.get("artifact")?,
        version: of.get("version")?,
        execution: of.get("execution")?,
        content_type: of.get("content_type")?,
        size_bytes: of.get("size_bytes")?,
        content_json: of.get("content_json")?,
        file_path: of.get("file_path")?,
        meta: of.get("meta")?,
        created_by: of.get("created_by")?,
        created: of.get("created")?,
    })
}
