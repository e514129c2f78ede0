//! One running child, from its start to the report about its end.
//!
//! ```text
//!   running ── exited ─────────────────────────────┐
//!      │                                           │
//!      ├─ time over ─┐                             ▼
//!      ├─ stop ──────┴► asked: signal, CONT ──► zombie: KILL to the group, reap ──► drain pipes ──► report
//!      │                  │ grace over              ▲   strays, control group       limit over: held open
//!      └─ at once ────────┴► killed: KILL ──────────┘
//!                              │ KILL_LIMIT over: lost
//! ```
//!
//! The pipes are served in every state. Dropping a [`Child`] or its supervision in any state kills the group.

use std::future::{Future, pending};
use std::io;
use std::path::PathBuf;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use attune_sys::{Reaped, SIGCONT, SIGKILL, SIGSEGV};
use tokio::time::{Instant, sleep, sleep_until, timeout};

use crate::capture::Capture;
use crate::cgroup::{self, Cgroup};
use crate::command::{Command, Ending, Strays, Stream};
use crate::diagnose::{diagnose, strings_bytes, together_too_long};
use crate::family::{adopts, has_followers};
use crate::input::prepare;
use crate::leader::{ExitNotice, Leader};
use crate::mark::Mark;
use crate::notes::{new_token, read_refusal};
use crate::policy::{Limits, Policy, Setup};
use crate::procfs::{described, holders_of};
use crate::pumps::{Gathered, Pumps, Reader, Writer};
use crate::report::{Outcome, Report, Usage, remark};
use crate::spawn::{Channel, Request, Spawned, absolute, spawn};
use crate::start_error::StartError;

/// How long a killed process may take to disappear. Longer takes only one that hangs inside the kernel.
const KILL_LIMIT: Duration = Duration::from_secs(5);

/// Nothing tells when the last member of a group that was asked to end has done so: it is looked for this often.
const FOLLOWERS_INTERVAL: Duration = Duration::from_millis(10);

/// What the capabilities of an agent that changes users have to have.
const OUT_OF_REACH: &str = "the agent may not signal its user's processes, which takes the capability KILL";

/// A child that runs. Dropped, it is killed together with its process group.
pub struct Child {
    leader: Leader,
    notice: ExitNotice,
    pumps: Pumps,
    ending: Ending,
    started: Instant,
    /// When it was seen to have ended.
    ended: Option<Instant>,
    oom_kills_before: Option<u64>,
    /// Only with a policy.
    wanted: Option<Wanted>,
}

/// What a child is to become, for the case that it does not.
struct Wanted {
    program: PathBuf,
    cwd: Option<PathBuf>,
    /// Of all arguments and variables. They themselves are not kept as long as the child lives.
    strings_bytes: u64,
    limits: Limits,
    /// As another user than the agent, perhaps.
    has_user: bool,
}

impl Wanted {
    /// The error that the plain way of starting would have given; none when `notes` tell of no refusal. Takes the note of it out.
    fn refused(&self, notes: &mut Vec<String>) -> Option<StartError> {
        let (source, step) = notes.last().and_then(|note| read_refusal(note))?;
        let Self { program, cwd, .. } = self;
        let error = if !step.is_empty() {
            StartError::SetUp { program: program.clone(), step: step.to_owned(), source }
        } else if source.kind() == io::ErrorKind::ArgumentListTooLong {
            // Each single one is short enough, or the start would have been refused.
            together_too_long(program.clone(), self.strings_bytes)
        } else {
            let (cwd, channel) = (cwd.as_deref(), Channel::Null);
            let request = Request { program, args: &[], cwd, env: &[], stdout: channel, stderr: channel, mark: None };
            diagnose(&request, source)
        };
        notes.pop();
        Some(error)
    }
}

impl std::fmt::Debug for Child {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Child").field("pid", &self.pid()).finish()
    }
}

