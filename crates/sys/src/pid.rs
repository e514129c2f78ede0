//! Process ids and descriptors of processes.

use std::fmt;
use std::io;
use std::os::fd::{AsRawFd as _, FromRawFd as _, OwnedFd};
use std::ptr;

use libc::{c_int, pid_t};

use crate::check::check;

/// The id of one process: always positive, so that it never turns into one of the meanings that `kill` and `waitpid`
/// give to zero and to negative numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Pid(pid_t);

impl Pid {
    /// None for zero and for what no process id can be.
    pub fn new(id: u32) -> Option<Self> {
        let id = pid_t::try_from(id).ok()?;
        (id > 0).then_some(Self(id))
    }

    /// The calling process.
    pub fn current() -> Self {
        // SAFETY: getpid takes nothing, touches no memory of ours and cannot fail.
        Self(unsafe { libc::getpid() })
    }

    /// The number.
    pub fn get(self) -> u32 {
        self.0.unsigned_abs()
    }

    pub(crate) fn raw(self) -> pid_t {
        self.0
    }
}

impl fmt::Display for Pid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// `gettid(2)`: whether the calling thread is the first one of its process, which lasts as long as that does.
pub fn is_first_thread() -> bool {
    // SAFETY: gettid takes nothing, touches no memory of ours and cannot fail.
    let thread = unsafe { libc::syscall(libc::SYS_gettid) };
    pid_t::try_from(thread).is_ok_and(|thread| thread == Pid::current().0)
}

/// `pidfd_open(2)`: a descriptor that becomes readable when `pid` ends. Close-on-exec by its nature. Linux 5.3.
pub fn pidfd_open(pid: Pid) -> io::Result<OwnedFd> {
    // SAFETY: pidfd_open takes two integers, a process id and flags (none); it reads and writes no memory of ours.
    let returned = unsafe { libc::syscall(libc::SYS_pidfd_open, pid.raw(), 0) };
    let fd = check(c_int::try_from(returned).unwrap_or(-1))?;
    // SAFETY: fd must be open and owned by nobody else; the kernel has just made it for this call.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// `pidfd_send_signal(2)`: signals the process that `process` was opened for and no other one, even when its id has been given
/// away since. Linux 5.1.
pub fn pidfd_send_signal(process: &OwnedFd, signal: i32) -> io::Result<()> {
    send_signal(process, signal, 0)
}

/// `pidfd_send_signal(2)`, `PIDFD_SIGNAL_PROCESS_GROUP`: signals the group that the process leads or led which `leader` was
/// opened for, and no other one. Linux 6.9; before that it is invalid input.
pub fn pidfd_signal_group(leader: &OwnedFd, signal: i32) -> io::Result<()> {
    const PROCESS_GROUP: u32 = 1 << 2;
    send_signal(leader, signal, PROCESS_GROUP)
}

fn send_signal(process: &OwnedFd, signal: i32, flags: u32) -> io::Result<()> {
    let info = ptr::null::<libc::siginfo_t>();
    // SAFETY: pidfd_send_signal takes a descriptor, which is borrowed and so open, an integer, an info that may be null, and
    // flags.
    let returned = unsafe { libc::syscall(libc::SYS_pidfd_send_signal, process.as_raw_fd(), signal, info, flags) };
    check(c_int::try_from(returned).unwrap_or(-1)).map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_that_mean_a_group_or_everybody_are_no_process_id() {
        assert_eq!(Pid::new(0), None);
        assert_eq!(Pid::new(u32::MAX), None);
        assert_eq!(Pid::new(7).map(Pid::get), Some(7));
    }

    #[test]
    fn a_thread_beside_the_first_one_is_not_the_process() {
        // The test and whatever it starts have threads of their own.
        assert!(!std::thread::spawn(is_first_thread).join().unwrap());
    }

    #[test]
    fn a_descriptor_of_the_own_process_can_be_opened_and_one_of_a_missing_process_cannot() {
        let own = pidfd_open(Pid::current()).unwrap();
        pidfd_send_signal(&own, 0).unwrap();
        let missing = Pid::new(0x7fff_fff0).unwrap();
        assert_eq!(pidfd_open(missing).unwrap_err().raw_os_error(), Some(libc::ESRCH));
    }
}
