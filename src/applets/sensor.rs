//! `attune-sensor-agent`, `attune-agents sensor`: the sensor host.

use crate::applets::agent::{self, Role};
use crate::call::Call;
use crate::exit::{Exit, Failure};

/// Runs it.
pub(crate) fn run(call: Call) -> Result<Exit, Failure> {
    call.with(|arguments| agent::run(Role::Sensor, arguments))
}
