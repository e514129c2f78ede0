//! Tracing other processes: only to see whether it is refused.

use std::io;
use std::ptr;

use crate::check::check;
use crate::pid::Pid;

/// `ptrace(2)`, `PTRACE_SEIZE`: takes hold of `process` without stopping it, and lets go again when this process ends. Whoever
/// may do this may read everything that `process` knows.
pub fn seize(process: Pid) -> io::Result<()> {
    let nothing = ptr::null_mut::<libc::c_void>();
    // SAFETY: this request takes a process id and options (none); the address is ignored, and no memory of ours is touched.
    let returned = unsafe { libc::ptrace(libc::PTRACE_SEIZE, process.raw(), nothing, nothing) };
    check(libc::c_int::try_from(returned).unwrap_or(-1)).map(drop)
}
