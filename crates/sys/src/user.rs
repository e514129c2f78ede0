//! Whose process this is, and whose is at the other end of a socket.

use std::io;
use std::os::fd::{AsFd, AsRawFd};

use libc::{c_long, socklen_t, ucred};

use crate::check::check;
use crate::own::Dumpable;

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

/// `setfsuid(2)`, `setfsgid(2)`: what `look` finds as this user of this group, in this thread alone. For `/proc`, which shows
/// the environment and the descriptors of a process to its own user, and to others only with the privilege to trace.
///
/// None where this process may not take on that user, or where that would show its own memory to others.
pub fn as_file_user<T>(user: u32, group: u32, look: impl FnOnce() -> T) -> Option<T> {
    let _hidden = Dumpable::kept()?;
    // The group first, though the user keeps the right to change it: nothing is looked at as half of somebody.
    let group = FileId::taken(libc::SYS_setfsgid, group)?;
    let user = FileId::taken(libc::SYS_setfsuid, user)?;
    let found = look();
    drop((user, group));
    Some(found)
}

/// A file-system id of this thread, given back when dropped. The call is the kernel's, because those of a C library could one
/// day mean all threads.
struct FileId {
    call: c_long,
    before: u32,
}

impl FileId {
    fn taken(call: c_long, id: u32) -> Option<Self> {
        let taken = Self { call, before: set_file_id(call, id) };
        // These calls return the id so far and never an error; this one changes nothing.
        (set_file_id(call, u32::MAX) == id).then_some(taken)
    }
}

impl Drop for FileId {
    fn drop(&mut self) {
        set_file_id(self.call, self.before);
    }
}

fn set_file_id(call: c_long, id: u32) -> u32 {
    // SAFETY: both calls take one integer and touch no memory of ours.
    let before = unsafe { libc::syscall(call, id) };
    // An id has 32 bits, with its sign extended or not.
    u32::try_from(before & 0xffff_ffff).unwrap_or(u32::MAX)
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

    #[test]
    fn another_file_user_is_one_for_as_long_as_it_looks() {
        let ids = || {
            let status = std::fs::read_to_string("/proc/thread-self/status").unwrap();
            let last = |name| status.lines().find_map(|line| line.strip_prefix(name)).unwrap().rsplit('\t').next();
            (last("Uid:").unwrap().to_owned(), last("Gid:").unwrap().to_owned())
        };
        let own = ids();
        let seen = as_file_user(4711, 4712, ids);
        let expected = (effective_user() == 0).then(|| ("4711".to_owned(), "4712".to_owned()));
        assert_eq!(seen, expected);
        assert_eq!(ids(), own);
    }

    #[test]
    fn a_process_stays_as_open_or_hidden_as_it_was_when_it_looks_as_another_user() {
        let open = Dumpable::is_set().unwrap();
        as_file_user(4711, 4712, || ());
        assert_eq!(Dumpable::is_set().unwrap(), open);
        crate::own::set_undumpable().unwrap();
        as_file_user(4711, 4712, || ());
        assert!(!Dumpable::is_set().unwrap());
    }
}