/// Starts a child in a process group of its own.
///
/// Takes a fraction of a millisecond, whatever the size of the agent; up to 125 ms where the program is still being written.
/// With a policy the program itself starts a moment later, and what only the kernel can refuse comes as
/// [`Outcome::NotStarted`].
/// Nothing is read or written until [`Child::supervise`] is polled.
///
/// # Panics
///
/// Outside a tokio runtime with I/O and time enabled.
pub fn start(command: Command) -> Result<Child, StartError> {
    start_for(Purpose::Program, command)
}

/// What the launcher of a child does in the end.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Purpose {
    /// It becomes the program.
    Program,
    /// It leaves with success, once everything is set up.
    Trial,
}

/// [`start`] for whatever purpose; a trial needs a policy.
pub(crate) fn start_for(purpose: Purpose, command: Command) -> Result<Child, StartError> {
    let program = absolute(&command.program)?;
    let channel = |stream: &Stream| {
        if stream.is_null() { Channel::Null } else { Channel::Pipe }
    };
    let strays = command.ending.strays;
    let cgroup = command.policy.as_ref().filter(|_| strays == Strays::End).and_then(|_| Cgroup::new());
    let setup = command.policy.map(|policy| Setup {
        parent: policy.dies_with_agent.then(std::process::id),
        token: Some(new_token()),
        is_trial: purpose == Purpose::Trial,
        policy,
    });
    let token = setup.as_ref().and_then(|setup| setup.token.as_deref());
    let request = Request {
        program: &program,
        args: &command.args,
        cwd: command.cwd.as_deref(),
        env: &command.env,
        stdout: channel(&command.stdout),
        mark: adopts().then(|| Mark::new(strays)),
        stderr: if setup.is_some() {
            // The notes come this way.
            Channel::Pipe
        } else {
            channel(&command.stderr)
        },
    };
    let (stdin, input) = prepare(command.stdin).map_err(|error| diagnose(&request, error))?;
    let oom_kills_before = cgroup::oom_kills();
    let started = Instant::now();
    let Spawned { leader, stdout, stderr } = spawn(&request, stdin, setup.as_ref(), cgroup)?;
    // From here on an early return drops the leader, which kills the child.
    let watch = || -> io::Result<(ExitNotice, Pumps)> {
        let pumps = Pumps::new(
            Writer::new(input)?,
            Reader::new(stdout, Capture::new(command.stdout))?,
            Reader::new(stderr, Capture::new(command.stderr).with_notes(token))?,
        );
        Ok((ExitNotice::new(leader.pid())?, pumps))
    };
    let (notice, pumps) = match watch() {
        Ok(watched) => watched,
        Err(source) => return Err(StartError::Watch { program, source }),
    };
    let wanted = setup.map(|setup| {
        let Policy { limits, user, .. } = &setup.policy;
        let strings_bytes = strings_bytes(&request);
        let (program, cwd) = (program.clone(), command.cwd.clone());
        Wanted { program, cwd, strings_bytes, limits: *limits, has_user: user.is_some() }
    });
    let ending = command.ending;
    Ok(Child { leader, notice, pumps, ending, started, ended: None, oom_kills_before, wanted })
}

/// Why the child is about to end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Cause {
    Itself,
    TimeOver(Duration),
    Stop,
    AtOnce,
}

impl Child {
    /// Its process id, which is also the id of its group.
    pub fn pid(&self) -> u32 {
        self.leader.pid().get()
    }

    pub(crate) fn leader(&self) -> &Leader {
        &self.leader
    }

    /// Runs the child to its end: serves its pipes, ends it when `time_limit` (counted from its start) is over or `stop` is
    /// ready, kills what it leaves in its group, and reaps it.
    ///
    /// Returns in bounded time after the end. Dropping the future kills the group and leaves no zombie, without a report.
    pub async fn supervise(self, time_limit: Option<Duration>, stop: impl Future<Output = ()>) -> Report {
        self.supervise_until(time_limit, stop, pending()).await
    }

