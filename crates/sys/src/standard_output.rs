//! Whether the process was started with a closed standard output.
//!
//! Before `main`, the standard library opens `/dev/null` in place of each standard stream that is closed, so that later
//! files do not get their numbers. Afterwards a closed standard output cannot be told from one that was sent to
//! `/dev/null` on purpose. The only earlier place is the list of functions that the C library runs at start.

use std::sync::atomic::{AtomicBool, Ordering};

static WAS_CLOSED: AtomicBool = AtomicBool::new(false);

/// Whether standard output was closed when the process started. What is written to it since then goes nowhere.
pub fn stdout_was_closed() -> bool {
    WAS_CLOSED.load(Ordering::Relaxed)
}

#[used]
// SAFETY: `.init_array` holds pointers to C functions, and `look` is one; extra arguments of the caller are ignored, as
// the C calling convention allows.
#[unsafe(link_section = ".init_array")]
static LOOK: extern "C" fn() = look;

extern "C" fn look() {
    // SAFETY: `F_GETFD` takes no pointer and changes nothing.
    let flags = unsafe { libc::fcntl(libc::STDOUT_FILENO, libc::F_GETFD) };
    WAS_CLOSED.store(flags == -1, Ordering::Relaxed);
}
