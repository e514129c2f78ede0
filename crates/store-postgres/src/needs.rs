//! What each role uses of the platform's schema (facts of the platform).

use attune_model::status::{
    ArtifactType, ArtifactVisibility, EnforcementStatus, ExecutionStatus, OwnerType, PackEnvironmentStatus,
    RetentionPolicy, SensorProcessStatus, WorkerRole, WorkerStatus, WorkerType,
};

use crate::check::Role;

/// One table.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Need {
    pub(crate) table: &'static str,
    /// `name type` pairs, a `,` between them. After the type: `=` has to have a default, `!` has to be generated.
    columns: &'static str,
    /// Keys that upserts rely on.
    pub(crate) keys: &'static [&'static str],
    /// Whether rows are made by the agents.
    pub(crate) inserts: bool,
}

impl Need {
    /// Name, type and mark of each column.
    pub(crate) fn columns(&self) -> impl Iterator<Item = (&'static str, &'static str, Option<char>)> {
        self.columns.split(',').filter_map(|column| {
            let (name, kind) = column.trim().split_once(' ')?;
            let mark = kind.chars().last().filter(|mark| ['=', '!'].contains(mark));
            Some((name, kind.trim_end_matches(['=', '!']), mark))
        })
    }
}

const WORKER: Need = Need {
    table: "worker",
    columns: "id bigint=, name text, worker_type worker_type_enum, worker_role worker_role_enum, runtime bigint,
        host text, port integer, status worker_status_enum, capabilities jsonb, meta jsonb,
        last_heartbeat timestamp with time zone, cordoned boolean=, created timestamp with time zone=,
        updated timestamp with time zone=",
    keys: &["name"],
    inserts: true,
};

const PACK: Need = Need {
    table: "pack",
    columns: "id bigint=, ref text, label text, description text, version text, conf_schema jsonb, config jsonb,
        meta jsonb, tags text[], runtime_deps text[], dependencies text[], is_standard boolean",
    keys: &[],
    inserts: false,
};

const RUNTIME: Need = Need {
    table: "runtime",
    columns: "id bigint=, ref text, pack bigint, pack_ref text, description text, name text, aliases text[],
        distributions jsonb, installation jsonb, installers jsonb, execution_config jsonb, auto_detected boolean=,
        detection_config jsonb=, created timestamp with time zone=, updated timestamp with time zone=",
    keys: &["ref"],
    inserts: true,
};

const RUNTIME_VERSION: Need = Need {
    table: "runtime_version",
    columns: "id bigint=, runtime bigint, runtime_ref text, version text, execution_config jsonb, distributions jsonb,
        is_default boolean, available boolean=, verified_at timestamp with time zone",
    keys: &[],
    inserts: false,
};

const PACK_ENVIRONMENT: Need = Need {
    table: "pack_environment",
    columns: "id bigint=, pack bigint, pack_ref text, runtime bigint, runtime_ref text, runtime_version bigint,
        runtime_version_text text, env_key text!, env_path text, status pack_environment_status_enum=,
        manifest_checksum text, claimed_by_worker bigint, claim_expires_at timestamp with time zone,
        installed_at timestamp with time zone, last_verified timestamp with time zone, install_log text,
        install_error text, created timestamp with time zone=, updated timestamp with time zone=",
    keys: &["env_key"],
    inserts: true,
};

const ARTIFACT: Need = Need {
    table: "artifact",
    columns: "id bigint=, ref text, scope owner_type_enum, owner text, type artifact_type_enum,
        visibility artifact_visibility_enum, name text, description text, content_type text, size_bytes bigint,
        retention_policy artifact_retention_enum, retention_limit integer, created timestamp with time zone=,
        updated timestamp with time zone=",
    keys: &[],
    inserts: true,
};

const ARTIFACT_VERSION: Need = Need {
    table: "artifact_version",
    columns: "id bigint=, artifact bigint, version integer, execution bigint, content_type text, size_bytes bigint,
        file_path text, meta jsonb, created_by text, created timestamp with time zone=",
    keys: &["artifact, version"],
    inserts: true,
};

