//! What a sensor host counts.

use attune_model::measure::{LeaseChange, Measure, RestartCause, SensorState, Success};
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

use super::kinds::{Counters, Gauges};

#[derive(Debug)]
pub(super) struct SensorMetrics {
    sensors: Gauges<SensorState>,
    restarts: Counters<RestartCause>,
    tokens: Counters<Success>,
    leases: Gauge,
    lease_changes: Counters<LeaseChange>,
}

impl SensorMetrics {
    pub(super) fn register(registry: &mut Registry) -> Self {
        let leases = Gauge::default();
        registry.register("leases_held", "Sensors that this host has the lease of", leases.clone());
        Self {
            leases,
            sensors: Gauges::register(
                registry,
                "sensors",
                "Sensors of this host; all but the idle are wanted",
                "state",
            ),
            restarts: Counters::register(
                registry,
                "restarts",
                "Starts of sensors that had been started before",
                "cause",
            ),
            tokens: Counters::register(registry, "tokens", "Requests for tokens of sensors", "result"),
            lease_changes: Counters::register(registry, "lease_changes", "Leases that changed hands", "change"),
        }
    }

    pub(super) fn measure(&self, measure: Measure) {
        match measure {
            Measure::SensorMoved { from, to } => {
                if let Some(gauge) = from.and_then(|state| self.sensors.of(state)) {
                    gauge.dec();
                }
                if let Some(gauge) = to.and_then(|state| self.sensors.of(state)) {
                    gauge.inc();
                }
            }
            Measure::SensorRestarted(cause) => self.restarts.count(cause),
            Measure::SensorToken(success) => self.tokens.count(success),
            Measure::Lease(change) => {
                self.lease_changes.count(change);
                match change {
                    LeaseChange::Acquired => self.leases.inc(),
                    LeaseChange::Released | LeaseChange::Lost => self.leases.dec(),
                };
            }
            _ => {}
        }
    }
}
