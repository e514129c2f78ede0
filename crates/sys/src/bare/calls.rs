//! System calls without a C library.

use std::ffi::{c_char, c_int, c_long};
use std::ptr;

use super::word::Words;

/// The number of an error.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) struct Errno(pub(super) c_int);

pub(super) type Called = Result<(), Errno>;

/// The kernel's form of a signal's action: handler, flags, restorer and mask, all zero for the default one.
const DEFAULT_ACTION: [u64; 4] = [0; 4];

/// Bytes of the kernel's signal sets.
const SIGNAL_SET_BYTES: usize = 8;

#[cfg(target_arch = "x86_64")]
unsafe fn raw(number: c_long, args: [usize; 5]) -> isize {
    let returned;
    // SAFETY: the kernel changes rax, rcx and r11; what it does to memory is up to the caller.
    unsafe {
        std::arch::asm!(
            "syscall",
            inlateout("rax") number => returned,
            in("rdi") args[0],
            in("rsi") args[1],
            in("rdx") args[2],
            in("r10") args[3],
            in("r8") args[4],
            lateout("rcx") _,
            lateout("r11") _,
            options(nostack)
        );
    }
    returned
}

#[cfg(target_arch = "aarch64")]
unsafe fn raw(number: c_long, args: [usize; 5]) -> isize {
    let returned;
    // SAFETY: the kernel changes x0; what it does to memory is up to the caller.
    unsafe {
        std::arch::asm!(
            "svc 0",
            in("x8") number,
            inlateout("x0") args[0] => returned,
            in("x1") args[1],
            in("x2") args[2],
            in("x3") args[3],
            in("x4") args[4],
            options(nostack)
        );
    }
    returned
}

/// Elsewhere the launcher is reached from `main` only, when the C library is there.
#[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
unsafe fn raw(number: c_long, args: [usize; 5]) -> isize {
    // SAFETY: what the kernel does to memory is up to the caller.
    let returned = unsafe { libc::syscall(number, args[0], args[1], args[2], args[3], args[4]) };
    let error = || std::io::Error::last_os_error().raw_os_error().unwrap_or(libc::EINVAL);
    if returned == -1 { isize::try_from(-error()).unwrap_or(-1) } else { isize::try_from(returned).unwrap_or(-1) }
}

unsafe fn call(number: c_long, args: [usize; 5]) -> Result<usize, Errno> {
    // SAFETY: the same as for the caller.
    let returned = unsafe { raw(number, args) };
    usize::try_from(returned).map_err(|_| Errno(c_int::try_from(returned.unsigned_abs()).unwrap_or(libc::EINVAL)))
}

/// A number as the kernel takes it; of a negative one it looks at the lower half only.
fn signed(value: c_int) -> usize {
    usize::try_from(value.cast_unsigned()).unwrap_or(usize::MAX)
}

fn wide(value: u64) -> Result<usize, Errno> {
    usize::try_from(value).map_err(|_| Errno(libc::EINVAL))
}

fn address<T>(pointer: *const T) -> usize {
    pointer.expose_provenance()
}

/// A call whose arguments are numbers.
fn plain(number: c_long, args: [usize; 5]) -> Result<usize, Errno> {
    // SAFETY: only called with system calls that touch no memory of this process.
    unsafe { call(number, args) }
}

