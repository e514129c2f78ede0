//! A child that begins in a control group.
#![expect(unsafe_code, reason = "leases, filters and handlers")]
#![expect(clippy::unwrap_used, reason = "tests")]

use std::ffi::{CStr, CString, c_int};
use std::fs::{self, File};
use std::io::{self, PipeReader, Read as _};
use std::os::fd::{AsFd as _, AsRawFd as _};
use std::os::unix::process::ExitStatusExt as _;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use attune_sys::{ChildStart, Disposition, Pid, kill, reap, set_disposition, start_child};
use attune_testkit::eventually_blocking;

/// A control group in that of this process. Removed when dropped, which waits for whoever is in it.
struct Group {
    folder: PathBuf,
    file: File,
}

impl Group {
    /// None where the machine lacks them.
    fn new() -> Option<Self> {
        let read = |path| fs::read_to_string(path).unwrap();
        let (mounts, groups) = (read("/proc/self/mounts"), read("/proc/self/cgroup"));
        let point = mounts.lines().map(|line| line.split(' ').collect::<Vec<_>>()).find(|mount| mount[2] == "cgroup2");
        let own = groups.lines().find_map(|line| line.strip_prefix("0::/"));
        let home = point.zip(own).map(|(point, own)| Path::new(point[1]).join(own));
        let folder = home.map(|home| home.join(format!("attune-test-{}", std::process::id())));
        let made = folder.filter(|folder| fs::create_dir(folder).is_ok());
        if made.is_none() {
            let remedy = "run as root with version 2 of the hierarchy mounted writable";
            attune_testkit::lacking("control-groups", remedy);
        }
        let folder = made?;
        let file = File::open(&folder).unwrap();
        Some(Self { folder, file })
    }

    fn members(&self) -> String {
        fs::read_to_string(self.folder.join("cgroup.procs")).unwrap()
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        eventually_blocking("an empty group", || fs::remove_dir(&self.folder).ok());
    }
}

/// A child, and what it writes, to both.
fn started(words: &[&str], folder: Option<&CStr>, group: Option<&File>) -> io::Result<(Pid, PipeReader)> {
    let (ours, theirs) = io::pipe().unwrap();
    let null = File::open("/dev/null").unwrap();
    let words: Vec<CString> = words.iter().map(|word| CString::new(*word).unwrap()).collect();
    let environment = [c"ONLY=this".to_owned()];
    let streams = [null.as_fd(), theirs.as_fd(), theirs.as_fd()];
    let cgroup = group.map(File::as_fd);
    let start = ChildStart { words: &words, environment: &environment, folder, streams, cgroup };
    start_child(&start).map(|pid| (pid, ours))
}

/// What it wrote, and its exit code or the signal that ended it.
fn end_of((pid, mut ours): (Pid, PipeReader)) -> (String, Option<i32>) {
    let mut text = String::new();
    ours.read_to_string(&mut text).unwrap();
    loop {
        if let Some(reaped) = reap(pid).unwrap() {
            return (text, reaped.status.code().or(reaped.status.signal()));
        }
        thread::yield_now();
    }
}

/// A child that waits for its program: opening it, as exec does, waits for the lease of this process.
struct Waiting {
    _folder: tempfile::TempDir,
    lease: File,
    starter: thread::JoinHandle<(Pid, PipeReader)>,
    member: Pid,
}

impl Waiting {
    fn in_group(group: &Group) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let program = folder.path().join("program");
        fs::copy("/bin/true", &program).unwrap();
        let lease = File::open(&program).unwrap();
        // The kernel tells of whoever waits by a signal that ends this process.
        set_disposition(libc::SIGIO, Disposition::Ignore).unwrap();
        // SAFETY: F_SETLEASE takes a descriptor, which is open, and a number.
        let leased = unsafe { libc::fcntl(lease.as_raw_fd(), libc::F_SETLEASE, libc::F_WRLCK) };
        assert_eq!(leased, 0, "{}", io::Error::last_os_error());
        let (file, path) = (group.file.try_clone().unwrap(), program.to_str().unwrap().to_owned());
        let starter = thread::spawn(move || started(&["--", &path], None, Some(&file)).unwrap());
        let member = eventually_blocking("a member", || Pid::new(group.members().trim().parse().ok()?));
        Self { _folder: folder, lease, starter, member }
    }

    fn end(self) -> (String, Option<i32>) {
        drop(self.lease);
        let child = self.starter.join().unwrap();
        assert_eq!(child.0, self.member);
        end_of(child)
    }
}

