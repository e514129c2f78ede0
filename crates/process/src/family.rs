//! Descendants that left the group of their run, and became children of the agent.
//!
//! A program can leave its process group (`setsid`, double fork). Once its parent ends, the kernel gives such a stray to the
//! agent, if the agent has asked for that ([`crate::prepare()`]). Here strays are told from the children that the agent itself
//! has started, matched with the run that they come from, ended with it, and reaped.
//!
//! Invariants: a child of the agent is in [`Family::leaders`] until it is reaped, and while one is being started, which may take
//! long on a slow volume and so happens without the lock, nothing unknown is reaped and nothing unmarked is killed: no leader
//! is ever taken for a stray. Whoever signals or reaps a stray holds the lock, so its id is its own.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use attune_sys::{Pid, Reaped, SIGKILL};
use tokio::signal::unix::{SignalKind, signal};

use crate::cgroup;
use crate::mark::{Agent, Mark};
use crate::procfs::{Stat, is_changing, name_of, parse_pid, processes};

/// How long strays are looked for after the end of a run: each one that is killed may leave further ones.
pub(crate) const SWEEP_LIMIT: Duration = Duration::from_secs(2);

/// A killed process is gone within this time, as a rule.
pub(crate) const SWEEP_PAUSE: Duration = Duration::from_millis(1);

static FAMILY: Mutex<Family> = Mutex::new(Family {
    adopts: false,
    leaders: BTreeMap::new(),
    starting: BTreeMap::new(),
    spared: BTreeSet::new(),
    postponed: false,
});

struct Family {
    /// Strays come here and not to process 1.
    adopts: bool,
    /// The children that were started and have not been reaped.
    leaders: BTreeMap<Pid, Option<Mark>>,
    /// Those that are just being started, by a number of their own.
    starting: BTreeMap<u64, Option<Mark>>,
    /// Children that no sweep ends: those that were there before this program, whoever started them, and what runs left that may
    /// leave something.
    spared: BTreeSet<Pid>,
    /// Something unknown has ended while one was being started.
    postponed: bool,
}

fn lock() -> MutexGuard<'static, Family> {
    // What a panic leaves here is a map that is one entry behind, which the next look puts right.
    FAMILY.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Runs `start` and takes the child that it returns down as a leader.
pub(crate) fn register<T>(mark: Option<&Mark>, start: impl FnOnce() -> io::Result<(Pid, T)>) -> io::Result<(Pid, T)> {
    static STARTS: AtomicU64 = AtomicU64::new(0);
    let number = STARTS.fetch_add(1, Ordering::Relaxed);
    lock().starting.insert(number, mark.cloned());
    let started = start();
    let mut family = lock();
    family.starting.remove(&number);
    if let Ok((pid, _)) = &started {
        family.leaders.insert(*pid, mark.cloned());
    }
    if family.postponed && family.starting.is_empty() {
        family.postponed = false;
        family.look(&mut |_, _| Fate::Lives);
    }
    started
}

/// Reaps `leader` if it has ended, and forgets it then.
pub(crate) fn reap_leader(leader: Pid) -> io::Result<Option<Reaped>> {
    let mut family = lock();
    let reaped = attune_sys::reap(leader);
    if !matches!(reaped, Ok(None)) {
        family.leaders.remove(&leader);
    }
    reaped
}

/// Has this process adopt strays, and starts the thread that reaps them when they end by themselves.
pub(crate) fn adopt() -> io::Result<()> {
    attune_sys::set_subreaper()?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build()?;
    let mut ended = {
        let _inside = runtime.enter();
        signal(SignalKind::child())?
    };
    thread::Builder::new().name("reap-strays".to_owned()).spawn(move || {
        runtime.block_on(async {
            while ended.recv().await.is_some() {
                lock().look(&mut |_, _| Fate::Lives);
            }
        });
    })?;
    let mut family = lock();
    family.adopts = true;
    if family.leaders.is_empty() && family.starting.is_empty() {
        // Nothing of our own is alive, so whoever is here was here before. Its mark would not tell that of one that is just becoming another
        // program.
        family.spared.extend(own_children());
    } else {
        family.spare();
    }
    Ok(())
}

