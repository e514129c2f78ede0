//! Options of sockets that std does not know.

use std::ffi::c_int;
use std::fs;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, RawFd};
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

/// `tcp(7)`: has small segments sent at once by every TCP socket of this process whose other end is `port`; says how many did not
/// do so before. For those of libraries that make their sockets themselves and hand out none.
pub fn set_no_delay_to(port: u16) -> io::Result<usize> {
    let names = fs::read_dir("/proc/self/fd")?.flatten().map(|entry| entry.file_name());
    let descriptors = names.filter_map(|name| name.to_str()?.parse::<RawFd>().ok());
    // Another thread may close one meanwhile, or open another one under its number: then this one is told what does no harm.
    Ok(descriptors.filter(|descriptor| peer_port(*descriptor) == Some(port)).filter(|it| set_no_delay(*it)).count())
}

/// `getpeername(2)`: the port of the other end; none for what is no connected TCP socket.
fn peer_port(descriptor: RawFd) -> Option<u16> {
    // Both families have their port at the same place, and this is the larger one.
    // SAFETY: all zeros are a valid address structure.
    let mut address: libc::sockaddr_in6 = unsafe { std::mem::zeroed() };
    let mut length = libc::socklen_t::try_from(size_of::<libc::sockaddr_in6>()).ok()?;
    // SAFETY: the kernel writes at most `length` bytes into `address`, which has that many; both outlive the call.
    check(unsafe { libc::getpeername(descriptor, (&raw mut address).cast(), &raw mut length) }).ok()?;
    let is_internet = [libc::AF_INET, libc::AF_INET6].contains(&c_int::from(address.sin6_family));
    is_internet.then(|| u16::from_be(address.sin6_port))
}

/// Whether that was a change.
fn set_no_delay(descriptor: RawFd) -> bool {
    // SAFETY: calls by number, which touch no memory of ours but the ints that they are given.
    let socket = unsafe { BorrowedFd::borrow_raw(descriptor) };
    matches!(has_no_delay(socket), Ok(false)) && set(&socket, libc::IPPROTO_TCP, libc::TCP_NODELAY, 1).is_ok()
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
        let port = listener.local_addr().unwrap().port();
        assert_eq!(set_no_delay_to(port).unwrap(), 1);
        assert!(has_no_delay(&stream).unwrap());
        assert_eq!(set_no_delay_to(port).unwrap(), 0, "it has it already");
        set_keepalive(&stream, Duration::from_secs(7)).unwrap();
        assert_eq!(get(&stream, libc::IPPROTO_TCP, libc::TCP_KEEPIDLE).unwrap(), 7);
    }
}
