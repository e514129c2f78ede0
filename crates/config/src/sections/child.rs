//! `worker.…` and `sensor.…`: what the processes of user code may use and how they are ended. The same keys in both sections.

use std::time::Duration;

use crate::key::{Given, Key, Kind};
use crate::kinds::{Bytes, Choice, Flag, Seconds, Whole, expected, scalar};
use crate::reader::Reader;

/// What a process of user code may use, and how it is ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ChildConfig {
    /// Bytes of address space of one process.
    pub memory_bytes: Option<u64>,
    /// CPU time of one process.
    pub cpu_time: Option<Duration>,
    /// Open descriptors of one process.
    pub open_files: Option<u64>,
    /// Processes and threads of its user, all together.
    pub processes: Option<u64>,
    /// The permission bits that its new files do not get.
    pub umask: Option<u32>,
    /// How nice it is.
    pub nice: Option<i32>,
    /// How early the kernel picks it when memory is out.
    pub oom_score_adj: Option<i32>,
    /// Whether set-user-id files give it no rights.
    pub no_new_privileges: bool,
    /// Whom it runs as; none: as the agent.
    pub run_as: Option<RunAs>,
    /// Whether it leads a session of its own.
    pub new_session: bool,
    /// Number of the signal that asks it to end.
    pub stop_signal: i32,
    /// How long it may take to obey.
    pub stop_grace: Duration,
}

/// A user by numbers: names would need the image's user database.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RunAs {
    /// The user.
    pub uid: u32,
    /// Its main group.
    pub gid: u32,
    /// Its other groups.
    pub groups: Vec<u32>,
}

/// Permission bits in base 8.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Mask;

impl Kind for Mask {
    type Value = u32;

    fn describe(&self) -> String {
        "octal number from 0 to 777".to_owned()
    }

    fn read(&self, given: Given<'_>) -> Result<u32, String> {
        scalar(given)
            .and_then(|text| u32::from_str_radix(text.trim().trim_start_matches("0o"), 8).ok())
            .filter(|mask| *mask <= 0o777)
            .ok_or_else(|| expected("an octal number from 0 to 777, such as 027", given))
    }
}

/// `UID`, `UID:GID` or `UID:GID:GROUP,…`.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Ids;

impl Kind for Ids {
    type Value = RunAs;

    fn describe(&self) -> String {
        "`UID`, `UID:GID` or `UID:GID:GROUP,GROUP`".to_owned()
    }

    fn read(&self, given: Given<'_>) -> Result<RunAs, String> {
        scalar(given)
            .and_then(|text| ids(text.trim()))
            .ok_or_else(|| expected("numbers as UID, UID:GID or UID:GID:GROUP,GROUP", given))
    }
}

fn ids(text: &str) -> Option<RunAs> {
    // The largest number means "leave as it is" to the kernel.
    let id = |text: &str| text.parse().ok().filter(|id| *id != u32::MAX);
    let mut parts = text.split(':');
    let uid = id(parts.next()?)?;
    let gid = parts.next().map_or(Some(uid), id)?;
    let groups = parts.next().map_or(Some(Vec::new()), |groups| groups.split(',').map(id).collect())?;
    parts.next().is_none().then_some(RunAs { uid, gid, groups })
}

/// By their numbers on every processor that Linux runs on.
const SIGNALS: Choice<i32> =
    Choice(&[("term", 15), ("int", 2), ("hup", 1), ("quit", 3), ("usr1", 10), ("usr2", 12), ("kill", 9)]);

/// The keys of one section.
pub(crate) struct Keys {
    pub(crate) memory: Key<Bytes>,
    pub(crate) cpu: Key<Seconds>,
    pub(crate) open_files: Key<Whole<u64>>,
    pub(crate) processes: Key<Whole<u64>>,
    pub(crate) umask: Key<Mask>,
    pub(crate) nice: Key<Whole<i32>>,
    pub(crate) oom_score_adj: Key<Whole<i32>>,
    pub(crate) no_new_privileges: Key<Flag>,
    pub(crate) run_as: Key<Ids>,
    pub(crate) new_session: Key<Flag>,
    pub(crate) stop_signal: Key<Choice<i32>>,
    pub(crate) stop_grace: Key<Seconds>,
}

