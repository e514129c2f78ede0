//! What agents tell whoever watches them from inside the same process (`dev`, tests).
//!
//! Nothing depends on anybody listening; the platform sees rows and messages only.

use std::path::PathBuf;
use std::time::Duration;

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

/// Receives [`Activity`]. Called from hot paths: must not block.
pub trait Observer: Send + Sync + std::fmt::Debug {
    /// Takes one.
    fn observe(&self, activity: Activity);
}

/// Nobody listens.
#[derive(Debug, Clone, Copy, Default)]
pub struct NoObserver;

impl Observer for NoObserver {
    fn observe(&self, _activity: Activity) {}
}