const ACTION: Need = Need {
    table: "action",
    columns: "id bigint=, ref text, pack bigint, pack_ref text, label text, description text, entrypoint text,
        runtime bigint, param_schema jsonb, out_schema jsonb, parameter_delivery text, parameter_format text,
        output_format text, is_adhoc boolean, timeout_seconds integer, runtime_version_constraint text,
        required_worker_runtimes jsonb, worker_selector jsonb, worker_tolerations jsonb, worker_affinity jsonb,
        default_execution_permission_set_refs text[], log_retention_policy artifact_retention_enum,
        log_retention_limit integer",
    keys: &[],
    inserts: false,
};

const EXECUTION: Need = Need {
    table: "execution",
    columns: "id bigint=, action bigint, action_ref text, config jsonb, env_vars jsonb, parent bigint,
        enforcement bigint, executor bigint, permission_set_refs text[], worker bigint, status execution_status_enum,
        result jsonb, started_at timestamp with time zone, workflow_task jsonb, created timestamp with time zone,
        updated timestamp with time zone",
    keys: &[],
    inserts: false,
};

const SECRETS: Need = Need {
    table: "execution_secret_value",
    columns: "id bigint=, entity_type text, entity_id bigint, json_path text, source_kind text, source_ref text,
        encrypted_value jsonb, encryption_key_hash text, created timestamp with time zone=",
    keys: &["entity_type, entity_id, json_path"],
    inserts: true,
};

const ENFORCEMENT: Need =
    Need { table: "enforcement", columns: "id bigint=, rule_ref text, trigger_ref text", keys: &[], inserts: false };

const KEY: Need = Need {
    table: "key",
    columns: "id bigint=, name text, owner_type owner_type_enum, owner_pack bigint, owner_action bigint,
        encrypted boolean, encryption_key_hash text, value jsonb",
    keys: &[],
    inserts: false,
};

const SENSOR: Need = Need {
    table: "sensor",
    columns: "id bigint=, ref text, pack bigint, pack_ref text, label text, description text, entrypoint text,
        runtime bigint, runtime_ref text, enabled boolean, param_schema jsonb, config jsonb,
        runtime_version_constraint text, worker_selector jsonb, worker_tolerations jsonb, worker_affinity jsonb,
        log_retention_policy artifact_retention_enum, log_retention_limit integer",
    keys: &[],
    inserts: false,
};

const TRIGGER: Need = Need {
    table: "trigger",
    columns: "id bigint=, ref text, pack bigint, pack_ref text, label text, description text, enabled boolean,
        param_schema jsonb, out_schema jsonb, sensor bigint, sensor_ref text",
    keys: &[],
    inserts: false,
};

const RULE: Need = Need {
    table: "rule",
    columns: "id bigint=, ref text, pack bigint, pack_ref text, label text, description text, action bigint,
        action_ref text, trigger bigint, trigger_ref text, conditions jsonb, action_params jsonb, trigger_params jsonb,
        permission_set_refs text[], enabled boolean, created timestamp with time zone,
        updated timestamp with time zone",
    keys: &[],
    inserts: false,
};

const EVENT: Need = Need {
    table: "event",
    columns:
        "id bigint=, trigger bigint, trigger_ref text, config jsonb, payload jsonb, source bigint, source_ref text,
        rule bigint, rule_ref text, created timestamp with time zone=",
    keys: &[],
    inserts: true,
};

const SENSOR_PROCESS: Need = Need {
    table: "sensor_process",
    columns: "id bigint=, sensor bigint, sensor_ref text, worker bigint, worker_name text,
        status sensor_process_status_enum=, pid integer, consecutive_failures integer=, last_exit_code integer,
        last_signal integer, last_started_at timestamp with time zone, last_stopped_at timestamp with time zone,
        next_restart_at timestamp with time zone, stderr_excerpt text, log_artifact_ref text,
        active_rule_count integer, last_alerted_failure_count integer=, last_alerted_at timestamp with time zone,
        meta jsonb=, created timestamp with time zone=, updated timestamp with time zone=",
    keys: &["sensor, worker"],
    inserts: true,
};

const IDENTITY: Need = Need { table: "identity", columns: "id bigint=, login text", keys: &["login"], inserts: true };

