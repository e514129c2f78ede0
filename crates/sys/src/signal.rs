//! Sending signals.

use std::io;
use std::mem::MaybeUninit;
use std::ptr;

use crate::check::check;
use crate::pid::Pid;

pub use libc::{SIGCONT, SIGINT, SIGKILL, SIGTERM};

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

/// `sigaction(2)`: gives SIGCHLD its default action back where it is ignored.
///
/// An ignored SIGCHLD is inherited over exec from whoever started this process, and makes the kernel throw the exit status
/// of every child away.
pub fn restore_child_signal() -> io::Result<()> {
    if child_signal_action()?.sa_sigaction != libc::SIG_IGN {
        return Ok(());
    }
    // SAFETY: signal takes a signal number and a handler; SIG_DFL is a constant that runs no code of ours.
    let previous = unsafe { libc::signal(libc::SIGCHLD, libc::SIG_DFL) };
    if previous == libc::SIG_ERR {
        Err(io::Error::last_os_error())
    } else {
        Ok(())
    }
}

/// `sigaction(2)`: what SIGCHLD does now.
fn child_signal_action() -> io::Result<libc::sigaction> {
    let mut action = MaybeUninit::<libc::sigaction>::uninit();
    // SAFETY: with a null new action sigaction only writes the old one, to a pointer that is valid for one sigaction.
    check(unsafe { libc::sigaction(libc::SIGCHLD, ptr::null(), action.as_mut_ptr()) })?;
    // SAFETY: the call succeeded, so the kernel has filled the whole structure.
    Ok(unsafe { action.assume_init() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_group_of_process_one_is_never_signalled() {
        let init = Pid::new(1).unwrap();
        assert_eq!(
            kill_group(init, 0).unwrap_err().kind(),
            io::ErrorKind::InvalidInput
        );
    }

    #[test]
    fn signal_zero_to_oneself_succeeds() {
        kill(Pid::current(), 0).unwrap();
        restore_child_signal().unwrap();
    }
}
