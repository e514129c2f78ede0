//! `attune-agent`, `attune-agents worker`: the action worker.

use crate::applets::agent::{self, Role};
use crate::call::Call;
use crate::exit::{Exit, Failure};

/// Runs it.
pub(crate) fn run(call: Call) -> Result<Exit, Failure> {
    call.with(|arguments| agent::run(Role::Worker, arguments))
}
