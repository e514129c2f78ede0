//! `sensor.*`: the sensor host.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use attune_model::JsonMap;
use attune_model::placement::Taint;

use crate::collections::{Labels, Object, PassedNames, Taints};
use crate::key::{Described, Key};
use crate::kinds::{Folder, Seconds, Text, Whole};
use crate::reader::Reader;
use crate::sections::child::{self, ChildConfig, SENSOR as CHILD};

/// Where a sensor host keeps what only it and its sensors may see.
const DEFAULT_RUN_DIR: &str = "/tmp/attune-sensor-agent";

/// Where a sensor host is asked for that was not told another folder.
pub fn default_run_folder() -> &'static Path {
    Path::new(DEFAULT_RUN_DIR)
}

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
    /// How long this agent may run sensors after the database has last heard of it.
    pub lease_time: Duration,
    /// First and longest wait before a sensor that failed is started again.
    pub backoff: (Duration, Duration),
    /// How often wanted and running sensors are compared without a message.
    pub reconcile_interval: Duration,
    /// How long a sensor that gives signs of life may give none.
    pub watchdog: Duration,
    /// Private folder for tokens and sockets.
    pub run_dir: PathBuf,
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

const LEASE_TIME: Key<Seconds> = Key {
    path: "sensor.lease_time",
    kind: Seconds(3..=3600),
    default: "30",
    doc: "How long this agent may run sensors after the database has last heard of it. Another agent takes over soon after.",
    reason: "long enough for a database that restarts, short enough for people who wait for events",
};

const BACKOFF_MIN: Key<Seconds> = Key {
    path: "sensor.backoff_min",
    kind: Seconds(1..=3600),
    default: "1",
    doc: "Wait before a sensor that failed is started again. It doubles with each further failure.",
    reason: "most failures are over at once; the platform's own agent waits 5 s",
};

const BACKOFF_MAX: Key<Seconds> = Key {
    path: "sensor.backoff_max",
    kind: Seconds(1..=86_400),
    default: "60",
    doc: "Longest wait before a sensor that failed is started again.",
    reason: "who mends something should not wait longer; the platform's own agent waits up to 300 s",
};

const RECONCILE_INTERVAL: Key<Seconds> = Key {
    path: "sensor.reconcile_interval",
    kind: Seconds(1..=3600),
    default: "30",
    doc: "How often wanted and running sensors are compared without a message.",
    reason: "the platform sends no message about deleted rules and changed sensors",
};

const WATCHDOG: Key<Seconds> = Key {
    path: "sensor.watchdog",
    kind: Seconds(1..=86_400),
    default: "60",
    doc: "A sensor that gives signs of life (`WATCHDOG=1`) and gives none for so long is started again.",
    reason: "sensors tell at half of this time; shorter times catch busy ones",
};

const RUN_DIR: Key<Folder> = Key {
    path: "sensor.run_dir",
    kind: Folder,
    default: DEFAULT_RUN_DIR,
    doc: "Private folder for the tokens of sensors, for their sockets, and for the socket of `attune-agents sensor ctl`.",
    reason: "exists in every image, also in one that is read-only otherwise; paths of sockets must be short",
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
    &LEASE_TIME,
    &BACKOFF_MIN,
    &BACKOFF_MAX,
    &RECONCILE_INTERVAL,
    &WATCHDOG,
    &RUN_DIR,
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
    &CHILD.new_session,
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
        lease_time: reader.value(&LEASE_TIME),
        backoff: (reader.value(&BACKOFF_MIN), reader.value(&BACKOFF_MAX)),
        reconcile_interval: reader.value(&RECONCILE_INTERVAL),
        watchdog: reader.value(&WATCHDOG),
        run_dir: reader.folder(&RUN_DIR),
        shutdown_timeout: reader.value(&SHUTDOWN_TIMEOUT),
        pass_env: reader.value(&PASS_ENV),
        child: child::read(reader, &CHILD),
    }
}
