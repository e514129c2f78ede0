//! Rows of the schema as rows of the model. Every function takes a row that was selected with all columns of its table.

use attune_model::rows::{
    Action, Artifact, ArtifactVersion, Event, Execution, Pack, RawPlacement, Retention, Rule, Runtime, RuntimeVersion,
    Sensor, SensorProcess, Trigger, Worker,
};
use attune_model::{
    ActionId, ArtifactId, ArtifactVersionId, EnforcementId, EventId, ExecutionId, IdentityId, PackId, RuleId,
    RuntimeId, RuntimeVersionId, SensorId, TriggerId, WorkerId,
};
use attune_store::StoreError;
use serde_json::Value;
use sqlx::sqlite::SqliteRow;

use crate::columns::Columns;

pub(crate) fn pack(row: &SqliteRow) -> Result<Pack, StoreError> {
    let of = Columns::new("pack", row);
    Ok(Pack {
        id: PackId(of.get("id")?),
        r#ref: of.get("ref")?,
        label: of.get("label")?,
        description: of.get("description")?,
        version: of.get("version")?,
        conf_schema: of.json("conf_schema")?,
        config: of.json("config")?,
        meta: of.json("meta")?,
        tags: of.json("tags")?,
        runtime_deps: of.json("runtime_deps")?,
        dependencies: of.json("dependencies")?,
        is_standard: of.get("is_standard")?,
    })
}

pub(crate) fn runtime(row: &SqliteRow) -> Result<Runtime, StoreError> {
    let of = Columns::new("runtime", row);
    Ok(Runtime {
        id: RuntimeId(of.get("id")?),
        r#ref: of.get("ref")?,
        pack: of.get::<Option<i64>>("pack")?.map(PackId),
        pack_ref: of.get("pack_ref")?,
        description: of.get("description")?,
        name: of.get("name")?,
        aliases: of.json("aliases")?,
        distributions: of.json("distributions")?,
        execution_config: of.json("execution_config")?,
    })
}

pub(crate) fn runtime_version(row: &SqliteRow) -> Result<RuntimeVersion, StoreError> {
    let of = Columns::new("runtime_version", row);
    Ok(RuntimeVersion {
        id: RuntimeVersionId(of.get("id")?),
        runtime: RuntimeId(of.get("runtime")?),
        runtime_ref: of.get("runtime_ref")?,
        version: of.get("version")?,
        execution_config: of.json("execution_config")?,
        distributions: of.json("distributions")?,
        is_default: of.get("is_default")?,
        available: of.get("available")?,
    })
}

pub(crate) fn worker(row: &SqliteRow) -> Result<Worker, StoreError> {
    let of = Columns::new("worker", row);
    Ok(Worker {
        id: WorkerId(of.get("id")?),
        name: of.get("name")?,
        role: of.word("worker_role")?,
        worker_type: of.word("worker_type")?,
        host: of.get("host")?,
        status: of.word("status")?,
        capabilities: of.optional_json("capabilities")?.unwrap_or_default(),
        last_heartbeat: of.optional_time("last_heartbeat")?,
        cordoned: of.get("cordoned")?,
    })
}

pub(crate) fn trigger(row: &SqliteRow) -> Result<Trigger, StoreError> {
    let of = Columns::new("trigger", row);
    Ok(Trigger {
        id: TriggerId(of.get("id")?),
        r#ref: of.get("ref")?,
        pack: of.get::<Option<i64>>("pack")?.map(PackId),
        pack_ref: of.get("pack_ref")?,
        label: of.get("label")?,
        description: of.get("description")?,
        enabled: of.get("enabled")?,
        param_schema: of.optional_json("param_schema")?,
        out_schema: of.optional_json("out_schema")?,
        sensor: of.get::<Option<i64>>("sensor")?.map(SensorId),
        sensor_ref: of.get("sensor_ref")?,
    })
}

