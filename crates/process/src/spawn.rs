//! The one place that starts a process.
//!
//! std takes its `posix_spawn` path, which does not copy the page tables of the agent, only when nothing has to run in the
//! child before exec: no `pre_exec`, no user or groups, and a program that is a path where the environment is replaced.
//! Nothing here may break that. The child inherits the signal mask of the calling thread and the signals that are ignored,
//! except for SIGPIPE.
//!
//! A child with a policy that needs no launcher is started by [`attune_sys::start_child`], which copies nothing either.

use std::collections::BTreeMap;
use std::ffi::{CString, OsStr, OsString};
use std::fs::File;
use std::io::{self, PipeReader};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::process::CommandExt as _;
use std::path::{Component, Path, PathBuf};
use std::process::{Command as StdCommand, Stdio};
use std::sync::Once;
use std::time::Duration;

use attune_sys::{ChildStart, Disposition, Pid, SIGCHLD};

use crate::cgroup::{Cgroup, can_be_begun_in, cannot_be_begun_in};
use crate::diagnose::{diagnose, preflight, string_too_long};
use crate::family::register;
use crate::leader::Leader;
use crate::mark::Mark;
use crate::policy::Setup;
use crate::spawner::on_lasting_thread;
use crate::start_error::StartError;

pub(crate) const NULL_DEVICE: &str = "/dev/null";

/// A program that has just been written may still be open elsewhere for a moment.
const BUSY_RETRIES: u32 = 5;
const BUSY_PAUSE: Duration = Duration::from_millis(25);

/// What the kernel gets.
pub(crate) struct Request<'a> {
    pub(crate) program: &'a Path,
    pub(crate) args: &'a [OsString],
    pub(crate) cwd: Option<&'a Path>,
    pub(crate) env: &'a [(OsString, OsString)],
    pub(crate) stdout: Channel,
    pub(crate) stderr: Channel,
    /// By which its strays are known again.
    pub(crate) mark: Option<Mark>,
}

/// What an output stream is connected to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Channel {
    Null,
    Pipe,
}

impl From<Channel> for Stdio {
    fn from(channel: Channel) -> Self {
        match channel {
            Channel::Null => Self::null(),
            Channel::Pipe => Self::piped(),
        }
    }
}

/// A child that runs, and our ends of its pipes.
pub(crate) struct Spawned {
    pub(crate) leader: Leader,
    pub(crate) stdout: Option<OwnedFd>,
    pub(crate) stderr: Option<OwnedFd>,
}

/// Our ends of its pipes.
pub(crate) struct Outputs {
    stdout: Option<OwnedFd>,
    stderr: Option<OwnedFd>,
}

/// The program as a path that does not depend on the working directory of the child.
pub(crate) fn absolute(program: &Path) -> Result<PathBuf, StartError> {
    let mut parts = program.components();
    let is_bare_name = matches!((parts.next(), parts.next()), (None | Some(Component::Normal(_)), None));
    if is_bare_name {
        return Err(StartError::NotAPath { program: program.to_owned() });
    }
    std::path::absolute(program).map_err(|source| StartError::Other { program: program.to_owned(), source })
}

/// Starts a child as the leader of a new process group. The pipes are close-on-exec and blocking.
///
/// What is in `cgroup`, where a child with a `setup` is from the beginning of its program on, is killed at its end.
pub(crate) fn spawn(
    request: &Request<'_>,
    stdin: Option<PipeReader>,
    setup: Option<&Setup>,
    cgroup: Option<Cgroup>,
) -> Result<Spawned, StartError> {
    keep_exit_statuses();
    let (pid, outputs) = match setup {
        None => {
            let command = command(request.program, request.args, request, stdin);
            start_patiently(command, request.mark.as_ref()).map_err(|error| diagnose(request, error))
        }
        Some(setup) => set_up(request, stdin, setup, cgroup.as_ref()),
    }?;
    let Outputs { stdout, stderr } = outputs;
    Ok(Spawned { leader: Leader::new(pid, request.mark.clone(), cgroup), stdout, stderr })
}