macro_rules! keys {
    ($name:ident, $section:literal, $one:literal) => {
        /// The keys of this section.
        pub(crate) static $name: Keys = Keys {
            memory: Key {
                path: concat!($section, ".limits.memory"),
                kind: Bytes(1 << 20..=1 << 50),
                default: "",
                doc: concat!("Address space of each process of ", $one, "."),
                reason: "no limit: some runtimes reserve far more than they use; a container's own limit counts real memory",
            },
            cpu: Key {
                path: concat!($section, ".limits.cpu"),
                kind: Seconds(1..=31_536_000),
                default: "",
                doc: concat!("CPU time of each process of ", $one, "."),
                reason: "no limit",
            },
            open_files: Key {
                path: concat!($section, ".limits.open_files"),
                kind: Whole(16..=1 << 30),
                default: "",
                doc: concat!("Open files of each process of ", $one, "."),
                reason: "the limit of the agent",
            },
            processes: Key {
                path: concat!($section, ".limits.processes"),
                kind: Whole(1..=1 << 22),
                default: "",
                doc: concat!("Processes and threads of the user that ", $one, " runs as, all together."),
                reason: "the limit of the agent; the kernel does not apply it to root",
            },
            umask: Key {
                path: concat!($section, ".umask"),
                kind: Mask,
                default: "",
                doc: concat!("Permission bits that new files of ", $one, " do not get."),
                reason: "the mask of the agent",
            },
            nice: Key {
                path: concat!($section, ".nice"),
                kind: Whole(-20..=19),
                default: "",
                doc: concat!("How nice ", $one, " is to other processes."),
                reason: "as nice as the agent; below that needs a privilege",
            },
            oom_score_adj: Key {
                path: concat!($section, ".oom_score_adj"),
                kind: Whole(-1000..=1000),
                default: "",
                doc: concat!("How early the kernel ends ", $one, " when memory is out."),
                reason: "the value of the agent; 1000 saves the agent from its children",
            },
            no_new_privileges: Key {
                path: concat!($section, ".no_new_privileges"),
                kind: Flag,
                default: "false",
                doc: concat!("Whether set-user-id programs give ", $one, " no rights."),
                reason: "existing packs may call `sudo` or `ping`",
            },
            run_as: Key {
                path: concat!($section, ".run_as"),
                kind: Ids,
                default: "",
                doc: concat!("User that ", $one, " runs as; the agent must be root with the capabilities SETUID, SETGID and KILL, and CHOWN for the files of one run: parameters and inline code of an action, token and socket of a sensor."),
                reason: "the agent's own user; another one also hides the agent's files",
            },
            new_session: Key {
                path: concat!($section, ".new_session"),
                kind: Flag,
                default: "false",
                doc: concat!("Whether ", $one, " leads a session of its own, without a terminal."),
                reason: "a group of its own is what the platform gives, and agents in containers have no terminal",
            },
            stop_signal: Key {
                path: concat!($section, ".stop_signal"),
                kind: SIGNALS,
                default: "term",
                doc: concat!("Signal that asks ", $one, " to end."),
                reason: "what the platform sends",
            },
            stop_grace: Key {
                path: concat!($section, ".stop_grace"),
                kind: Seconds(0..=3600),
                default: "5",
                doc: concat!("How long ", $one, " and its processes may take to end before they are killed."),
                reason: "what the platform gives; keep it well below the shutdown time-out",
            },
        };
    };
}

keys!(WORKER, "worker", "an action");
keys!(SENSOR, "sensor", "a sensor");

/// Reads the keys of one section.
pub(crate) fn read(reader: &mut Reader<'_>, keys: &Keys) -> ChildConfig {
    ChildConfig {
        memory_bytes: reader.optional(&keys.memory),
        cpu_time: reader.optional(&keys.cpu),
        open_files: reader.optional(&keys.open_files),
        processes: reader.optional(&keys.processes),
        umask: reader.optional(&keys.umask),
        nice: reader.optional(&keys.nice),
        oom_score_adj: reader.optional(&keys.oom_score_adj),
        no_new_privileges: reader.value(&keys.no_new_privileges),
        run_as: reader.optional(&keys.run_as),
        new_session: reader.value(&keys.new_session),
        stop_signal: reader.value(&keys.stop_signal),
        stop_grace: reader.value(&keys.stop_grace),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mask_is_octal_however_it_is_written() {
        for (text, mask) in [("027", 0o27), ("27", 0o27), ("0o077", 0o77), ("0", 0), ("777", 0o777)] {
            assert_eq!(Mask.read(Given::Text(text)), Ok(mask), "{text}");
        }
        for text in ["028", "1000", "-1", "", "rwx"] {
            let problem = Mask.read(Given::Text(text)).unwrap_err();
            assert!(problem.contains("octal"), "{problem}");
        }
    }

    #[test]
    fn a_user_has_a_group_of_the_same_number_unless_it_is_said() {
        let user = |uid, gid, groups: &[u32]| Ok(RunAs { uid, gid, groups: groups.to_vec() });
        assert_eq!(Ids.read(Given::Text("1000")), user(1000, 1000, &[]));
        assert_eq!(Ids.read(Given::Text("1000:50")), user(1000, 50, &[]));
        assert_eq!(Ids.read(Given::Text("1000:50:4,5")), user(1000, 50, &[4, 5]));
        for text in ["", "nobody", "1:2:3:4", "1:", "-1", "4294967295", "1:2:x"] {
            assert!(Ids.read(Given::Text(text)).is_err(), "{text}");
        }
    }
}
