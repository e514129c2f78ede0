//! `executor.*`: the hub as the platform's executor.

use std::time::Duration;

use crate::key::{Described, Key};
use crate::kinds::{Flag, Seconds};
use crate::reader::Reader;

/// A valid `executor` section.
#[derive(Debug, Clone)]
pub struct ExecutorConfig {
    /// How long an execution may wait for its worker to start it; none for ever.
    pub scheduled_timeout: Option<Duration>,
    /// How often overdue executions and lost workers are looked for.
    pub timeout_check_interval: Duration,
    /// How long an agent may give no sign of life before its executions are ended.
    pub heartbeat_limit: Duration,
}

const SCHEDULED_TIMEOUT: Key<Seconds> = Key {
    path: "executor.scheduled_timeout",
    kind: Seconds(1..=2_592_000),
    default: "300",
    doc: "How long an execution may wait for its worker to start it.",
    reason: "as long as a dispatch waits in the queue of a worker",
};

const TIMEOUT_CHECK_INTERVAL: Key<Seconds> = Key {
    path: "executor.timeout_check_interval",
    kind: Seconds(1..=3600),
    default: "60",
    doc: "How often overdue executions and lost workers are looked for.",
    reason: "the platform's default",
};

const ENABLE_TIMEOUT_MONITOR: Key<Flag> = Key {
    path: "executor.enable_timeout_monitor",
    kind: Flag,
    default: "true",
    doc: "Whether executions that their worker does not start are ended.",
    reason: "the platform's default",
};

const HEARTBEAT_LIMIT: Key<Seconds> = Key {
    path: "executor.heartbeat_limit",
    kind: Seconds(2..=3600),
    default: "90",
    doc: "How long an agent may give no sign of life before it counts as lost and its executions as abandoned.",
    reason: "the platform's limit; three heartbeats of an agent",
};

/// Every key of the section.
pub(crate) const KEYS: &[&dyn Described] =
    &[&SCHEDULED_TIMEOUT, &TIMEOUT_CHECK_INTERVAL, &ENABLE_TIMEOUT_MONITOR, &HEARTBEAT_LIMIT];

/// Reads the section.
pub(crate) fn read(reader: &mut Reader<'_>) -> ExecutorConfig {
    let limit = reader.value(&SCHEDULED_TIMEOUT);
    let enabled = reader.value(&ENABLE_TIMEOUT_MONITOR);
    ExecutorConfig {
        scheduled_timeout: enabled.then_some(limit),
        timeout_check_interval: reader.value(&TIMEOUT_CHECK_INTERVAL),
        heartbeat_limit: reader.value(&HEARTBEAT_LIMIT),
    }
}
