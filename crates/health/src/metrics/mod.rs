//! Counters of an agent, fed by what its services observe.
//!
//! Every series is made at the start and held by its index: counting is one atomic addition, and no input of anybody can
//! add a series. `docs/metrics.md` describes them; a test keeps page and registry equal.

mod agent;
mod kinds;
mod process;
mod sensor;
mod worker;

use std::fmt;

use attune_model::activity::{Activity, Observer};
use attune_model::measure::{Measure, Success};
use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::metrics::info::Info;
use prometheus_client::registry::Registry;

use crate::health::{About, Health};

use self::agent::AgentMetrics;
use self::process::ProcessCollector;
use self::sensor::SensorMetrics;
use self::worker::WorkerMetrics;

/// What of an agent is counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Parts {
    /// Executions.
    pub worker: bool,
    /// Sensors.
    pub sensor: bool,
}

impl Parts {
    /// The action worker.
    pub const WORKER: Self = Self { worker: true, sensor: false };
    /// The sensor host.
    pub const SENSOR: Self = Self { worker: false, sensor: true };
    /// Both, in one process.
    pub const BOTH: Self = Self { worker: true, sensor: true };
    /// Neither: a hub.
    pub const NONE: Self = Self { worker: false, sensor: false };
}

/// The counters of one agent.
#[derive(Debug)]
pub struct Metrics {
    registry: Registry,
    agent: AgentMetrics,
    worker: Option<WorkerMetrics>,
    sensor: Option<SensorMetrics>,
}

impl Metrics {
    /// Everything at zero.
    pub(crate) fn new(about: &About) -> Self {
        let mut registry = Registry::default();
        registry.register_collector(Box::new(ProcessCollector::new()));
        let own = registry.sub_registry_with_prefix("attune");
        let info = Info::new([("role", about.role), ("version", about.version)]);
        own.register("agent", "The agent and its version", info);
        let agent = AgentMetrics::register(own);
        let worker = about.parts.worker.then(|| WorkerMetrics::register(own.sub_registry_with_prefix("worker")));
        let sensor = about.parts.sensor.then(|| SensorMetrics::register(own.sub_registry_with_prefix("sensor")));
        Self { registry, agent, worker, sensor }
    }

    /// All of them, as Prometheus reads them. What is not counted but looked at is looked at now.
    pub(crate) fn text(&self, health: &Health) -> Result<String, fmt::Error> {
        self.agent.ready(health.is_ready());
        let mut text = String::with_capacity(16 * 1024);
        encode(&mut text, &self.registry)?;
        Ok(text)
    }
}

impl Observer for Metrics {
    fn observe(&self, activity: Activity) {
        match activity {
            Activity::EnvironmentFinished { took, error, .. } => {
                self.agent.environment(if error.is_none() { Success::Ok } else { Success::Failed }, took);
            }
            Activity::Sensor { .. } | Activity::EnvironmentStarted { .. } => {}
        }
    }

    fn measure(&self, measure: Measure) {
        self.agent.measure(measure);
        if let Some(worker) = &self.worker {
            worker.measure(measure);
        }
        if let Some(sensor) = &self.sensor {
            sensor.measure(measure);
        }
    }
}

/// For waits on servers and starts of processes: 0.5 ms to 16 s.
fn short_times() -> Histogram {
    Histogram::new([0.0005, 0.001, 0.002, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 4.0, 16.0])
}

/// For what user code does: 5 ms to an hour.
fn long_times() -> Histogram {
    Histogram::new([0.005, 0.025, 0.1, 0.5, 1.0, 5.0, 15.0, 60.0, 300.0, 900.0, 3600.0])
}