#[test]
fn a_child_is_its_program_there_or_says_why_not() {
    let Some(group) = Group::new() else { return };
    let name = group.folder.file_name().unwrap().to_str().unwrap().to_owned();
    let script = "while read -r line; do case $line in 0::*) echo ${line##*/};; esac; done < /proc/self/cgroup
        read -r a b c d group rest < /proc/self/stat; echo $ONLY $PWD $((group - $$)) >&2; umask; exit 7";
    let words = ["umask=23", "--", "/bin/sh", "-c", script];
    let (text, code) = end_of(started(&words, Some(c"/usr"), Some(&group.file)).unwrap());
    assert_eq!((text, code), (format!("{name}\nthis /usr 0\n0027\n"), Some(7)));
    for (words, said, code) in [
        (&["notes=# ", "--", "/no/such/program"][..], "# not started: 2 \n", 127),
        (&["notes=# ", "--", "/etc/passwd"], "# not started: 13 \n", 126),
        (&["unknown=1"], "__exec is for the agent itself, which calls it in another way\n", 125),
        (&["--", "/bin/sh", "-c", "kill -9 $$"], "", 9),
    ] {
        let end = end_of(started(words, None, Some(&group.file)).unwrap());
        assert_eq!(end, (said.to_owned(), Some(code)), "{words:?}");
    }
}

#[test]
fn a_child_is_there_before_it_is_its_program() {
    let Some(group) = Group::new() else { return };
    let waiting = Waiting::in_group(&group);
    let program = fs::read_link(format!("/proc/{}/exe", waiting.member)).unwrap();
    assert_eq!(program, std::env::current_exe().unwrap());
    assert_eq!(waiting.end(), (String::new(), Some(0)));
}

#[test]
fn a_signal_for_a_child_that_is_not_its_program_yet_runs_no_handler_of_its_parent() {
    static HANDLED: AtomicUsize = AtomicUsize::new(0);
    extern "C" fn handle(_signal: c_int) {
        HANDLED.fetch_add(1, Ordering::SeqCst);
    }
    let Some(group) = Group::new() else { return };
    let handler: extern "C" fn(c_int) = handle;
    // SAFETY: the handler does nothing but count.
    let before = unsafe { libc::signal(libc::SIGUSR1, handler as libc::sighandler_t) };
    assert_ne!(before, libc::SIG_ERR);
    let waiting = Waiting::in_group(&group);
    kill(waiting.member, libc::SIGUSR1).unwrap();
    let (_, end) = waiting.end();
    assert_eq!((end, HANDLED.load(Ordering::SeqCst)), (Some(libc::SIGUSR1), 0));
}

/// As in containers that do not know the call, or forbid it.
#[test]
fn a_group_that_is_refused_is_an_error_and_no_child() {
    let Some(group) = Group::new() else { return };
    let none = File::open("/usr").unwrap();
    let refused = |group: &File| started(&["--", "/bin/true"], None, Some(group)).unwrap_err().raw_os_error();
    assert_eq!(refused(&none), Some(libc::EBADF));
    for error in [libc::ENOSYS, libc::EPERM] {
        let file = group.file.try_clone().unwrap();
        let threads_own = move || {
            refuse_clone3(error);
            let refused = started(&["--", "/bin/true"], None, Some(&file)).unwrap_err().raw_os_error();
            (refused, end_of(started(&["--", "/bin/sh", "-c", "exit 3"], None, None).unwrap()).1)
        };
        assert_eq!(thread::spawn(threads_own).join().unwrap(), (Some(error), Some(3)));
    }
    assert_eq!(group.members(), "");
}

/// To the calling thread and its children.
fn refuse_clone3(error: c_int) {
    let instruction =
        |code: u32, yes, no, k| libc::sock_filter { code: u16::try_from(code).unwrap(), jt: yes, jf: no, k };
    let number = u32::try_from(libc::SYS_clone3).unwrap();
    let refusal = libc::SECCOMP_RET_ERRNO | u32::try_from(error).unwrap();
    let mut filter = [
        instruction(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, 0, 0, 0),
        instruction(libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K, 0, 1, number),
        instruction(libc::BPF_RET | libc::BPF_K, 0, 0, refusal),
        instruction(libc::BPF_RET | libc::BPF_K, 0, 0, libc::SECCOMP_RET_ALLOW),
    ];
    let program = libc::sock_fprog { len: 4, filter: filter.as_mut_ptr() };
    // SAFETY: numbers.
    assert_eq!(unsafe { libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) }, 0);
    // SAFETY: the kernel reads a filter of the length that it is told.
    let set = unsafe { libc::prctl(libc::PR_SET_SECCOMP, libc::SECCOMP_MODE_FILTER, &raw const program) };
    assert_eq!(set, 0, "{}", io::Error::last_os_error());
}
