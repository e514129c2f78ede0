//! What agents tell whoever watches them from inside the same process (`dev`, tests).
//!
//! Nothing depends on anybody listening; the platform sees rows and messages only.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use crate::measure::Measure;
use crate::status::SensorProcessStatus;

/// Something worth a line for a person.
#[derive(Debug, Clone, PartialEq)]
pub enum Activity {
    /// A sensor process changed.
    Sensor {
        /// Which sensor.
        sensor_ref: String,
        /// Its new state.
        status: SensorProcessStatus,
        /// Leader of its group, while alive.
        pid: Option<u32>,
        /// Why: exit code, signal, start error, next restart.
        reason: Option<String>,
        /// Where its standard error is kept.
        log: Option<PathBuf>,
    },
    /// An environment of a pack is being built.
    EnvironmentStarted {
        /// Which pack.
        pack_ref: String,
        /// Which runtime or version, as its directory is named.
        runtime: String,
        /// What is being done, for example the command's first words.
        step: String,
    },
    /// … and the end of it.
    EnvironmentFinished {
        /// Which pack.
        pack_ref: String,
        /// Which runtime or version, as its directory is named.
        runtime: String,
        /// How long it took.
        took: Duration,
        /// What went wrong.
        error: Option<String>,
    },
}

/// Receives [`Activity`] and [`Measure`]s. Called from hot paths: must not block.
pub trait Observer: Send + Sync + std::fmt::Debug {
    /// Takes one.
    fn observe(&self, activity: Activity);

    /// Counts one. Most observers are for people and leave it.
    fn measure(&self, _measure: Measure) {}
}

/// Nobody listens.
#[derive(Debug, Clone, Copy, Default)]
pub struct NoObserver;

impl Observer for NoObserver {
    fn observe(&self, _activity: Activity) {}
}

/// Two who listen.
#[derive(Debug, Clone)]
pub struct Both(pub Arc<dyn Observer>, pub Arc<dyn Observer>);

impl Observer for Both {
    fn observe(&self, activity: Activity) {
        self.0.observe(activity.clone());
        self.1.observe(activity);
    }

    fn measure(&self, measure: Measure) {
        self.0.measure(measure);
        self.1.measure(measure);
    }
}
