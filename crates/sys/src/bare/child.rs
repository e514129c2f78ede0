//! Starting a child that sets itself up without being another program in between.
//!
//! The child borrows the memory of its parent until it is the program, and the thread that starts it stands still for so long. So
//! nothing may run in it but what makes system calls and looks at what was laid out for it, which is all that the launcher does: no
//! allocation, no lock, no C library. It has signal handlers, descriptors, folder and limits of its own from the beginning.
//!
//! A change of user is not for such a child: with the user the kernel takes a property of the memory away, which is the agent's. It
//! does not enter a control group either, for which it and its parent may have to wait long, but it can begin in one (`clone.rs`).

use std::ffi::{CStr, CString, c_char, c_int, c_void};
use std::io;
use std::os::fd::{AsRawFd as _, BorrowedFd};
use std::ptr;

use super::calls::{self, Called, Errno};
use super::word::Words;
use super::{clone, launch_in};
use crate::pid::Pid;

/// Of the child until it is the program: a test looks at how much that needs. The more, the sooner there is not so much in one piece.
const STACK_BYTES: usize = 16 << 10;

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
    /// The folder of the control group that it begins in, unless where this process is.
    pub cgroup: Option<BorrowedFd<'a>>,
}

/// `clone(2)`, or `clone3(2)` into a control group: starts a child as the leader of a process group of its own. Returns when it is
/// the program, or has ended because it could not become that, which it says as the launcher does.
///
/// # Errors
///
/// With [`io::ErrorKind::Unsupported`] nothing was tried: the words ask for another user, or a stream is one of the first three
/// descriptors. A control group is also refused with that, or with `EINVAL` or `E2BIG`, by kernels before 5.7, and with `EPERM`
/// by sandboxes.
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
    let mut stack: Vec<u8> = Vec::new();
    // An agent that has no memory left for a child goes on without it.
    stack.try_reserve_exact(STACK_BYTES).map_err(|_| io::Error::from_raw_os_error(libc::ENOMEM))?;
    #[cfg(test)]
    tests::paint(&mut stack);
    let top = stack.as_mut_ptr().wrapping_add(STACK_BYTES);
    let top = top.wrapping_sub(top.addr() % STACK_ALIGNMENT);
    let (first, order) = (stack.as_mut_ptr(), (&raw mut order).cast());
    // A handler of this process must not run in the child, which puts an end to them before it lets signals in.
    let mask = calls::exchange_mask(u64::MAX);
    let started = match start.cgroup {
        // SAFETY: `top` is the aligned end of memory that nobody else uses, and grows down; the order lives until the child, for
        // whose time in this memory this thread stands still, does not need it any more.
        None => unsafe { begin(top, order) },
        // SAFETY: the same.
        Some(cgroup) => unsafe { clone::start(first..top, (run, order), cgroup) },
    };
    if let Ok(mask) = mask {
        calls::exchange_mask(mask).map(drop).unwrap_or_default();
    }
    #[cfg(test)]
    tests::look_at(&stack);
    drop(stack);
    let pid = started.map_err(|Errno(number)| io::Error::from_raw_os_error(number))?;
    let pid = u32::try_from(pid).ok().and_then(Pid::new);
    pid.ok_or_else(|| io::Error::other("the kernel returned an impossible process id"))
}

