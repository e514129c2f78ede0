//! The hidden applet `__exec`: applies a policy to itself and becomes the program.
//!
//! Runs in a process that has one thread and nothing to clean up. No runtime, no configuration; a few system calls and
//! little more memory than the arguments.
//!
//! Rights are given up after everything that needs them, and the parent-death signal comes after the change of user, which
//! would clear it.

use std::ffi::{CString, OsStr, OsString};
use std::fmt::Write as _;
use std::io::{self, Write as _};
use std::iter;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::process::parent_id;
use std::path::Path;
use std::process::ExitCode;

use attune_sys::{Disposition, Limit, Pid, Resource, SIGKILL, SignalSet};

use crate::diagnose::diagnose;
use crate::policy::{Limits, Session, Setup, User};
use crate::spawn::{Channel, Request};

/// The applet was called in a way that the agent does not call it, or could not take the user on.
const FAILED: u8 = 125;
/// The program is there and could not be executed.
const NOT_EXECUTABLE: u8 = 126;
/// The program is not there.
const NOT_FOUND: u8 = 127;

/// The largest signal number of Linux.
const LAST_SIGNAL: i32 = 64;

/// Becomes the program that `args` (all that follows the name of the applet) describe; returns only when that fails, with
/// 125, 126 or 127.
pub fn exec_main(args: impl IntoIterator<Item = OsString>) -> ExitCode {
    let mut args = args.into_iter();
    let (Some(setup), Some(program)) = (Setup::read(&mut args), args.next()) else {
        let mut notes = Notes::default();
        notes.add("__exec is for the agent itself, which calls it in another way");
        notes.write();
        return ExitCode::from(FAILED);
    };
    let mut notes = Notes { token: setup.token.clone().unwrap_or_default(), text: String::new() };
    if let Err(refused) = apply(&setup, &mut notes) {
        notes.add(&refused);
        notes.write();
        return ExitCode::from(FAILED);
    }
    notes.write();
    let args: Vec<OsString> = args.collect();
    let error = become_program(&program, &args);
    let code = if error.kind() == io::ErrorKind::NotFound { NOT_FOUND } else { NOT_EXECUTABLE };
    let request = Request {
        program: Path::new(&program),
        args: &args,
        cwd: None,
        env: &[],
        stdout: Channel::Null,
        stderr: Channel::Null,
        mark: None,
    };
    let mut notes = Notes { token: setup.token.unwrap_or_default(), text: String::new() };
    notes.add(&diagnose(&request, error).to_string());
    notes.write();
    ExitCode::from(code)
}

fn become_program(program: &OsStr, args: &[OsString]) -> io::Error {
    let words = iter::once(program).chain(args.iter().map(OsString::as_os_str));
    let words: Result<Vec<CString>, _> = words.map(|word| CString::new(word.as_bytes())).collect();
    match words {
        Ok(words) => attune_sys::exec(&words[0], &words),
        Err(zero_byte) => io::Error::from(zero_byte),
    }
}

/// What could not be set up, for the agent: lines at the very start of standard error.
#[derive(Default)]
struct Notes {
    token: String,
    text: String,
}

impl Notes {
    fn add(&mut self, text: &str) {
        writeln!(self.text, "{}{text}", self.token).expect("a String takes everything");
    }

    fn check(&mut self, what: &str, done: io::Result<()>) {
        if let Err(error) = done {
            self.add(&format!("{what} was not set: {error}"));
        }
    }

    fn write(self) {
        if let Err(error) = io::stderr().write_all(self.text.as_bytes()) {
            // Nobody can be told; what the notes are about has happened all the same.
            drop(error);
        }
    }
}

fn apply(setup: &Setup, notes: &mut Notes) -> Result<(), String> {
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
        become_user(user).map_err(|error| format!("cannot become user {}: {error}", user.uid))?;
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

fn apply_limits(limits: &Limits, notes: &mut Notes) {
    for (what, resource, wanted) in [
        ("the core limit", Resource::CoreFile, limits.core_bytes),
        ("the CPU limit", Resource::CpuTime, limits.cpu_seconds),
        ("the limit of open files", Resource::OpenFiles, limits.open_files),
        ("the limit of processes", Resource::Processes, limits.processes),
        ("the memory limit", Resource::AddressSpace, limits.memory_bytes),
    ] {
        if let Some(wanted) = wanted {
            let both = Limit { soft: wanted, hard: wanted };
            notes.check(what, attune_sys::set_limit(resource, both));
        }
    }
}

/// Groups first: afterwards the right to change them is gone.
fn become_user(user: &User) -> io::Result<()> {
    attune_sys::set_groups(&user.groups)?;
    attune_sys::set_group(user.gid)?;
    attune_sys::set_user(user.uid)
}
