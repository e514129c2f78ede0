//! The one place that starts a process.
//!
//! std takes its `posix_spawn` path, which does not copy the page tables of the agent, only when nothing has to run in the
//! child before exec: no `pre_exec`, no user or groups, and a program that is a path where the environment is replaced.
//! Nothing here may break that. The child inherits the signal mask of the calling thread and the signals that are ignored,
//! except for SIGPIPE.

use std::ffi::OsString;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::process::CommandExt as _;
use std::path::{Component, Path, PathBuf};
use std::process::{Command as StdCommand, Stdio};
use std::sync::Once;
use std::time::Duration;

use attune_sys::{Disposition, Pid, SIGCHLD};

use crate::cgroup::Cgroup;
use crate::diagnose::{diagnose, preflight};
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
/// What is in `cgroup` at its end is killed; the child itself enters it, by its `setup`.
pub(crate) fn spawn(
    request: &Request<'_>,
    stdin: Stdio,
    setup: Option<&Setup>,
    cgroup: Option<Cgroup>,
) -> Result<Spawned, StartError> {
    keep_exit_statuses();
    let started = match setup {
        None => {
            let command = command(request.program, request.args, request, stdin);
            start_patiently(command, request.mark.as_ref()).map_err(|error| diagnose(request, error))
        }
        Some(setup) => launch(request, stdin, setup),
    };
    let mut child = started?;
    let Some(pid) = Pid::new(child.id()) else {
        return Err(StartError::Other {
            program: request.program.to_owned(),
            source: io::Error::other("the kernel returned an impossible process id"),
        });
    };
    Ok(Spawned {
        leader: Leader::new(pid, request.mark.clone(), cgroup),
        stdout: child.stdout.take().map(OwnedFd::from),
        stderr: child.stderr.take().map(OwnedFd::from),
    })
}

/// Starts the launcher, which becomes the program. What can be known beforehand about the program is checked here, so that
/// the same errors come from the same call; the rest comes with the report.
fn launch(request: &Request<'_>, stdin: Stdio, setup: &Setup) -> Result<std::process::Child, StartError> {
    preflight(request)?;
    let launcher = &setup.policy.launcher.program;
    let args = setup.arguments(request.program, request.args);
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

fn command(program: &Path, args: &[OsString], request: &Request<'_>, stdin: Stdio) -> StdCommand {
    let mut command = StdCommand::new(program);
    command
        .args(args)
        .env_clear()
        .envs(request.env.iter().map(|(name, value)| (name, value)))
        .envs(request.mark.as_ref().map(Mark::variable))
        .stdin(stdin)
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
fn start_patiently(mut command: StdCommand, mark: Option<&Mark>) -> io::Result<std::process::Child> {
    patiently(|| register(mark, || command.spawn()))
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
