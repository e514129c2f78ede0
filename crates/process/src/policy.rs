//! What is set up inside a child before it becomes its program, and how that is said on a command line.
//!
//! The agent does not fork: the child, which borrows its memory, applies the [`Policy`] to itself and executes the program
//! ([`attune_sys::start_child`]). One that is to have another user or an OOM score is not set up in that memory, and neither is one
//! that has to enter its control group because it cannot begin there: the agent starts its own binary again as the hidden applet
//! `__exec`, which does the same ([`crate::exec_main`]).
//!
//! ```text
//!   /proc/self/exe __exec parent=71 notes=<token> umask=18 memory=268435456 … -- /usr/bin/python3 main.py
//! ```

use std::ffi::OsString;
use std::fmt::Display;
use std::path::{Path, PathBuf};

/// The name of the hidden applet.
pub const EXEC_APPLET: &str = attune_sys::LAUNCHER_ARGUMENT;

/// What a child sets up in itself before it becomes its program.
///
/// A part that the container forbids is left out and named in [`crate::Report::notes`]; only a user that cannot be taken on
/// ends the child, because running with more rights than asked for is worse than not running.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Policy {
    /// Its session.
    pub session: Session,
    /// Its resources.
    pub limits: Limits,
    /// The permission bits that its new files do not get.
    pub umask: Option<u32>,
    /// How nice it is, from -20 to 19.
    pub nice: Option<i32>,
    /// How early the kernel picks it when memory is out, from -1000 to 1000.
    pub oom_score_adj: Option<i32>,
    /// Its programs gain no rights from set-user-id files.
    pub no_new_privileges: bool,
    /// Another user to run as.
    pub user: Option<User>,
    /// It is killed when the agent dies, however that happens.
    pub dies_with_agent: bool,
    /// How the applet is reached; by default it is only used where the child cannot do without.
    pub launcher: Launcher,
}

/// The session of a child.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Session {
    /// That of the agent, in a group of its own.
    #[default]
    Inherited,
    /// A new one, without a terminal.
    New,
}

/// Limits of one process; its descendants inherit them, each for itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Bytes of address space. Some runtimes reserve far more than they use.
    pub memory_bytes: Option<u64>,
    /// Seconds of CPU time.
    pub cpu_seconds: Option<u64>,
    /// Open descriptors.
    pub open_files: Option<u64>,
    /// Processes and threads of the user, all together.
    pub processes: Option<u64>,
    /// Bytes of a core file. None by default: it would hold the secrets that the child was given.
    pub core_bytes: Option<u64>,
}

impl Default for Limits {
    fn default() -> Self {
        Self { memory_bytes: None, cpu_seconds: None, open_files: None, processes: None, core_bytes: Some(0) }
    }
}

/// A user by numbers; names would need the image's user database.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct User {
    /// The user.
    pub uid: u32,
    /// Its main group.
    pub gid: u32,
    /// Its other groups; all others are given up.
    pub groups: Vec<u32>,
}

/// How the applet is reached.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Launcher {
    /// A binary that contains it.
    pub program: PathBuf,
    /// What comes before its arguments.
    pub args: Vec<OsString>,
}

impl Default for Launcher {
    /// The running binary, which is there even when its file was replaced or removed.
    fn default() -> Self {
        Self { program: "/proc/self/exe".into(), args: vec![EXEC_APPLET.into()] }
    }
}

/// A policy as `__exec` gets it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Setup {
    pub(crate) policy: Policy,
    /// The agent, when the child is to die with it.
    pub(crate) parent: Option<u32>,
    /// What every note begins with.
    pub(crate) token: Option<String>,
    /// It does not become the program.
    pub(crate) is_trial: bool,
}

impl Setup {
    /// Whether the child can do it while it has the agent's memory. A new user would take rights to that memory away from the
    /// agent, and the file of the OOM score is root's for as long as the memory is one that nobody may look at.
    pub(crate) fn is_for_the_child(&self) -> bool {
        let Policy { user, oom_score_adj, launcher, .. } = &self.policy;
        user.is_none() && oom_score_adj.is_none() && *launcher == Launcher::default()
    }

    /// The whole command line of the launcher, without the launcher itself. `entrance` is that of the control group that it enters.
    pub(crate) fn arguments(&self, program: &Path, args: &[OsString], entrance: Option<&str>) -> Vec<OsString> {
        let mut words = self.policy.launcher.args.clone();
        words.extend(entrance.map(|entrance| format!("cgroup={entrance}").into()));
        words.extend(self.words().into_iter().map(OsString::from));
        words.push("--".into());
        words.push(program.into());
        words.extend_from_slice(args);
        words
    }