/// What the hub needs of artifacts besides: it takes and gives what is in them.
const FILLED_ARTIFACT: Need = Need {
    table: "artifact",
    columns: "id bigint=, ref text, scope owner_type_enum, owner text, type artifact_type_enum,
        visibility artifact_visibility_enum, name text, description text, content_type text, size_bytes bigint,
        data jsonb, retention_policy artifact_retention_enum, retention_limit integer,
        created timestamp with time zone=, updated timestamp with time zone=",
    keys: &[],
    inserts: true,
};

const FILLED_VERSION: Need = Need {
    table: "artifact_version",
    columns: "id bigint=, artifact bigint, version integer, execution bigint, content_type text, size_bytes bigint,
        content bytea, content_json jsonb, file_path text, meta jsonb, created_by text,
        created timestamp with time zone=",
    keys: &["artifact, version"],
    inserts: true,
};

/// What the hub needs of enforcements and executions besides: it makes them.
const MADE_ENFORCEMENT: Need = Need {
    table: "enforcement",
    columns: "id bigint=, rule bigint, rule_ref text, trigger_ref text, config jsonb, event bigint,
        status enforcement_status_enum, payload jsonb, conditions jsonb, resolved_at timestamp with time zone,
        condition enforcement_condition_enum=, created timestamp with time zone=",
    keys: &[],
    inserts: true,
};

/// The tables of a role.
pub(crate) fn tables(role: Role) -> Vec<Need> {
    let common = [WORKER, PACK, RUNTIME, RUNTIME_VERSION, PACK_ENVIRONMENT];
    let own: &[Need] = match role {
        Role::Worker => &[ARTIFACT, ARTIFACT_VERSION, ACTION, EXECUTION, SECRETS, ENFORCEMENT, KEY],
        Role::Sensor => &[ARTIFACT, ARTIFACT_VERSION, SENSOR, TRIGGER, RULE, EVENT, SENSOR_PROCESS],
        Role::Hub => &[
            FILLED_ARTIFACT,
            FILLED_VERSION,
            ACTION,
            EXECUTION,
            SECRETS,
            MADE_ENFORCEMENT,
            KEY,
            SENSOR,
            TRIGGER,
            RULE,
            EVENT,
            SENSOR_PROCESS,
            IDENTITY,
        ],
    };
    common.iter().chain(own).copied().collect()
}

/// The enums that those tables have columns of, with the values that have to be there.
pub(crate) fn enums(needed: &[Need]) -> Vec<(&'static str, Vec<&'static str>)> {
    fn texts<T: Copy>(all: &[T], text: fn(T) -> &'static str) -> Vec<&'static str> {
        all.iter().map(|value| text(*value)).collect()
    }
    let all = [
        ("worker_type_enum", texts(WorkerType::ALL, WorkerType::as_str)),
        ("worker_role_enum", texts(WorkerRole::ALL, WorkerRole::as_str)),
        ("worker_status_enum", texts(WorkerStatus::ALL, WorkerStatus::as_str)),
        ("sensor_process_status_enum", texts(SensorProcessStatus::ALL, SensorProcessStatus::as_str)),
        ("enforcement_status_enum", texts(EnforcementStatus::ALL, EnforcementStatus::as_str)),
        ("execution_status_enum", texts(ExecutionStatus::ALL, ExecutionStatus::as_str)),
        ("owner_type_enum", texts(OwnerType::ALL, OwnerType::as_str)),
        ("artifact_type_enum", texts(ArtifactType::ALL, ArtifactType::as_str)),
        ("artifact_visibility_enum", texts(ArtifactVisibility::ALL, ArtifactVisibility::as_str)),
        ("artifact_retention_enum", texts(RetentionPolicy::ALL, RetentionPolicy::as_str)),
        ("pack_environment_status_enum", texts(PackEnvironmentStatus::ALL, PackEnvironmentStatus::as_str)),
    ];
    let used = |name: &str| needed.iter().flat_map(Need::columns).any(|(_, kind, _)| kind == name);
    all.into_iter().filter(|(name, _)| used(name)).collect()
}
