//! What this binary does before there is a C library: becoming the program of a child, and being process 1.
//!
//! The agent starts its own binary again for each child that has a policy. That binary is position independent and holds
//! more than a megabyte of tables of addresses, which its C library puts right before `main`: half a thousand page faults
//! for a process that makes twenty system calls and becomes another one, and a megabyte of memory for a process that only
//! waits. So the shipped binary begins here (`entry.rs`), which looks at the arguments first; all else goes on to the C library.
//!
//! Everything below therefore works in a process in which nothing has been set up:
//!
//! * System calls are made here and not by the C library, which keeps `errno` in memory of the thread that does not exist yet.
//! * No constant holds an address: no table of texts, no reference to a reference, no trait object, no formatting. Such constants
//!   are right only later.
//! * What the compiler calls by itself goes through a table of addresses, which is put right first (`table.rs`).
//! * Nothing is allocated, and nothing panics.
//!
//! Builds without this entry (for glibc, and tests) reach the same code from `main`, by [`become_program`] and
//! [`be_first_process`].
//!
//! What works in such a process also works in a child that still has the memory of its parent, where nothing else may be used
//! either: so most children set themselves up in [`start_child`], and the binary is started for the others only.

mod apply;
mod calls;
mod child;
mod clone;
#[cfg(all(target_env = "musl", any(target_arch = "x86_64", target_arch = "aarch64")))]
mod entry;
mod first;
mod notes;
mod setup;
#[cfg(all(target_env = "musl", any(target_arch = "x86_64", target_arch = "aarch64")))]
mod table;
mod word;

use std::ffi::{CString, c_char};
use std::ptr;

pub use child::{ChildStart, start_child};
pub use setup::ChildSetup;
use word::Words;

use crate::environment::environ;

/// The first argument that makes the binary the launcher.
pub const LAUNCHER_ARGUMENT: &str = "__exec";

/// The first argument that makes the binary process 1.
pub const INIT_ARGUMENT: &str = "__init";

/// The launcher was called in a way that the agent does not call it, or could not take the user on.
const FAILED: u8 = 125;
/// The program is there and could not be executed.
const NOT_EXECUTABLE: u8 = 126;
/// The program is not there.
const NOT_FOUND: u8 = 127;

/// `execve(2)` with the environment of this process, after everything that `words` ask for was set up in it: settings of a
/// [`ChildSetup`], `--`, the program and its arguments. Returns only when that fails, with 125, 126 or 127.
///
/// For processes that have one thread.
pub fn become_program(words: &[CString]) -> u8 {
    with_environment(words, launch)
}

/// Starts this binary again with `words`, from its name on, and with this process's environment, which is empty here afterwards.
/// Forwards all signals to it and reaps whoever ends, until it has ended: its exit code, or 128 and the number of the signal that
/// ended it; 71 when the operating system refused something, which was said on standard error then.
///
/// For processes that have one thread and nothing else to do. The agent begins with all signals blocked.
pub fn be_first_process(words: &[CString]) -> u8 {
    with_environment(words, first::serve)
}

fn with_environment(words: &[CString], duty: fn(Words, Words) -> u8) -> u8 {
    let pointers: Vec<*const c_char> = words.iter().map(|word| word.as_ptr()).chain([ptr::null()]).collect();
    // SAFETY: an array of strings that ends with a null pointer; it and the strings live until this returns.
    let words = unsafe { Words::new(pointers.as_ptr()) };
    // SAFETY: the C library sets it before `main`; nobody changes the environment at the same time.
    let first = unsafe { environ };
    // SAFETY: the same form, and it stays as it is.
    duty(words, unsafe { Words::new(first.cast_const().cast()) })
}

fn launch(words: Words, environment: Words) -> u8 {
    launch_in(None, words, environment)
}

fn launch_in(place: Option<child::Place>, mut words: Words, environment: Words) -> u8 {
    // Before anything is said: a child has its standard error only then.
    let entered = place.map_or(Ok(()), child::Place::enter);
    let setup = ChildSetup::read(&mut words);
    let (Some(setup), Some(program)) = (setup, words.first()) else {
        notes::Notes::new(b"").say(b"__exec is for the agent itself, which calls it in another way");
        return FAILED;
    };
    let notes = notes::Notes::new(setup.token.map_or(b"", word::Word::bytes));
    let who = if place.is_some() { apply::Who::Child } else { apply::Who::Launcher };
    if entered.is_ok() {
        if apply::apply(who, &setup, &notes).is_err() {
            return FAILED;
        }
        apply::set_nice(setup.nice, &notes);
    }
    let limited = entered.and_then(|()| apply::limit_memory(setup.memory_bytes, &notes));
    let refused = match limited {
        Ok(()) if setup.is_trial => return 0,
        Ok(()) => apply::execute(program, words, environment),
        Err(error) => error,
    };
    notes.refused(refused, b"", None);
    if refused == calls::Errno(libc::ENOENT) { NOT_FOUND } else { NOT_EXECUTABLE }
}
