//! Control groups: a folder for each run where that is allowed, and the kernel's count of kills for lack of memory.
//!
//! A process can leave its group, its session and its environment, but not its control group. Where the agent may make folders
//! in its own (version 2 of the hierarchy), every child with a policy begins in one, or enters it before it becomes its program, and
//! `cgroup.kill` ends whatever is left in it, also what forks faster than anybody looks. Elsewhere nothing changes.
//!
//! ```text
//!   <the agent's own>/attune.<agent>/<run>     removed with the run; what a killed agent left, with the next start
//! ```

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, OnceLock, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use attune_sys::Pid;

use crate::family::Ended;
use crate::mark::Agent;
use crate::procfs::{Stat, name_of, parse_pid};

const PREFIX: &str = "attune.";
const KILL: &str = "cgroup.kill";
const MEMBERS: &str = "cgroup.procs";
const EVENTS: &str = "cgroup.events";

/// A killed process is gone within this time, as a rule.
const PAUSE: Duration = Duration::from_millis(1);

static HOME: Mutex<Option<PathBuf>> = Mutex::new(None);

/// Whether children begin in theirs, as far as anybody knows.
static BEGUN_IN: AtomicBool = AtomicBool::new(true);

/// Makes the folder for those of the children; the error says why there are none here.
pub(crate) fn prepare() -> Result<(), String> {
    if home().is_some() {
        return Ok(());
    }
    let own = own().unified.ok_or("no version 2 of the hierarchy is mounted")?;
    let home = own.join(format!("{PREFIX}{}", Agent::own()));
    let refused = |error: io::Error| format!("{}: {error}", own.display());
    // Without it no process can be moved, whoever owns the folder.
    File::options().write(true).open(own.join(MEMBERS)).map_err(refused)?;
    fs::create_dir(&home).map_err(refused)?;
    if !home.join(KILL).exists() {
        remove(&home);
        return Err("this kernel has no cgroup.kill, which came with Linux 5.14".to_owned());
    }
    set_home(Some(home));
    Ok(())
}

/// Where those of the children are.
pub(crate) fn home() -> Option<PathBuf> {
    HOME.lock().unwrap_or_else(PoisonError::into_inner).clone()
}

fn set_home(home: Option<PathBuf>) -> Option<PathBuf> {
    std::mem::replace(&mut *HOME.lock().unwrap_or_else(PoisonError::into_inner), home)
}

/// The end of the agent: nothing is in the folder any more.
pub(crate) fn finish() {
    if let Some(home) = set_home(None) {
        remove(&home);
    }
}

/// Ends what agents that are gone left in theirs; says who that was. Those that are to live on are in none.
pub(crate) fn end_remains(limit: Duration) -> BTreeSet<Pid> {
    let begun = Instant::now();
    let mut ended = BTreeSet::new();
    let Some(own) = own().unified else { return ended };
    for home in folders_in(&own) {
        let name = home.file_name().and_then(OsStr::to_str);
        let agent = name.and_then(|name| name.strip_prefix(PREFIX)).and_then(Agent::parse);
        if !agent.is_some_and(|agent| agent.is_gone()) {
            continue;
        }
        for run in folders_in(&home).into_iter().map(|folder| Cgroup { folder }) {
            ended.extend(run.kill(None).into_keys());
            while !run.remove() && begun.elapsed() < limit {
                thread::park_timeout(PAUSE);
            }
        }
        remove(&home);
    }
    ended
}

fn folders_in(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    entries.filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir())).map(|entry| entry.path()).collect()
}

/// Whether a child can begin in its control group. Elsewhere it has to enter it, which may take tens of milliseconds: the kernel
/// makes everybody wait who moves a process.
pub(crate) fn can_be_begun_in() -> bool {
    BEGUN_IN.load(Ordering::Relaxed)
}

/// Whether a start failed because a child cannot begin in its control group here: the kernel is older than 5.7, or the container
/// forbids clone3(2). No child is started in that way any more then.
pub(crate) fn cannot_be_begun_in(error: &io::Error) -> bool {
    use io::ErrorKind::{ArgumentListTooLong, InvalidInput, PermissionDenied, Unsupported};
    let cannot = matches!(error.kind(), Unsupported | PermissionDenied | InvalidInput | ArgumentListTooLong);
    if cannot && BEGUN_IN.swap(false, Ordering::Relaxed) {
        tracing::debug!(%error, "children enter their control groups by way of the launcher");
    }
    cannot
}

/// The folder of one run. Dropped, what is in it is killed; removed when that is gone.
#[derive(Debug)]
pub(crate) struct Cgroup {
    folder: PathBuf,
}

