//! Whose process this is, and whose is at the other end of a socket.

use std::io;
use std::os::fd::{AsFd, AsRawFd};

use libc::{socklen_t, ucred};

use crate::check::check;

/// `geteuid(2)`: the user whose rights this process has.
pub fn effective_user() -> u32 {
    // SAFETY: geteuid takes nothing and cannot fail.
    unsafe { libc::geteuid() }
}

/// `getsockopt(2)`, `SO_PEERCRED`: the user who connected, or who listens, at the other end of a Unix socket.
pub fn peer_user(socket: &impl AsFd) -> io::Result<u32> {
    let mut peer = ucred { pid: 0, uid: 0, gid: 0 };
    let mut length = socklen_t::try_from(size_of::<ucred>()).unwrap_or(0);
    let fd = socket.as_fd().as_raw_fd();
    // SAFETY: the kernel writes at most `length` bytes into `peer`, which has that many and may hold any numbers; both
    // outlive the call.
    check(unsafe {
        libc::getsockopt(fd, libc::SOL_SOCKET, libc::SO_PEERCRED, (&raw mut peer).cast(), &raw mut length)
    })?;
    Ok(peer.uid)
}

/// `sysconf(3)`, `_SC_CLK_TCK`: how many of the ticks that `/proc` counts are a second.
pub fn ticks_per_second() -> u64 {
    // SAFETY: sysconf takes an integer and touches no memory of ours.
    let ticks = unsafe { libc::sysconf(libc::_SC_CLK_TCK) };
    u64::try_from(ticks).ok().filter(|ticks| *ticks > 0).unwrap_or(100)
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixStream;

    use super::*;

    #[test]
    fn the_peer_of_an_own_socket_is_this_user() {
        let (one, _other) = UnixStream::pair().unwrap();
        assert_eq!(peer_user(&one).unwrap(), effective_user());
    }
}
