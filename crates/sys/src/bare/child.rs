//! Starting a child that sets itself up without being another program in between.
//!
//! The child borrows the memory of its parent until it is the program, and the thread that starts it stands still for so long. So
//! nothing may run in it but what makes system calls and looks at what was laid out for it, which is all that the launcher does: no
//! allocation, no lock, no C library. It has signal handlers, descriptors, folder and limits of its own from the beginning.
//!
//! A change of user is not for such a child: with the user the kernel takes a property of the memory away, which is the agent's.

use std::ffi::{CStr, CString, c_char, c_int, c_void};
use std::io;
use std::os::fd::{AsRawFd as _, BorrowedFd};
use std::ptr;

use super::calls::{self, Called};
use super::launch_in;
use super::word::Words;
use crate::pid::Pid;

/// Of the child until it is the program. The launcher needs a few hundred bytes, more in a build without optimisation.
const STACK_BYTES: usize = 64 << 10;

/// What its stack has to be a multiple of.
const STACK_ALIGNMENT: usize = 16;

/// What a child is started with.
#[derive(Debug)]
pub struct ChildStart<'a> {
    /// As for [`super::become_program`].
    pub words: &'a [CString],
    /// `NAME=value`.
    pub environment: &'a [CString],
    /// Where it runs, unless where this process does.
    pub folder: Option<&'a CStr>,
    /// Its standard streams; none of the first three descriptors of this process.
    pub streams: [BorrowedFd<'a>; 3],
}

/// `clone(2)`: starts a child as the leader of a process group of its own. Returns when it is the program, or has ended because it
/// could not become that, which it says as the launcher does.
///
/// # Errors
///
/// With [`io::ErrorKind::Unsupported`] nothing was tried: the words ask for another user, or a stream is one of the first three
/// descriptors.
pub fn start_child(start: &ChildStart<'_>) -> io::Result<Pid> {
    let pointers = |words: &[CString]| -> Vec<*const c_char> {
        words.iter().map(|word| word.as_ptr()).chain([ptr::null()]).collect()
    };
    let (words, environment) = (pointers(start.words), pointers(start.environment));
    let asks_for_a_user = start.words.iter().take_while(|word| word.as_bytes() != b"--");
    if asks_for_a_user.into_iter().any(|word| word.as_bytes().starts_with(b"uid=")) {
        return Err(io::ErrorKind::Unsupported.into());
    }
    let mut order = Order {
        // SAFETY: arrays of strings that end with a null pointer. They live and stay as they are until this function returns,
        // and before that the child is another program or gone.
        words: unsafe { Words::new(words.as_ptr()) },
        // SAFETY: the same.
        environment: unsafe { Words::new(environment.as_ptr()) },
        place: Place {
            folder: start.folder.map_or(ptr::null(), CStr::as_ptr),
            streams: start.streams.map(|stream| usize::try_from(stream.as_raw_fd()).unwrap_or(0)),
        },
    };
    if order.place.streams.iter().any(|stream| *stream < order.place.streams.len()) {
        return Err(io::ErrorKind::Unsupported.into());
    }
    let mut stack: Vec<u8> = Vec::with_capacity(STACK_BYTES);
    let top = stack.as_mut_ptr().wrapping_add(STACK_BYTES);
    let top = top.wrapping_sub(top.addr() % STACK_ALIGNMENT);
    let flags = libc::CLONE_VM | libc::CLONE_VFORK | libc::SIGCHLD;
    // A handler of this process must not run in the child, which puts an end to them before it lets signals in.
    let mask = calls::exchange_mask(u64::MAX);
    // SAFETY: `top` is the aligned end of memory that nobody else uses, and grows down; the order lives until the child, for whose
    // time in this memory this thread stands still, does not need it any more.
    let started = unsafe { libc::clone(run, top.cast(), flags, (&raw mut order).cast()) };
    let error = io::Error::last_os_error();
    if let Ok(mask) = mask {
        calls::exchange_mask(mask).map(drop).unwrap_or_default();
    }
    drop(stack);
    if started == -1 {
        return Err(error);
    }
    let pid = u32::try_from(started).ok().and_then(Pid::new);
    pid.ok_or_else(|| io::Error::other("the kernel returned an impossible process id"))
}