impl Cgroup {
    /// None where there are none.
    pub(crate) fn new() -> Option<Self> {
        static RUNS: AtomicU64 = AtomicU64::new(0);
        let folder = home()?.join(RUNS.fetch_add(1, Ordering::Relaxed).to_string());
        match fs::create_dir(&folder) {
            Ok(()) => Some(Self { folder }),
            Err(error) => {
                tracing::debug!(folder = %folder.display(), %error, "a child runs without a control group of its own");
                None
            }
        }
    }

    /// What a child begins in.
    pub(crate) fn open(&self) -> io::Result<File> {
        File::open(&self.folder)
    }

    /// Where a process writes 0 to enter it.
    pub(crate) fn entrance(&self) -> String {
        // The path came from a text of the kernel, so it is one.
        self.folder.join(MEMBERS).to_string_lossy().into_owned()
    }

    /// Where a 1 kills everything in it; for those who are told by a line of text.
    pub(crate) fn switch(&self) -> String {
        self.folder.join(KILL).to_string_lossy().into_owned()
    }

    /// Whether there is anybody in it or in a group that somebody made below it.
    fn is_populated(&self) -> bool {
        let events = fs::read_to_string(self.folder.join(EVENTS)).unwrap_or_default();
        events.lines().any(|line| line == "populated 1")
    }

    /// Kills everything in it; returns who that was, without the group of `leader`.
    pub(crate) fn kill(&self, leader: Option<Pid>) -> Ended {
        if !self.is_populated() {
            return Ended::new();
        }
        let members = members_of(&self.folder);
        let is_stray = |member: &Pid| {
            let group = Stat::of(*member).map(|stat| stat.group);
            leader.is_none_or(|leader| group != Some(leader.get()))
        };
        // Looked at while they are there.
        let strays = members.into_iter().filter(is_stray).map(|stray| (stray, name_of(stray))).collect();
        if let Err(error) = fs::write(self.folder.join(KILL), "1") {
            tracing::warn!(folder = %self.folder.display(), %error, "a control group could not be killed");
        }
        strays
    }

    /// Whether it is gone; not yet as long as somebody in it is still dying.
    pub(crate) fn remove(&self) -> bool {
        match fs::remove_dir(&self.folder) {
            Ok(()) => true,
            Err(error) if error.kind() == io::ErrorKind::NotFound => true,
            // Somebody in it may still be dying, or has made groups of his own.
            Err(_) => {
                remove_below(&self.folder);
                fs::remove_dir(&self.folder).is_ok()
            }
        }
    }
}

impl Drop for Cgroup {
    fn drop(&mut self) {
        if !self.remove() {
            self.kill(None);
            // One that stays is removed with the agent, or by the next one.
            self.remove();
        }
    }
}

/// Who is in a control group, and in those that somebody made below it.
fn members_of(folder: &Path) -> Vec<Pid> {
    let listed = fs::read_to_string(folder.join(MEMBERS)).unwrap_or_default();
    let below = folders_in(folder).into_iter().flat_map(|below| members_of(&below));
    listed.lines().filter_map(parse_pid).chain(below).collect()
}

/// The empty folders below one, from the deepest on.
fn remove_below(folder: &Path) {
    for below in folders_in(folder) {
        remove_below(&below);
        // One that is not empty keeps the other from being removed, which is seen there.
        fs::remove_dir(below).unwrap_or_default();
    }
}

/// A folder and the empty folders in it: a control group is removed without the files that it shows.
fn remove(home: &Path) {
    remove_below(home);
    if let Err(error) = fs::remove_dir(home) {
        tracing::debug!(folder = %home.display(), %error, "a control group stays until the next start");
    }
}

/// How many processes near the agent the kernel has ever killed for lack of memory; none where that cannot be seen.
pub(crate) fn oom_kills() -> Option<u64> {
    static EVENTS: OnceLock<Option<File>> = OnceLock::new();
    let events = EVENTS.get_or_init(|| File::open(own().memory_events?).ok()).as_ref()?;
    let mut text = [0; 1024];
    // From the start each time: the kernel writes it anew.
    let length = events.read_at(&mut text, 0).ok()?;
    oom_kills_in(&text[..length])
}

/// The file in which they are counted.
pub(crate) fn oom_kills_file() -> Option<PathBuf> {
    own().memory_events.filter(|_| oom_kills().is_some())
}

/// `memory.events` and its older form `memory.oom_control` have a line with the same name.
fn oom_kills_in(events: &[u8]) -> Option<u64> {
    let line = events.split(|byte| *byte == b'\n').find_map(|line| line.strip_prefix(b"oom_kill "))?;
    str::from_utf8(line).ok()?.trim().parse().ok()
}

