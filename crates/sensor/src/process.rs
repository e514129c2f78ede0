//! One running sensor process with its logs.

use std::future::{Future, pending};
use std::iter;
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::PoisonError;
use std::time::Duration;

use attune_lifecycle::CancellationToken;
use attune_model::chain;
use attune_process::{Child, Outcome, Report, SIGKILL, Watched};
use attune_runtime::environment::InUse;
use tokio::time::Instant;

use crate::cause::{self, End};
use crate::courier::Attended;
use crate::deadline::Deadline;
use crate::excerpt::{excerpt, with_hint};
use crate::log::{CurrentFile, LogWriter};
use crate::notify::{NotifySocket, Said};
use crate::renewal::Renewal;
use crate::tokens::LaterTokens;

/// Patience with a sensor of which it does not matter at the moment whether it hangs.
pub(crate) const UNLIMITED: Duration = Duration::from_hours(24 * 365);

/// How long the last lines may take to reach their files.
const LOG_LIMIT: Duration = Duration::from_secs(5);

/// A process, until its end is awaited. Dropped, it is killed with its group.
pub(crate) struct Process {
    pub(crate) pid: u32,
    pub(crate) began: Instant,
    /// When its token is to be renewed.
    pub(crate) renewal: Renewal,
    /// Ready when it has ended and its logs are written; not polled after that.
    end: Pin<Box<dyn Future<Output = Report> + Send>>,
    has_ended: bool,
    /// How it says how it is.
    notify: Option<NotifySocket>,
    /// What it has said.
    pub(crate) said: Said,
    /// What it was given besides its first token.
    pub(crate) tokens: LaterTokens,
    stop: CancellationToken,
    output: CurrentFile,
    log: CurrentFile,
}

/// What happens to a running process.
pub(crate) enum Event {
    /// It has ended.
    Ended(Failure),
    /// It said something.
    Heard,
    /// It said nothing for too long.
    Hangs,
}

/// What belongs to a process besides its pipes.
pub(crate) struct Attached {
    pub(crate) notify: Option<NotifySocket>,
    pub(crate) tokens: LaterTokens,
    /// When its token is to be renewed.
    pub(crate) renewal: Renewal,
    /// Kills it without grace.
    pub(crate) at_once: CancellationToken,
    /// Kills it when nobody else can.
    pub(crate) guarded: Option<Watched>,
    /// Keeps the environment of its code.
    pub(crate) in_use: InUse,
    /// Looks after files of its own.
    pub(crate) attended: Option<Attended>,
    pub(crate) deadline: Deadline,
}

/// Why a sensor does not run although it should.
#[derive(Debug, Default)]
pub(crate) struct Failure {
    /// For people.
    pub(crate) reason: String,
    pub(crate) exit_code: Option<i32>,
    pub(crate) signal: Option<i32>,
    /// The last lines of standard error, or the start error.
    pub(crate) excerpt: Option<String>,
    /// How long it ran; zero when it could not be started.
    pub(crate) ran_for: Duration,
    /// It may be otherwise on another host.
    pub(crate) is_local: bool,
    /// Where its standard error is.
    pub(crate) log: Option<PathBuf>,
}

impl Process {
    /// Supervises `child`.
    pub(crate) fn watch(child: Child, logs: (LogWriter, LogWriter), attached: Attached) -> Self {
        let Attached { notify, tokens, renewal, at_once, guarded, in_use, attended, deadline } = attached;
        let stop = CancellationToken::new();
        let (stdout, stderr) = logs;
        let (output, log) = (stdout.current_file(), stderr.current_file());
        let pid = child.pid();
        let asked = stop.clone();
        let end = async move {
            let supervision = child.supervise_until(None, asked.cancelled_owned(), at_once.cancelled_owned());
            let logs = async { tokio::join!(stdout.run(), stderr.run()) };
            let (mut supervision, mut logs) = (std::pin::pin!(supervision), std::pin::pin!(logs));
            let mut logs_are_done = false;
            let report = loop {
                tokio::select! {
                    report = &mut supervision => break report,
                    _ = &mut logs, if !logs_are_done => logs_are_done = true,
                }
            };
            // It was reaped: from now on its number may be somebody else's.
            drop((guarded, in_use, attended));
            if !logs_are_done && deadline.within(LOG_LIMIT, logs).await.is_err() {
                tracing::warn!(child.pid = report.pid, "the last lines of a sensor did not reach its log in time");
            }
            report
        };
        Self {
            pid,
            began: Instant::now(),
            renewal,
            end: Box::pin(end),
            has_ended: false,
            notify,
            said: Said::default(),
            tokens,
            stop,
            output,
            log,
        }
    }

