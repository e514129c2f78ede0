//! Where a sensor stands: said to those who ask, and counted. Whatever ends a supervisor, its sensor is not counted any more.

use attune_model::measure::{Measure, SensorState};

use super::{Phase, Supervisor};
use crate::notify::Said;
use crate::target::Target;

impl Phase {
    /// As it is counted.
    pub(crate) fn state(self) -> SensorState {
        match self {
            Self::Idle => SensorState::Idle,
            Self::Waiting => SensorState::Waiting,
            Self::Starting => SensorState::Starting,
            Self::Running => SensorState::Running,
            Self::Backoff => SensorState::Backoff,
        }
    }
}

impl Supervisor {
    /// Says where the sensor stands now.
    pub(super) fn set_phase(&self, phase: Phase, target: &Target) {
        let settled = phase != Phase::Starting;
        let before = self.status.borrow().phase;
        self.status.send_modify(|status| {
            if phase != Phase::Running {
                // What a process said is about that process.
                (status.pid, status.said) = (None, Said::default());
            }
            if phase == Phase::Starting {
                // It was about the time until now.
                status.reason = None;
            }
            status.phase = phase;
            status.active_rules = target.active_rules;
            status.settled |= settled;
            status.failures = self.failures;
        });
        if before != phase {
            self.moved(before, Some(phase.state()));
        }
    }

    fn moved(&self, from: Phase, to: Option<SensorState>) {
        self.context.observer.measure(Measure::SensorMoved { from: Some(from.state()), to });
    }
}

impl Drop for Supervisor {
    fn drop(&mut self) {
        let last = self.status.borrow().phase;
        self.moved(last, None);
    }
}