/// The control groups of this process, as folders.
#[derive(Debug, Default, PartialEq, Eq)]
struct Own {
    unified: Option<PathBuf>,
    memory_events: Option<PathBuf>,
}

fn own() -> Own {
    let read = |path| fs::read(path).unwrap_or_default();
    locate(&read("/proc/self/cgroup"), &read("/proc/self/mountinfo"))
}

/// From `/proc/self/cgroup` and `/proc/self/mountinfo`; see cgroups(7) and proc(5).
fn locate(memberships: &[u8], mounts: &[u8]) -> Own {
    let (memberships, mounts) = (String::from_utf8_lossy(memberships), String::from_utf8_lossy(mounts));
    let mut own = Own::default();
    let mut older = None;
    for membership in memberships.lines() {
        let mut fields = membership.splitn(3, ':');
        let (Some(number), Some(controllers), Some(path)) = (fields.next(), fields.next(), fields.next()) else {
            continue;
        };
        let folder = |is_wanted: &dyn Fn(&Mount<'_>) -> bool| {
            mounts.lines().filter_map(Mount::parse).find(is_wanted).map(|mount| mount.folder(path))
        };
        if number == "0" && controllers.is_empty() {
            own.unified = folder(&|mount| mount.kind == "cgroup2");
        } else if controllers.split(',').any(|name| name == "memory") {
            older = folder(&|mount| mount.kind == "cgroup" && mount.options.split(',').any(|name| name == "memory"));
        }
    }
    let counted = older.map(|folder| folder.join("memory.oom_control"));
    own.memory_events = counted.or_else(|| own.unified.as_ref().map(|folder| folder.join("memory.events")));
    own
}

struct Mount<'a> {
    root: &'a str,
    point: &'a str,
    kind: &'a str,
    options: &'a str,
}

impl<'a> Mount<'a> {
    fn parse(line: &'a str) -> Option<Self> {
        let (before, after) = line.split_once(" - ")?;
        let mut before = before.split(' ').skip(3);
        let mut after = after.split(' ');
        Some(Self { root: before.next()?, point: before.next()?, kind: after.next()?, options: after.nth(1)? })
    }

    /// Where `path` of the hierarchy is seen. What is above the mounted part is taken for its top, as in a container that
    /// shows its own control group only.
    fn folder(&self, path: &str) -> PathBuf {
        let below = path.strip_prefix(self.root.trim_end_matches('/')).unwrap_or_default();
        let below = Path::new(below.trim_start_matches('/'));
        let is_inside = below.components().all(|part| matches!(part, std::path::Component::Normal(_)));
        if is_inside { Path::new(self.point).join(below) } else { self.point.into() }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::corpus::cases;

    #[test]
    fn the_corpus_of_hosts_and_containers_is_read_as_expected() {
        for (path, case) in cases("cgroup", 10) {
            let [memberships, mounts, unified, events] = &case[..] else { panic!("{}", path.display()) };
            let found = locate(memberships, mounts);
            let path_in =
                |part: &[u8]| (part != b"none").then(|| PathBuf::from(String::from_utf8_lossy(part).as_ref()));
            let expected = (path_in(unified), path_in(events));
            assert_eq!((found.unified, found.memory_events), expected, "{}", path.display());
        }
    }

    #[test]
    fn kills_are_counted_in_both_versions() {
        assert_eq!(oom_kills_in(b"low 0\nhigh 0\nmax 9\noom 3\noom_kill 2\noom_group_kill 0\n"), Some(2));
        assert_eq!(oom_kills_in(b"oom_kill_disable 0\nunder_oom 0\noom_kill 7\n"), Some(7));
        assert_eq!(oom_kills_in(b"oom_kill_disable 0\n"), None);
        assert_eq!(oom_kills_in(b"oom_kill x\n"), None);
    }

    proptest! {
        #[test]
        fn whatever_the_kernel_shows_is_no_panic(
            memberships in "([0-9]{1,2}:[a-z,=]{0,8}:/[a-z./]{0,8}\n){0,4}|\\PC{0,30}",
            mounts in "([0-9]{1,2} 1 0:1 /[a-z]{0,4} /[a-z]{0,4} rw( shared:1)? - cgroup2? cgroup rw(,memory)?\n){0,4}|\\PC{0,30}",
        ) {
            let Own { unified, memory_events } = locate(memberships.as_bytes(), mounts.as_bytes());
            for path in [unified, memory_events].into_iter().flatten() {
                prop_assert!(!path.components().any(|part| part == std::path::Component::ParentDir), "{path:?}");
            }
        }

        #[test]
        fn any_count_is_no_panic(text in prop::collection::vec(any::<u8>(), 0..40)) {
            oom_kills_in(&text);
            oom_kills_in(&[b"oom_kill ", &text[..]].concat());
        }
    }
}