    /// Where its standard error goes, as soon as there is any.
    pub(crate) fn log(&self) -> Option<PathBuf> {
        self.log.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Where its standard output and error go.
    pub(crate) fn logs(&self) -> (CurrentFile, CurrentFile) {
        (self.output.clone(), self.log.clone())
    }

    /// Waits until it ends by itself, and says what that means. Cancel-safe; at most once to its end.
    pub(crate) async fn ended(&mut self) -> Failure {
        let report = (&mut self.end).await;
        self.has_ended = true;
        self.failure(&report)
    }

    /// Waits for the next thing that happens; silence counts when it lasts for `patience`. Cancel-safe.
    pub(crate) async fn next(&mut self, patience: Duration) -> Event {
        let Self { end, notify, said, .. } = self;
        let silence = said.hangs(patience);
        let report = tokio::select! {
            biased;
            report = end => report,
            () = heard(notify, said) => return Event::Heard,
            () = silence => return Event::Hangs,
        };
        self.has_ended = true;
        Event::Ended(self.failure(&report))
    }

    /// Asks it to end. What comes of it is heard as ever.
    pub(crate) fn ask_to_end(&self) {
        self.stop.cancel();
    }

    /// Asks it to end and waits for that; bounded by the grace and the limits of the kill.
    /// Says what it left, if it had not ended before.
    pub(crate) async fn end(mut self) -> Failure {
        if self.has_ended {
            return Failure::default();
        }
        self.stop.cancel();
        let report = (&mut self.end).await;
        tracing::debug!(child.pid = self.pid, outcome = ?report.outcome, "sensor process ended as asked");
        self.failure(&report)
    }

    fn failure(&self, report: &Report) -> Failure {
        let (reason, exit_code, signal) = match &report.outcome {
            // As when the start itself had said so.
            Outcome::NotStarted(error) => return not_started(&format!("its program did not start: {}", chain(error))),
            Outcome::Exited(code) => (format!("it exited with code {code}"), Some(*code), None),
            Outcome::Signalled { signal, core_dumped } => {
                let core = if *core_dumped { " and left a core dump" } else { "" };
                (format!("signal {signal} ended it{core}"), None, Some(*signal))
            }
            Outcome::OutOfMemory => (format!("signal {SIGKILL} ended it"), None, Some(SIGKILL)),
            Outcome::TimedOut { last, .. } | Outcome::Cancelled { exit_code: last } => {
                ("it was ended".to_owned(), *last, None)
            }
            Outcome::Lost(problem) => (problem.clone(), None, None),
        };
        let mut stderr = report.stderr.bytes.clone();
        self.tokens.redact(&mut stderr);
        let last_words = excerpt(&stderr, report.stderr.dropped_bytes);
        let stderr = last_words.as_deref().unwrap_or_default();
        let is_out_of_memory = matches!(report.outcome, Outcome::OutOfMemory);
        let out_of_memory = is_out_of_memory.then_some(report.usage.peak_memory_bytes);
        let hint = cause::hint(End { exit_code, signal, out_of_memory, oom_kills: report.oom_kills, stderr });
        let left = (!report.strays_ended.is_empty()).then(|| format!("it left {}", report.strays_ended.join(", ")));
        let held = (!report.pipe_holders.is_empty())
            .then(|| format!("its output was kept open by {}", report.pipe_holders.join(", ")));
        let reason = iter::once(reason).chain(hint.clone()).chain(left).chain(held).chain(report.notes.iter().cloned());
        let reason = reason.collect::<Vec<_>>().join("; ");
        Failure {
            reason,
            exit_code,
            signal,
            excerpt: with_hint(last_words, hint.as_deref()),
            ran_for: self.began.elapsed(),
            is_local: false,
            log: self.log(),
        }
    }
}

/// A sensor whose program never ran.
pub(crate) fn not_started(why: &str) -> Failure {
    let reason = format!("start failed: {why}");
    let excerpt = Some(reason.replace('\0', ""));
    Failure { reason, excerpt, is_local: true, ..Failure::default() }
}

/// Waits for a message; never ready for a process that cannot send any.
async fn heard(notify: &mut Option<NotifySocket>, said: &mut Said) {
    match notify {
        Some(socket) => {
            if let Err(error) = socket.hear(said).await {
                tracing::warn!(%error, "a sensor is not heard any more");
                *notify = None;
            }
        }
        None => pending().await,
    }
}
