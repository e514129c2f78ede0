//! `clone3(2)` for a child that begins in a control group.
//!
//! The C libraries have no function for it: a child on a stack of its own cannot come back from one. So it is called here, and
//! the child goes on in a function from which it does not return.

use std::ffi::{c_int, c_void};
use std::ops::Range;
use std::os::fd::{AsRawFd as _, BorrowedFd};
use std::ptr;

use super::calls::Errno;

/// What runs in the child. It returns the exit code.
pub(super) type Entry = extern "C" fn(*mut c_void) -> c_int;

/// The flag that makes the kernel look at the last word, Linux 5.7. The C library's headers have none that fits into their type.
const INTO_CGROUP: u64 = 0x2_0000_0000;

/// `struct clone_args` as far as Linux 5.7 knows it: words, which are zero where nothing is wanted.
#[repr(C)]
#[derive(Default)]
struct Args {
    flags: u64,
    pidfd: u64,
    child_tid: u64,
    parent_tid: u64,
    exit_signal: u64,
    stack: u64,
    stack_size: u64,
    tls: u64,
    set_tid: u64,
    set_tid_size: u64,
    cgroup: u64,
}

/// Starts a child with the memory of this process, which stands still until it is another program or has ended. It never was
/// outside of the control group whose folder `cgroup` is a descriptor of. Returns its process id.
///
/// # Safety
///
/// `stack` is memory that nobody else uses, which ends at a multiple of 16 bytes. `entry` may be called with `given` in
/// a child that has the memory of this process and no thread of the C library, and neither unwinds nor returns before it needs
/// nothing of that memory any more.
pub(super) unsafe fn start(
    stack: Range<*mut u8>,
    (entry, given): (Entry, *mut c_void),
    cgroup: BorrowedFd<'_>,
) -> Result<usize, Errno> {
    let wide = |number: usize| u64::try_from(number).map_err(|_| Errno(libc::EINVAL));
    let flags = libc::CLONE_VM | libc::CLONE_VFORK;
    let args = Args {
        flags: u64::from(flags.unsigned_abs()) | INTO_CGROUP,
        exit_signal: u64::from(libc::SIGCHLD.unsigned_abs()),
        stack: wide(stack.start.expose_provenance())?,
        stack_size: wide(stack.end.addr() - stack.start.addr())?,
        cgroup: u64::from(cgroup.as_raw_fd().unsigned_abs()),
        ..Args::default()
    };
    // SAFETY: the same as for the caller; the arguments are there for as long as the call takes.
    let returned = unsafe { call(&args, entry, given) };
    usize::try_from(returned).map_err(|_| Errno(c_int::try_from(returned.unsigned_abs()).unwrap_or(libc::EINVAL)))
}

/// The child has all registers of its parent but the stack and what the call returns. It leaves nothing on the parent's stack, and
/// there is no frame above its first one for whoever looks at its calls.
#[cfg(target_arch = "x86_64")]
unsafe fn call(args: &Args, entry: Entry, given: *mut c_void) -> isize {
    let returned: isize;
    // SAFETY: the kernel changes rax, rcx and r11; the child, which begins at the aligned top of its own stack, never gets past
    // the last instruction of its part.
    unsafe {
        std::arch::asm!(
            "syscall",
            "test rax, rax",
            "jnz 2f",
            "xor ebp, ebp",
            "mov rdi, r12",
            "call r13",
            "mov edi, eax",
            "mov eax, {exit}",
            "syscall",
            "ud2",
            "2:",
            exit = const libc::SYS_exit,
            inlateout("rax") libc::SYS_clone3 => returned,
            in("rdi") ptr::from_ref(args),
            in("rsi") size_of::<Args>(),
            in("r12") given,
            in("r13") entry,
            lateout("rcx") _,
            lateout("r11") _,
            options(nostack)
        );
    }
    returned
}

/// The same.
#[cfg(target_arch = "aarch64")]
unsafe fn call(args: &Args, entry: Entry, given: *mut c_void) -> isize {
    let returned: isize;
    // SAFETY: the kernel changes x0; the child, which begins at the aligned top of its own stack, never gets past the last
    // instruction of its part.
    unsafe {
        std::arch::asm!(
            "svc 0",
            "cbnz x0, 2f",
            "mov x29, #0",
            "mov x30, #0",
            "mov x0, x20",
            "blr x21",
            "mov x8, {exit}",
            "svc 0",
            "brk #1",
            "2:",
            exit = const libc::SYS_exit,
            in("x8") libc::SYS_clone3,
            inlateout("x0") ptr::from_ref(args) => returned,
            in("x1") size_of::<Args>(),
            in("x20") given,
            in("x21") entry,
            options(nostack)
        );
    }
    returned
}

/// Elsewhere there is none.
#[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
unsafe fn call(_args: &Args, _entry: Entry, _given: *mut c_void) -> isize {
    isize::try_from(-libc::ENOSYS).unwrap_or(-1)
}
