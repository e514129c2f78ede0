//! Limits of this kernel and process.

use std::io;
use std::mem::MaybeUninit;

use crate::check::check;

/// The type of the first argument of getrlimit, which the two C libraries do not agree about.
#[cfg(target_env = "gnu")]
type RawResource = libc::__rlimit_resource_t;
#[cfg(not(target_env = "gnu"))]
type RawResource = libc::c_int;

/// What a limit is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Resource {
    /// Bytes of address space.
    AddressSpace,
    /// Seconds of CPU time.
    CpuTime,
    /// Open descriptors.
    OpenFiles,
    /// Processes and threads of the user.
    Processes,
    /// Bytes of a core file.
    CoreFile,
    /// Bytes of the stack of the first thread.
    Stack,
}

impl Resource {
    fn raw(self) -> RawResource {
        match self {
            Self::AddressSpace => libc::RLIMIT_AS,
            Self::CpuTime => libc::RLIMIT_CPU,
            Self::OpenFiles => libc::RLIMIT_NOFILE,
            Self::Processes => libc::RLIMIT_NPROC,
            Self::CoreFile => libc::RLIMIT_CORE,
            Self::Stack => libc::RLIMIT_STACK,
        }
    }
}

/// One limit of this process, which its children inherit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limit {
    /// What is enforced.
    pub soft: u64,
    /// How far the soft one may be raised without privileges.
    pub hard: u64,
}

/// `getrlimit(2)`.
pub fn limit(resource: Resource) -> io::Result<Limit> {
    let mut limit = MaybeUninit::<libc::rlimit>::uninit();
    // SAFETY: getrlimit writes one rlimit, for which the pointer is valid.
    check(unsafe { libc::getrlimit(resource.raw(), limit.as_mut_ptr()) })?;
    // SAFETY: the call succeeded, so both fields are set.
    let limit = unsafe { limit.assume_init() };
    Ok(Limit { soft: limit.rlim_cur, hard: limit.rlim_max })
}

/// `setrlimit(2)`.
pub fn set_limit(resource: Resource, limit: Limit) -> io::Result<()> {
    let limit = libc::rlimit { rlim_cur: limit.soft, rlim_max: limit.hard };
    // SAFETY: setrlimit reads one rlimit, for which the pointer is valid.
    check(unsafe { libc::setrlimit(resource.raw(), &raw const limit) }).map(drop)
}

/// `sysconf(3)`: bytes of one memory page.
pub fn page_size() -> u64 {
    // SAFETY: sysconf takes one integer and touches no memory of ours.
    let returned = unsafe { libc::sysconf(libc::_SC_PAGESIZE) };
    u64::try_from(returned).unwrap_or(4096)
}

/// Bytes that the arguments and the environment of a new program may have together, as execve(2) counts them: a quarter of
/// the stack limit, at most 6 MiB.
pub fn argument_bytes_limit() -> io::Result<u64> {
    const MOST: u64 = 6 * 1024 * 1024;
    Ok((limit(Resource::Stack)?.soft / 4).min(MOST))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_limits_are_those_of_a_usual_linux() {
        assert!(page_size().is_power_of_two());
        assert!(argument_bytes_limit().unwrap() >= 64 * 1024);
    }

    #[test]
    fn a_limit_can_be_lowered_and_never_raised_beyond_the_hard_one() {
        let before = limit(Resource::CoreFile).unwrap();
        let none = Limit { soft: 0, hard: before.hard };
        set_limit(Resource::CoreFile, none).unwrap();
        assert_eq!(limit(Resource::CoreFile).unwrap(), none);
        let crossed = Limit { soft: 2, hard: 1 };
        assert!(set_limit(Resource::CoreFile, crossed).is_err());
    }
}