pub(crate) fn sensor(row: &SqliteRow) -> Result<Sensor, StoreError> {
    let of = Columns::new("sensor", row);
    Ok(Sensor {
        id: SensorId(of.get("id")?),
        r#ref: of.get("ref")?,
        pack: of.get::<Option<i64>>("pack")?.map(PackId),
        pack_ref: of.get("pack_ref")?,
        label: of.get("label")?,
        description: of.get("description")?,
        entrypoint: of.get("entrypoint")?,
        runtime: RuntimeId(of.get("runtime")?),
        runtime_ref: of.get("runtime_ref")?,
        enabled: of.get("enabled")?,
        param_schema: of.optional_json("param_schema")?,
        config: of.optional_json("config")?,
        runtime_version_constraint: of.get("runtime_version_constraint")?,
        placement: placement(&of)?,
        log_retention: log_retention(&of)?,
    })
}

pub(crate) fn rule(row: &SqliteRow) -> Result<Rule, StoreError> {
    let of = Columns::new("rule", row);
    Ok(Rule {
        id: RuleId(of.get("id")?),
        r#ref: of.get("ref")?,
        pack: PackId(of.get("pack")?),
        pack_ref: of.get("pack_ref")?,
        label: of.get("label")?,
        description: of.get("description")?,
        action: of.get::<Option<i64>>("action")?.map(ActionId),
        action_ref: of.get("action_ref")?,
        trigger: of.get::<Option<i64>>("trigger")?.map(TriggerId),
        trigger_ref: of.get("trigger_ref")?,
        conditions: of.json("conditions")?,
        action_params: of.optional_json("action_params")?.unwrap_or(Value::Null),
        trigger_params: of.optional_json("trigger_params")?.unwrap_or(Value::Null),
        permission_set_refs: of.optional_json("permission_set_refs")?,
        enabled: of.get("enabled")?,
        created: of.time("created")?,
        updated: of.time("updated")?,
    })
}

pub(crate) fn event(row: &SqliteRow) -> Result<Event, StoreError> {
    let of = Columns::new("event", row);
    Ok(Event {
        id: EventId(of.get("id")?),
        trigger: of.get::<Option<i64>>("trigger")?.map(TriggerId),
        trigger_ref: of.get("trigger_ref")?,
        config: of.optional_json("config")?,
        payload: of.optional_json("payload")?,
        source: of.get::<Option<i64>>("source")?.map(SensorId),
        source_ref: of.get("source_ref")?,
        rule: of.get::<Option<i64>>("rule")?.map(RuleId),
        rule_ref: of.get("rule_ref")?,
        created: of.time("created")?,
    })
}

pub(crate) fn action(row: &SqliteRow) -> Result<Action, StoreError> {
    let of = Columns::new("action", row);
    Ok(Action {
        id: ActionId(of.get("id")?),
        r#ref: of.get("ref")?,
        pack: PackId(of.get("pack")?),
        pack_ref: of.get("pack_ref")?,
        label: of.get("label")?,
        description: of.get("description")?,
        entrypoint: of.get("entrypoint")?,
        runtime: of.get::<Option<i64>>("runtime")?.map(RuntimeId),
        param_schema: of.optional_json("param_schema")?,
        out_schema: of.optional_json("out_schema")?,
        parameter_delivery: of.word("parameter_delivery")?,
        parameter_format: of.word("parameter_format")?,
        output_format: of.word("output_format")?,
        is_adhoc: of.get("is_adhoc")?,
        timeout_seconds: of.get("timeout_seconds")?,
        runtime_version_constraint: of.get("runtime_version_constraint")?,
        required_worker_runtimes: of.json("required_worker_runtimes")?,
        placement: placement(&of)?,
        default_execution_permission_set_refs: of.json("default_execution_permission_set_refs")?,
        log_retention: log_retention(&of)?,
    })
}