/// What is here now and belongs to no run whose strays are to end is not ended by a later sweep: for the end of a run that may
/// leave processes behind. Not all of them can be told by their marks.
pub(crate) fn spare_strays() {
    lock().spare();
}

/// Processes that were ended, and their names.
pub(crate) type Ended = BTreeMap<Pid, String>;

/// What becomes of a stray.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Fate {
    Lives,
    Dies,
    /// It cannot be told at the moment.
    Open,
}

impl Family {
    /// The marks of the runs that are going on or being started. What has no mark, like the guardian, is no run.
    fn runs(&self) -> impl Iterator<Item = &Mark> {
        self.leaders.values().chain(self.starting.values()).flatten()
    }

    fn spare(&mut self) {
        // Also where the run is over: it may just be clearing up.
        let is_to_end = |stray: &Pid| match Mark::of(*stray) {
            Some(mark) => mark.agent().as_ref() == Some(Agent::own()) && !mark.is_left_alone(),
            // Its mark will say.
            None => may_be_marked(*stray),
        };
        let unknown = own_children().into_iter().filter(|child| !self.leaders.contains_key(child));
        let spared: Vec<Pid> = unknown.filter(|stray| !is_to_end(stray)).collect();
        self.spared.extend(spared);
    }

    /// Reaps the strays that have ended, kills those that `decide` wants dead, and returns which ones these are.
    fn look(&mut self, decide: &mut dyn FnMut(&Self, Pid) -> Fate) -> Ended {
        self.look_at(&own_children(), decide)
    }

    /// The same, and whether another look would find nobody new.
    ///
    /// A stray that ends by itself in the middle of it is not killed, and leaves children that come here only then.
    fn look_for_good(&mut self, decide: &mut dyn FnMut(&Self, Pid) -> Fate) -> (Ended, bool) {
        let children = own_children();
        let mut is_open = false;
        let killed = self.look_at(&children, &mut |family, stray| {
            let fate = decide(family, stray);
            is_open |= fate == Fate::Open;
            fate
        });
        let is_all = !is_open && killed.is_empty() && own_children().iter().all(|child| children.contains(child));
        (killed, is_all)
    }

    fn look_at(&mut self, children: &[Pid], decide: &mut dyn FnMut(&Self, Pid) -> Fate) -> Ended {
        let mut killed = Ended::new();
        for &stray in children {
            if self.leaders.contains_key(&stray) {
                continue;
            }
            let done = match attune_sys::has_exited(stray) {
                Ok(true) if self.starting.is_empty() => {
                    self.spared.remove(&stray);
                    attune_sys::reap(stray).map(drop)
                }
                Ok(true) => {
                    self.postponed = true;
                    Ok(())
                }
                // Only this lock reaps it, so even if it ends now, the id stays its own.
                Ok(false) if !self.spared.contains(&stray) && decide(self, stray) == Fate::Dies => {
                    let name = name_of(stray);
                    attune_sys::kill(stray, SIGKILL).map(|()| {
                        killed.insert(stray, name);
                    })
                }
                Ok(false) => Ok(()),
                Err(error) => Err(error),
            };
            if let Err(error) = done {
                tracing::debug!(stray.pid = stray.get(), %error, "a stray process cannot be ended or is gone");
            }
        }
        killed
    }

    /// Whether a stray ends together with the run `ended`.
    fn fate(&self, stray: Pid, ended: &Mark) -> Fate {
        let Some(mark) = Mark::of(stray) else {
            // It hides where it comes from: from the run that has ended if there is no other one.
            if self.runs().next().is_none() {
                return Fate::Dies;
            }
            // A look that came between two programs, or just before its end, would spare it, or what it started, for good.
            return if may_be_marked(stray) { Fate::Open } else { Fate::Lives };
        };
        let is_of_living_run = mark != *ended && self.runs().any(|live| *live == mark);
        if is_of_living_run || mark.is_left_alone() { Fate::Lives } else { Fate::Dies }
    }
}

