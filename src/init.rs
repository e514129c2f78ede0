//! The split of process 1: its duties stay here, the agent runs as its child.
//!
//! It happens before any thread exists and before the arguments mean anything, so that no applet has to know of it. Applets
//! that run nobody's code do their work and leave; they have no orphans to wait for.

use std::ffi::{OsStr, OsString};

use crate::applet::PROGRAM;
use crate::call::Call;
use crate::exit::{Exit, Failure};

/// Asks for the split where this process is not process 1, for example below another init that does not reap.
const FLAG: &str = "--init";

/// Splits when this is process 1, or when the command line asks for it: then this process becomes another program. Otherwise the
/// call goes on.
pub(crate) fn enter(mut call: Call) -> Result<Call, Failure> {
    let options = call.arguments.iter().position(|word| word == "--").unwrap_or(call.arguments.len());
    let asked = call.arguments[..options].iter().position(|word| word == FLAG);
    if let Some(place) = asked {
        call.arguments.remove(place);
    } else if !attune_process::is_first_process() {
        return Ok(call);
    }
    let mut words = call.command.split(' ').map(OsString::from);
    let name = words.next().unwrap_or_default();
    let arguments: Vec<OsString> = words.chain(call.arguments).collect();
    let never = attune_process::run_as_first_process(PROGRAM, OsStr::new(&name), &arguments);
    match never.map_err(|error| Failure::new(Exit::OperatingSystem, error))? {}
}
