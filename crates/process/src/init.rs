//! The duties of process 1: start the agent, forward signals to it, reap everything, leave with its code.
//!
//! A separate process, because `waitpid` for "any" child would take the children of the agent away from it. It has one thread,
//! no runtime, and blocks every signal before it starts the agent, so that none is lost in between.

use std::ffi::{OsStr, OsString};
use std::io;
use std::os::unix::process::{CommandExt as _, ExitStatusExt as _};
use std::process::{Command, ExitStatus};

use attune_sys::{Pid, SIGCHLD, SignalSet};
use thiserror::Error;

/// The running binary, also when its file was replaced or removed.
const OWN_BINARY: &str = "/proc/self/exe";

/// Why the duties of process 1 could not be taken on.
#[derive(Debug, Error)]
pub enum InitError {
    /// Signals cannot be blocked or waited for.
    #[error("cannot wait for signals")]
    Signals(#[source] io::Error),
    /// The agent cannot be started.
    #[error("cannot start the agent from {OWN_BINARY}; /proc must be mounted")]
    Start(#[source] io::Error),
    /// Children cannot be waited for.
    #[error("cannot wait for children")]
    Wait(#[source] io::Error),
}

/// Whether this process is the first one of its container or machine, and so has to reap everybody's orphans.
pub fn is_first_process() -> bool {
    std::process::id() == 1
}

/// Starts this binary again as the only child, with the same environment, `name` as its `argv[0]` and `args` behind it, and
/// returns its exit code, or 128 and the number of the signal that ended it, when it has ended.
///
/// To be called before any other thread exists. The child is not process 1, so it does not come back here; it has all signals
/// blocked until it calls [`crate::prepare()`].
pub fn run_as_first_process(name: &OsStr, args: &[OsString]) -> Result<u8, InitError> {
    if let Err(error) = attune_sys::set_undumpable() {
        // Its environment is that of the agent. Everything else works without it.
        tracing::warn!(%error, "the environment of process 1 stays readable for its own user");
    }
    // Where it is not process 1, orphans would otherwise go elsewhere.
    attune_sys::set_subreaper().map_err(InitError::Signals)?;
    let all = SignalSet::full().map_err(InitError::Signals)?;
    all.block_only().map_err(InitError::Signals)?;
    let agent = start(name, args).map_err(InitError::Start)?;
    // The agent has its own copy by now; here nobody needs any of it.
    if let Err(error) = attune_sys::empty_variables(|_| true) {
        tracing::warn!(%error, "the environment of process 1 keeps the secrets of the agent");
    }
    loop {
        match all.wait().map_err(InitError::Signals)? {
            SIGCHLD => {
                if let Some(status) = reap_all(agent).map_err(InitError::Wait)? {
                    return Ok(code(status));
                }
            }
            signal => forward(agent, signal),
        }
    }
}

#[expect(clippy::disallowed_methods, reason = "the agent itself, reaped by the loop over all children")]
fn start(name: &OsStr, args: &[OsString]) -> io::Result<Pid> {
    // With all signals blocked, until it has called `prepare`.
    let child = Command::new(OWN_BINARY).arg0(name).args(args).spawn()?;
    Pid::new(child.id()).ok_or_else(|| io::Error::other("the kernel returned an impossible id"))
}

/// Reaps whoever has ended; the status of the agent when it was among them.
fn reap_all(agent: Pid) -> io::Result<Option<ExitStatus>> {
    let mut ended = None;
    while let Some((child, status)) = attune_sys::reap_any()? {
        if child == agent {
            ended = Some(status);
        }
    }
    Ok(ended)
}

/// The agent has not been reaped, so its id is its own.
fn forward(agent: Pid, signal: i32) {
    if let Err(error) = attune_sys::kill(agent, signal) {
        tracing::warn!(signal, %error, "a signal could not be forwarded to the agent");
    }
}

fn code(status: ExitStatus) -> u8 {
    let code = match (status.code(), status.signal()) {
        (Some(code), _) => code,
        (None, Some(signal)) => 128 + signal,
        (None, None) => 255,
    };
    u8::try_from(code).unwrap_or(u8::MAX)
}
