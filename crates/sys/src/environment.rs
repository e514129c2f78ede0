//! The memory in which the kernel left the environment of this process.

use std::ffi::{CStr, c_char};
use std::io;
use std::ptr;

unsafe extern "C" {
    /// The variables, up to a null pointer; environ(7).
    pub(crate) static mut environ: *mut *mut c_char;
}

/// `environ(7)`: empties the values of the variables whose name `is_secret`, where they are: neither this process nor whoever
/// reads `/proc/<pid>/environ` sees them any more, and its children do not inherit them. Says how many these were.
///
/// Refused once a second thread exists, which might be reading them.
pub fn empty_variables(is_secret: impl Fn(&[u8]) -> bool) -> io::Result<usize> {
    if std::fs::read_dir("/proc/self/task")?.count() != 1 {
        return Err(io::Error::other("this process has other threads already"));
    }
    let mut emptied = 0;
    // SAFETY: reading the static needs that nobody writes it meanwhile; there is no other thread.
    let mut entry = unsafe { environ };
    while !entry.is_null() {
        // SAFETY: `entry` is inside of the list, whose end, a null pointer, has not been passed.
        let variable = unsafe { *entry };
        if variable.is_null() {
            break;
        }
        emptied += usize::from(empty(variable, &is_secret));
        // SAFETY: the list goes on up to its null pointer, which this entry is not.
        entry = unsafe { entry.add(1) };
    }
    Ok(emptied)
}

fn empty(variable: *mut c_char, is_secret: &impl Fn(&[u8]) -> bool) -> bool {
    // SAFETY: entries of the environment end with zero, and no other thread changes them; not used after the write below.
    let text = unsafe { CStr::from_ptr(variable) }.to_bytes();
    let Some(name) = text.iter().position(|byte| *byte == b'=') else {
        return false;
    };
    let length = text.len() - name - 1;
    if length == 0 || !is_secret(&text[..name]) {
        return false;
    }
    // SAFETY: the value begins behind the sign, inside of the entry.
    let value = unsafe { variable.add(name + 1) };
    // SAFETY: the value has `length` bytes before the zero. The kernel and the C library keep entries in memory that may be
    // written, which is what setproctitle(3) and its kind rely on; nobody else reads them now.
    unsafe { ptr::write_bytes(value, 0, length) };
    true
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_refused_while_others_may_be_reading() {
        // The test and the thread that runs it.
        let error = empty_variables(|_| false).unwrap_err();
        assert!(error.to_string().contains("threads"), "{error}");
    }
}