/// Starts a child that sets itself up, or the launcher where it cannot. What can be known beforehand about the program is checked
/// here, so that the same errors come from the same call; the rest comes with the report.
fn set_up(
    request: &Request<'_>,
    stdin: Option<PipeReader>,
    setup: &Setup,
    cgroup: Option<&Cgroup>,
) -> Result<(Pid, Outputs), StartError> {
    preflight(request)?;
    if !setup.is_for_the_child() || cgroup.is_some() && !can_be_begun_in() {
        return launch(request, stdin, setup, cgroup);
    }
    let failed = |error| diagnose(request, error);
    // For the launcher.
    let spare = stdin.as_ref().filter(|_| cgroup.is_some()).map(PipeReader::try_clone).transpose().map_err(failed)?;
    match in_place(request, stdin, setup, cgroup)? {
        Err(error) if cgroup.is_some() && cannot_be_begun_in(&error) => launch(request, spare, setup, cgroup),
        started => started.map_err(failed),
    }
}

/// Starts the launcher, which becomes the program.
fn launch(
    request: &Request<'_>,
    stdin: Option<PipeReader>,
    setup: &Setup,
    cgroup: Option<&Cgroup>,
) -> Result<(Pid, Outputs), StartError> {
    let launcher = &setup.policy.launcher.program;
    let args = setup.arguments(request.program, request.args, cgroup.map(Cgroup::entrance).as_deref());
    let command = command(launcher, &args, request, stdin);
    // The signal of the agent's death is that of the thread that started the child.
    let started = if setup.parent.is_some() {
        let mark = request.mark.clone();
        on_lasting_thread(move || start_patiently(command, mark.as_ref()))
    } else {
        start_patiently(command, request.mark.as_ref())
    };
    started.map_err(|error| match error.kind() {
        io::ErrorKind::NotFound | io::ErrorKind::PermissionDenied => {
            StartError::Launcher { program: request.program.to_owned(), launcher: launcher.clone(), source: error }
        }
        _ => diagnose(request, error),
    })
}

/// Starts a child that sets itself up and becomes the program. What can go wrong is told in the same ways as by the launcher; the
/// inner error is that of the start itself.
fn in_place(
    request: &Request<'_>,
    stdin: Option<PipeReader>,
    setup: &Setup,
    cgroup: Option<&Cgroup>,
) -> Result<io::Result<(Pid, Outputs)>, StartError> {
    // The strings are not kept until the report, which is where the rest of what the kernel refuses is told.
    if let Some(error) = string_too_long(request) {
        return Err(error);
    }
    let order = Order::new(request, stdin, setup, cgroup).map_err(|error| diagnose(request, error))?;
    let mark = request.mark.clone();
    let start = move || register(mark.as_ref(), || order.start());
    Ok(if setup.parent.is_some() { on_lasting_thread(start) } else { start() })
}

/// Everything that a child is started with, in the forms of the kernel.
struct Order {
    words: Vec<CString>,
    environment: Vec<CString>,
    folder: Option<CString>,
    /// Those of the child.
    streams: [OwnedFd; 3],
    outputs: Outputs,
    cgroup: Option<File>,
}

impl Order {
    fn new(
        request: &Request<'_>,
        stdin: Option<PipeReader>,
        setup: &Setup,
        cgroup: Option<&Cgroup>,
    ) -> io::Result<Self> {
        let null = || File::options().read(true).write(true).open(NULL_DEVICE).map(OwnedFd::from);
        let (stdout, stdout_of_child) = output(request.stdout)?;
        let (stderr, stderr_of_child) = output(request.stderr)?;
        Ok(Self {
            words: words(request, setup)?,
            environment: environment(request)?,
            folder: request.cwd.map(|folder| string(&[folder.as_os_str()])).transpose()?,
            streams: [
                stdin.map_or_else(null, |pipe| Ok(pipe.into()))?,
                stdout_of_child.map_or_else(null, Ok)?,
                stderr_of_child.map_or_else(null, Ok)?,
            ],
            outputs: Outputs { stdout, stderr },
            cgroup: cgroup.map(Cgroup::open).transpose()?,
        })
    }

    fn start(self) -> io::Result<(Pid, Outputs)> {
        let Self { words, environment, folder, streams, outputs, cgroup } = self;
        let streams = streams.each_ref().map(AsFd::as_fd);
        let (words, environment, folder) = (&words[..], &environment[..], folder.as_deref());
        let cgroup = cgroup.as_ref().map(AsFd::as_fd);
        let pid = attune_sys::start_child(&ChildStart { words, environment, folder, streams, cgroup })?;
        Ok((pid, outputs))
    }
}

