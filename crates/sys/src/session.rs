//! Sessions, and the standard streams.

use std::io;
use std::os::fd::{AsFd, AsRawFd as _};

use crate::check::{check, retry};

/// `setsid(2)`: the calling process becomes the leader of a new session and of a new group. Refused to a group leader.
pub fn setsid() -> io::Result<()> {
    // SAFETY: setsid takes nothing and touches no memory of ours.
    check(unsafe { libc::setsid() }).map(drop)
}

/// `dup2(2)`: standard output becomes another name of `file`; what it was is closed.
pub fn replace_stdout(file: &impl AsFd) -> io::Result<()> {
    let fd = file.as_fd().as_raw_fd();
    // SAFETY: dup2 requires two descriptor numbers and touches no memory. The first one is open, it is borrowed. Nobody owns
    // the second one: std writes to standard output by its number and expects that it may be anything.
    retry(|| unsafe { libc::dup2(fd, libc::STDOUT_FILENO) }).map(drop)
}
