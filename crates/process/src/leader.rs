//! The child as the leader of its process group, and the only place that signals or reaps it.
//!
//! Invariant: a signal is sent only while the child has not been reaped. Until then it is alive or a zombie, and in both
//! cases its id, which is also the id of its group, belongs to nobody else.

use std::io;
use std::os::fd::{AsFd as _, OwnedFd};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use attune_sys::{Pid, Polled, Reaped, SIGKILL};
use tokio::io::unix::AsyncFd;

use crate::cgroup::Cgroup;
use crate::command::Strays;
use crate::family::{
    Ended, SWEEP_LIMIT, SWEEP_PAUSE, end_strays_of, end_strays_of_blocking, reap_leader, spare_strays,
};
use crate::mark::Mark;

/// Without process descriptors (kernels before 5.3, some sandboxes) the end is looked for this often.
const LOOK_INTERVAL: Duration = Duration::from_millis(10);

/// How long the thread that cleans up after a dropped child waits before it gives up on a process that cannot die.
const CLEAN_UP_LIMIT: Duration = Duration::from_mins(1);

pub(crate) struct Leader {
    pid: Pid,
    /// By which its strays are known.
    mark: Option<Mark>,
    /// What it cannot leave, unlike its group.
    cgroup: Option<Cgroup>,
    reaped: bool,
    /// It is another user's, and this process may not signal those.
    out_of_reach: AtomicBool,
}

impl Leader {
    pub(crate) fn new(pid: Pid, mark: Option<Mark>, cgroup: Option<Cgroup>) -> Self {
        Self { pid, mark, cgroup, reaped: false, out_of_reach: AtomicBool::new(false) }
    }

    /// By which its strays are known.
    pub(crate) fn mark(&self) -> Option<&Mark> {
        self.mark.as_ref()
    }

    /// [`Cgroup::switch`] of its control group, where it has one.
    pub(crate) fn switch(&self) -> Option<String> {
        self.cgroup.as_ref().map(Cgroup::switch)
    }

    pub(crate) fn pid(&self) -> Pid {
        self.pid
    }

    /// Whether a signal was refused: it ends by itself, or with its control group.
    pub(crate) fn is_out_of_reach(&self) -> bool {
        self.out_of_reach.load(Ordering::Relaxed)
    }

    /// Sends `signal` to the whole group, unless the leader is gone for good.
    pub(crate) fn signal_group(&self, signal: i32) {
        if self.reaped {
            return;
        }
        let sent = match attune_sys::kill_group(self.pid, signal) {
            // It is just changing over to a new session, and is alone.
            Err(error) if attune_sys::is_no_such_process(&error) => attune_sys::kill(self.pid, signal),
            sent => sent,
        };
        if let Err(error) = sent {
            // Members of another user: nothing that a retry would change.
            self.out_of_reach.fetch_or(error.kind() == io::ErrorKind::PermissionDenied, Ordering::Relaxed);
            tracing::warn!(child.pid = self.pid.get(), signal, %error, "signalling a process group failed");
        }
    }

    /// Kills what is left of the group of a leader that has ended, and takes its status.
    pub(crate) fn bury(&mut self) -> io::Result<Reaped> {
        self.signal_group(SIGKILL);
        let reaped = reap_leader(self.pid);
        // Also after an error: the status is then gone, and the id may be somebody else's.
        self.reaped = !matches!(reaped, Ok(None));
        reaped?.ok_or_else(|| io::Error::other("the process has not ended"))
    }

    /// Ends the descendants of a leader that was buried that have left its group; says which they were.
    pub(crate) async fn end_strays(&mut self, strays: Strays) -> Ended {
        if strays == Strays::LeaveAlone {
            spare_strays();
            self.mark = None;
            return Ended::new();
        }
        // Both stay here until that is done: dropped in between, the rest is done elsewhere.
        let mut ended = self.cgroup.as_ref().map_or_else(Ended::new, |cgroup| cgroup.kill(Some(self.pid)));
        if let Some(mark) = &self.mark {
            ended.extend(end_strays_of(mark).await);
        }
        let begun = Instant::now();
        while self.cgroup.as_ref().is_some_and(|cgroup| !cgroup.remove()) && begun.elapsed() < SWEEP_LIMIT {
            tokio::time::sleep(SWEEP_PAUSE).await;
        }
        (self.mark, self.cgroup) = (None, None);
        ended
    }
}

