//! Descriptors: waiting for them without a runtime, and not waiting at all.

use std::fs::File;
use std::io;
use std::marker::PhantomData;
use std::os::fd::{AsFd, AsRawFd as _, BorrowedFd};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;
use std::time::Duration;

use libc::c_int;

use crate::check::check;

/// One descriptor to wait for, and afterwards whether reading from it would not block.
#[derive(Clone)]
#[repr(transparent)]
pub struct Polled<'fd> {
    entry: libc::pollfd,
    owner: PhantomData<BorrowedFd<'fd>>,
}

impl<'fd> Polled<'fd> {
    /// Waits until `fd` is readable, at its end or broken; none is a place that never becomes ready.
    pub fn readable(fd: Option<BorrowedFd<'fd>>) -> Self {
        Self {
            entry: libc::pollfd {
                // The kernel skips negative descriptors.
                fd: fd.map_or(-1, |fd| fd.as_raw_fd()),
                events: libc::POLLIN,
                revents: 0,
            },
            owner: PhantomData,
        }
    }

    /// Whether the last [`poll`] found anything on it.
    pub fn is_ready(&self) -> bool {
        self.entry.revents != 0
    }
}

impl std::fmt::Debug for Polled<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Polled").field("fd", &self.entry.fd).field("ready", &self.is_ready()).finish()
    }
}

/// `poll(2)`: waits until one of `entries` is ready or `limit` is over; returns how many are ready. A signal ends the wait
/// early with zero, so the caller looks at its clock.
pub fn poll(entries: &mut [Polled<'_>], limit: Duration) -> io::Result<usize> {
    // Rounded up, so that the last fraction of a millisecond is slept and not spun.
    let limit_ms = c_int::try_from(limit.as_micros().div_ceil(1000)).unwrap_or(c_int::MAX);
    let count = libc::nfds_t::try_from(entries.len()).unwrap_or(libc::nfds_t::MAX);
    // SAFETY: poll reads and writes `count` pollfd at the pointer. Polled is transparent over pollfd, and the slice is
    // borrowed mutably for the call.
    let ready = check(unsafe { libc::poll(entries.as_mut_ptr().cast(), count, limit_ms) });
    match ready {
        Ok(ready) => Ok(usize::try_from(ready).unwrap_or(0)),
        Err(error) if error.kind() == io::ErrorKind::Interrupted => {
            for entry in entries {
                entry.entry.revents = 0;
            }
            Ok(0)
        }
        Err(error) => Err(error),
    }
}

/// `fcntl(2)`, `F_SETFL`: reading and writing `file` fails with `WouldBlock` instead of waiting. A property of the open file
/// and not of the descriptor; the two ends of a pipe are two files.
pub fn set_nonblocking(file: &impl AsFd) -> io::Result<()> {
    let fd = file.as_fd().as_raw_fd();
    // SAFETY: F_GETFL takes a descriptor, which is open because it is borrowed, and touches no memory of ours.
    let flags = check(unsafe { libc::fcntl(fd, libc::F_GETFL) })?;
    // SAFETY: F_SETFL takes the same descriptor and an integer, and touches no memory of ours.
    check(unsafe { libc::fcntl(fd, libc::F_SETFL, flags | libc::O_NONBLOCK) }).map(drop)
}

/// `open(2)`, `O_NONBLOCK`: opens whatever is at `path` for reading. A pipe without a writer is opened and not waited for.
pub fn open_at_once(path: &Path) -> io::Result<File> {
    File::options().read(true).custom_flags(libc::O_NONBLOCK | libc::O_NOCTTY).open(path)
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;
    use std::os::fd::AsFd as _;

    use super::*;

    #[test]
    fn a_pipe_is_ready_when_something_was_written_and_not_before() {
        let (reader, mut writer) = io::pipe().unwrap();
        let mut entries = [Polled::readable(Some(reader.as_fd())), Polled::readable(None)];
        assert_eq!(poll(&mut entries, Duration::ZERO).unwrap(), 0);
        writer.write_all(b"x").unwrap();
        assert_eq!(poll(&mut entries, Duration::from_secs(5)).unwrap(), 1);
        assert!(entries[0].is_ready());
        assert!(!entries[1].is_ready());
    }

    #[test]
    fn a_full_pipe_refuses_instead_of_waiting() {
        let (_reader, mut writer) = io::pipe().unwrap();
        set_nonblocking(&writer).unwrap();
        let refused = loop {
            if let Err(error) = writer.write(&[0; 4096]) {
                break error;
            }
        };
        assert_eq!(refused.kind(), io::ErrorKind::WouldBlock);
    }
}
