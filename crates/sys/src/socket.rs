//! Options of sockets that std does not know.

use std::ffi::c_int;
use std::io;
use std::os::fd::{AsFd, AsRawFd};
use std::time::Duration;

use crate::check::check;

/// Unanswered probes after which the kernel gives a connection up.
const KEEPALIVE_PROBES: c_int = 3;

/// `tcp(7)`: probes an idle connection after `every`, and again at that pace.
pub fn set_keepalive(socket: impl AsFd, every: Duration) -> io::Result<()> {
    let seconds = c_int::try_from(every.as_secs().max(1)).unwrap_or(c_int::MAX);
    set(&socket, libc::SOL_SOCKET, libc::SO_KEEPALIVE, 1)?;
    set(&socket, libc::IPPROTO_TCP, libc::TCP_KEEPIDLE, seconds)?;
    set(&socket, libc::IPPROTO_TCP, libc::TCP_KEEPINTVL, seconds)?;
    set(&socket, libc::IPPROTO_TCP, libc::TCP_KEEPCNT, KEEPALIVE_PROBES)
}

/// `tcp(7)`: whether small segments are sent at once.
pub fn has_no_delay(socket: impl AsFd) -> io::Result<bool> {
    Ok(get(&socket, libc::IPPROTO_TCP, libc::TCP_NODELAY)? != 0)
}

fn set(socket: &impl AsFd, level: c_int, option: c_int, value: c_int) -> io::Result<()> {
    let descriptor = socket.as_fd().as_raw_fd();
    // SAFETY: the descriptor is borrowed for the call; the pointer is to one int, whose size is given.
    check(unsafe { libc::setsockopt(descriptor, level, option, (&raw const value).cast(), size()) }).map(drop)
}

fn get(socket: &impl AsFd, level: c_int, option: c_int) -> io::Result<c_int> {
    let descriptor = socket.as_fd().as_raw_fd();
    let mut value: c_int = 0;
    let mut length = size();
    // SAFETY: the descriptor is borrowed for the call; the pointers are to one int and its size.
    check(unsafe { libc::getsockopt(descriptor, level, option, (&raw mut value).cast(), &raw mut length) })?;
    Ok(value)
}

/// Bytes of an int.
fn size() -> libc::socklen_t {
    libc::socklen_t::try_from(size_of::<c_int>()).unwrap_or(4)
}

#[cfg(test)]
mod tests {
    use std::net::{TcpListener, TcpStream};

    use super::*;

    #[test]
    fn what_is_set_can_be_read_back() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let stream = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        assert!(!has_no_delay(&stream).unwrap());
        stream.set_nodelay(true).unwrap();
        assert!(has_no_delay(&stream).unwrap());
        set_keepalive(&stream, Duration::from_secs(7)).unwrap();
        assert_eq!(get(&stream, libc::IPPROTO_TCP, libc::TCP_KEEPIDLE).unwrap(), 7);
    }
}
