//! What an agent leaves that was killed itself: found at the next start by the mark in its environment, and ended.
//!
//! Invariant: nothing is ended whose agent might live. An agent lives when a process of its number is there that started when
//! it did; of agents in other PID namespaces nothing is known, so theirs are let be. A process is signalled through a
//! descriptor that was opened before its mark was read again, so the number cannot have changed hands.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::thread;
use std::time::{Duration, Instant};

use attune_sys::{Pid, SIGKILL};

use crate::cgroup;
use crate::mark::{Agent, Mark};
use crate::procfs::processes;

/// A killed process is gone within this time, as a rule.
const PAUSE: Duration = Duration::from_millis(1);

/// Ends the processes of agents that are not there any more, except for those that were to be left alone; says how many they
/// were. To be called at the start of an agent. Costs one look at every process of the machine, and `limit` at most.
pub fn end_remains(limit: Duration) -> usize {
    let begun = Instant::now();
    let mut ended = cgroup::end_remains(limit);
    loop {
        let killed = kill_once();
        if killed.is_empty() || begun.elapsed() > limit {
            return ended.len();
        }
        ended.extend(killed);
        thread::park_timeout(PAUSE);
    }
}

fn kill_once() -> BTreeSet<Pid> {
    // Started by an action of an agent that is gone, this process is not there to end its own ancestors.
    let above = Mark::of(Pid::current()).and_then(|mark| mark.agent());
    let mut gone: BTreeMap<Agent, bool> = BTreeMap::new();
    let mut killed = BTreeSet::new();
    for process in processes() {
        let Some(mark) = Mark::of(process) else { continue };
        let Some(agent) = mark.agent().filter(|agent| Some(agent) != above.as_ref()) else { continue };
        if mark.claims_to_be_left_alone() || !*gone.entry(agent).or_insert_with_key(Agent::is_gone) {
            continue;
        }
        match kill(process, &mark) {
            Ok(true) => {
                killed.insert(process);
            }
            Ok(false) => {}
            Err(error) => tracing::debug!(process.pid = process.get(), %error, "what an earlier agent left stays"),
        }
    }
    killed
}

/// False when it is not that process any more.
fn kill(process: Pid, mark: &Mark) -> io::Result<bool> {
    let descriptor = attune_sys::pidfd_open(process);
    if Mark::of(process).as_ref() != Some(mark) {
        return Ok(false);
    }
    match descriptor {
        Ok(descriptor) => attune_sys::pidfd_send_signal(&descriptor, SIGKILL)?,
        // Kernels before 5.3.
        Err(_) => attune_sys::kill(process, SIGKILL)?,
    }
    Ok(true)
}
