//! The agent's side of the guardian: a process beside the agent that kills children when the agent no longer may run them and
//! cannot do so itself, because it is dead, stopped or frozen.
//!
//! ```text
//!   agent ── pipe ──► guardian
//!      until TERM MS        children of that term may live until then (CLOCK_BOOTTIME)
//!      watch TERM PID START MARK SWITCH
//!      forget PID
//!      (end of the pipe)    the agent is gone: kill what is left, leave
//! ```
//!
//! The agent ends its children in time by itself. The guardian is for the moment when it does not.

use std::collections::BTreeMap;
use std::io::{self, PipeWriter, Write as _};
use std::os::unix::process::CommandExt as _;
use std::process::{Command as StdCommand, Stdio};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use attune_sys::Pid;

use crate::child::Child;
use crate::family::{reap_leader, register};
use crate::guardian::start_time;
use crate::policy::Launcher;
use crate::spawn::identified;

/// The name of the hidden applet.
pub const GUARD_APPLET: &str = "__guard";

/// A guardian and what it is told. One that was killed is started again.
#[derive(Debug)]
pub struct Guard {
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    launcher: Launcher,
    link: Option<Link>,
    terms: Terms,
    /// The term of each child, and the line that was sent for it.
    watched: BTreeMap<Pid, (Option<u64>, String)>,
}

/// Until when the children of each term may live. One that is not among them is over.
pub(crate) type Terms = BTreeMap<u64, Duration>;

/// A term is extended, or another one begins: of those before it only what has children is still of interest.
pub(crate) fn extend(terms: &mut Terms, term: u64, deadline: Duration, mut is_used: impl FnMut(u64) -> bool) {
    terms.insert(term, deadline);
    terms.retain(|known, _| *known >= term || is_used(*known));
}

#[derive(Debug)]
struct Link {
    pipe: PipeWriter,
    guardian: Pid,
}

/// A child under guard. To be dropped before its end is awaited by nobody else any more, that is after it was reaped.
#[derive(Debug)]
pub struct Watched {
    guard: Arc<Guard>,
    pid: Pid,
}

impl Drop for Watched {
    fn drop(&mut self) {
        let mut state = self.guard.state();
        state.watched.remove(&self.pid);
        state.tell(&format!("forget {}\n", self.pid));
    }
}

impl Guard {
    /// Starts the guardian. `launcher` is how its applet is reached; none means the running binary.
    pub fn start(launcher: Option<Launcher>) -> io::Result<Arc<Self>> {
        let running = || Launcher { program: "/proc/self/exe".into(), args: vec![GUARD_APPLET.into()] };
        let launcher = launcher.unwrap_or_else(running);
        let link = Some(Link::open(&launcher)?);
        Ok(Arc::new(Self {
            state: Mutex::new(State { launcher, link, terms: Terms::new(), watched: BTreeMap::new() }),
        }))
    }

    /// Until when (by [`attune_sys::boottime`]) the children of a term may live without another word from the agent. A later term has
    /// a higher number, and extends nothing for children of earlier ones. What is over stays over: children that come later are
    /// killed at once, until there is a later time.
    pub fn allow_until(&self, term: u64, deadline: Duration) {
        let mut state = self.state();
        let State { terms, watched, .. } = &mut *state;
        extend(terms, term, deadline, |known| watched.values().any(|(used, _)| *used == Some(known)));
        state.tell(&until(term, deadline));
    }

    /// Puts a child with all that descends from it under guard. Without a term it may live as long as the agent.
    pub fn watch(self: &Arc<Self>, child: &Child, term: Option<u64>) -> Watched {
        let leader = child.leader();
        let pid = leader.pid();
        // Not reaped yet, so the number is its own and its start can be read.
        let start = start_time(pid).unwrap_or(0);
        let mark = leader.mark().map_or("-", |mark| mark.as_str());
        let switch = leader.switch();
        let word = term.map_or_else(|| "-".to_owned(), |term| term.to_string());
        let line = format!("watch {word} {pid} {start} {mark} {}\n", switch.as_deref().unwrap_or("-"));
        let mut state = self.state();
        state.tell(&line);
        state.watched.insert(pid, (term, line));
        Watched { guard: self.clone(), pid }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // Every change is complete before anything can panic.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn until(term: u64, deadline: Duration) -> String {
    format!("until {term} {}\n", deadline.as_millis())
}

impl State {
    /// Sends a line; starts another guardian when there is none that listens.
    fn tell(&mut self, word: &str) {
        let told = self.link.as_mut().is_some_and(|link| link.send(word.as_bytes()).is_ok());
        if told {
            return;
        }
        if let Some(link) = self.link.take() {
            tracing::warn!(guardian.pid = link.guardian.get(), "the guardian does not listen; starting another");
            link.close();
        }
        // Children first: a term without any is forgotten when the next one is told.
        let watched = self.watched.values().map(|(_, line)| line.clone());
        let terms = self.terms.iter().map(|(term, deadline)| until(*term, *deadline));
        let everything: String = watched.chain(terms).chain([word.to_owned()]).collect();
        let opened = Link::open(&self.launcher).and_then(|mut link| {
            link.send(everything.as_bytes())?;
            Ok(link)
        });
        match opened {
            Ok(link) => self.link = Some(link),
            Err(error) => {
                tracing::error!(%error, "no guardian: children are not ended when this process stops working")
            }
        }
    }
}

impl Link {
    #[expect(clippy::disallowed_methods, reason = "not a child that runs user code: it outlives the agent on purpose")]
    fn open(launcher: &Launcher) -> io::Result<Self> {
        let (theirs, ours) = io::pipe()?;
        attune_sys::set_nonblocking(&ours)?;
        let mut command = StdCommand::new(&launcher.program);
        command
            .args(&launcher.args)
            .env_clear()
            .stdin(theirs)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .process_group(0);
        let (guardian, _) = register(None, || identified(command.spawn()?))?;
        Ok(Self { pipe: ours, guardian })
    }

    /// Never waits: a guardian that has not read 64 KiB of lines is none.
    fn send(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.pipe.write_all(bytes)
    }

    fn close(self) {
        let Self { pipe, guardian } = self;
        drop(pipe);
        // It is the agent's child and not reaped, so the number is its own.
        if let Err(error) = attune_sys::kill(guardian, attune_sys::SIGKILL).and_then(|()| reap_leader(guardian)) {
            tracing::debug!(guardian.pid = guardian.get(), %error, "an old guardian was not ended");
        }
    }
}