/// `write(2)`, all of `bytes`, as far as it goes.
pub(super) fn write(descriptor: usize, bytes: &[u8]) -> Called {
    let mut left = bytes;
    while !left.is_empty() {
        // SAFETY: write reads as many bytes as it is told, and those are there.
        match unsafe { call(libc::SYS_write, [descriptor, address(left.as_ptr()), left.len(), 0, 0]) } {
            Ok(written) => left = left.get(written..).unwrap_or_default(),
            Err(Errno(libc::EINTR)) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// Writes `bytes` into a file that is there.
pub(super) fn write_file(path: *const c_char, bytes: &[u8]) -> Called {
    let here = signed(libc::AT_FDCWD);
    let flags = signed(libc::O_WRONLY | libc::O_CLOEXEC | libc::O_NOCTTY);
    // SAFETY: openat reads a string that ends with zero.
    let file = unsafe { call(libc::SYS_openat, [here, address(path), flags, 0, 0]) }?;
    let written = write(file, bytes);
    plain(libc::SYS_close, [file, 0, 0, 0, 0])?;
    written
}

/// `getpid(2)`.
pub(super) fn own() -> usize {
    plain(libc::SYS_getpid, [0; 5]).unwrap_or(0)
}

/// `getppid(2)`.
pub(super) fn parent() -> u64 {
    plain(libc::SYS_getppid, [0; 5]).ok().and_then(|pid| u64::try_from(pid).ok()).unwrap_or(0)
}

/// `setsid(2)`, for a process that does not lead a group.
pub(super) fn lead_a_session() -> Called {
    plain(libc::SYS_setsid, [0; 5]).map(drop)
}

/// The leader of a group cannot start a session, and the agent has made this process one: it goes back to the agent's group
/// for a moment. Where that fails it stays in its own group.
pub(super) fn leave_for_a_session() -> Called {
    let group = plain(libc::SYS_getpgid, [wide(parent())?, 0, 0, 0, 0])?;
    plain(libc::SYS_setpgid, [0, group, 0, 0, 0])?;
    let started = lead_a_session();
    if started.is_err() {
        plain(libc::SYS_setpgid, [0; 5]).map(drop)?;
    }
    started
}

/// `setpriority(2)`, of this process.
pub(super) fn set_nice(nice: c_int) -> Called {
    let this_process = 0;
    plain(libc::SYS_setpriority, [this_process, 0, signed(nice), 0, 0]).map(drop)
}

/// `umask(2)`.
pub(super) fn set_umask(mask: u64) -> Called {
    plain(libc::SYS_umask, [wide(mask & 0o777)?, 0, 0, 0, 0]).map(drop)
}

/// Resources by the kernel's numbers, for which the two C libraries have different types.
#[derive(Clone, Copy)]
pub(super) struct Resource(usize);

impl Resource {
    pub(super) const CPU_TIME: Self = Self(0);
    pub(super) const CORE_FILE: Self = Self(4);
    pub(super) const PROCESSES: Self = Self(6);
    pub(super) const OPEN_FILES: Self = Self(7);
    pub(super) const ADDRESS_SPACE: Self = Self(9);
}

/// `prlimit(2)`: both the soft and the hard limit.
pub(super) fn set_limit(resource: Resource, limit: u64) -> Called {
    let limits = [limit; 2];
    let Resource(number) = resource;
    // SAFETY: prlimit64 reads two numbers, and the pointer to an old limit may be null.
    unsafe { call(libc::SYS_prlimit64, [0, number, address(limits.as_ptr()), 0, 0]) }.map(drop)
}

/// `prctl(2)` for options that take a number.
pub(super) fn prctl(option: c_int, value: usize) -> Called {
    plain(libc::SYS_prctl, [signed(option), value, 0, 0, 0]).map(drop)
}

/// `setgroups(2)`.
pub(super) fn set_groups(groups: &[u32]) -> Called {
    // SAFETY: setgroups reads as many numbers as it is told, and those are there.
    unsafe { call(libc::SYS_setgroups, [groups.len(), address(groups.as_ptr()), 0, 0, 0]) }.map(drop)
}

/// `setresgid(2)`.
pub(super) fn set_group(group: u64) -> Called {
    let group = wide(group)?;
    plain(libc::SYS_setresgid, [group, group, group, 0, 0]).map(drop)
}

/// `setresuid(2)`.
pub(super) fn set_user(user: u64) -> Called {
    let user = wide(user)?;
    plain(libc::SYS_setresuid, [user, user, user, 0, 0]).map(drop)
}

/// `rt_sigaction(2)`: gives every signal its default action. Refused for KILL and STOP, which are never ignored.
pub(super) fn reset_signals() {
    const LAST: usize = 64;
    for signal in 1..=LAST {
        let action = address(DEFAULT_ACTION.as_ptr());
        // SAFETY: rt_sigaction reads one action, and the pointer to an old one may be null; the default runs no code.
        let done = unsafe { call(libc::SYS_rt_sigaction, [signal, action, 0, SIGNAL_SET_BYTES, 0]) };
        done.map(drop).unwrap_or_default();
    }
}

/// `rt_sigprocmask(2)`: blocks exactly these signals, those of the C library included; which ones it were before.
pub(super) fn exchange_mask(blocked: u64) -> Result<u64, Errno> {
    let (how, mut before) = (signed(libc::SIG_SETMASK), 0_u64);
    let (blocked, told_at) = (address(&raw const blocked), address(&raw mut before));
    // SAFETY: rt_sigprocmask reads one set and writes one.
    unsafe { call(libc::SYS_rt_sigprocmask, [how, blocked, told_at, SIGNAL_SET_BYTES, 0]) }?;
    Ok(before)
}

/// `dup3(2)`: `descriptor` is also `number`, which stays open over exec.
pub(super) fn duplicate(descriptor: usize, number: usize) -> Called {
    plain(libc::SYS_dup3, [descriptor, number, 0, 0, 0]).map(drop)
}

/// `setpgid(2)`: this process leads a group of its own.
pub(super) fn lead_a_group() -> Called {
    plain(libc::SYS_setpgid, [0; 5]).map(drop)
}

/// `chdir(2)`.
pub(super) fn enter(folder: *const c_char) -> Called {
    // SAFETY: chdir reads a string that ends with zero.
    unsafe { call(libc::SYS_chdir, [address(folder), 0, 0, 0, 0]) }.map(drop)
}

/// `rt_sigprocmask(2)`: no signal is blocked.
pub(super) fn unblock_signals() -> Called {
    set_mask(0)
}

/// `rt_sigprocmask(2)`: every signal is blocked that can be.
pub(super) fn block_signals() -> Called {
    set_mask(u64::MAX)
}

fn set_mask(blocked: u64) -> Called {
    let how = signed(libc::SIG_SETMASK);
    // SAFETY: rt_sigprocmask reads one set, and the pointer to an old one may be null.
    unsafe { call(libc::SYS_rt_sigprocmask, [how, address(&raw const blocked), 0, SIGNAL_SET_BYTES, 0]) }.map(drop)
}

/// A signal that was taken.
pub(super) struct Arrived {
    pub(super) signal: c_int,
    /// The kernel sent it by itself, as it does for a terminal, and no process.
    pub(super) by_kernel: bool,
}

/// `rt_sigtimedwait(2)`: takes the next signal, of those that are blocked.
pub(super) fn next_signal() -> Result<Arrived, Errno> {
    /// `SI_KERNEL`.
    const BY_KERNEL: c_int = 0x80;
    let all = u64::MAX;
    // Number, error, code, and what is of no interest here; 128 bytes in all.
    let mut told: [c_int; 32] = [0; 32];
    let (wanted, told_at) = (address(&raw const all), address(told.as_mut_ptr()));
    // SAFETY: rt_sigtimedwait reads one set and writes one siginfo_t of 128 bytes; the pointer to a time limit may be null.
    let signal = unsafe { call(libc::SYS_rt_sigtimedwait, [wanted, told_at, 0, SIGNAL_SET_BYTES, 0]) }?;
    let signal = c_int::try_from(signal).map_err(|_| Errno(libc::EINVAL))?;
    let [_, _, code, ..] = told;
    Ok(Arrived { signal, by_kernel: code == BY_KERNEL })
}

/// `fork(2)`: zero in the child. For processes of a few pages, whose child becomes another program at once.
pub(super) fn fork() -> Result<usize, Errno> {
    // SAFETY: without further flags the child has a copy of everything, and goes on from here with it.
    unsafe { call(libc::SYS_clone, [signed(libc::SIGCHLD), 0, 0, 0, 0]) }
}

/// `kill(2)`.
pub(super) fn kill(process: usize, signal: c_int) -> Called {
    plain(libc::SYS_kill, [process, signed(signal), 0, 0, 0]).map(drop)
}

/// A child that has ended, and its status as `waitpid(2)` has it.
pub(super) struct Ended {
    pub(super) child: usize,
    pub(super) status: c_int,
}

/// `wait4(2)` for any child; none when no child has ended, or when there is none.
pub(super) fn reap_any() -> Result<Option<Ended>, Errno> {
    let (any, only_ended) = (signed(-1), signed(libc::WNOHANG));
    let mut status: c_int = 0;
    // SAFETY: wait4 writes one int, for which the pointer is valid; that to the resources used may be null.
    match unsafe { call(libc::SYS_wait4, [any, address(&raw mut status), only_ended, 0, 0]) } {
        Ok(0) | Err(Errno(libc::ECHILD)) => Ok(None),
        Ok(child) => Ok(Some(Ended { child, status })),
        Err(error) => Err(error),
    }
}

/// `prctl(2)`, `PR_SET_NAME`: what lists of processes call this one; ends with zero.
pub(super) fn set_name(name: &'static [u8]) {
    // SAFETY: prctl reads a string that ends with zero.
    let named = unsafe { call(libc::SYS_prctl, [signed(libc::PR_SET_NAME), address(name.as_ptr()), 0, 0, 0]) };
    named.map(drop).unwrap_or_default();
}

/// When descriptors are closed.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Closing {
    /// By the next exec: nothing is taken away from its owner before.
    OnExec,
    /// Now, where they have no owner.
    AtOnce,
}

/// Closes every descriptor but the three standard ones.
pub(super) fn close_others(when: Closing) -> Called {
    const CLOSE_ON_EXEC: usize = 4;
    let last = usize::try_from(u32::MAX).unwrap_or(usize::MAX);
    let flags = if when == Closing::OnExec { CLOSE_ON_EXEC } else { 0 };
    // close_range(2), Linux 5.9, and 5.11 with the flag. Sandboxes that do not know it refuse it.
    match plain(libc::SYS_close_range, [FIRST_OTHER, last, flags, 0, 0]) {
        Ok(_) => Ok(()),
        Err(_) => close_listed(when),
    }
}

/// The first descriptor behind the standard ones.
const FIRST_OTHER: usize = 3;

/// `getdents64(2)`, `fcntl(2)`, `close(2)`: the same, one by one.
fn close_listed(when: Closing) -> Called {
    let flags = signed(libc::O_RDONLY | libc::O_DIRECTORY | libc::O_CLOEXEC);
    let path = address(c"/proc/self/fd".as_ptr());
    // SAFETY: openat reads a string that ends with zero.
    let folder = unsafe { call(libc::SYS_openat, [signed(libc::AT_FDCWD), path, flags, 0, 0]) }?;
    let closed = close_others_in(folder, when);
    plain(libc::SYS_close, [folder, 0, 0, 0, 0])?;
    closed
}

fn close_others_in(folder: usize, when: Closing) -> Called {
    let mut entries = [0_u8; 1024];
    loop {
        let room = address(entries.as_mut_ptr());
        // SAFETY: getdents64 writes as many bytes as it is told at most, and those are there.
        let filled = unsafe { call(libc::SYS_getdents64, [folder, room, entries.len(), 0, 0]) }?;
        if filled == 0 {
            return Ok(());
        }
        let mut left = entries.get(..filled).unwrap_or_default();
        while let Some((name, rest)) = split_entry(left) {
            let other = decimal(name).filter(|descriptor| *descriptor >= FIRST_OTHER && *descriptor != folder);
            match (other, when) {
                (None, _) => {}
                (Some(other), Closing::OnExec) => {
                    plain(libc::SYS_fcntl, [other, signed(libc::F_SETFD), signed(libc::FD_CLOEXEC), 0, 0]).map(drop)?;
                }
                // Closed also where this tells of an error: that of a write that it was the last to know of.
                (Some(other), Closing::AtOnce) => {
                    plain(libc::SYS_close, [other, 0, 0, 0, 0]).map(drop).unwrap_or_default();
                }
            }
            left = rest;
        }
    }
}

/// The name of the first entry, which ends with a zero, and the entries behind it.
fn split_entry(entries: &[u8]) -> Option<(&[u8], &[u8])> {
    /// Behind the numbers of file and place come two bytes with the length of the entry, and one with the kind of file.
    const LENGTH: usize = 16;
    const NAME: usize = 19;
    let length = usize::from(*entries.get(LENGTH)?) | usize::from(*entries.get(LENGTH + 1)?) << 8;
    Some((entries.get(NAME..length)?, entries.get(length..)?))
}

/// The number at the beginning of `name`, if there is one.
fn decimal(name: &[u8]) -> Option<usize> {
    let mut number = None;
    for byte in name {
        let Some(digit) = byte.checked_sub(b'0').filter(|digit| *digit <= 9) else { break };
        number = number.unwrap_or(0_usize).checked_mul(10)?.checked_add(usize::from(digit)).map(Some)?;
    }
    number
}

/// `nanosleep(2)`.
pub(super) fn pause(nanoseconds: u64) {
    let time = [0, nanoseconds];
    // SAFETY: nanosleep reads seconds and nanoseconds, and the pointer to the rest may be null.
    let done = unsafe { call(libc::SYS_nanosleep, [address(time.as_ptr()), address(ptr::null::<u64>()), 0, 0, 0]) };
    done.map(drop).unwrap_or_default();
}

/// `execve(2)`; returns only the error. `program` ends with zero.
pub(super) fn exec(program: *const c_char, args: Words, environment: Words) -> Errno {
    let (program, args) = (address(program), address(args.pointer()));
    // SAFETY: execve reads a string that ends with zero, and two arrays of such strings that end with a null pointer.
    match unsafe { call(libc::SYS_execve, [program, args, address(environment.pointer()), 0, 0]) } {
        Ok(_) => Errno(libc::EINVAL),
        Err(error) => error,
    }
}

/// `exit_group(2)`.
pub(super) fn exit(code: u8) -> ! {
    loop {
        let ended = plain(libc::SYS_exit_group, [usize::from(code), 0, 0, 0, 0]);
        ended.map(drop).unwrap_or_default();
    }
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::os::fd::AsRawFd as _;

    use super::*;

    #[test]
    fn descriptors_are_found_and_closed_by_the_next_exec_without_close_range_too() {
        let files: Vec<File> = (0..200).map(|_| File::open("/dev/null").unwrap()).collect();
        let flags = |file: &File| plain(libc::SYS_fcntl, [descriptor(file), signed(libc::F_GETFD), 0, 0, 0]).ok();
        for file in &files {
            plain(libc::SYS_fcntl, [descriptor(file), signed(libc::F_SETFD), 0, 0, 0]).ok().unwrap();
        }
        assert!(files.iter().all(|file| flags(file) == Some(0)));
        close_listed(Closing::OnExec).ok().unwrap();
        let close_on_exec = usize::try_from(libc::FD_CLOEXEC).unwrap();
        assert!(files.iter().all(|file| flags(file) == Some(close_on_exec)));
        let standard = plain(libc::SYS_fcntl, [0, signed(libc::F_GETFD), 0, 0, 0]).ok();
        assert_eq!(standard, Some(0));
    }

    fn descriptor(file: &File) -> usize {
        usize::try_from(file.as_raw_fd()).unwrap()
    }
}
