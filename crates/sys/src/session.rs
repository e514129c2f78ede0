//! Sessions, and the standard streams.

use std::io;
use std::os::fd::{AsFd, AsRawFd as _};

use crate::check::{check, retry};
use crate::pid::Pid;

/// `setsid(2)`: the calling process becomes the leader of a new session and of a new group. Refused to a group leader.
pub fn setsid() -> io::Result<()> {
    // SAFETY: setsid takes nothing and touches no memory of ours.
    check(unsafe { libc::setsid() }).map(drop)
}

/// `getpgid(2)`: the group of `pid`.
pub fn group_of(pid: Pid) -> io::Result<Pid> {
    // SAFETY: getpgid takes one integer and touches no memory of ours.
    let group = check(unsafe { libc::getpgid(pid.raw()) })?;
    // Zero stands for a group outside of this process's namespace.
    Pid::new(group.unsigned_abs()).ok_or_else(|| io::Error::from(io::ErrorKind::NotFound))
}

/// `setpgid(2)`: the calling process joins `group`, which is in its session.
pub fn join_group(group: Pid) -> io::Result<()> {
    // SAFETY: setpgid takes two integers and touches no memory of ours; zero is the calling process.
    check(unsafe { libc::setpgid(0, group.raw()) }).map(drop)
}

/// `dup2(2)`: standard output becomes another name of `file`; what it was is closed.
pub fn replace_stdout(file: &impl AsFd) -> io::Result<()> {
    let fd = file.as_fd().as_raw_fd();
    // SAFETY: dup2 requires two descriptor numbers and touches no memory. The first one is open, it is borrowed. Nobody owns
    // the second one: std writes to standard output by its number and expects that it may be anything.
    retry(|| unsafe { libc::dup2(fd, libc::STDOUT_FILENO) }).map(drop)
}
