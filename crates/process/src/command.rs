//! What to start, with what, and how it is to end. Plain data, nothing happens here.

use std::ffi::OsString;
use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use crate::policy::Policy;
use crate::redact::Redactor;

/// One child to start.
pub struct Command {
    /// The program: a path. A relative one is taken from the agent's working directory, not from `cwd`; names are not
    /// looked up in `PATH`.
    pub program: PathBuf,
    /// Its arguments, without the program itself.
    pub args: Vec<OsString>,
    /// Its working directory; none keeps the agent's.
    pub cwd: Option<PathBuf>,
    /// The complete environment of the child. Nothing is inherited; an agent that adopts strays adds
    /// [`crate::TREE_VARIABLE`], by which it knows them again.
    pub env: Vec<(OsString, OsString)>,
    /// What it reads.
    pub stdin: Input,
    /// Where its standard output goes.
    pub stdout: Stream,
    /// Where its standard error goes.
    pub stderr: Stream,
    /// How it is ended when its time is over or nobody wants it any more.
    pub ending: Ending,
    /// What it sets up in itself before it becomes the program; none starts it directly, which is cheaper.
    pub policy: Option<Policy>,
}

impl Command {
    /// `program` without arguments and environment, with nothing to read and nobody to listen.
    pub fn new(program: impl Into<PathBuf>) -> Self {
        Self {
            program: program.into(),
            args: Vec::new(),
            cwd: None,
            env: Vec::new(),
            stdin: Input::Null,
            stdout: Stream::null(),
            stderr: Stream::null(),
            ending: Ending::default(),
            policy: None,
        }
    }
}

impl fmt::Debug for Command {
    /// Names only: arguments, values and input may be secrets.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names: Vec<_> = self.env.iter().map(|(name, _)| name).collect();
        f.debug_struct("Command")
            .field("program", &self.program)
            .field("args", &self.args.len())
            .field("cwd", &self.cwd)
            .field("env", &names)
            .field("stdin", &self.stdin)
            .field("stdout", &self.stdout)
            .field("stderr", &self.stderr)
            .field("ending", &self.ending)
            .field("policy", &self.policy)
            .finish()
    }
}

/// What a child reads from its standard input.
#[derive(Clone, PartialEq, Eq, Default)]
pub enum Input {
    /// Nothing: the null device.
    #[default]
    Null,
    /// These bytes and then the end. They are written while output is read, so neither side waits for the other.
    Bytes(Vec<u8>),
}

impl fmt::Debug for Input {
    /// The size only: parameters may be secrets.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Null => f.write_str("Null"),
            Self::Bytes(bytes) => write!(f, "Bytes({})", bytes.len()),
        }
    }
}

/// What happens to one output stream of a child.
pub struct Stream {
    /// What the report will hold of it.
    pub keep: Keep,
    /// Who sees all of it, as it comes.
    pub sink: Option<Box<dyn Sink>>,
    /// What is masked before anybody sees it: the report, the sink, and the limits count what is left.
    pub redact: Option<Arc<Redactor>>,
}

impl Stream {
    /// Goes to the null device; the child has no pipe that could fill.
    pub fn null() -> Self {
        Self::keep(Keep::Nothing)
    }

    /// Is kept as `keep` says.
    pub fn keep(keep: Keep) -> Self {
        Self { keep, sink: None, redact: None }
    }

    /// Is also handed to `sink`.
    #[must_use]
    pub fn to(mut self, sink: impl Sink + 'static) -> Self {
        self.sink = Some(Box::new(sink));
        self
    }

    /// Without the secrets that `redactor` knows.
    #[must_use]
    pub fn without(mut self, redactor: &Arc<Redactor>) -> Self {
        self.redact = Some(Arc::clone(redactor));
        self
    }

    pub(crate) fn is_null(&self) -> bool {
        matches!(self.keep, Keep::Nothing) && self.sink.is_none()
    }
}

impl fmt::Debug for Stream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Stream")
            .field("keep", &self.keep)
            .field("sink", &self.sink.is_some())
            .field("redact", &self.redact)
            .finish()
    }
}

/// Which part of a stream stays in memory for the report.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Keep {
    /// None of it.
    #[default]
    Nothing,
    /// The first bytes, exactly up to the limit.
    Head {
        /// How many bytes are kept.
        limit_bytes: usize,
    },
    /// The last bytes, exactly up to the limit.
    Tail {
        /// How many bytes are kept.
        limit_bytes: usize,
    },
}

/// Takes a stream as it comes, for instance into a log file.
///
/// Called on the task that supervises the child, between reads: a slow sink slows the child down through its pipe and
/// delays its time limit.
pub trait Sink: Send {
    /// The next bytes; chunks end anywhere, also inside a line or a character.
    fn write(&mut self, chunk: &[u8]);

    /// Nothing follows any more. Not called when the supervision itself is dropped.
    fn finish(&mut self) {}
}

/// How a child is ended: signal to the group, grace, kill.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ending {
    /// The signal that asks its process group to end.
    pub signal: i32,
    /// How long it may take to obey before its group is killed.
    pub grace: Duration,
    /// How long its pipes are read after it has ended, when a descendant keeps them open. What the child itself wrote is
    /// in the pipes already and is read in any case.
    pub drain: Duration,
    /// What becomes of descendants that have left its group.
    pub strays: Strays,
}

/// What becomes of descendants that have left the group of a child, once it has ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Strays {
    /// They are killed, if the agent adopts strays ([`crate::prepare()`]); otherwise nobody can find them.
    #[default]
    End,
    /// They live on: the child starts daemons on purpose.
    LeaveAlone,
}

impl Default for Ending {
    /// SIGTERM, five seconds, half a second.
    fn default() -> Self {
        Self {
            signal: attune_sys::SIGTERM,
            grace: Duration::from_secs(5),
            drain: Duration::from_millis(500),
            strays: Strays::End,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_printed_command_shows_no_value() {
        let mut command = Command::new("/bin/x");
        command.args.push("hush-1".into());
        command.env.push(("NAME".into(), "hush-2".into()));
        command.stdin = Input::Bytes(b"hush-3".to_vec());
        let printed = format!("{command:?}");
        assert!(printed.contains("/bin/x") && printed.contains("NAME"), "{printed}");
        assert!(!printed.contains("hush"), "{printed}");
    }
}
