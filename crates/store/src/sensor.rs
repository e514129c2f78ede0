//! What the sensor host needs: the desired sensors and the state of its processes.

use std::collections::{BTreeMap, HashMap};
use std::hash::{DefaultHasher, Hash, Hasher as _};
use std::sync::Arc;

use async_trait::async_trait;
use attune_model::message::EventCreated;
use attune_model::rows::{Rule, Runtime, RuntimeVersion, Sensor, SensorProcess, Trigger};
use attune_model::{JsonMap, RuntimeId, SensorId, WorkerId};
use chrono::{DateTime, Utc};

use crate::{AgentStore, EnvironmentStore, HostProcess, LeaseStore, LogStore, StoreError};

/// One enabled sensor with everything that decides whether and how it runs.
#[derive(Debug, Clone, PartialEq)]
pub struct DesiredSensor {
    /// The row.
    pub sensor: Sensor,
    /// Its runtime, which is the same object for all sensors that it runs.
    pub runtime: Arc<Runtime>,
    /// The versions of that runtime, likewise.
    pub runtime_versions: Arc<[RuntimeVersion]>,
    /// Its triggers, enabled or not, by ref.
    pub triggers: Vec<Trigger>,
    /// The enabled rules of those triggers: triggers in ref order, rules in row order. Empty: the sensor is not wanted.
    pub rules: Vec<Rule>,
}

impl DesiredSensor {
    /// Puts every sensor together with what belongs to it, in the order of the given lists.
    pub fn join(
        sensors: Vec<Sensor>,
        runtimes: Vec<Runtime>,
        versions: Vec<RuntimeVersion>,
        (triggers, rules): (Vec<Trigger>, Vec<Rule>),
    ) -> Result<Vec<Self>, StoreError> {
        let mut versions_of = group(versions, |version: &RuntimeVersion| Some(version.runtime));
        let mut shared = |runtime: Runtime| {
            let versions: Arc<[RuntimeVersion]> = versions_of.remove(&runtime.id).unwrap_or_default().into();
            (runtime.id, (Arc::new(runtime), versions))
        };
        let runtimes: HashMap<RuntimeId, _> = runtimes.into_iter().map(&mut shared).collect();
        let mut rules_of = group(rules, |rule: &Rule| rule.trigger);
        let mut triggers_of = group(triggers, |trigger: &Trigger| trigger.sensor);
        let join = |sensor: Sensor| {
            // A foreign key holds the two together, so the data is damaged.
            let runtime = runtimes.get(&sensor.runtime).cloned().ok_or_else(|| StoreError::Inconsistent {
                table: "sensor",
                column: "runtime",
                key: sensor.id.to_string(),
                detail: format!("there is no runtime {}", sensor.runtime),
            });
            let (runtime, runtime_versions) = runtime?;
            let triggers: Vec<Trigger> = triggers_of.remove(&sensor.id).unwrap_or_default();
            let rules = triggers.iter().flat_map(|trigger| rules_of.remove(&trigger.id).unwrap_or_default()).collect();
            Ok(Self { sensor, runtime, runtime_versions, triggers, rules })
        };
        sensors.into_iter().map(join).collect()
    }
}

/// Keeps the order inside each group.
fn group<K: Hash + Eq, T>(items: Vec<T>, key: impl Fn(&T) -> Option<K>) -> HashMap<K, Vec<T>> {
    let mut groups: HashMap<K, Vec<T>> = HashMap::new();
    for item in items {
        if let Some(key) = key(&item) {
            groups.entry(key).or_default().push(item);
        }
    }
    groups
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
    /// Another number of rules; nothing has happened to the process.
    Rules,
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

/// A change of the row of one sensor.
#[derive(Debug, Clone, Copy)]
pub struct ProcessRecord<'a> {
    /// Whose.
    pub sensor: &'a Sensor,
    /// The number of enabled rules; none keeps the stored number.
    pub active_rules: Option<i32>,
    /// What happened.
    pub change: &'a ProcessChange,
}

/// Desired sensors and the state of this host's processes.
#[async_trait]
pub trait SensorStore: AgentStore + EnvironmentStore + LogStore + LeaseStore {
    /// Every enabled sensor, by ref.
    async fn desired_sensors(&self) -> Result<Vec<DesiredSensor>, StoreError>;

    /// Something short that changes whenever [`SensorStore::desired_sensors`] does. A store on another machine overrides this,
    /// so that the rows do not travel.
    async fn desired_digest(&self) -> Result<String, StoreError> {
        let mut hasher = DefaultHasher::new();
        format!("{:?}", self.desired_sensors().await?).hash(&mut hasher);
        Ok(hasher.finish().to_string())
    }

    /// For each pack, by ref, something short that changes whenever its row does.
    async fn pack_stamps(&self) -> Result<BTreeMap<String, String>, StoreError>;

    /// Writes changes of rows of one host, all or none, each as if it were written alone, in this order. A sensor that is gone
    /// is not an error. What [`LeaseStore`] keeps in `meta` stays. A process that [is replaced](LeaseStore::is_replaced) writes
    /// nothing, which is no error either.
    async fn record_processes(&self, host: HostProcess<'_>, records: &[ProcessRecord<'_>]) -> Result<(), StoreError>;

    /// [`SensorStore::record_processes`] with one change.
    async fn record_process(
        &self,
        sensor: &Sensor,
        host: HostProcess<'_>,
        active_rules: Option<i32>,
        change: &ProcessChange,
    ) -> Result<(), StoreError> {
        self.record_processes(host, &[ProcessRecord { sensor, active_rules, change }]).await
    }

    /// Those of these hosts that have a row.
    async fn known_hosts(&self, hosts: &[WorkerId]) -> Result<Vec<WorkerId>, StoreError>;

    /// Sets rows of this host that claim a living process, or a start to come, to `stopped`: at start nothing of an
    /// earlier life is alive or waits. Failures keep their count.
    async fn clear_stale_processes(&self, worker: WorkerId) -> Result<u64, StoreError>;

    /// The rows of this host.
    async fn processes(&self, worker: WorkerId) -> Result<Vec<SensorProcess>, StoreError>;

    /// Stores a `core.alert` event; none when that trigger does not exist. The caller publishes the returned message.
    async fn insert_alert(&self, payload: &JsonMap) -> Result<Option<EventCreated>, StoreError>;

    /// The row of a sensor on this host.
    async fn process(&self, sensor: SensorId, worker: WorkerId) -> Result<Option<SensorProcess>, StoreError>;
}