pub(crate) fn execution(row: &SqliteRow) -> Result<Execution, StoreError> {
    let of = Columns::new("execution", row);
    Ok(Execution {
        id: ExecutionId(of.get("id")?),
        action: of.get::<Option<i64>>("action")?.map(ActionId),
        action_ref: of.get("action_ref")?,
        config: of.optional_json("config")?,
        env_vars: of.optional_json("env_vars")?,
        parent: of.get::<Option<i64>>("parent")?.map(ExecutionId),
        enforcement: of.get::<Option<i64>>("enforcement")?.map(EnforcementId),
        executor: of.get::<Option<i64>>("executor")?.map(IdentityId),
        permission_set_refs: of.json("permission_set_refs")?,
        worker: of.get::<Option<i64>>("worker")?.map(WorkerId),
        status: of.word("status")?,
        result: of.optional_json("result")?,
        started_at: of.optional_time("started_at")?,
        workflow_task: of.optional_json("workflow_task")?,
        created: of.time("created")?,
        updated: of.time("updated")?,
    })
}

pub(crate) fn sensor_process(row: &SqliteRow) -> Result<SensorProcess, StoreError> {
    let of = Columns::new("sensor_process", row);
    Ok(SensorProcess {
        sensor: SensorId(of.get("sensor")?),
        sensor_ref: of.get("sensor_ref")?,
        worker: WorkerId(of.get("worker")?),
        worker_name: of.get("worker_name")?,
        status: of.word("status")?,
        pid: of.get("pid")?,
        consecutive_failures: of.get("consecutive_failures")?,
        last_exit_code: of.get("last_exit_code")?,
        last_signal: of.get("last_signal")?,
        last_started_at: of.optional_time("last_started_at")?,
        last_stopped_at: of.optional_time("last_stopped_at")?,
        next_restart_at: of.optional_time("next_restart_at")?,
        stderr_excerpt: of.get("stderr_excerpt")?,
        log_artifact_ref: of.get("log_artifact_ref")?,
        active_rule_count: of.get("active_rule_count")?,
        last_alerted_failure_count: of.get("last_alerted_failure_count")?,
    })
}

fn placement(of: &Columns<'_>) -> Result<RawPlacement, StoreError> {
    Ok(RawPlacement {
        selector: of.json("worker_selector")?,
        tolerations: of.json("worker_tolerations")?,
        affinity: of.json("worker_affinity")?,
    })
}

fn log_retention(of: &Columns<'_>) -> Result<Retention, StoreError> {
    Ok(Retention { policy: of.optional_word("log_retention_policy")?, limit: of.get("log_retention_limit")? })
}

pub(crate) fn artifact(row: &SqliteRow) -> Result<Artifact, StoreError> {
    let of = Columns::new("artifact", row);
    Ok(Artifact {
        id: ArtifactId(of.get("id")?),
        r#ref: of.get("ref")?,
        scope: of.word("scope")?,
        owner: of.get("owner")?,
        r#type: of.word("type")?,
        visibility: of.word("visibility")?,
        name: of.get("name")?,
        description: of.get("description")?,
        content_type: of.get("content_type")?,
        size_bytes: of.get("size_bytes")?,
        data: of.optional_json("data")?,
        retention_policy: of.word("retention_policy")?,
        retention_limit: of.get("retention_limit")?,
        created: of.time("created")?,
        updated: of.time("updated")?,
    })
}

/// Takes a row without `content`.
pub(crate) fn artifact_version(row: &SqliteRow) -> Result<ArtifactVersion, StoreError> {
    let of = Columns::new("artifact_version", row);
    Ok(ArtifactVersion {
        id: ArtifactVersionId(of.get("id")?),
        artifact: ArtifactId(of.get("artifact")?),
        version: of.get("version")?,
        execution: of.get::<Option<i64>>("execution")?.map(ExecutionId),
        content_type: of.get("content_type")?,
        size_bytes: of.get("size_bytes")?,
        content_json: of.optional_json("content_json")?,
        file_path: of.get("file_path")?,
        meta: of.optional_json("meta")?,
        created_by: of.get("created_by")?,
        created: of.time("created")?,
    })
}
