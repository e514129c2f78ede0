//! What the sensor host needs: the desired sensors and the state of its processes.

use async_trait::async_trait;
use attune_model::message::EventCreated;
use attune_model::rows::{Rule, Runtime, RuntimeVersion, Sensor, SensorProcess, Trigger};
use attune_model::{JsonMap, SensorId, WorkerId};
use chrono::{DateTime, Utc};

use crate::{AgentStore, EnvironmentStore, LeaseStore, LogStore, StoreError};

/// One enabled sensor with everything that decides whether and how it runs.
#[derive(Debug, Clone, PartialEq)]
pub struct DesiredSensor {
    /// The row.
    pub sensor: Sensor,
    /// Its runtime.
    pub runtime: Runtime,
    /// The versions of that runtime.
    pub runtime_versions: Vec<RuntimeVersion>,
    /// Its triggers, enabled or not, by ref.
    pub triggers: Vec<Trigger>,
    /// The enabled rules of those triggers: triggers in ref order, rules in row order. Empty: the sensor is not wanted.
    pub rules: Vec<Rule>,
}

/// A change of `sensor_process`, written by (sensor, worker).
#[derive(Debug, Clone, PartialEq)]
pub enum ProcessChange {
    /// A start is being attempted.
    Starting,
    /// The child is alive.
    Running {
        /// Leader of its group.
        pid: i32,
        /// Whether failures and alert marks go back to 0.
        reset_failures: bool,
    },
    /// Not wanted any more.
    Stopped,
    /// It ended or could not be started, and will be started again.
    Backoff(ProcessEnd),
    /// An alert was raised at this count of failures.
    Alerted {
        /// `consecutive_failures` at that moment.
        failures: i32,
    },
}

/// How a process ended.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct ProcessEnd {
    /// Counted so far, this one included; 0 for a planned restart.
    pub consecutive_failures: i32,
    /// When it exited by itself.
    pub exit_code: Option<i32>,
    /// When a signal ended it.
    pub signal: Option<i32>,
    /// Last lines of standard error, or the start error; free of NUL.
    pub stderr_excerpt: Option<String>,
    /// When it is started again.
    pub next_restart_at: Option<DateTime<Utc>>,
}

/// Desired sensors and the state of this host's processes.
#[async_trait]
pub trait SensorStore: AgentStore + EnvironmentStore + LogStore + LeaseStore {
    /// Every enabled sensor, by ref.
    async fn desired_sensors(&self) -> Result<Vec<DesiredSensor>, StoreError>;

    /// Writes a change and the number of enabled rules (none: keeps the stored number). A sensor that is gone is not an
    /// error. What [`LeaseStore`] keeps in `meta` stays.
    async fn record_process(
        &self,
        sensor: &Sensor,
        worker: (WorkerId, &str),
        active_rules: Option<i32>,
        change: &ProcessChange,
    ) -> Result<(), StoreError>;

    /// Sets rows of this host that claim a living process, or a start to come, to `stopped`: at start nothing of an
    /// earlier life is alive or waits. Failures keep their count.
    async fn clear_stale_processes(&self, worker: WorkerId) -> Result<u64, StoreError>;

    /// The rows of this host.
    async fn processes(&self, worker: WorkerId) -> Result<Vec<SensorProcess>, StoreError>;

    /// Stores a `core.alert` event; none when that trigger does not exist. The caller publishes the returned message.
    async fn insert_alert(&self, payload: &JsonMap) -> Result<Option<EventCreated>, StoreError>;

    /// The highest `consecutive_failures` known for a sensor on this host, to go on with after a restart of the host.
    async fn process(&self, sensor: SensorId, worker: WorkerId) -> Result<Option<SensorProcess>, StoreError>;
}
