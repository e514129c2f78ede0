//! `attune-agents __exec`, hidden: sets one child up from the inside, then becomes it. Called by the agents themselves.
//!
//! Its arguments are not read by argh: everything after `--` belongs to the child, byte by byte.

use std::process::ExitCode;

use crate::call::Call;
use crate::exit::{Exit, Failure};

/// Becomes the child; comes back only when that failed, which `exec_main` has said on standard error already.
#[expect(clippy::unnecessary_wraps, reason = "every applet has this signature")]
pub(crate) fn run(call: Call) -> Result<Exit, Failure> {
    let code = attune_process::exec_main(call.arguments);
    let known = [Exit::ExecRefused, Exit::ExecNotFound].into_iter().find(|exit| ExitCode::from(exit.number()) == code);
    Ok(known.unwrap_or(Exit::ExecFailed))
}
