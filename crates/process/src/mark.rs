//! Who started a process: a mark in its environment, which its descendants inherit.
//!
//! ```text
//!   ATTUNE_PROCESS_TREE = f0000000-71-8812.4.left-alone-91c3d0ab5e77f204
//!                         │        │  │    │ └ meant to outlive its run; the number is known to the agent alone
//!                         │        │  │    └ the run, counted by the agent
//!                         │        │  └ when the agent started, in ticks since the machine did
//!                         │        └ the agent
//!                         └ the namespace in which that is its number
//! ```

use std::ffi::OsStr;
use std::fmt;
use std::fs;
use std::hash::{BuildHasher as _, RandomState};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};

use attune_sys::Pid;

use crate::command::Strays;
use crate::procfs::{self, Stat};

/// The variable by which a stray is recognised. Only set when the agent adopts strays.
pub const TREE_VARIABLE: &str = "ATTUNE_PROCESS_TREE";

/// What follows the run in a mark whose strays are to live on, and before a number that no program can make up: anybody may
/// give himself any mark.
const LEFT_ALONE: &str = ".left-alone-";

/// One agent, told from all others that had or will have its number.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Agent {
    /// A process has another number in each PID namespace, so numbers of other namespaces say nothing here. Zero where it
    /// cannot be known.
    namespace: u64,
    pid: u32,
    started: u64,
}

impl Agent {
    /// This process.
    pub(crate) fn own() -> &'static Self {
        static OWN: OnceLock<Agent> = OnceLock::new();
        OWN.get_or_init(|| {
            let stat = Stat::of(Pid::current());
            Self {
                namespace: namespace().unwrap_or(0),
                pid: std::process::id(),
                started: stat.map_or(0, |stat| stat.started),
            }
        })
    }

    pub(crate) fn parse(text: &str) -> Option<Self> {
        let mut parts = text.split('-');
        let namespace = u64::from_str_radix(parts.next()?, 16).ok()?;
        let pid = parts.next()?.parse().ok()?;
        let started = parts.next()?.parse().ok()?;
        parts.next().is_none().then_some(Self { namespace, pid, started })
    }

    /// Whether it is known to be dead: it would be seen from here, and is not there.
    pub(crate) fn is_gone(&self) -> bool {
        if self.namespace == 0 || self.namespace != Self::own().namespace {
            return false;
        }
        let found = Pid::new(self.pid).and_then(Stat::of);
        !found.is_some_and(|stat| stat.started == self.started && !stat.is_dead())
    }
}

impl fmt::Display for Agent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:x}-{}-{}", self.namespace, self.pid, self.started)
    }
}

/// The number in a link such as `pid:[4026531836]`.
fn namespace() -> Option<u64> {
    let link = fs::read_link("/proc/self/ns/pid").ok()?;
    link.to_str()?.strip_prefix("pid:[")?.strip_suffix(']')?.parse().ok()
}

/// A number that only this process can tell for `run`.
fn seal(run: &str) -> String {
    static KEY: OnceLock<RandomState> = OnceLock::new();
    format!("{:016x}", KEY.get_or_init(RandomState::new).hash_one(run))
}

/// One run, as its processes carry it in their environment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Mark(String);

impl Mark {
    /// A mark for a new run.
    pub(crate) fn new(strays: Strays) -> Self {
        static RUNS: AtomicU64 = AtomicU64::new(0);
        let run = format!("{}.{}", Agent::own(), RUNS.fetch_add(1, Ordering::Relaxed));
        match strays {
            Strays::End => Self(run),
            Strays::LeaveAlone => {
                let seal = seal(&run);
                Self(run + LEFT_ALONE + &seal)
            }
        }
    }

    pub(crate) fn as_str(&self) -> &str {
        &self.0
    }

    pub(crate) fn variable(&self) -> (&OsStr, &OsStr) {
        (TREE_VARIABLE.as_ref(), self.0.as_ref())
    }

    /// The mark in the environment that `process` was started with.
    pub(crate) fn of(process: Pid) -> Option<Self> {
        procfs::variable(process, TREE_VARIABLE).map(Self)
    }

    /// The agent that gave it; none when it is no mark of an agent.
    pub(crate) fn agent(&self) -> Option<Agent> {
        Agent::parse(self.0.split_once('.')?.0)
    }

    /// Whether this agent has started that run as one whose strays are to live on.
    pub(crate) fn is_left_alone(&self) -> bool {
        self.0.split_once(LEFT_ALONE).is_some_and(|(run, found)| found == seal(run))
    }

    /// Whether it has the form of [`Self::is_left_alone`], which is all that can be said of the runs of other agents.
    pub(crate) fn claims_to_be_left_alone(&self) -> bool {
        self.0.contains(LEFT_ALONE)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn this_agent_is_not_gone_and_one_that_started_at_another_time_is() {
        let own = Agent::own();
        assert!(!own.is_gone());
        let earlier = Agent { started: own.started - 1, ..own.clone() };
        assert!(earlier.is_gone());
        let elsewhere = Agent { namespace: own.namespace + 1, ..earlier.clone() };
        assert!(!elsewhere.is_gone(), "its number says nothing here");
        let unknown = Agent { namespace: 0, ..earlier };
        assert!(!unknown.is_gone());
    }

    #[test]
    fn a_mark_names_its_agent_and_whether_it_is_to_live_on() {
        let marks = [Mark::new(Strays::End), Mark::new(Strays::LeaveAlone)];
        assert!(marks.iter().all(|mark| mark.agent().as_ref() == Some(Agent::own())));
        assert_eq!(marks.map(|mark| mark.is_left_alone()), [false, true]);
    }

    #[test]
    fn nobody_can_give_himself_a_mark_that_is_left_alone() {
        let [ended, spared] = [Strays::End, Strays::LeaveAlone].map(|strays| Mark::new(strays).0);
        let (_, ending) = spared.split_once(LEFT_ALONE).unwrap();
        for forged in [format!("{ended}{LEFT_ALONE}"), format!("{ended}{LEFT_ALONE}{ending}"), format!("{spared}0")] {
            assert!(!Mark(forged.clone()).is_left_alone(), "{forged}");
        }
        assert!(Mark(spared).is_left_alone());
    }

    proptest! {
        #[test]
        fn an_agent_is_read_as_it_was_written(namespace in any::<u64>(), pid in any::<u32>(), started in any::<u64>()) {
            let agent = Agent { namespace, pid, started };
            prop_assert_eq!(Agent::parse(&agent.to_string()), Some(agent));
        }

        #[test]
        fn anything_else_is_no_panic_and_mostly_no_agent(text in "\\PC{0,20}|[0-9a-f-]{0,20}|[0-9.]{0,9}") {
            prop_assert!(Agent::parse(&text).is_none() || text.matches('-').count() == 2);
            Mark(text).agent();
        }
    }
}
