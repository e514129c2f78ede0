//! What the agent sets up in itself before it runs other people's programs.

use attune_sys::{Disposition, SIGCHLD, SignalSet};

use crate::family::adopt;

/// Makes this process fit to run other people's programs. To be called first in `main`, before any other thread exists.
///
/// * No signal is blocked: children inherit the mask, and [`crate::run_as_first_process`] starts the agent with all of them
///   blocked, so that a signal during the start waits until here.
/// * The exit status of children is kept, also where the one who started the agent ignores SIGCHLD.
/// * Processes of the same user can read neither its memory nor its environment, which hold its secrets.
/// * Descendants that leave the group of their run become its children, so that it can end and reap them; for the latter it
///   starts a thread.
///
/// Returns what the container forbids, for the log; the agent works without it.
#[must_use = "the notes belong into the log"]
pub fn prepare() -> Vec<String> {
    let mut notes = Vec::new();
    let mut check = |what: &str, done: std::io::Result<()>| {
        if let Err(error) = done {
            notes.push(format!("{what}: {error}"));
        }
    };
    check("signals may be blocked in children", SignalSet::empty().and_then(SignalSet::block_only));
    check("the exit status of children may be lost", attune_sys::set_disposition(SIGCHLD, Disposition::Default));
    check("the environment and the memory of the agent can be read by its children", attune_sys::set_undumpable());
    check("processes that leave their group outlive their run", adopt());
    notes
}
