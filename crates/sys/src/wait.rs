//! Waiting for children, one by one, and for "any" only in process 1.

use std::io;
use std::mem::MaybeUninit;
use std::os::unix::process::ExitStatusExt as _;
use std::process::ExitStatus;
use std::time::Duration;

use crate::check::retry;
use crate::pid::Pid;

/// What the kernel says about a child that has been reaped.
#[derive(Debug, Clone, Copy)]
pub struct Reaped {
    /// How it ended.
    pub status: ExitStatus,
    /// CPU time in user mode, of the child and of the descendants that it waited for.
    pub user_time: Duration,
    /// CPU time in the kernel, of the same.
    pub system_time: Duration,
    /// The largest resident size that any of them reached.
    pub peak_memory_bytes: u64,
}

/// `waitid(2)`: whether `child` has ended. It stays a zombie, so its id remains its own.
pub fn has_exited(child: Pid) -> io::Result<bool> {
    let mut info = MaybeUninit::<libc::siginfo_t>::zeroed();
    retry(|| {
        // SAFETY: waitid writes one siginfo_t, for which the pointer is valid; the other arguments are integers.
        unsafe {
            libc::waitid(
                libc::P_PID,
                child.raw().unsigned_abs(),
                info.as_mut_ptr(),
                libc::WEXITED | libc::WNOHANG | libc::WNOWAIT,
            )
        }
    })?;
    // SAFETY: siginfo_t consists of integers and pointers, for all of which zero bytes are a value; the kernel may have
    // written some of them since.
    let info = unsafe { info.assume_init() };
    // SAFETY: si_pid is set for a child that has ended, and zero where WNOHANG found none.
    Ok(unsafe { info.si_pid() } != 0)
}

/// `wait4(2)`: takes the status of `child` if it has ended. Afterwards its id may belong to somebody else.
pub fn reap(child: Pid) -> io::Result<Option<Reaped>> {
    let mut status = 0;
    let mut usage = MaybeUninit::<libc::rusage>::zeroed();
    let reaped = retry(|| {
        // SAFETY: wait4 writes one int and one rusage, for which both pointers are valid during the call.
        unsafe { libc::wait4(child.raw(), &raw mut status, libc::WNOHANG, usage.as_mut_ptr()) }
    })?;
    if reaped == 0 {
        return Ok(None);
    }
    // SAFETY: rusage consists of integers only, so the zeroed bytes were a value before the kernel filled them.
    let usage = unsafe { usage.assume_init() };
    Ok(Some(Reaped {
        status: ExitStatus::from_raw(status),
        user_time: duration(usage.ru_utime),
        system_time: duration(usage.ru_stime),
        // Linux counts in KiB.
        peak_memory_bytes: u64::try_from(usage.ru_maxrss).unwrap_or(0) * 1024,
    }))
}

fn duration(time: libc::timeval) -> Duration {
    Duration::from_secs(u64::try_from(time.tv_sec).unwrap_or(0))
        + Duration::from_micros(u64::try_from(time.tv_usec).unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_that_is_no_child_cannot_be_waited_for() {
        let stranger = Pid::new(1).unwrap();
        assert_eq!(has_exited(stranger).unwrap_err().raw_os_error(), Some(libc::ECHILD));
        assert_eq!(reap(stranger).unwrap_err().raw_os_error(), Some(libc::ECHILD));
    }
}
