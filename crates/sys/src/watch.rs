//! Descriptors that the async runtime watches.

use std::io;
use std::os::fd::OwnedFd;

use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

/// Has the runtime tell when `fd` becomes readable. For a descriptor from [`crate::pidfd_open`] that is the end of the
/// process. Must be called inside a tokio runtime whose I/O driver is enabled.
pub fn watch_readable(fd: OwnedFd) -> io::Result<AsyncFd<OwnedFd>> {
    // SAFETY: register_with_interest requires an open descriptor that stays the same and open as long as the AsyncFd
    // lives. The AsyncFd owns the OwnedFd, which is open for its whole life and always returns the same number.
    let registered = unsafe { AsyncFd::register_with_interest(fd, Interest::READABLE) };
    registered.map_err(io::Error::from)
}
