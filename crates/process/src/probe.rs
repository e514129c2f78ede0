//! Short questions to a program (`python3 --version`), answered without an async runtime.

use std::ffi::OsString;
use std::fs::File;
use std::io::{self, Read as _};
use std::os::fd::{AsFd as _, OwnedFd};
use std::path::Path;
use std::time::{Duration, Instant};

use attune_sys::{Polled, SIGKILL};

use crate::capture::Capture;
use crate::command::{Keep, Strays, Stream};
use crate::family::{adopts, end_strays_of_blocking};
use crate::leader::{Leader, is_refused, wait_for_exit};
use crate::mark::Mark;
use crate::spawn::{Channel, Request, absolute, spawn};
use crate::start_error::StartError;

/// Of each stream; a version line needs a fraction of it.
const OUTPUT_LIMIT_BYTES: usize = 64 * 1024;

/// How long a killed program may take to disappear, and a pipe that a descendant holds is read after the end.
const KILL_LIMIT: Duration = Duration::from_secs(2);
const DRAIN_LIMIT: Duration = Duration::from_millis(100);

/// Without process descriptors the end is looked for this often.
const LOOK_INTERVAL: Duration = Duration::from_millis(5);

/// What a program answered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProbeOutput {
    /// Its exit code; none when a signal ended it.
    pub exit_code: Option<i32>,
    /// The first 64 KiB of its standard output.
    pub stdout: Vec<u8>,
    /// The first 64 KiB of its standard error.
    pub stderr: Vec<u8>,
    /// It did not end within the limit and was killed.
    pub timed_out: bool,
}

/// Runs `program` with nothing on its standard input, in a process group of its own that is killed after `limit`.
///
/// Blocks for at most `limit` and about two seconds. For use before an async runtime exists, or on a blocking thread.
pub fn probe(
    program: &Path,
    args: &[&str],
    env: &[(OsString, OsString)],
    limit: Duration,
) -> Result<ProbeOutput, StartError> {
    let program = absolute(program)?;
    let args: Vec<OsString> = args.iter().map(OsString::from).collect();
    let deadline = Instant::now() + limit;
    let request = Request {
        program: &program,
        args: &args,
        cwd: None,
        env,
        stdout: Channel::Pipe,
        stderr: Channel::Pipe,
        // No policy: that would start this program once more for each question. The mark costs nothing, and what a killed
        // agent leaves of a question is found by it.
        mark: adopts().then(|| Mark::new(Strays::End)),
    };
    let spawned = spawn(&request, None, None, None)?;
    let mut asked =
        Asked { leader: spawned.leader, stdout: Answer::new(spawned.stdout), stderr: Answer::new(spawned.stderr) };
    asked.finish(deadline).map_err(|source| StartError::Watch { program, source })
}

struct Asked {
    leader: Leader,
    stdout: Answer,
    stderr: Answer,
}

impl Asked {
    fn finish(&mut self, deadline: Instant) -> io::Result<ProbeOutput> {
        let notice = match attune_sys::pidfd_open(self.leader.pid()) {
            Ok(fd) => Some(fd),
            Err(error) if is_refused(&error) => None,
            Err(error) => return Err(error),
        };
        let in_time = self.read_until_exit(notice.as_ref(), deadline)?;
        if !in_time {
            self.leader.signal_group(SIGKILL);
            wait_for_exit(self.leader.pid(), notice.as_ref(), KILL_LIMIT)?;
        }
        let reaped = self.leader.bury()?;
        if let Some(mark) = self.leader.mark() {
            end_strays_of_blocking(mark);
        }
        let drained = Instant::now() + DRAIN_LIMIT;
        while self.stdout.is_open() || self.stderr.is_open() {
            let left = drained.saturating_duration_since(Instant::now());
            if left.is_zero() {
                break;
            }
            self.read_once(None, left)?;
        }
        Ok(ProbeOutput {
            exit_code: reaped.status.code(),
            stdout: self.stdout.take(),
            stderr: self.stderr.take(),
            timed_out: !in_time,
        })
    }

    /// Whether the program ended before `deadline`.
    fn read_until_exit(&mut self, notice: Option<&OwnedFd>, deadline: Instant) -> io::Result<bool> {
        loop {
            if attune_sys::has_exited(self.leader.pid())? {
                return Ok(true);
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Ok(false);
            }
            let nap = match notice {
                Some(_) => left,
                None => left.min(LOOK_INTERVAL),
            };
            self.read_once(notice, nap)?;
        }
    }

    /// Waits up to `nap` for the pipes and for `notice`, and reads what there is.
    fn read_once(&mut self, notice: Option<&OwnedFd>, nap: Duration) -> io::Result<()> {
        let mut entries = [Polled::readable(notice.map(|fd| fd.as_fd())), self.stdout.polled(), self.stderr.polled()];
        attune_sys::poll(&mut entries, nap)?;
        let [_, stdout, stderr] = entries.map(|entry| entry.is_ready());
        if stdout {
            self.stdout.read()?;
        }
        if stderr {
            self.stderr.read()?;
        }
        Ok(())
    }
}

/// One output pipe of the program.
struct Answer {
    pipe: Option<File>,
    capture: Capture,
}

impl Answer {
    fn new(pipe: Option<OwnedFd>) -> Self {
        Self {
            pipe: pipe.map(File::from),
            capture: Capture::new(Stream::keep(Keep::Head { limit_bytes: OUTPUT_LIMIT_BYTES })),
        }
    }

    fn is_open(&self) -> bool {
        self.pipe.is_some()
    }

    fn polled(&self) -> Polled<'_> {
        Polled::readable(self.pipe.as_ref().map(|pipe| pipe.as_fd()))
    }

    /// One read of a pipe that is ready, which does not block.
    fn read(&mut self) -> io::Result<()> {
        let mut chunk = [0; 8 * 1024];
        if let Some(pipe) = &mut self.pipe {
            match pipe.read(&mut chunk)? {
                0 => self.pipe = None,
                count => self.capture.accept(&chunk[..count]),
            }
        }
        Ok(())
    }

    fn take(&mut self) -> Vec<u8> {
        let capture = std::mem::replace(&mut self.capture, Capture::new(Stream::null()));
        capture.finish(None).0.bytes
    }
}
