//! Process 1: this process becomes one that has nothing to do but its duties, the agent runs as its child.
//!
//! A separate process, because `waitpid` for "any" child would take the children of the agent away from it. What it does is in
//! [`attune_sys`], because the shipped binary does it before there is a C library, as it does for [`crate::EXEC_APPLET`].

use std::convert::Infallible;
use std::ffi::{OsStr, OsString};
use std::io;
use std::os::unix::process::CommandExt as _;
use std::process::Command;

use attune_sys::SignalSet;
use thiserror::Error;

use crate::exec::words;

/// The name of the hidden applet.
pub const INIT_APPLET: &str = attune_sys::INIT_ARGUMENT;

/// The running binary, also when its file was replaced or removed.
const OWN_BINARY: &str = "/proc/self/exe";

/// Why the duties of process 1 could not be taken on.
#[derive(Debug, Error)]
pub enum InitError {
    /// Signals cannot be blocked.
    #[error("cannot block signals")]
    Signals(#[source] io::Error),
    /// This binary cannot be started again.
    #[error("cannot become process 1 from {OWN_BINARY}; /proc must be mounted")]
    Start(#[source] io::Error),
}

/// Whether this process is the first one of its container or machine, and so has to reap everybody's orphans.
pub fn is_first_process() -> bool {
    std::process::id() == 1
}

/// Becomes a process that starts this binary again as its only child, with the same environment, `name` as its `argv[0]` and
/// `args` behind it, and leaves with its exit code, or 128 and the number of the signal that ended it. `own_name` chooses the
/// applet [`INIT_APPLET`]. Comes back only when that fails.
///
/// To be called before any other thread exists. The child is not process 1, so it does not come back here; it has all signals
/// blocked until it calls [`crate::prepare()`].
pub fn run_as_first_process(own_name: &str, name: &OsStr, args: &[OsString]) -> Result<Infallible, InitError> {
    // From here on, so that none is lost: the kernel keeps what is blocked, and throws the rest away for process 1.
    SignalSet::full().and_then(SignalSet::block_only).map_err(InitError::Signals)?;
    let error = Command::new(OWN_BINARY).arg0(own_name).arg(INIT_APPLET).arg(name).args(args).exec();
    Err(InitError::Start(error))
}

/// The applet [`INIT_APPLET`], for builds that reach it from `main`: does the duties of process 1 for the agent with these
/// arguments, from its name on, and returns its code.
pub fn init_main(args: impl IntoIterator<Item = OsString>) -> u8 {
    attune_sys::be_first_process(&words(args))
}
