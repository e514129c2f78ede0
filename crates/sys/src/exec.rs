//! Becoming another program.

use std::ffi::{CStr, CString};
use std::io;
use std::ptr;

/// `execv(3)`: this process becomes `program`, with its environment; `args` begins with the name that it is called by. Returns
/// only the error.
///
/// In contrast to the standard library's way this searches nothing, and never hands a file without a known format to a shell.
///
/// `last` happens just before it, after everything that needs memory.
pub fn exec(program: &CStr, args: &[CString], last: impl FnOnce()) -> io::Error {
    let mut pointers: Vec<_> = args.iter().map(|arg| arg.as_ptr()).collect();
    pointers.push(ptr::null());
    last();
    // SAFETY: execv reads a string that ends with zero, and an array of such strings that ends with a null pointer; `program`,
    // `args` and `pointers` live until it returns.
    unsafe { libc::execv(program.as_ptr(), pointers.as_ptr()) };
    io::Error::last_os_error()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_that_does_not_exist_is_an_error() {
        let error = exec(c"/does/not/exist", &[c"x".to_owned()], || ());
        assert_eq!(error.kind(), io::ErrorKind::NotFound);
    }
}
