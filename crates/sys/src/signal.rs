//! Sending signals.

use std::fmt;
use std::io;
use std::mem::MaybeUninit;
use std::ptr;

use crate::check::{check, retry};
use crate::pid::Pid;

pub use libc::{SIGCHLD, SIGCONT, SIGHUP, SIGINT, SIGKILL, SIGQUIT, SIGSEGV, SIGSTOP, SIGTERM};

/// `kill(2)` to one process.
pub fn kill(pid: Pid, signal: i32) -> io::Result<()> {
    // SAFETY: kill takes two integers and touches no memory of ours.
    check(unsafe { libc::kill(pid.raw(), signal) }).map(drop)
}

/// `kill(2)` to the process group that `leader` leads. The caller knows that the leader has not been reaped, so that the
/// number still belongs to it.
///
/// Process 1 is refused: its negative number means "everybody".
pub fn kill_group(leader: Pid, signal: i32) -> io::Result<()> {
    if leader.raw() <= 1 {
        return Err(io::Error::from(io::ErrorKind::InvalidInput));
    }
    // SAFETY: kill takes two integers and touches no memory of ours.
    check(unsafe { libc::kill(-leader.raw(), signal) }).map(drop)
}

/// Whether `error` says that there is no such process or group.
pub fn is_no_such_process(error: &io::Error) -> bool {
    error.raw_os_error() == Some(libc::ESRCH)
}

/// What a signal does to this process, where no handler is involved.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Disposition {
    /// What the kernel does by itself.
    Default,
    /// Nothing.
    Ignore,
}

/// `signal(2)`: sets what `signal` does. Inherited over exec.
pub fn set_disposition(signal: i32, disposition: Disposition) -> io::Result<()> {
    let handler = match disposition {
        Disposition::Default => libc::SIG_DFL,
        Disposition::Ignore => libc::SIG_IGN,
    };
    // SAFETY: signal takes a signal number and a handler; both handlers are constants that run no code of ours.
    let previous = unsafe { libc::signal(signal, handler) };
    if previous == libc::SIG_ERR { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// `sigaction(2)`: whether `signal` is ignored.
pub fn is_ignored(signal: i32) -> io::Result<bool> {
    let mut action = MaybeUninit::<libc::sigaction>::uninit();
    // SAFETY: with a null new action sigaction only writes the old one, to a pointer that is valid for one sigaction.
    check(unsafe { libc::sigaction(signal, ptr::null(), action.as_mut_ptr()) })?;
    // SAFETY: the call succeeded, so the kernel has filled the whole structure.
    Ok(unsafe { action.assume_init() }.sa_sigaction == libc::SIG_IGN)
}

/// A set of signals.
#[derive(Clone, Copy)]
pub struct SignalSet(libc::sigset_t);

impl fmt::Debug for SignalSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SignalSet")
    }
}

impl SignalSet {
    /// `sigemptyset(3)`.
    pub fn empty() -> io::Result<Self> {
        let mut set = MaybeUninit::<libc::sigset_t>::uninit();
        // SAFETY: sigemptyset writes one sigset_t, for which the pointer is valid.
        check(unsafe { libc::sigemptyset(set.as_mut_ptr()) })?;
        // SAFETY: the call succeeded, so the set is initialised.
        Ok(Self(unsafe { set.assume_init() }))
    }

    /// `sigfillset(3)`.
    pub fn full() -> io::Result<Self> {
        let mut set = MaybeUninit::<libc::sigset_t>::uninit();
        // SAFETY: sigfillset writes one sigset_t, for which the pointer is valid.
        check(unsafe { libc::sigfillset(set.as_mut_ptr()) })?;
        // SAFETY: the call succeeded, so the set is initialised.
        Ok(Self(unsafe { set.assume_init() }))
    }

    /// `sigaddset(3)`: the set with `signal`.
    pub fn with(mut self, signal: i32) -> io::Result<Self> {
        // SAFETY: sigaddset changes one initialised sigset_t, for which the pointer is valid.
        check(unsafe { libc::sigaddset(&raw mut self.0, signal) })?;
        Ok(self)
    }

    /// `pthread_sigmask(3)`: exactly these signals are blocked in the calling thread, and in the threads that it starts.
    pub fn block_only(self) -> io::Result<()> {
        self.change_mask(libc::SIG_SETMASK)
    }

    /// `pthread_sigmask(3)`: these signals are blocked too.
    pub fn block_too(self) -> io::Result<()> {
        self.change_mask(libc::SIG_BLOCK)
    }

    fn change_mask(self, how: libc::c_int) -> io::Result<()> {
        // SAFETY: pthread_sigmask reads one initialised sigset_t, and a null old set is allowed.
        let error = unsafe { libc::pthread_sigmask(how, &raw const self.0, ptr::null_mut()) };
        if error == 0 { Ok(()) } else { Err(io::Error::from_raw_os_error(error)) }
    }

    /// `sigwaitinfo(2)`: takes the next of these signals, which must be blocked.
    pub fn wait(self) -> io::Result<i32> {
        // SAFETY: sigwaitinfo reads one initialised sigset_t, and a null info is allowed.
        retry(|| unsafe { libc::sigwaitinfo(&raw const self.0, ptr::null_mut()) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_group_of_process_one_is_never_signalled() {
        let init = Pid::new(1).unwrap();
        assert_eq!(kill_group(init, 0).unwrap_err().kind(), io::ErrorKind::InvalidInput);
    }

    #[test]
    fn signal_zero_to_oneself_succeeds() {
        kill(Pid::current(), 0).unwrap();
    }

    #[test]
    fn an_ignored_signal_is_seen_as_ignored_until_it_has_its_default_back() {
        set_disposition(libc::SIGWINCH, Disposition::Ignore).unwrap();
        assert!(is_ignored(libc::SIGWINCH).unwrap());
        set_disposition(libc::SIGWINCH, Disposition::Default).unwrap();
        assert!(!is_ignored(libc::SIGWINCH).unwrap());
        assert!(set_disposition(SIGKILL, Disposition::Ignore).is_err());
    }

    #[test]
    fn a_blocked_signal_is_taken_by_waiting_for_it() {
        let set = SignalSet::empty().unwrap().with(libc::SIGURG).unwrap();
        set.block_too().unwrap();
        // To this thread, because others do not block it.
        // SAFETY: raise takes one integer; the signal is blocked in this thread.
        assert_eq!(unsafe { libc::raise(libc::SIGURG) }, 0);
        assert_eq!(set.wait().unwrap(), libc::SIGURG);
    }
}