/// [`clone::start`] without a control group.
unsafe fn begin(top: *mut u8, order: *mut c_void) -> Result<usize, Errno> {
    let flags = libc::CLONE_VM | libc::CLONE_VFORK | libc::SIGCHLD;
    // SAFETY: the same as for the caller.
    let started = unsafe { libc::clone(run, top.cast(), flags, order) };
    let error = || Errno(io::Error::last_os_error().raw_os_error().unwrap_or(libc::EINVAL));
    usize::try_from(started).map_err(|_| error())
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
    use std::cell::Cell;
    use std::fs::File;
    use std::io::{PipeReader, Read as _};
    use std::os::fd::AsFd as _;
    use std::os::unix::process::ExitStatusExt as _;
    use std::time::Duration;

    use super::*;
    use crate::poll::{Polled, poll};

    /// What no part of the stack looks like that was used.
    const UNUSED: u8 = 0xa5;

    thread_local! {
        /// Of the stack of the last child that this thread has started.
        static USED_BYTES: Cell<usize> = const { Cell::new(0) };
    }

    pub(super) fn paint(stack: &mut Vec<u8>) {
        stack.resize(STACK_BYTES, UNUSED);
    }

    pub(super) fn look_at(stack: &[u8]) {
        USED_BYTES.set(stack.len() - stack.iter().take_while(|byte| **byte == UNUSED).count());
    }

    fn strings(words: &[&str]) -> Vec<CString> {
        words.iter().map(|word| CString::new(*word).unwrap()).collect()
    }

    /// A child, and what it writes, to both.
    fn started(words: &[&str], folder: Option<&CStr>) -> (Pid, PipeReader) {
        let (ours, theirs) = io::pipe().unwrap();
        let null = File::open("/dev/null").unwrap();
        let (words, environment) = (strings(words), strings(&["ONLY=this"]));
        let streams = [null.as_fd(), theirs.as_fd(), theirs.as_fd()];
        let pid = start_child(&ChildStart { words: &words, environment: &environment, folder, streams, cgroup: None })
            .unwrap();
        (pid, ours)
    }

    /// What it wrote, and its exit code.
    fn ended(words: &[&str], folder: Option<&CStr>) -> (String, Option<i32>) {
        let (pid, mut ours) = started(words, folder);
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
                start_child(&ChildStart { words: &words, environment: &[], folder: None, streams, cgroup: None })
                    .unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::Unsupported);
        }
    }

    #[test]
    fn its_stack_is_several_times_what_it_needs() {
        // As much as there can be: all parts, of which some are refused and noted, descriptors one by one, and no program.
        let words = [
            "notes=0123456789",
            "cgroup=/no/such/group",
            "session=1",
            "memory=1000000000",
            "cpu=100",
            "files=90",
            "processes=10000",
            "core=0",
            "umask=18",
            "nice=100",
            "oom=x",
            "no-new-privileges=1",
            "parent=1",
            "--",
            "/no",
        ];
        for words in [&words[..], &words[..10], &["--", "/no"], &["unknown=1"]] {
            let mut words = words.to_vec();
            words.retain(|word| *word != "oom=x");
            ended(&words, Some(c"/usr"));
            let used = USED_BYTES.get();
            assert!(used > 100 && used * 3 < STACK_BYTES, "{used} of {STACK_BYTES}");
        }
    }

    /// Opening a file under a lease, as exec does, waits for the lease.
    #[test]
    fn while_it_waits_for_its_program_it_holds_nobody_elses_descriptors() {
        let folder = tempfile::tempdir().unwrap();
        let program = folder.path().join("program");
        std::fs::copy("/bin/true", &program).unwrap();
        let lease = File::open(&program).unwrap();
        // The kernel tells of whoever waits by a signal that ends this process.
        crate::signal::set_disposition(libc::SIGIO, crate::signal::Disposition::Ignore).unwrap();
        // SAFETY: F_SETLEASE takes a descriptor, which is open, and a number.
        let leased = unsafe { libc::fcntl(lease.as_raw_fd(), libc::F_SETLEASE, libc::F_WRLCK) };
        assert_eq!(leased, 0, "{}", io::Error::last_os_error());
        let (mut ours, theirs) = io::pipe().unwrap();
        let (mut entered, enters) = io::pipe().unwrap();
        let path = program.to_str().unwrap().to_owned();
        let starter = std::thread::spawn(move || {
            let null = File::open("/dev/null").unwrap();
            let words = strings(&["notes=n", "cgroup=/no/such/group", "--", &path]);
            let streams = [null.as_fd(), null.as_fd(), enters.as_fd()];
            let start = ChildStart { words: &words, environment: &[], folder: None, streams, cgroup: None };
            start_child(&start).unwrap()
        });
        // The last but one step was done: it has copies of all descriptors, or has closed them.
        let mut said = [0; 1];
        entered.read_exact(&mut said).unwrap();
        drop(theirs);
        // The kernel takes the lease away after 45 s.
        let mut polled = [Polled::readable(Some(ours.as_fd()))];
        assert_eq!(poll(&mut polled, Duration::from_secs(20)).unwrap(), 1);
        assert_eq!(ours.read(&mut [0; 1]).unwrap(), 0);
        drop(lease);
        let pid = starter.join().unwrap();
        while crate::wait::reap(pid).unwrap().is_none() {
            std::thread::yield_now();
        }
    }

    /// Of the calling thread and its children. As with a kernel before 5.9.
    fn forget_close_range() {
        let instruction =
            |code: u32, yes, no, k| libc::sock_filter { code: u16::try_from(code).unwrap(), jt: yes, jf: no, k };
        let number = u32::try_from(libc::SYS_close_range).unwrap();
        let missing = libc::SECCOMP_RET_ERRNO | u32::try_from(libc::ENOSYS).unwrap();
        let mut filter = [
            instruction(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, 0, 0, 0),
            instruction(libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K, 0, 1, number),
            instruction(libc::BPF_RET | libc::BPF_K, 0, 0, missing),
            instruction(libc::BPF_RET | libc::BPF_K, 0, 0, libc::SECCOMP_RET_ALLOW),
        ];
        let program = libc::sock_fprog { len: 4, filter: filter.as_mut_ptr() };
        // SAFETY: numbers.
        assert_eq!(unsafe { libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) }, 0);
        // SAFETY: the kernel reads a filter of the length that it is told.
        let set = unsafe { libc::prctl(libc::PR_SET_SECCOMP, libc::SECCOMP_MODE_FILTER, &raw const program) };
        assert_eq!(set, 0, "{}", io::Error::last_os_error());
    }

    #[test]
    fn without_close_range_a_low_limit_of_open_files_does_not_keep_descriptors_open() {
        forget_close_range();
        let files: Vec<File> = (0..100).map(|_| File::open("/dev/null").unwrap()).collect();
        let inherited = files.last().unwrap().as_raw_fd();
        // SAFETY: F_SETFD takes a descriptor, which is open, and a number.
        assert_eq!(unsafe { libc::fcntl(inherited, libc::F_SETFD, 0) }, 0);
        let script = format!("test -e /proc/self/fd/{inherited} || echo closed");
        let words = ["notes=# ", "files=20", "--", "/bin/sh", "-c", &script];
        assert_eq!(ended(&words, None), ("closed\n".to_owned(), Some(0)));
    }

    #[test]
    fn it_leads_a_session_also_where_the_group_of_its_parent_is_not_to_be_seen() {
        // SAFETY: a number. The next children of this thread are in a namespace of their own, which takes root.
        if unsafe { libc::unshare(libc::CLONE_NEWPID) } != 0 {
            assert_eq!(io::Error::last_os_error().kind(), io::ErrorKind::PermissionDenied);
            return;
        }
        // The numbers are those of the namespace that is mounted there.
        let script = "read -r pid name state parent group session rest < /proc/self/stat; echo $((pid - group)) $((pid - session))";
        let words = ["notes=# ", "session=1", "--", "/bin/sh", "-c", script];
        assert_eq!(ended(&words, None), ("0 0\n".to_owned(), Some(0)));
    }
}
