//! `sensor.*`: the sensor host.

use std::collections::BTreeMap;
use std::time::Duration;

use attune_model::JsonMap;
use attune_model::placement::Taint;

use crate::collections::{Labels, Object, PassedNames, Taints};
use crate::key::{Described, Key};
use crate::kinds::{Seconds, Text, Whole};
use crate::reader::Reader;
use crate::sections::child::{self, ChildConfig, SENSOR as CHILD};

/// A valid `sensor` section.
#[derive(Debug, Clone)]
pub struct SensorConfig {
    /// Name of the agent's row; none: `sensor-` and the host's name.
    pub worker_name: Option<String>,
    /// Column `host` of the row; none: the host's name.
    pub host: Option<String>,
    /// Merged into the reported capabilities.
    pub capabilities: JsonMap,
    /// For placement.
    pub labels: BTreeMap<String, String>,
    /// For placement.
    pub taints: Vec<Taint>,
    /// Reported as a capability.
    pub max_concurrent_sensors: u32,
    /// Between two signs of life.
    pub heartbeat_interval: Duration,
    /// How long all sensors together have to end after the stop was asked for.
    pub shutdown_timeout: Duration,
    /// Names of further variables that sensors see.
    pub pass_env: Vec<String>,
    /// What processes of user code may use, and how they are ended.
    pub child: ChildConfig,
}

const WORKER_NAME: Key<Text> = Key {
    path: "sensor.worker_name",
    kind: Text,
    default: "",
    doc: "Name of the sensor agent. `--name` is stronger.",
    reason: "without any of them: `sensor-` and the host's name; set it where each container has a new host name",
};

const HOST: Key<Text> = Key {
    path: "sensor.host",
    kind: Text,
    default: "",
    doc: "Host that the agent's row names.",
    reason: "without it: the host's name",
};

const CAPABILITIES: Key<Object> = Key {
    path: "sensor.capabilities",
    kind: Object,
    default: "{}",
    doc: "Merged into the capabilities that the agent reports.",
    reason: "nothing to add",
};

const LABELS: Key<Labels> = Key {
    path: "sensor.labels",
    kind: Labels,
    default: "{}",
    doc: "Labels that sensors choose agents by.",
    reason: "no label",
};

const TAINTS: Key<Taints> = Key {
    path: "sensor.taints",
    kind: Taints,
    default: "[]",
    doc: "Marks that keep away sensors which do not tolerate them.",
    reason: "no mark",
};

const MAX_CONCURRENT_SENSORS: Key<Whole<u32>> = Key {
    path: "sensor.max_concurrent_sensors",
    kind: Whole(1..=100_000),
    default: "10",
    doc: "Reported as a capability, from which the platform computes the agent's load.",
    reason: "the platform's default; nothing enforces it",
};

const HEARTBEAT_INTERVAL: Key<Seconds> = Key {
    path: "sensor.heartbeat_interval",
    kind: Seconds(1..=60),
    default: "30",
    doc: "Between two signs of life.",
    reason: "the platform takes an agent for dead after 90 s; two may be lost",
};

const SHUTDOWN_TIMEOUT: Key<Seconds> = Key {
    path: "sensor.shutdown_timeout",
    kind: Seconds(0..=86_400),
    default: "30",
    doc: "How long all sensors together have to end after the stop was asked for.",
    reason: "with the 5 s that ending them takes, below the 45 s that deployments allow",
};

const PASS_ENV: Key<PassedNames> = Key {
    path: "sensor.pass_env",
    kind: PassedNames,
    default: "[]",
    doc: "Names of further variables of the agent that sensors see.",
    reason: "sensors see only what they need; the agent's own `ATTUNE_` variables never pass",
};

/// Every key of the section.
pub(crate) const KEYS: &[&dyn Described] = &[
    &WORKER_NAME,
    &HEARTBEAT_INTERVAL,
    &SHUTDOWN_TIMEOUT,
    &MAX_CONCURRENT_SENSORS,
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
    &CHILD.stop_signal,
    &CHILD.stop_grace,
    &CAPABILITIES,
    &LABELS,
    &TAINTS,
    &HOST,
];

/// Only the name; the given one is the strongest.
pub(crate) fn name(reader: &mut Reader<'_>, given: Option<String>) -> Option<String> {
    let configured = reader.optional(&WORKER_NAME);
    given.or(configured)
}

/// Reads the section; `name` comes from the command line.
pub(crate) fn read(reader: &mut Reader<'_>, name: Option<String>) -> SensorConfig {
    SensorConfig {
        worker_name: self::name(reader, name),
        host: reader.optional(&HOST),
        capabilities: reader.value(&CAPABILITIES),
        labels: reader.value(&LABELS),
        taints: reader.value(&TAINTS),
        max_concurrent_sensors: reader.value(&MAX_CONCURRENT_SENSORS),
        heartbeat_interval: reader.value(&HEARTBEAT_INTERVAL),
        shutdown_timeout: reader.value(&SHUTDOWN_TIMEOUT),
        pass_env: reader.value(&PASS_ENV),
        child: child::read(reader, &CHILD),
    }
}
