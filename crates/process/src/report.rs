//! How a child ended and what it left behind.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use crate::start_error::StartError;

/// All that is known about a child after its end.
#[derive(Debug)]
pub struct Report {
    /// Its process id, for the record: it may belong to somebody else by now.
    pub pid: u32,
    /// Why it ended.
    pub outcome: Outcome,
    /// What was kept of its standard output.
    pub stdout: Captured,
    /// What was kept of its standard error.
    pub stderr: Captured,
    /// Why its input could not be written completely. A broken pipe means that it ended, or closed its input, before it
    /// had read all of it.
    pub stdin_error: Option<io::Error>,
    /// From its start to its end.
    pub duration: Duration,
    /// What it used.
    pub usage: Usage,
    /// How many processes the kernel killed for lack of memory, during its life, in the control group of the agent and those
    /// below: its own descendants, or those of a run at the same time. None where the kernel does not show it.
    pub oom_kills: Option<u64>,
    /// A descendant still held one of its output pipes when the time for reading them was over.
    pub pipes_held_open: bool,
    /// Who that was, as far as it could be seen: each as `name (pid)`.
    pub pipe_holders: Vec<String>,
    /// The descendants that had left its group and were ended after it, each as `name (pid)`.
    pub strays_ended: Vec<String>,
    /// Which parts of its policy could not be set up, and why; and what else its policy may have to do with its end.
    pub notes: Vec<String>,
}

/// The line about what a child left behind, for the end of its log; none when there is nothing to say.
pub(crate) fn remark(strays_ended: &[String], pipe_holders: Option<&Vec<String>>) -> Option<String> {
    let mut parts = Vec::new();
    if !strays_ended.is_empty() {
        parts.push(format!("processes that the program left behind were ended: {}", strays_ended.join(", ")));
    }
    if let Some(holders) = pipe_holders {
        let who = if holders.is_empty() { String::new() } else { format!(": {}", holders.join(", ")) };
        parts.push(format!(
            "a process that the program left behind kept its output open, which was not read any further{who}"
        ));
    }
    (!parts.is_empty()).then(|| format!("[attune-agents: {}]\n", parts.join("; ")))
}

/// Why a child ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// With a policy: what set the child up could not become the program, so none of its code ran.
    NotStarted(Arc<StartError>),
    /// By itself, with this code.
    Exited(i32),
    /// By a signal that nobody here has sent.
    Signalled {
        /// Its number.
        signal: i32,
        /// Whether the kernel wrote a core file.
        core_dumped: bool,
    },
    /// The kernel killed it because memory was out.
    OutOfMemory,
    /// Its time was over.
    TimedOut {
        /// The time that it had.
        limit: Duration,
        /// The code with which it left when it was asked to; none when a signal ended it.
        last: Option<i32>,
    },
    /// It was asked to stop.
    Cancelled {
        /// The code with which it left; none when a signal ended it.
        exit_code: Option<i32>,
    },
    /// Its end could not be observed; the text says why.
    Lost(String),
}

/// What was kept of one stream.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Captured {
    /// The kept part.
    pub bytes: Vec<u8>,
    /// How many bytes came and were not kept.
    pub dropped_bytes: u64,
}

impl Captured {
    /// Whether nothing came.
    pub fn is_empty(&self) -> bool {
        self.bytes.is_empty() && self.dropped_bytes == 0
    }
}

/// What a child used, together with the descendants that it waited for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Usage {
    /// CPU time in its own code.
    pub user_time: Duration,
    /// CPU time in the kernel.
    pub system_time: Duration,
    /// The largest resident size that one of them reached.
    pub peak_memory_bytes: u64,
}
