//! `worker.*`: the action worker.

use std::collections::BTreeMap;
use std::time::Duration;

use attune_model::JsonMap;
use attune_model::placement::Taint;
use attune_model::status::{RetentionPolicy, WorkerType};

use crate::collections::{Labels, Object, PassedNames, Taints};
use crate::key::{Described, Key, Kind};
use crate::kinds::{Bytes, Choice, Flag, Seconds, Text, Whole};
use crate::reader::Reader;
use crate::sections::child::{self, ChildConfig, WORKER as CHILD};

/// The variable that names the worker, when nothing stronger does.
pub(crate) const NAME_VARIABLE: &str = "ATTUNE_WORKER_NAME";

/// The variable that says what kind of machine it is, when the key does not.
pub(crate) const TYPE_VARIABLE: &str = "ATTUNE_WORKER_TYPE";

/// A valid `worker` section.
#[derive(Debug, Clone)]
pub struct WorkerConfig {
    /// Name of the worker's row; none: `worker-` and the host's name.
    pub name: Option<String>,
    /// Kind of machine.
    pub worker_type: WorkerType,
    /// Column `runtime` of the row.
    pub runtime_id: Option<i64>,
    /// Column `host` of the row; none: the host's name.
    pub host: Option<String>,
    /// Column `port` of the row.
    pub port: Option<u16>,
    /// Merged into the reported capabilities, over what is built in.
    pub capabilities: JsonMap,
    /// For placement.
    pub labels: BTreeMap<String, String>,
    /// For placement.
    pub taints: Vec<Taint>,
    /// How many executions run at a time.
    pub max_concurrent_tasks: u16,
    /// Between two signs of life.
    pub heartbeat_interval: Duration,
    /// Time limit of an execution that has no limit of its own.
    pub task_timeout: Duration,
    /// How much of standard output is kept.
    pub max_stdout_bytes: u64,
    /// How much of standard error is kept.
    pub max_stderr_bytes: u64,
    /// In what log artifacts are counted.
    pub execution_log_retention_policy: RetentionPolicy,
    /// How many of it are kept.
    pub execution_log_retention_limit: i32,
    /// How long running executions may go on after the stop was asked for.
    pub shutdown_timeout: Duration,
    /// Names of further variables that actions see.
    pub pass_env: Vec<String>,
    /// What processes of user code may use, and how they are ended.
    pub child: ChildConfig,
}

const NAME: Key<Text> = Key {
    path: "worker.name",
    kind: Text,
    default: "",
    doc: "Name of the worker. `--name` is stronger, `ATTUNE_WORKER_NAME` is weaker.",
    reason: "without any of them: `worker-` and the host's name; a stable name keeps queues across restarts",
};

/// The kinds of machine.
const WORKER_TYPES: Choice<WorkerType> =
    Choice(&[("local", WorkerType::Local), ("remote", WorkerType::Remote), ("container", WorkerType::Container)]);

const WORKER_TYPE: Key<Choice<WorkerType>> = Key {
    path: "worker.worker_type",
    kind: WORKER_TYPES,
    default: "",
    doc: "Kind of machine. `ATTUNE_WORKER_TYPE` is weaker.",
    reason: "without any of them: `local`",
};

const RUNTIME_ID: Key<Whole<i64>> = Key {
    path: "worker.runtime_id",
    kind: Whole(1..=i64::MAX),
    default: "",
    doc: "Id of the runtime that the worker's row names.",
    reason: "without it the row names none",
};

const HOST: Key<Text> = Key {
    path: "worker.host",
    kind: Text,
    default: "",
    doc: "Host that the worker's row names.",
    reason: "without it: the host's name",
};

const PORT: Key<Whole<u16>> = Key {
    path: "worker.port",
    kind: Whole(1..=u16::MAX),
    default: "",
    doc: "Port that the worker's row names.",
    reason: "without it the row names none; a worker listens on no port",
};

const CAPABILITIES: Key<Object> = Key {
    path: "worker.capabilities",
    kind: Object,
    default: "{}",
    doc: "Merged into the capabilities that the worker reports, over what is built in.",
    reason: "nothing to add",
};

const LABELS: Key<Labels> = Key {
    path: "worker.labels",
    kind: Labels,
    default: "{}",
    doc: "Labels that actions choose workers by.",
    reason: "no label",
};

const TAINTS: Key<Taints> = Key {
    path: "worker.taints",
    kind: Taints,
    default: "[]",
    doc: "Marks that keep away actions which do not tolerate them.",
    reason: "no mark",
};

const MAX_CONCURRENT_TASKS: Key<Whole<u16>> = Key {
    path: "worker.max_concurrent_tasks",
    kind: Whole(1..=10_000),
    default: "10",
    doc: "How many executions run at a time; also how many messages are taken in advance.",
    reason: "the platform's default",
};

const HEARTBEAT_INTERVAL: Key<Seconds> = Key {
    path: "worker.heartbeat_interval",
    kind: Seconds(1..=60),
    default: "30",
    doc: "Between two signs of life.",
    reason: "the platform takes a worker for dead after 90 s; two may be lost",
};

const TASK_TIMEOUT: Key<Seconds> = Key {
    path: "worker.task_timeout",
    kind: Seconds(1..=2_592_000),
    default: "300",
    doc: "Time limit of an execution whose action and task name none.",
    reason: "the limit that the platform has for such executions",
};