    /// [`Child::supervise`] that also kills without grace as soon as `at_once` is ready.
    pub async fn supervise_until(
        mut self,
        time_limit: Option<Duration>,
        stop: impl Future<Output = ()>,
        at_once: impl Future<Output = ()>,
    ) -> Report {
        let mut at_once = pin!(at_once);
        let cause = self.run(time_limit, stop, at_once.as_mut()).await;
        // Boxed, so that a child that runs does not hold the memory for its end.
        Box::pin(self.conclude(cause, at_once)).await
    }

    async fn conclude(mut self, cause: io::Result<Cause>, at_once: impl Future<Output = ()>) -> Report {
        let (cause, ended) = match cause {
            Ok(Cause::Itself) => (Cause::Itself, Ok(())),
            Ok(Cause::AtOnce) => (Cause::AtOnce, self.kill().await),
            Ok(cause) => (cause, self.ask(at_once).await),
            Err(error) => (Cause::Itself, Err(error)),
        };
        let duration = self.ended.unwrap_or_else(Instant::now) - self.started;
        let reaped = ended.and_then(|()| self.leader.bury());
        // While they die the pipes are not served: there are only milliseconds to wait, and a limit.
        let strays_ended = self.leader.end_strays(self.ending.strays).await;
        let strays_ended: Vec<_> = strays_ended.iter().map(|(pid, name)| described(*pid, name)).collect();
        self.pumps.close_input();
        // Whether that was enough is seen by the pipes.
        timeout(self.ending.drain, self.pumps.run()).await.unwrap_or_default();
        let pipes_held_open = self.pumps.outputs_are_open();
        let pipe_holders = holders_of(&self.pumps.open_outputs());
        let pid = self.pid();
        let usage = reaped.as_ref().map_or_else(|_| Usage::default(), usage);
        let oom_kills = self.oom_kills_before.and_then(|before| cgroup::oom_kills()?.checked_sub(before));
        let Gathered { stdout, stderr, stdin_error, mut notes } =
            self.pumps.finish(remark(&strays_ended, pipes_held_open.then_some(&pipe_holders)).as_deref());
        let is_out_of_reach =
            self.leader.is_out_of_reach() && self.wanted.as_ref().is_some_and(|wanted| wanted.has_user);
        let wanted = self.wanted.filter(|_| cause == Cause::Itself);
        let refused = wanted.as_ref().and_then(|wanted| wanted.refused(&mut notes));
        let outcome = match (reaped, refused) {
            (_, Some(error)) => Outcome::NotStarted(Arc::new(error)),
            (Ok(reaped), None) => outcome(cause, &reaped, oom_kills),
            (Err(error), None) => Outcome::Lost(format!("the end of process {pid} was not seen: {error}")),
        };
        let was_silent = stdout.is_empty() && stderr.is_empty();
        let limits = wanted.map(|wanted| wanted.limits);
        notes.extend(limits.and_then(|limits| limit_reached(&outcome, limits, usage, was_silent)));
        if is_out_of_reach {
            notes.push(OUT_OF_REACH.to_owned());
        }
        Report {
            pid,
            outcome,
            stdout,
            stderr,
            stdin_error,
            duration,
            usage,
            oom_kills,
            pipes_held_open,
            pipe_holders,
            strays_ended,
            notes,
        }
    }

    async fn run(
        &mut self,
        time_limit: Option<Duration>,
        stop: impl Future<Output = ()>,
        at_once: impl Future<Output = ()>,
    ) -> io::Result<Cause> {
        // A limit beyond the range of the clock is none.
        let deadline = time_limit.and_then(|limit| Some((self.started.checked_add(limit)?, limit)));
        let time_over = async {
            match deadline {
                Some((at, limit)) => {
                    sleep_until(at).await;
                    limit
                }
                None => pending().await,
            }
        };
        let Self { notice, pumps, .. } = self;
        // The end comes first: a child that has ended in time is not reported as timed out.
        tokio::select! {
            biased;
            exited = notice.exited() => exited.map(|()| Cause::Itself),
            () = at_once => Ok(Cause::AtOnce),
            () = stop => Ok(Cause::Stop),
            limit = time_over => Ok(Cause::TimeOver(limit)),
            never = pumps.serve() => match never {},
        }
    }

