//! Limits of this kernel and process that the program has to know.

use std::io;
use std::mem::MaybeUninit;

use crate::check::check;

/// `sysconf(3)`: bytes of one memory page.
pub fn page_size() -> u64 {
    // SAFETY: sysconf takes one integer and touches no memory of ours.
    let returned = unsafe { libc::sysconf(libc::_SC_PAGESIZE) };
    u64::try_from(returned).unwrap_or(4096)
}

/// `getrlimit(2)`: bytes that the arguments and the environment of a new program may have together, as execve(2) counts
/// them: a quarter of the stack limit, at most 6 MiB.
pub fn argument_bytes_limit() -> io::Result<u64> {
    const MOST: u64 = 6 * 1024 * 1024;
    let mut limit = MaybeUninit::<libc::rlimit>::uninit();
    // SAFETY: getrlimit writes one rlimit, for which the pointer is valid.
    check(unsafe { libc::getrlimit(libc::RLIMIT_STACK, limit.as_mut_ptr()) })?;
    // SAFETY: the call succeeded, so both fields are set.
    let limit = unsafe { limit.assume_init() };
    Ok((limit.rlim_cur / 4).min(MOST))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_limits_are_those_of_a_usual_linux() {
        assert!(page_size().is_power_of_two());
        assert!(argument_bytes_limit().unwrap() >= 64 * 1024);
    }
}