    /// The settings, each as a word.
    pub(crate) fn words(&self) -> Vec<String> {
        // Taken apart without "..", so that a new part cannot be forgotten here.
        let Policy {
            session,
            limits,
            umask,
            nice,
            oom_score_adj,
            no_new_privileges,
            user,
            dies_with_agent: _,
            launcher: _,
        } = &self.policy;
        let Limits { memory_bytes, cpu_seconds, open_files, processes, core_bytes } = *limits;
        let flag = |name, is_set: bool| word(name, is_set.then_some(1));
        let groups = user.as_ref().map(|user| {
            let groups: Vec<_> = user.groups.iter().map(u32::to_string).collect();
            groups.join(",")
        });
        [
            word("parent", self.parent),
            word("notes", self.token.as_deref()),
            flag("trial", self.is_trial),
            flag("session", *session == Session::New),
            word("memory", memory_bytes),
            word("cpu", cpu_seconds),
            word("files", open_files),
            word("processes", processes),
            word("core", core_bytes),
            word("umask", *umask),
            word("nice", *nice),
            word("oom", *oom_score_adj),
            flag("no-new-privileges", *no_new_privileges),
            word("uid", user.as_ref().map(|user| user.uid)),
            word("gid", user.as_ref().map(|user| user.gid)),
            word("groups", groups),
        ]
        .into_iter()
        .flatten()
        .collect()
    }
}

fn word(name: &str, value: Option<impl Display>) -> Option<String> {
    value.map(|value| format!("{name}={value}"))
}

#[cfg(test)]
mod tests {
    use std::ffi::CString;
    use std::os::unix::ffi::OsStrExt as _;

    use attune_sys::ChildSetup;
    use proptest::prelude::*;

    use super::*;

    fn is_same(asked: &Setup, entrance: Option<&str>, read: &ChildSetup) -> bool {
        let Policy { session, limits, umask, nice, oom_score_adj, no_new_privileges, user, .. } = asked.policy.clone();
        let Limits { memory_bytes, cpu_seconds, open_files, processes, core_bytes } = limits;
        let text = |word: Option<&str>| word.map(str::to_owned);
        let numbers = user.as_ref().map(|user| user.groups.iter().map(u32::to_string).collect::<Vec<_>>().join(","));
        read.parent == asked.parent.map(u64::from)
            && read.token() == text(asked.token.as_deref())
            && read.cgroup() == text(entrance)
            && read.is_trial == asked.is_trial
            && read.new_session == (session == Session::New)
            && (read.memory_bytes, read.cpu_seconds) == (memory_bytes, cpu_seconds)
            && (read.open_files, read.processes, read.core_bytes) == (open_files, processes, core_bytes)
            && (read.umask, read.nice) == (umask.map(u64::from), nice)
            && read.oom_score() == oom_score_adj.map(|score| score.to_string())
            && read.no_new_privileges == no_new_privileges
            && read.uid == user.as_ref().map(|user| u64::from(user.uid))
            && read.gid == user.as_ref().map(|user| u64::from(user.gid))
            && read.groups() == numbers
    }

    prop_compose! {
        fn any_limits()(
            memory_bytes in any::<Option<u64>>(),
            cpu_seconds in any::<Option<u64>>(),
            open_files in any::<Option<u64>>(),
            processes in any::<Option<u64>>(),
            core_bytes in any::<Option<u64>>(),
        ) -> Limits {
            Limits { memory_bytes, cpu_seconds, open_files, processes, core_bytes }
        }
    }

    prop_compose! {
        fn any_policy()(
            limits in any_limits(),
            is_new in any::<bool>(),
            umask in any::<Option<u32>>(),
            nice in any::<Option<i32>>(),
            oom_score_adj in any::<Option<i32>>(),
            no_new_privileges in any::<bool>(),
            user in any::<Option<(u32, u32, Vec<u32>)>>(),
        ) -> Policy {
            Policy {
                session: if is_new { Session::New } else { Session::Inherited },
                limits,
                umask,
                nice,
                oom_score_adj,
                no_new_privileges,
                user: user.map(|(uid, gid, groups)| User { uid, gid, groups }),
                ..Policy::default()
            }
        }
    }

    proptest! {
        #[test]
        fn what_the_agent_asks_for_is_what_the_applet_reads(
            policy in any_policy(),
            parent in any::<Option<u32>>(),
            token in any::<Option<u64>>(),
            entrance in prop::option::of("/[^\\x00]{0,9}"),
            is_trial in any::<bool>(),
            args in prop::collection::vec("[^\\x00]*|--|umask=3", 0..4),
        ) {
            let setup = Setup { policy, parent, token: token.map(|token| token.to_string()), is_trial };
            let args: Vec<OsString> = args.into_iter().map(OsString::from).collect();
            let words = setup.arguments(Path::new("/bin/x"), &args, entrance.as_deref());
            prop_assert_eq!(&words[0], EXEC_APPLET);
            let read: Vec<CString> = words[1..].iter().map(|word| CString::new(word.as_bytes()).unwrap()).collect();
            let (found, taken) = ChildSetup::of(read.leak()).unwrap();
            prop_assert!(is_same(&setup, entrance.as_deref(), &found));
            prop_assert_eq!(&words[1 + taken], "/bin/x");
            prop_assert_eq!(&words[2 + taken..], args);
        }
    }
}