    /// Asks the group to end, and kills it when the grace is over. Its members have the same time as its leader.
    async fn ask(&mut self, at_once: impl Future<Output = ()>) -> io::Result<()> {
        self.leader.signal_group(self.ending.signal);
        // A stopped process sees no signal but this one and KILL.
        self.leader.signal_group(SIGCONT);
        let Self { leader, notice, pumps, ending, ended, .. } = self;
        let everybody = async {
            notice.exited().await?;
            *ended = Some(Instant::now());
            while has_followers(leader.pid()) {
                sleep(FOLLOWERS_INTERVAL).await;
            }
            Ok(())
        };
        let obeyed = tokio::select! {
            biased;
            obeyed = everybody => Some(obeyed),
            () = at_once => None,
            () = sleep(ending.grace) => None,
            never = pumps.serve() => match never {},
        };
        match obeyed {
            Some(obeyed) => obeyed,
            None => self.kill().await,
        }
    }

    async fn kill(&mut self) -> io::Result<()> {
        self.leader.signal_group(SIGKILL);
        let Self { leader, notice, pumps, .. } = self;
        let why = if leader.is_out_of_reach() { OUT_OF_REACH } else { "it hangs inside the kernel" };
        tokio::select! {
            biased;
            exited = notice.exited() => exited,
            () = sleep(KILL_LIMIT) => Err(io::Error::other(format!(
                "it is still there {} s after it was killed; {why}",
                KILL_LIMIT.as_secs()
            ))),
            never = pumps.serve() => match never {},
        }
    }
}

fn outcome(cause: Cause, reaped: &Reaped, oom_kills: Option<u64>) -> Outcome {
    use std::os::unix::process::ExitStatusExt as _;
    let status = reaped.status;
    match cause {
        Cause::TimeOver(limit) => Outcome::TimedOut { limit, last: status.code() },
        Cause::Stop | Cause::AtOnce => Outcome::Cancelled { exit_code: status.code() },
        Cause::Itself => match (status.code(), status.signal()) {
            (Some(code), _) => Outcome::Exited(code),
            (None, Some(SIGKILL)) if oom_kills.is_some_and(|kills| kills > 0) => Outcome::OutOfMemory,
            (None, Some(signal)) => Outcome::Signalled { signal, core_dumped: status.core_dumped() },
            (None, None) => Outcome::Lost(format!("the status {status:?} is neither an exit nor a signal")),
        },
    }
}

/// Which limit may have ended a child, in words: the kernel says nothing but the signal.
fn limit_reached(outcome: &Outcome, limits: Limits, usage: Usage, was_silent: bool) -> Option<String> {
    let &Outcome::Signalled { signal, .. } = outcome else { return None };
    match (signal, limits) {
        (SIGKILL, Limits { cpu_seconds: Some(limit), .. })
            // The kernel counts by its ticks there, and better for the report.
            if (usage.user_time + usage.system_time) * 4 >= Duration::from_secs(limit) * 3 =>
        {
            Some(format!("it may have used up its limit of {limit} s of CPU time"))
        }
        (SIGSEGV | SIGKILL, Limits { memory_bytes: Some(limit), .. }) if was_silent => {
            Some(format!("it said nothing and may not have fitted into its memory limit of {limit} bytes"))
        }
        _ => None,
    }
}

fn usage(reaped: &Reaped) -> Usage {
    Usage { user_time: reaped.user_time, system_time: reaped.system_time, peak_memory_bytes: reaped.peak_memory_bytes }
}
