//! Properties of the calling process that a program sets on itself.

use std::fs;
use std::io;
use std::sync::LazyLock;

use libc::{c_int, c_ulong};

use crate::check::check;

/// `prctl(2)`, `PR_SET_DUMPABLE` 0: processes of the same user can neither read the memory, the environment and the
/// descriptors of this one nor trace it, and it writes no core file. Comes back with exec.
pub fn set_undumpable() -> io::Result<()> {
    prctl(libc::PR_SET_DUMPABLE, 0).map(drop)
}

/// Keeps what [`set_undumpable`] is about as it is: once dropped, it is what it was before. The kernel changes it with the user of
/// any thread.
pub(crate) struct Dumpable {
    before: bool,
}

impl Dumpable {
    /// None where the machine is set to open processes that change their user to everybody (`fs.suid_dumpable`), or nothing is
    /// known about it.
    pub(crate) fn kept() -> Option<Self> {
        static OPENS: LazyLock<bool> =
            LazyLock::new(|| fs::read("/proc/sys/fs/suid_dumpable").is_ok_and(|set| set.starts_with(b"1")));
        let before = Self::is_set().ok()?;
        (!*OPENS).then_some(Self { before })
    }

    pub(crate) fn is_set() -> io::Result<bool> {
        Ok(prctl(libc::PR_GET_DUMPABLE, 0)? == 1)
    }
}

impl Drop for Dumpable {
    fn drop(&mut self) {
        // Never refused: it is one of the two values that there are.
        prctl(libc::PR_SET_DUMPABLE, self.before.into()).map(drop).unwrap_or_default();
    }
}

/// `prctl(2)`, `PR_SET_CHILD_SUBREAPER`: descendants whose parent ends become children of this process and not of process 1.
pub fn set_subreaper() -> io::Result<()> {
    prctl(libc::PR_SET_CHILD_SUBREAPER, 1).map(drop)
}

fn prctl(option: c_int, value: c_ulong) -> io::Result<c_int> {
    let unused: c_ulong = 0;
    // SAFETY: the options used in this file take one integer and three zeros; none reads or writes memory of ours.
    check(unsafe { libc::prctl(option, value, unused, unused, unused) })
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