/// The command line of a child that sets itself up.
fn words(request: &Request<'_>, setup: &Setup) -> io::Result<Vec<CString>> {
    let program = ["--".as_ref(), request.program.as_os_str()];
    let rest = program.into_iter().chain(request.args.iter().map(AsRef::as_ref)).map(|word| string(&[word]));
    setup.words().into_iter().map(|word| CString::new(word).map_err(io::Error::from)).chain(rest).collect()
}

/// Sorted, and of two of one name the later one: as the standard library does it.
fn environment(request: &Request<'_>) -> io::Result<Vec<CString>> {
    let given = request.env.iter().map(|(name, value)| (name.as_os_str(), value.as_os_str()));
    let variables: BTreeMap<&OsStr, &OsStr> = given.chain(request.mark.as_ref().map(Mark::variable)).collect();
    let mut strings = Vec::with_capacity(variables.len());
    for (name, value) in variables {
        strings.push(string(&[name, "=".as_ref(), value])?);
    }
    Ok(strings)
}

/// A string of the kernel. There are many for each child, so each is written once, into memory that is large enough.
fn string(parts: &[&OsStr]) -> io::Result<CString> {
    let length: usize = parts.iter().map(|part| part.len()).sum();
    let mut bytes = Vec::with_capacity(length + 1);
    for part in parts {
        bytes.extend_from_slice(part.as_bytes());
    }
    CString::new(bytes).map_err(io::Error::from)
}

/// Our end of an output stream, and that of the child where it is a pipe.
fn output(channel: Channel) -> io::Result<(Option<OwnedFd>, Option<OwnedFd>)> {
    match channel {
        Channel::Null => Ok((None, None)),
        Channel::Pipe => io::pipe().map(|(ours, theirs)| (Some(ours.into()), Some(theirs.into()))),
    }
}

fn command(program: &Path, args: &[OsString], request: &Request<'_>, stdin: Option<PipeReader>) -> StdCommand {
    let mut command = StdCommand::new(program);
    command
        .args(args)
        .env_clear()
        .envs(request.env.iter().map(|(name, value)| (name, value)))
        .envs(request.mark.as_ref().map(Mark::variable))
        .stdin(stdin.map_or_else(Stdio::null, Stdio::from))
        .stdout(request.stdout)
        .stderr(request.stderr)
        .process_group(0);
    if let Some(cwd) = request.cwd {
        command.current_dir(cwd);
    }
    command
}

/// An ignored SIGCHLD is inherited over exec from whoever started the agent, and makes the kernel throw the exit status of
/// every child away.
fn keep_exit_statuses() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let restored = match attune_sys::is_ignored(SIGCHLD) {
            Ok(true) => attune_sys::set_disposition(SIGCHLD, Disposition::Default),
            Ok(false) => Ok(()),
            Err(error) => Err(error),
        };
        if let Err(error) = restored {
            tracing::warn!(%error, "SIGCHLD may be ignored; the exit status of children may be lost");
        }
    });
}

#[expect(clippy::disallowed_methods, reason = "the one place that starts processes")]
fn start_patiently(mut command: StdCommand, mark: Option<&Mark>) -> io::Result<(Pid, Outputs)> {
    patiently(|| register(mark, || identified(command.spawn()?)))
}

/// A child of the standard library by its number, and our ends of its pipes.
pub(crate) fn identified(mut child: std::process::Child) -> io::Result<(Pid, Outputs)> {
    let pid = Pid::new(child.id()).ok_or_else(|| io::Error::other("the kernel returned an impossible process id"))?;
    let (stdout, stderr) = (child.stdout.take().map(OwnedFd::from), child.stderr.take().map(OwnedFd::from));
    Ok((pid, Outputs { stdout, stderr }))
}

/// Tries again for a moment as long as somebody is still writing the program.
#[expect(clippy::disallowed_methods, reason = "a pause for a rare case, at most 125 ms in all")]
fn patiently<T>(mut attempt: impl FnMut() -> io::Result<T>) -> io::Result<T> {
    for _ in 0..BUSY_RETRIES {
        match attempt() {
            Err(error) if error.kind() == io::ErrorKind::ExecutableFileBusy => std::thread::sleep(BUSY_PAUSE),
            done => return done,
        }
    }
    attempt()
}
