//! Properties of the calling process that a program sets on itself, mostly shortly before it becomes another one.

use std::io;

use libc::{c_int, c_uint, c_ulong};

use crate::check::{check, retry};

/// `prctl(2)`, `PR_SET_PDEATHSIG`: `signal` is sent to this process when the thread that started it ends. Forgotten when
/// the user changes.
pub fn set_parent_death_signal(signal: i32) -> io::Result<()> {
    prctl(libc::PR_SET_PDEATHSIG, c_ulong::from(signal.unsigned_abs()))
}

/// `prctl(2)`, `PR_SET_NO_NEW_PRIVS`: no program that this process starts gains rights from its file. Cannot be undone.
pub fn set_no_new_privileges() -> io::Result<()> {
    prctl(libc::PR_SET_NO_NEW_PRIVS, 1)
}

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

/// `umask(2)`: the permission bits that new files do not get.
pub fn set_umask(mask: u32) {
    // SAFETY: umask takes one integer, touches no memory of ours and cannot fail.
    unsafe { libc::umask(mask & 0o777) };
}

/// `setpriority(2)`: how nice this process is, from -20 to 19.
pub fn set_nice(nice: i32) -> io::Result<()> {
    // PRIO_PROCESS, whose type the C libraries do not agree about; process 0 is the calling one.
    // SAFETY: setpriority takes three integers and touches no memory of ours.
    check(unsafe { libc::setpriority(0, 0, nice) }).map(drop)
}

/// `setgroups(2)`: the supplementary groups of this process.
pub fn set_groups(groups: &[u32]) -> io::Result<()> {
    // SAFETY: setgroups reads as many gid_t (u32) as it is told; pointer and number are those of one slice.
    check(unsafe { libc::setgroups(groups.len(), groups.as_ptr()) }).map(drop)
}

/// `setresgid(2)`: the real, effective and saved group.
pub fn set_group(group: u32) -> io::Result<()> {
    // SAFETY: setresgid takes three integers and touches no memory of ours.
    check(unsafe { libc::setresgid(group, group, group) }).map(drop)
}

/// `setresuid(2)`: the real, effective and saved user.
pub fn set_user(user: u32) -> io::Result<()> {
    // SAFETY: setresuid takes three integers and touches no memory of ours.
    check(unsafe { libc::setresuid(user, user, user) }).map(drop)
}

/// `close_range(2)`: every descriptor but the three standard ones will be closed by the next exec. Linux 5.11.
pub fn close_others_on_exec() -> io::Result<()> {
    const CLOSE_ON_EXEC: c_uint = 4;
    let first: c_uint = 3;
    retry(|| {
        // SAFETY: close_range takes three integers. With this flag it closes nothing now, so it takes no descriptor away from
        // its owner.
        let returned = unsafe { libc::syscall(libc::SYS_close_range, first, c_uint::MAX, CLOSE_ON_EXEC) };
        c_int::try_from(returned).unwrap_or(-1)
    })
    .map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_needs_no_privileges_works_everywhere() {
        set_subreaper().unwrap();
        set_no_new_privileges().unwrap();
        set_parent_death_signal(0).unwrap();
        set_undumpable().unwrap();
        let status = std::fs::read_to_string("/proc/thread-self/status").unwrap();
        assert!(status.contains("NoNewPrivs:\t1"), "{status}");
    }

    #[test]
    fn descriptors_are_closed_by_the_next_exec() {
        // Kernels before 5.11 say that they do not know it; nothing else may happen.
        if let Err(error) = close_others_on_exec() {
            assert_eq!(error.raw_os_error(), Some(libc::ENOSYS));
        }
    }
}
