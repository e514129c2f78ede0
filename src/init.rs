//! The split of process 1: its duties stay here, the agent runs as its child.
//!
//! It happens before any thread exists and before the arguments mean anything, so that no applet has to know of it. Applets
//! that run nobody's code do their work and leave; they have no orphans to wait for.

use std::ffi::{OsStr, OsString};

use crate::call::Call;
use crate::exit::{Exit, Failure};

/// Asks for the split where this process is not process 1, for example below another init that does not reap.
const FLAG: &str = "--init";

/// Who goes on.
#[derive(Debug)]
pub(crate) enum Entered {
    /// This process, with the call it came with.
    Itself(Call),
    /// Nobody: the agent has run as a child and ended with this.
    Ended(Exit),
}

/// Splits when this is process 1, or when the command line asks for it.
pub(crate) fn enter(mut call: Call) -> Result<Entered, Failure> {
    let options = call.arguments.iter().position(|word| word == "--").unwrap_or(call.arguments.len());
    let asked = call.arguments[..options].iter().position(|word| word == FLAG);
    if let Some(place) = asked {
        call.arguments.remove(place);
    } else if !attune_process::is_first_process() {
        return Ok(Entered::Itself(call));
    }
    let mut words = call.command.split(' ').map(OsString::from);
    let name = words.next().unwrap_or_default();
    let arguments: Vec<OsString> = words.chain(call.arguments).collect();
    let code = attune_process::run_as_first_process(OsStr::new(&name), &arguments)
        .map_err(|error| Failure::new(Exit::OperatingSystem, error))?;
    Ok(Entered::Ended(Exit::Agent(code)))
}