const MAX_STDOUT_BYTES: Key<Bytes> = Key {
    path: "worker.max_stdout_bytes",
    kind: Bytes(0..=1 << 30),
    default: "10485760",
    doc: "How much of an action's standard output is kept.",
    reason: "the platform's default; it bounds the memory of one execution",
};

const MAX_STDERR_BYTES: Key<Bytes> = Key {
    path: "worker.max_stderr_bytes",
    kind: Bytes(0..=1 << 30),
    default: "10485760",
    doc: "How much of an action's standard error is kept.",
    reason: "the platform's default; it bounds the memory of one execution",
};

const RETENTION_POLICY: Key<Choice<RetentionPolicy>> = Key {
    path: "worker.execution_log_retention_policy",
    kind: Choice(&[
        ("versions", RetentionPolicy::Versions),
        ("days", RetentionPolicy::Days),
        ("hours", RetentionPolicy::Hours),
        ("minutes", RetentionPolicy::Minutes),
    ]),
    default: "days",
    doc: "In what `worker.execution_log_retention_limit` counts, for actions that say nothing themselves.",
    reason: "the platform's default",
};

const RETENTION_LIMIT: Key<Whole<i32>> = Key {
    path: "worker.execution_log_retention_limit",
    kind: Whole(1..=i32::MAX),
    default: "7",
    doc: "How long, or how many, logs of executions are kept.",
    reason: "the platform's default",
};

const SHUTDOWN_TIMEOUT: Key<Seconds> = Key {
    path: "worker.shutdown_timeout",
    kind: Seconds(0..=86_400),
    default: "30",
    doc: "How long running executions may go on after the stop was asked for.",
    reason: "with the 5 s that ending them takes, below the 45 s that deployments allow",
};

const STREAM_LOGS: Key<Flag> = Key {
    path: "worker.stream_logs",
    kind: Flag,
    default: "true",
    doc: "Checked and not used: logs are always written while the action runs.",
    reason: "the platform does not use it either",
};

const PASS_ENV: Key<PassedNames> = Key {
    path: "worker.pass_env",
    kind: PassedNames,
    default: "[]",
    doc: "Names of further variables of the worker that actions see.",
    reason: "actions see only what they need; the agent's own `ATTUNE_` variables never pass",
};

/// Every key of the section.
pub(crate) const KEYS: &[&dyn Described] = &[
    &NAME,
    &WORKER_TYPE,
    &MAX_CONCURRENT_TASKS,
    &HEARTBEAT_INTERVAL,
    &TASK_TIMEOUT,
    &SHUTDOWN_TIMEOUT,
    &MAX_STDOUT_BYTES,
    &MAX_STDERR_BYTES,
    &PASS_ENV,
    &CHILD.memory,
    &CHILD.cpu,
    &CHILD.open_files,
    &CHILD.processes,
    &CHILD.umask,
    &CHILD.nice,
    &CHILD.oom_score_adj,
    &CHILD.no_new_privileges,
    &CHILD.run_as,
    &CHILD.new_session,
    &CHILD.stop_signal,
    &CHILD.stop_grace,
    &CAPABILITIES,
    &LABELS,
    &TAINTS,
    &RETENTION_POLICY,
    &RETENTION_LIMIT,
    &RUNTIME_ID,
    &HOST,
    &PORT,
    &STREAM_LOGS,
];

/// Reads the section; `name` comes from the command line.
pub(crate) fn read(reader: &mut Reader<'_>, name: Option<String>) -> WorkerConfig {
    let _unused: bool = reader.value(&STREAM_LOGS);
    WorkerConfig {
        name: self::name(reader, name),
        worker_type: worker_type(reader),
        runtime_id: reader.optional(&RUNTIME_ID),
        host: reader.optional(&HOST),
        port: reader.optional(&PORT),
        capabilities: reader.value(&CAPABILITIES),
        labels: reader.value(&LABELS),
        taints: reader.value(&TAINTS),
        max_concurrent_tasks: reader.value(&MAX_CONCURRENT_TASKS),
        heartbeat_interval: reader.value(&HEARTBEAT_INTERVAL),
        task_timeout: reader.value(&TASK_TIMEOUT),
        max_stdout_bytes: reader.value(&MAX_STDOUT_BYTES),
        max_stderr_bytes: reader.value(&MAX_STDERR_BYTES),
        execution_log_retention_policy: reader.value(&RETENTION_POLICY),
        execution_log_retention_limit: reader.value(&RETENTION_LIMIT),
        shutdown_timeout: reader.value(&SHUTDOWN_TIMEOUT),
        pass_env: reader.value(&PASS_ENV),
        child: child::read(reader, &CHILD),
    }
}

/// Only the name; the given one is the strongest.
pub(crate) fn name(reader: &mut Reader<'_>, given: Option<String>) -> Option<String> {
    let configured = reader.optional(&NAME);
    let weakest = reader.variable(NAME_VARIABLE);
    given.or(configured).or(weakest)
}

fn worker_type(reader: &mut Reader<'_>) -> WorkerType {
    let configured = reader.optional(&WORKER_TYPE);
    let variable = reader.variable(TYPE_VARIABLE).and_then(|text| {
        let read = WORKER_TYPES.read(crate::key::Given::Text(&text));
        // The platform ignores other words here, so existing deployments may hold some.
        read.map_err(|problem| reader.warning(format!("{TYPE_VARIABLE} is ignored: {problem}"))).ok()
    });
    configured.or(variable).unwrap_or(WorkerType::Local)
}
