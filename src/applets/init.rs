//! `attune-agents __init`, hidden: the duties of process 1 for an agent. Called by the agents themselves.
//!
//! Its arguments are the agent's, from its name on.

use crate::call::Call;
use crate::exit::{Exit, Failure};

/// Does them until the agent has ended, with whose code it ends.
#[expect(clippy::unnecessary_wraps, reason = "every applet has this signature")]
pub(crate) fn run(call: Call) -> Result<Exit, Failure> {
    Ok(Exit::Agent(attune_process::init_main(call.arguments)))
}