impl Drop for Leader {
    /// Leaves no process behind, whatever the reason: a dropped future, a panic, the end of the runtime.
    fn drop(&mut self) {
        if !self.reaped {
            // Not yet where it is still dying.
            drop(self.bury());
        }
        if self.mark.as_ref().is_some_and(Mark::is_left_alone) {
            spare_strays();
            self.mark = None;
        }
        if self.reaped && self.mark.is_none() && self.cgroup.is_none() {
            return;
        }
        // The kernel needs a moment to end it. Not on this thread, which may be one of the runtime's.
        let orphan =
            Orphan { leader: (!self.reaped).then_some(self.pid), mark: self.mark.take(), cgroup: self.cgroup.take() };
        let pid = self.pid.get();
        let spawned =
            thread::Builder::new().name("bury-child".to_owned()).stack_size(128 * 1024).spawn(move || orphan.bury());
        if let Err(error) = spawned {
            tracing::warn!(child.pid = pid, %error, "a killed child stays a zombie: no thread to reap it");
        }
    }
}

/// What a run whose owner is gone leaves.
struct Orphan {
    /// The killed leader, if it has not been reaped.
    leader: Option<Pid>,
    mark: Option<Mark>,
    cgroup: Option<Cgroup>,
}

impl Orphan {
    fn bury(self) {
        if let Some(pid) = self.leader {
            bury_killed(pid);
        }
        let kill = |cgroup: &Cgroup| cgroup.kill(None);
        drop(self.cgroup.as_ref().map(kill));
        if let Some(mark) = &self.mark {
            end_strays_of_blocking(mark);
        }
        let begun = Instant::now();
        while self.cgroup.as_ref().is_some_and(|cgroup| !cgroup.remove()) && begun.elapsed() < SWEEP_LIMIT {
            thread::park_timeout(SWEEP_PAUSE);
        }
    }
}

fn bury_killed(pid: Pid) {
    let notice = attune_sys::pidfd_open(pid).ok();
    if let Err(error) = wait_for_exit(pid, notice.as_ref(), CLEAN_UP_LIMIT) {
        tracing::warn!(child.pid = pid.get(), %error, "a killed child could not be waited for");
    }
    let mut leader = Leader::new(pid, None, None);
    if let Err(error) = leader.bury() {
        tracing::warn!(child.pid = pid.get(), %error, "a killed child could not be reaped");
    }
    leader.reaped = true;
}

/// Blocks until `child` is a zombie or `limit` is over; says which.
pub(crate) fn wait_for_exit(child: Pid, notice: Option<&OwnedFd>, limit: Duration) -> io::Result<bool> {
    let begun = Instant::now();
    loop {
        if attune_sys::has_exited(child)? {
            return Ok(true);
        }
        let left = limit.saturating_sub(begun.elapsed());
        if left.is_zero() {
            return Ok(false);
        }
        let nap = if notice.is_some() { left } else { left.min(LOOK_INTERVAL) };
        let mut entries = [Polled::readable(notice.map(|fd| fd.as_fd()))];
        attune_sys::poll(&mut entries, nap)?;
    }
}

/// Tells a task when a child has ended.
pub(crate) struct ExitNotice {
    pid: Pid,
    descriptor: Option<AsyncFd<OwnedFd>>,
}

impl ExitNotice {
    /// Must be called inside a runtime.
    pub(crate) fn new(pid: Pid) -> io::Result<Self> {
        let descriptor = match attune_sys::pidfd_open(pid) {
            Ok(fd) => Some(attune_sys::watch_readable(fd)?),
            Err(error) if is_refused(&error) => None,
            Err(error) => return Err(error),
        };
        Ok(Self { pid, descriptor })
    }

    /// Waits until the child is a zombie. Cancel-safe: there is no progress to lose.
    pub(crate) async fn exited(&self) -> io::Result<()> {
        if let Some(descriptor) = &self.descriptor {
            // Stays readable for good, so the guard has nothing to clear.
            return descriptor.readable().await.map(drop);
        }
        while !attune_sys::has_exited(self.pid)? {
            tokio::time::sleep(LOOK_INTERVAL).await;
        }
        Ok(())
    }
}

/// Whether this system has no process descriptors at all, in contrast to having run out of something.
pub(crate) fn is_refused(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::Unsupported | io::ErrorKind::PermissionDenied | io::ErrorKind::InvalidInput)
}