/// Whether this process adopts strays.
pub(crate) fn adopts() -> bool {
    lock().adopts
}

/// Whether nothing that an ended child has started can be alive, as a glance tells: whatever an ended process leaves comes here,
/// or descends from something that did. False where strays go elsewhere, or where some have come, from whatever run.
fn has_adopted_nobody() -> bool {
    let family = lock();
    family.adopts && own_children().iter().all(|child| family.leaders.contains_key(child))
}

/// Whether the group that `leader` leads has living members besides itself. It has ended, so what it has started has come to
/// this process where strays are adopted: nobody came, as a rule, and then no process has to be looked at.
pub(crate) fn has_followers(leader: Pid) -> bool {
    if has_adopted_nobody() {
        return false;
    }
    processes()
        .filter(|process| *process != leader)
        .filter_map(Stat::of)
        .any(|stat| stat.group == leader.get() && !stat.is_dead())
}

/// Ends what is left of the run `mark` outside of its group; says which processes that were.
pub(crate) async fn end_strays_of(mark: &Mark) -> Ended {
    let mut sweep = Sweep::new(SWEEP_LIMIT, |family, stray| family.fate(stray, mark));
    while !sweep.look() {
        tokio::time::sleep(SWEEP_PAUSE).await;
    }
    sweep.ended
}

/// [`end_strays_of`] on a thread of its own.
pub(crate) fn end_strays_of_blocking(mark: &Mark) {
    drop(Sweep::new(SWEEP_LIMIT, |family, stray| family.fate(stray, mark)).run());
}

/// Kills every descendant that has left its group, of whatever run, except for those that are left alone on purpose. For the
/// end of the agent, when nothing runs any more; says how many processes that were.
pub fn end_all_strays(limit: Duration) -> usize {
    let ended = Sweep::new(limit, |_, stray| {
        let is_left_alone = Mark::of(stray).is_some_and(|mark| mark.is_left_alone());
        if is_left_alone { Fate::Lives } else { Fate::Dies }
    })
    .run();
    cgroup::finish();
    ended.len()
}

/// A search for strays: each one that is killed may leave further ones.
struct Sweep<F> {
    /// What becomes of one.
    decide: F,
    begun: Instant,
    limit: Duration,
    ended: Ended,
}

impl<F: Fn(&Family, Pid) -> Fate> Sweep<F> {
    fn new(limit: Duration, decide: F) -> Self {
        Self { decide, begun: Instant::now(), limit, ended: Ended::new() }
    }

    /// Ends whom it finds; says whether that was all, or took too long.
    fn look(&mut self) -> bool {
        let (killed, is_all) = lock().look_for_good(&mut |family, stray| (self.decide)(family, stray));
        self.ended.extend(killed);
        is_all || self.begun.elapsed() > self.limit
    }

    fn run(mut self) -> Ended {
        while !self.look() {
            thread::park_timeout(SWEEP_PAUSE);
        }
        self.ended
    }
}

/// Whether `stray`, which showed no mark, has one by now or is about to.
fn may_be_marked(stray: Pid) -> bool {
    is_changing(stray) || Mark::of(stray).is_some()
}

/// The children of this process that its first thread started or, as the kernel gives strays to the first thread that
/// lives, adopted. Those of other threads are leaders, see [`Family::leaders`].
fn own_children() -> Vec<Pid> {
    let first_thread = format!("/proc/self/task/{}/children", std::process::id());
    match fs::read_to_string(first_thread) {
        Ok(list) => list.split_whitespace().filter_map(parse_pid).collect(),
        // This kernel keeps no lists.
        Err(_) => children_by_scan(),
    }
}

/// The same from the list of all processes, for kernels without `CONFIG_PROC_CHILDREN`.
fn children_by_scan() -> Vec<Pid> {
    let own = std::process::id();
    processes().filter(|process| Stat::of(*process).is_some_and(|stat| stat.parent == own)).collect()
}
