//! What the agent sets up in itself before it runs other people's programs.

use attune_sys::{Disposition, SIGCHLD, SignalSet};

use crate::cgroup;
use crate::family::{adopt, adopts};

/// Makes this process fit to run other people's programs. To be called first in `main`, before any other thread exists.
///
/// * No signal is blocked: children inherit the mask, and [`crate::run_as_first_process`] starts the agent with all of them
///   blocked, so that a signal during the start waits until here.
/// * The exit status of children is kept, also where the one who started the agent ignores SIGCHLD.
/// * Processes of the same user can read neither its memory nor its environment, which hold its secrets.
/// * Descendants that leave the group of their run become its children, so that it can end and reap them; for the latter it
///   starts a thread.
/// * Children get control groups of their own where that is allowed. Elsewhere nothing is missing that the log should tell;
///   [`surroundings`] does.
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
    if let Err(reason) = cgroup::prepare() {
        tracing::debug!(reason, "children get no control groups of their own");
    }
    notes
}

/// What this machine or container offers for the end of children, for somebody who asks: a name and what is there, each.
///
/// May make a folder in the control group of this process, and removes it again.
pub fn surroundings() -> Vec<(&'static str, String)> {
    let had_home = cgroup::home().is_some();
    let groups = match cgroup::prepare() {
        Ok(()) => cgroup::home().map_or_else(String::new, |home| format!("yes, in {}", home.display())),
        Err(reason) => format!("no: {reason}; processes that leave their group are found by their environment"),
    };
    if !had_home {
        cgroup::finish();
    }
    let counted = cgroup::oom_kills_file().map_or_else(
        || "no: a child that is killed for lack of memory is reported as killed".to_owned(),
        |file| format!("yes, in {}", file.display()),
    );
    let adopted = if adopts() { "yes" } else { "no: processes that leave their group outlive their run" };
    vec![
        ("control groups for children", groups),
        ("kills for lack of memory are seen", counted),
        ("processes that leave their group are adopted", adopted.to_owned()),
    ]
}
