//! The hidden applet `__exec`: applies a policy to itself and becomes the program.
//!
//! Runs in a process that has one thread and nothing to clean up. No runtime, no configuration; a few system calls and
//! little more memory than the arguments.
//!
//! Rights are given up after everything that needs them, and the parent-death signal comes after the change of user, which
//! would clear it. What goes wrong is told in lines at the very start of standard error; whoever started the child makes an
//! error of them that names the program.

use std::convert::Infallible;
use std::ffi::{CStr, CString, OsString};
use std::fmt::Write as _;
use std::io::{self, Write as _};
use std::os::unix::ffi::OsStringExt as _;
use std::os::unix::process::parent_id;
use std::process::ExitCode;

use attune_sys::{Disposition, Limit, Pid, Resource, SIGKILL, SignalSet};

use crate::notes::refusal;
use crate::policy::{Limits, Session, Setup, User};
use crate::spawn::patiently;

/// The applet was called in a way that the agent does not call it, or could not take the user on.
const FAILED: u8 = 125;
/// The program is there and could not be executed.
const NOT_EXECUTABLE: u8 = 126;
/// The program is not there.
const NOT_FOUND: u8 = 127;

/// With less no program starts: the kernel makes its stack half of that. It would end the process instead of refusing.
const LEAST_MEMORY_BYTES: u64 = 256 << 10;

const ENOMEM: i32 = 12;

/// Room for what is usually said, made before memory may be limited.
const NOTES_BYTES: usize = 1024;

/// The largest signal number of Linux.
const LAST_SIGNAL: i32 = 64;

/// Becomes the program that `args` (all that follows the name of the applet) describe; returns only when that fails, with
/// 125, 126 or 127.
pub fn exec_main(args: impl IntoIterator<Item = OsString>) -> ExitCode {
    let mut args = args.into_iter();
    let mut notes = Notes::default();
    let setup = Setup::read(&mut args);
    let words: Vec<CString> = args.map_while(|word| CString::new(word.into_vec()).ok()).collect();
    let (Some(setup), Some(program)) = (setup, words.first()) else {
        notes.add("__exec is for the agent itself, which calls it in another way");
        notes.write();
        return ExitCode::from(FAILED);
    };
    notes.token = setup.token.as_deref().unwrap_or_default();
    notes.text.reserve(NOTES_BYTES);
    if let Err(refused) = apply(&setup, &mut notes) {
        notes.add(&refused);
        notes.write();
        return ExitCode::from(FAILED);
    }
    notes.write();
    let error = become_program(program, &words, setup.policy.limits.memory_bytes, &mut notes);
    let code = if error.kind() == io::ErrorKind::NotFound { NOT_FOUND } else { NOT_EXECUTABLE };
    notes.add(&refusal(&error, ""));
    notes.write();
    ExitCode::from(code)
}

/// Comes back with the reason when the kernel refuses; later where somebody is still writing the program.
fn become_program(program: &CStr, words: &[CString], memory_bytes: Option<u64>, notes: &mut Notes<'_>) -> io::Error {
    if memory_bytes.is_some_and(|bytes| bytes < LEAST_MEMORY_BYTES) {
        return io::Error::from_raw_os_error(ENOMEM);
    }
    let attempt = || Err::<Infallible, _>(attune_sys::exec(program, words, || limit_memory(memory_bytes, notes)));
    let Err(refused) = patiently(attempt);
    refused
}

/// The last step: with a low limit nothing here could have memory any more, not even stack.
fn limit_memory(bytes: Option<u64>, notes: &mut Notes<'_>) {
    if let Some(bytes) = bytes {
        notes.check("the memory limit", set_limit(Resource::AddressSpace, bytes));
        notes.write();
    }
}

fn set_limit(resource: Resource, wanted: u64) -> io::Result<()> {
    attune_sys::set_limit(resource, Limit { soft: wanted, hard: wanted })
}

/// What could not be set up, for the agent: lines at the very start of standard error.
#[derive(Default)]
struct Notes<'a> {
    token: &'a str,
    text: String,
}

impl Notes<'_> {
    fn add(&mut self, text: &str) {
        writeln!(self.text, "{}{text}", self.token).expect("a String takes everything");
    }

    fn check(&mut self, what: &str, done: io::Result<()>) {
        if let Err(error) = done {
            self.add(&format!("{what} was not set: {error}"));
        }
    }

    fn write(&mut self) {
        if self.text.is_empty() {
            return;
        }
        if let Err(error) = io::stderr().write_all(self.text.as_bytes()) {
            // Nobody can be told; what the notes are about has happened all the same.
            drop(error);
        }
        self.text.clear();
    }
}

fn apply(setup: &Setup, notes: &mut Notes<'_>) -> Result<(), String> {
    let policy = &setup.policy;
    // First, so that nothing that follows happens outside of it.
    if let Some(entrance) = &setup.cgroup {
        notes.check("the control group", std::fs::write(entrance, "0"));
    }
    if policy.session == Session::New {
        notes.check("a new session", new_session());
    }
    if let Some(score) = policy.oom_score_adj {
        let done = std::fs::write("/proc/self/oom_score_adj", score.to_string());
        notes.check("the OOM score", done);
    }
    if let Some(nice) = policy.nice {
        notes.check("the nice value", attune_sys::set_nice(nice));
    }
    if let Some(mask) = policy.umask {
        attune_sys::set_umask(mask);
    }
    apply_limits(&policy.limits, notes);
    if let Some(user) = &policy.user {
        become_user(user).map_err(|error| refusal(&error, &format!("become user {}", user.uid)))?;
    }
    if policy.no_new_privileges {
        notes.check("no_new_privs", attune_sys::set_no_new_privileges());
    }
    for signal in 1..=LAST_SIGNAL {
        // Refused for KILL, STOP and the numbers that the C library keeps to itself, which are not ignored either.
        attune_sys::set_disposition(signal, Disposition::Default).unwrap_or_default();
    }
    notes.check("the signal mask", SignalSet::empty().and_then(SignalSet::block_only));
    notes.check("closing descriptors", attune_sys::close_others_on_exec());
    if let Some(parent) = setup.parent {
        notes.check("the parent-death signal", attune_sys::set_parent_death_signal(SIGKILL));
        // It may have died before; then the signal never comes.
        if parent_id() != parent {
            return Err(format!("the agent (process {parent}) is gone"));
        }
    }
    Ok(())
}

/// The leader of a group cannot start a session, and the agent has made this process one: it goes back to the agent's group
/// for a moment. Where that fails it stays in its own group.
fn new_session() -> io::Result<()> {
    let parent = Pid::new(parent_id()).ok_or_else(|| io::Error::from(io::ErrorKind::NotFound))?;
    attune_sys::join_group(attune_sys::group_of(parent)?)?;
    attune_sys::setsid()
}

/// All but that of memory.
fn apply_limits(limits: &Limits, notes: &mut Notes<'_>) {
    for (what, resource, wanted) in [
        ("the core limit", Resource::CoreFile, limits.core_bytes),
        ("the CPU limit", Resource::CpuTime, limits.cpu_seconds),
        ("the limit of open files", Resource::OpenFiles, limits.open_files),
        ("the limit of processes", Resource::Processes, limits.processes),
    ] {
        if let Some(wanted) = wanted {
            notes.check(what, set_limit(resource, wanted));
        }
    }
}

/// Groups first: afterwards the right to change them is gone.
fn become_user(user: &User) -> io::Result<()> {
    attune_sys::set_groups(&user.groups)?;
    attune_sys::set_group(user.gid)?;
    attune_sys::set_user(user.uid)
}
