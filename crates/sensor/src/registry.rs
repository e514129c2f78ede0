//! What the host says about itself while it runs: the live numbers of its capabilities.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use attune_model::{JsonMap, SensorId};
use serde_json::{Value, json};
use tokio::sync::watch;

use crate::config::SensorConfig;
use crate::supervisor::{Phase, Status};
use crate::vitals::SensorLook;

type Statuses = BTreeMap<SensorId, (String, watch::Receiver<Status>)>;

/// The known sensors. The dispatcher writes, the heartbeat reads.
#[derive(Debug, Clone, Default)]
pub(crate) struct Registry {
    statuses: Arc<Mutex<Statuses>>,
}

/// The three live numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Counts {
    /// Wanted, those in back-off included.
    pub(crate) monitored: usize,
    /// Alive.
    pub(crate) running: usize,
    /// Enabled rules that wait for the wanted ones.
    pub(crate) active_rules: i64,
}

impl Registry {
    fn statuses(&self) -> MutexGuard<'_, Statuses> {
        self.statuses.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn add(&self, sensor: SensorId, sensor_ref: &str, status: watch::Receiver<Status>) {
        self.statuses().insert(sensor, (sensor_ref.to_owned(), status));
    }

    pub(crate) fn remove(&self, sensor: SensorId) {
        self.statuses().remove(&sensor);
    }

    pub(crate) fn look(&self) -> Vec<SensorLook> {
        let look = |(id, (sensor_ref, status)): (&SensorId, &(String, watch::Receiver<Status>))| {
            let status = status.borrow();
            SensorLook {
                id: *id,
                sensor_ref: sensor_ref.clone(),
                state: status.phase.state(),
                pid: status.pid.filter(|_| status.phase == Phase::Running),
                failures: status.failures,
                active_rules: status.active_rules,
            }
        };
        self.statuses().iter().map(look).collect()
    }

    pub(crate) fn counts(&self) -> Counts {
        let mut counts = Counts::default();
        for (_, status) in self.statuses().values() {
            let status = status.borrow();
            if !matches!(status.phase, Phase::Idle | Phase::Waiting) {
                counts.monitored += 1;
                counts.running += usize::from(status.phase == Phase::Running);
                // A trigger belongs to one sensor, so no rule is counted twice.
                counts.active_rules += i64::from(status.active_rules);
            }
        }
        counts
    }
}

/// The whole capabilities of the host (keys: a fact of the platform).
pub(crate) fn capabilities(config: &SensorConfig, counts: Counts) -> JsonMap {
    let own = [
        ("max_concurrent_sensors", json!(config.max_concurrent_sensors)),
        ("sensor_processes_monitored", json!(counts.monitored)),
        ("sensor_processes_running", json!(counts.running)),
        ("active_rules", json!(counts.active_rules)),
        ("sensor_version", json!(env!("CARGO_PKG_VERSION"))),
    ];
    let mut all: JsonMap = own.into_iter().map(|(key, value)| (key.to_owned(), value)).collect();
    for (key, value) in &config.capabilities {
        if !all.contains_key(key) {
            all.insert(key.clone(), value.clone());
        }
    }
    all.entry("runtimes").or_insert_with(|| Value::Array(Vec::new()));
    all
}
