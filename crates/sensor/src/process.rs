//! One running sensor process with its logs.

use std::future::Future;
use std::iter;
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::PoisonError;
use std::time::Duration;

use attune_lifecycle::CancellationToken;
use attune_process::{Child, Outcome, Report};
use tokio::time::{Instant, timeout};

use crate::excerpt::excerpt;
use crate::log::{CurrentFile, LogWriter};

/// How long the last lines may take to reach their files.
const LOG_LIMIT: Duration = Duration::from_secs(5);

/// A process, until its end is awaited. Dropped, it is killed with its group.
pub(crate) struct Process {
    pub(crate) pid: u32,
    pub(crate) began: Instant,
    /// When its token is to be renewed.
    pub(crate) renew_at: Instant,
    /// Ready when it has ended and its logs are written; not polled after that.
    end: Pin<Box<dyn Future<Output = Report> + Send>>,
    has_ended: bool,
    stop: CancellationToken,
    log: CurrentFile,
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
    /// Where its standard error is.
    pub(crate) log: Option<PathBuf>,
}

impl Process {
    /// Supervises `child`; `at_once` kills it without grace.
    pub(crate) fn watch(
        child: Child,
        renew_at: Instant,
        logs: (LogWriter, LogWriter),
        at_once: CancellationToken,
    ) -> Self {
        let stop = CancellationToken::new();
        let (stdout, stderr) = logs;
        let log = stderr.current_file();
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
            if !logs_are_done && timeout(LOG_LIMIT, logs).await.is_err() {
                tracing::warn!(child.pid = report.pid, "the last lines of a sensor did not reach its log in time");
            }
            report
        };
        Self { pid, began: Instant::now(), renew_at, end: Box::pin(end), has_ended: false, stop, log }
    }

    /// Where its standard error goes, as soon as there is any.
    pub(crate) fn log(&self) -> Option<PathBuf> {
        self.log.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Waits until it ends by itself, and says what that means. Cancel-safe; at most once to its end.
    pub(crate) async fn ended(&mut self) -> Failure {
        let report = (&mut self.end).await;
        self.has_ended = true;
        self.failure(&report)
    }

    /// Asks it to end and waits for that; bounded by the grace and the limits of the kill.
    pub(crate) async fn end(mut self) {
        if !self.has_ended {
            self.stop.cancel();
            let report = (&mut self.end).await;
            tracing::debug!(child.pid = self.pid, outcome = ?report.outcome, "sensor process ended as asked");
        }
    }

    fn failure(&self, report: &Report) -> Failure {
        let (reason, exit_code, signal) = match &report.outcome {
            Outcome::Exited(code) => (format!("it exited with code {code}"), Some(*code), None),
            Outcome::Signalled { signal, core_dumped } => {
                let core = if *core_dumped { " and left a core dump" } else { "" };
                (format!("signal {signal} ended it{core}"), None, Some(*signal))
            }
            Outcome::TimedOut { last, .. } | Outcome::Cancelled { exit_code: last } => {
                ("it was ended".to_owned(), *last, None)
            }
            Outcome::Lost(problem) => (problem.clone(), None, None),
        };
        let reason = iter::once(reason).chain(report.notes.iter().cloned()).collect::<Vec<_>>().join("; ");
        Failure {
            reason,
            exit_code,
            signal,
            excerpt: excerpt(&report.stderr.bytes, report.stderr.dropped_bytes),
            ran_for: self.began.elapsed(),
            log: self.log(),
        }
    }
}
