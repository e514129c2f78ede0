//! `attune-agents __guard`, hidden: kills an agent's children when the agent cannot do it itself. Called by the agents.

use std::process::ExitCode;

use crate::call::Call;
use crate::exit::{Exit, Failure};

/// Guards until the agent is gone. Nobody waits for its code then.
#[expect(clippy::unnecessary_wraps, reason = "every applet has this signature")]
pub(crate) fn run(_call: Call) -> Result<Exit, Failure> {
    let ended = attune_process::guard_main();
    Ok(if ended == ExitCode::SUCCESS { Exit::Success } else { Exit::OperatingSystem })
}
