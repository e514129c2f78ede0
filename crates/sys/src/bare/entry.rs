//! Where the shipped binary begins.
//!
//! `attune_entry` takes the place of the C library's `_start`, to which it hands over with everything as the kernel left it. A
//! binary opts in with the linker's `-e`, see `src/build.rs`.

use std::ffi::c_char;

use super::word::Words;
use super::{INIT_ARGUMENT, LAUNCHER_ARGUMENT, calls, first, launch};

unsafe extern "C" {
    /// The beginning of the C library.
    fn _start();
}

/// The first instructions of the process.
///
/// # Safety
///
/// For the kernel only: the stack holds the number of arguments, the arguments and the environment.
#[cfg(target_arch = "x86_64")]
#[unsafe(naked)]
#[unsafe(no_mangle)]
unsafe extern "C" fn attune_entry() {
    // The stack is aligned to 16 bytes here, and has to be at a call.
    std::arch::naked_asm!(
        "mov rdi, rsp",
        "push rdx",
        "push rdi",
        "call {begin}",
        "pop rdi",
        "pop rdx",
        "jmp {start}",
        begin = sym begin,
        start = sym _start,
    )
}

/// The first instructions of the process.
///
/// # Safety
///
/// For the kernel only: the stack holds the number of arguments, the arguments and the environment.
#[cfg(target_arch = "aarch64")]
#[unsafe(naked)]
#[unsafe(no_mangle)]
unsafe extern "C" fn attune_entry() {
    std::arch::naked_asm!(
        "mov x29, #0",
        "mov x30, #0",
        "str x0, [sp, #-16]!",
        "add x0, sp, #16",
        "bl {begin}",
        "ldr x0, [sp], #16",
        "mov x29, #0",
        "mov x30, #0",
        "b {start}",
        begin = sym begin,
        start = sym _start,
    )
}

/// Comes back in a process that is neither the launcher nor process 1.
unsafe extern "C" fn begin(stack: *const usize) {
    // SAFETY: the kernel puts the number of arguments there.
    let number = unsafe { *stack };
    // SAFETY: the arguments follow, and a null pointer after them.
    let args: *const *const c_char = unsafe { stack.add(1) }.cast();
    if number < 2 {
        return;
    }
    // SAFETY: there are two arguments at least; the array ends with a null pointer, and its strings last as long as the process.
    let mut words = unsafe { Words::new(args.add(1)) };
    // SAFETY: the environment follows the null pointer behind the arguments, and ends with another one.
    let environment = unsafe { Words::new(args.add(number).add(1)) };
    let Some(word) = words.take() else { return };
    if *word.bytes() == *LAUNCHER_ARGUMENT.as_bytes() {
        calls::exit(launch(words, environment));
    }
    if *word.bytes() == *INIT_ARGUMENT.as_bytes() {
        calls::exit(first::serve(words, environment));
    }
}
