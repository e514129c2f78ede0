//! Properties of the calling process that a program sets on itself.

use std::io;

use libc::{c_int, c_ulong};

use crate::check::check;

/// `prctl(2)`, `PR_SET_DUMPABLE` 0: processes of the same user can neither read the memory, the environment and the
/// descriptors of this one nor trace it, and it writes no core file. Comes back with exec.
pub fn set_undumpable() -> io::Result<()> {
    prctl(libc::PR_SET_DUMPABLE, 0)
}

/// `prctl(2)`, `PR_SET_CHILD_SUBREAPER`: descendants whose parent ends become children of this process and not of process 1.
pub fn set_subreaper() -> io::Result<()> {
    prctl(libc::PR_SET_CHILD_SUBREAPER, 1)
}

fn prctl(option: c_int, value: c_ulong) -> io::Result<()> {
    let unused: c_ulong = 0;
    // SAFETY: the options used in this file take one integer and three zeros; none reads or writes memory of ours.
    check(unsafe { libc::prctl(option, value, unused, unused, unused) }).map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_needs_no_privileges_works_everywhere() {
        set_subreaper().unwrap();
        set_undumpable().unwrap();
    }
}
