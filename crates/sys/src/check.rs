//! From a C return value to an [`io::Result`].

use std::io;

use libc::c_int;

/// An `errno` error for -1, the value itself otherwise.
pub(crate) fn check(returned: c_int) -> io::Result<c_int> {
    if returned == -1 { Err(io::Error::last_os_error()) } else { Ok(returned) }
}

/// [`check`], again as long as a signal interrupted the call.
pub(crate) fn retry(mut call: impl FnMut() -> c_int) -> io::Result<c_int> {
    loop {
        match check(call()) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            done => return done,
        }
    }
}