/// What the child is to do.
struct Order {
    words: Words,
    environment: Words,
    place: Place,
}

/// Where a child is before it sets itself up.
#[derive(Clone, Copy)]
pub(super) struct Place {
    /// Null for that of the agent.
    folder: *const c_char,
    streams: [usize; 3],
}

impl Place {
    /// Standard error first: what is wrong with the rest is said there.
    pub(super) fn enter(self) -> Called {
        let [input, output, error] = self.streams;
        calls::duplicate(error, 2)?;
        calls::duplicate(output, 1)?;
        calls::duplicate(input, 0)?;
        calls::lead_a_group()?;
        if self.folder.is_null() { Ok(()) } else { calls::enter(self.folder) }
    }
}

/// The child. What it returns is its exit code, with which the C library's few instructions around this end it.
extern "C" fn run(order: *mut c_void) -> c_int {
    // SAFETY: whoever starts the child hands over an order, and stands still meanwhile.
    let order = unsafe { &*order.cast::<Order>() };
    launch_in(Some(order.place), order.words, order.environment).into()
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::io::Read as _;
    use std::os::fd::AsFd as _;
    use std::os::unix::process::ExitStatusExt as _;

    use super::*;

    fn strings(words: &[&str]) -> Vec<CString> {
        words.iter().map(|word| CString::new(*word).unwrap()).collect()
    }

    /// What it wrote, to both, and its exit code.
    fn ended(words: &[&str], folder: Option<&CStr>) -> (String, Option<i32>) {
        let (mut ours, theirs) = io::pipe().unwrap();
        let null = File::open("/dev/null").unwrap();
        let (words, environment) = (strings(words), strings(&["ONLY=this"]));
        let streams = [null.as_fd(), theirs.as_fd(), theirs.as_fd()];
        let pid = start_child(&ChildStart { words: &words, environment: &environment, folder, streams }).unwrap();
        drop(theirs);
        let mut text = String::new();
        ours.read_to_string(&mut text).unwrap();
        loop {
            if let Some(reaped) = crate::wait::reap(pid).unwrap() {
                return (text, reaped.status.code().or(reaped.status.signal()));
            }
            std::thread::yield_now();
        }
    }

    #[test]
    fn it_is_the_program_with_its_streams_its_folder_its_group_and_nothing_else() {
        let script = "echo $ONLY $PWD $0 $1; read -r a b c d group rest < /proc/self/stat; echo $((group - $$)) >&2; umask; exit 7";
        let words = ["umask=23", "--", "/bin/sh", "-c", script, "zero", "one"];
        let (text, code) = ended(&words, Some(c"/usr"));
        assert_eq!((&*text, code), ("this /usr zero one\n0\n0027\n", Some(7)));
    }

    #[test]
    fn what_is_refused_is_said_on_standard_error_and_by_the_exit_code() {
        let cases = [
            (&["notes=# ", "--", "/no/such/program"][..], None, "# not started: 2 \n", 127),
            (&["notes=# ", "--", "/etc/passwd"], None, "# not started: 13 \n", 126),
            (&["notes=# ", "--", "/bin/true"], Some(c"/no/such/folder"), "# not started: 2 \n", 127),
            (&["trial=1", "--", "/no/such/program"], None, "", 0),
        ];
        for (words, folder, said, code) in cases {
            assert_eq!(ended(words, folder), (said.to_owned(), Some(code)), "{words:?}");
        }
    }

    #[test]
    fn another_user_and_the_streams_of_this_process_are_not_for_it() {
        let null = File::open("/dev/null").unwrap();
        let standard = io::stdin();
        for (words, input) in
            [(["uid=7", "--", "/bin/true"], null.as_fd()), (["umask=7", "--", "/bin/true"], standard.as_fd())]
        {
            let words = strings(&words);
            let streams = [input, null.as_fd(), null.as_fd()];
            let error =
                start_child(&ChildStart { words: &words, environment: &[], folder: None, streams }).unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::Unsupported);
        }
    }
}
