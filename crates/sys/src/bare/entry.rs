//! Where the shipped binary begins.
//!
//! `attune_entry` takes the place of the C library's `_start`, to which it hands over with everything as the kernel left it. A
//! binary opts in with the linker's `-e`, see `src/build.rs`.

use std::ffi::c_char;

use super::word::Words;
use super::{INIT_ARGUMENT, LAUNCHER_ARGUMENT, calls, first, launch, table};

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
        ".hidden __ehdr_start",
        "mov rdi, rsp",
        "lea rsi, [rip + __ehdr_start]",
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
        ".hidden __ehdr_start",
        "mov x29, #0",
        "mov x30, #0",
        "str x0, [sp, #-16]!",
        "add x0, sp, #16",
        "adrp x1, __ehdr_start",
        "add x1, x1, :lo12:__ehdr_start",
        "bl {begin}",
        "ldr x0, [sp], #16",
        "mov x29, #0",
        "mov x30, #0",
        "b {start}",
        begin = sym begin,
        start = sym _start,
    )
}

/// Comes back in a process that is neither the launcher nor process 1. `base` is where the file is mapped.
///
/// Up to the relocation nothing may be called that is not part of this crate, not even by the compiler.
unsafe extern "C" fn begin(stack: *const usize, base: usize) {
    // SAFETY: the kernel puts the number of arguments there.
    let number = unsafe { *stack };
    // SAFETY: the arguments follow, and a null pointer after them.
    let args: *const *const c_char = unsafe { stack.add(1) }.cast();
    if number < 2 {
        return;
    }
    // SAFETY: there are two arguments at least.
    let second = unsafe { args.add(1) };
    // SAFETY: the same.
    let name = unsafe { *second };
    // SAFETY: arguments are strings that end with zero.
    let (launches, waits) = unsafe { (is(name, LAUNCHER_ARGUMENT), is(name, INIT_ARGUMENT)) };
    if !launches && !waits {
        return;
    }
    // SAFETY: the file is mapped there, and the C library, which would relocate it, does not begin any more.
    unsafe { table::relocate(base) };
    // SAFETY: behind the second argument is another one or the null pointer that ends the array; its strings last as long as the
    // process.
    let words = unsafe { Words::new(args.add(2)) };
    // SAFETY: the environment follows the null pointer behind the arguments, and ends with another one.
    let environment = unsafe { Words::new(args.add(number).add(1)) };
    calls::exit(if launches { launch(words, environment) } else { first::serve(words, environment) })
}

/// Whether this is the `name`. Volatile, so that no call is made of the loop.
///
/// # Safety
///
/// `word` is a string that ends with zero.
unsafe fn is(word: *const c_char, name: &'static str) -> bool {
    let (mut place, mut known) = (word.cast::<u8>(), name.as_ptr());
    let mut left = name.len();
    while left > 0 {
        // SAFETY: the zero has not been passed, which would have been a difference; `left` bytes of the name are left.
        let (byte, wanted) = unsafe { (place.read_volatile(), known.read_volatile()) };
        if byte != wanted {
            return false;
        }
        // SAFETY: this byte was not the zero.
        place = unsafe { place.add(1) };
        // SAFETY: up to one behind the last byte.
        known = unsafe { known.add(1) };
        left -= 1;
    }
    // SAFETY: all bytes so far were those of the name, so there is another one.
    unsafe { place.read_volatile() == 0 }
}
