//! The duties of process 1: start the agent, forward signals to it, reap everything, leave with its code.
//!
//! In the shipped binary nothing of the C library has begun, so that a process that only waits has a few pages of its own.

use super::calls::{self, Arrived, Ended, Errno};
use super::notes::Notes;
use super::word::Words;

/// What the agent and this process are started from: there also when the file was replaced or removed.
const OWN_BINARY: &[u8] = b"/proc/self/exe\0";

/// The operating system refused something.
const REFUSED: u8 = 71;

/// Does the duties until the agent has ended: its exit code, or 128 and the number of the signal that ended it. `words` are the
/// agent's arguments, from its name on.
pub(super) fn serve(words: Words, environment: Words) -> u8 {
    let notes = Notes::new(b"error: ");
    if words.first().is_none() {
        notes.say(b"__init is for the agent itself, which calls it in another way");
        return REFUSED;
    }
    calls::set_name(b"attune-init\0");
    if let Err(error) = calls::prctl(libc::PR_SET_DUMPABLE, 0) {
        // Its environment is that of the agent. Everything else works without it.
        notes.failed(b"the environment of process 1 stays readable for its own user", error);
    }
    // An ignored SIGCHLD, which whoever started this process may have left behind, would never come.
    calls::reset_signals();
    // Process 1 is handed every orphan without asking. An emulator of another machine may not know the call.
    if let Err(error) = calls::prctl(libc::PR_SET_CHILD_SUBREAPER, 1)
        && calls::own() != 1
    {
        notes.failed(b"orphans are left to process 1", error);
    }
    let started = calls::block_signals().and_then(|()| calls::fork());
    match started {
        Err(error) => {
            notes.failed(b"process 1 cannot start the agent", error);
            REFUSED
        }
        // With all signals blocked, until it has prepared itself for them.
        Ok(0) => {
            let error = calls::exec(OWN_BINARY.as_ptr().cast(), words, environment);
            notes.failed(b"cannot start the agent from /proc/self/exe; /proc must be mounted", error);
            calls::exit(REFUSED)
        }
        Ok(agent) => {
            // The agent has its own copy by now, or will read none; here nobody needs any of it.
            forget(environment);
            wait(agent, &notes)
        }
    }
}

fn wait(agent: usize, notes: &Notes) -> u8 {
    loop {
        match calls::next_signal() {
            Ok(Arrived { signal: libc::SIGCHLD, .. }) => match reap_all(agent) {
                Ok(Some(code)) => return code,
                Ok(None) => {}
                Err(error) => {
                    notes.failed(b"process 1 cannot wait for children", error);
                    return REFUSED;
                }
            },
            // The terminal sends its signals to the whole group, and so to the agent as well: a second one would be an order.
            Ok(Arrived { signal: libc::SIGINT | libc::SIGQUIT | libc::SIGTSTP, by_kernel: true })
            | Err(Errno(libc::EINTR)) => {}
            // The agent has not been reaped, so its id is its own.
            Ok(Arrived { signal, .. }) => {
                if let Err(error) = calls::kill(agent, signal) {
                    notes.failed(b"a signal could not be forwarded to the agent", error);
                }
            }
            Err(error) => {
                notes.failed(b"process 1 cannot wait for signals", error);
                return REFUSED;
            }
        }
    }
}

/// Reaps whoever has ended; the code of the agent when it was among them.
fn reap_all(agent: usize) -> Result<Option<u8>, Errno> {
    let mut code = None;
    while let Some(Ended { child, status }) = calls::reap_any()? {
        if child == agent {
            code = Some(exit_code(status));
        }
    }
    Ok(code)
}

fn exit_code(status: i32) -> u8 {
    let code = if libc::WIFSIGNALED(status) { 128 + libc::WTERMSIG(status) } else { libc::WEXITSTATUS(status) };
    u8::try_from(code).unwrap_or(u8::MAX)
}

/// Empties the variables where the kernel shows them.
fn forget(mut environment: Words) {
    while let Some(variable) = environment.take() {
        if let Some((_, value)) = variable.split() {
            // SAFETY: the environment is memory of this process, which nobody reads at the same time: it has one thread.
            unsafe { value.clear() };
        }
    }
}
