//! One execution, from the claimed rows to its conclusion. Knows nothing of storage, queues or other executions, so that
//! the same code runs an action for the platform and for somebody at a terminal.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use attune_lifecycle::CancellationToken;
use attune_model::activity::Observer;
use attune_model::chain;
use attune_model::measure::Measure;
use attune_model::rows::Action;
use attune_model::schema::secret_pointers;
use attune_process::{Outcome, Redactor, Report, Sink, StartError, start_aside};
use attune_runtime::environment::Environments;
use attune_runtime::plan::Planner;
use attune_runtime::{Advertised, Host};
use attune_security::{SealError, TokenError, TokenKey};
use attune_store::ClaimedExecution;
use thiserror::Error;
use tokio::time::{Instant, sleep};

use crate::claims::Claims;
use crate::config::ExecutorConfig;
use crate::output::{self, Completeness};
use crate::prepare::{Failure, Prepared};
use crate::result::{CapturedText, Conclusion, Ending, Ran, early_failure};
use crate::secrets::{Secrets, masked};

/// Between the hard stop of the worker and the end of a child that does not obey.
const LAST_GRACE: Duration = Duration::from_secs(2);

/// What stands for standard output that may have secrets.
const WITHHELD: &str = "[withheld: this action declares secret output]";

/// A setting that makes no sense.
#[derive(Debug, Error)]
pub enum ExecutorError {
    /// `security.encryption_key`.
    #[error("security.encryption_key cannot be used")]
    EncryptionKey(#[source] SealError),
    /// `security.jwt_secret`.
    #[error("security.jwt_secret cannot be used")]
    JwtSecret(#[source] TokenError),
}

/// Runs actions, any number at a time.
#[derive(Debug)]
pub struct Executor {
    pub(crate) config: ExecutorConfig,
    pub(crate) host: Arc<Host>,
    pub(crate) secrets: Secrets,
    pub(crate) tokens: Option<TokenKey>,
    pub(crate) environments: Environments,
    observer: Arc<dyn Observer>,
    advertised: Mutex<Arc<Advertised>>,
}

/// Who may end an execution before its time.
#[derive(Debug, Clone)]
pub struct Control {
    /// Somebody cancelled it.
    pub cancel: CancellationToken,
    /// The worker has to go.
    pub hard: CancellationToken,
}

impl Control {
    /// Comes when either wants the execution to end.
    pub(crate) async fn ended(&self) {
        tokio::select! {
            () = self.cancel.cancelled() => {}
            () = self.hard.cancelled() => {}
        }
    }

    async fn ended_long_ago(&self) {
        self.ended().await;
        sleep(LAST_GRACE).await;
    }

    /// The conclusion of an execution that has no child yet; none if it may go on.
    fn ended_early(&self) -> Option<Conclusion> {
        if self.cancel.is_cancelled() {
            return Some(Conclusion::CancelledEarly);
        }
        self.hard.is_cancelled().then_some(Conclusion::StoppedEarly)
    }
}

/// Who sees the output while it comes.
#[derive(Default)]
pub struct Sinks {
    /// Standard output.
    pub stdout: Option<Box<dyn Sink>>,
    /// Standard error.
    pub stderr: Option<Box<dyn Sink>>,
}

impl std::fmt::Debug for Sinks {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { stdout, stderr } = self;
        f.debug_struct("Sinks").field("stdout", &stdout.is_some()).field("stderr", &stderr.is_some()).finish()
    }
}

impl Executor {
    /// An executor for this host.
    pub fn new(config: ExecutorConfig, observer: Arc<dyn Observer>) -> Result<Self, ExecutorError> {
        let host = Arc::new(Host::new(config.passed_environment.clone()));
        Ok(Self {
            secrets: Secrets::new(config.encryption_key.as_ref()).map_err(ExecutorError::EncryptionKey)?,
            tokens: config.jwt_secret.as_ref().map(TokenKey::new).transpose().map_err(ExecutorError::JwtSecret)?,
            environments: Environments::new(host.clone(), observer.clone()).with_policy(config.policy.as_ref()),
            observer,
            host,
            advertised: Mutex::new(Arc::new(config.advertised.clone())),
            config,
        })
    }

    /// How executions are run.
    pub fn config(&self) -> &ExecutorConfig {
        &self.config
    }

    /// Plans starts of a pack; none when the pack's ref cannot be the name of a folder.
    pub(crate) fn planner(&self, pack_ref: &str) -> Option<Planner> {
        let base = self.config.packs.base_of(pack_ref)?;
        let planner = Planner::new(self.host.clone(), base, &self.config.runtime_envs_dir, &self.advertised());
        Some(planner.with_builtins(self.config.builtins.clone()))
    }

    /// What this host can run.
    pub(crate) fn advertised(&self) -> Arc<Advertised> {
        self.advertised.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Replaces what this host can run.
    pub(crate) fn set_advertised(&self, advertised: Advertised) {
        *self.advertised.lock().unwrap_or_else(PoisonError::into_inner) = Arc::new(advertised);
    }

    /// Runs the action of a claimed execution to its end, whatever that is.
    ///
    /// Cancelling and the hard stop are obeyed at every stage. Dropping the future kills the child.
    pub async fn run(
        &self,
        claimed: &ClaimedExecution,
        claims: Option<Claims<'_>>,
        control: &Control,
        sinks: Sinks,
    ) -> Conclusion {
        if let Some(conclusion) = control.ended_early() {
            return conclusion;
        }
        let prepared = tokio::select! {
            prepared = self.prepare(claimed, claims, control, sinks) => prepared,
            // An environment that is being built is given up in order; storage that hangs is not waited for.
            () = control.ended_long_ago() => return control.ended_early().unwrap_or(Conclusion::StoppedEarly),
        };
        if let Some(conclusion) = control.ended_early() {
            return conclusion;
        }
        let ran = match prepared {
            Ok(prepared) => {
                let redactor = prepared.redactor.clone();
                run_child(prepared, control, &*self.observer).await.map(|ran| {
                    ran.map(|mut ran| {
                        self.clean(&mut ran, claimed.action.as_ref(), redactor.as_deref());
                        ran
                    })
                })
            }
            Err(failure) => Err(failure),
        };
        match ran {
            Ok(Some(ran)) => Conclusion::Ran(ran),
            Ok(None) => control.ended_early().unwrap_or(Conclusion::StoppedEarly),
            Err(Failure { prefix, cause }) => Conclusion::Failed(early_failure(prefix, &cause)),
        }
    }

    /// Nothing secret stays readable in what is kept: declared parts of the data are sealed, known secrets are masked, and
    /// output that was to have declared parts but is no data is withheld.
    fn clean(&self, ran: &mut Ran, action: Option<&Action>, redactor: Option<&Redactor>) {
        if !has_secret_output(action) {
            return;
        }
        let schema = action.and_then(|action| action.out_schema.as_ref());
        if let Some(mut data) = ran.data.take() {
            ran.sealed = self.secrets.take_out(&mut data, schema);
            ran.data = Some(match redactor {
                Some(redactor) => masked(data, redactor),
                None => data,
            });
        }
        if !ran.stdout.text.is_empty() {
            WITHHELD.clone_into(&mut ran.stdout.text);
        }
    }
}

/// Whether the action says that its result has secrets.
pub(crate) fn has_secret_output(action: Option<&Action>) -> bool {
    let schema = action.and_then(|action| action.out_schema.as_ref());
    schema.is_some_and(|schema| !secret_pointers(schema).is_empty())
}

/// None when the execution was ended before there was a child.
async fn run_child(prepared: Prepared, control: &Control, observer: &dyn Observer) -> Result<Option<Ran>, Failure> {
    let Prepared { command, time_limit, kind, output_format, files, in_use, .. } = prepared;
    let begun = Instant::now();
    let started = tokio::select! {
        // Not on this thread, which has others to look after, and would stand still until the child is the program.
        started = start_aside(command) => started,
        // A program on storage that hangs is not waited for.
        () = control.ended_long_ago() => return Ok(None),
        () = sleep(time_limit) => return Ok(Some(Ran {
            ending: Ending::TimedOut(time_limit),
            duration: begun.elapsed(),
            data: None,
            stdout: CapturedText::default(),
            stderr: CapturedText::default(),
            stdin_error: None,
            kind,
            sealed: Vec::new(),
        })),
    };
    let child = started.map_err(|error| {
        observer.measure(Measure::ChildNotStarted);
        start_failure(&error)
    })?;
    observer.measure(Measure::ChildStarted { took: begun.elapsed() });
    let at_once = async {
        control.hard.cancelled().await;
        // A child that was asked already has had its time.
        if !control.cancel.is_cancelled() {
            sleep(LAST_GRACE).await;
        }
    };
    let report = child.supervise_until(Some(time_limit), control.ended(), at_once).await;
    // They lived as long as the child.
    drop((files, in_use));
    remark(&report);
    let dropped = report.stdout.dropped_bytes + report.stderr.dropped_bytes;
    if dropped > 0 {
        observer.measure(Measure::OutputDropped { bytes: dropped });
    }
    let Report { outcome, stdout, stderr, stdin_error, duration, usage, .. } = report;
    let parse = matches!(outcome, Outcome::Exited(0));
    let ending = ending(outcome, usage.peak_memory_bytes, control).map_err(|error| {
        observer.measure(Measure::ChildNotStarted);
        start_failure(&error)
    })?;
    let stdout = CapturedText::new(&stdout.bytes, stdout.dropped_bytes);
    let completeness = if stdout.dropped_bytes == 0 { Completeness::Whole } else { Completeness::Cut };
    Ok(Some(Ran {
        ending,
        duration,
        data: parse.then(|| output::parse(&stdout.text, output_format, completeness)).flatten(),
        stdout,
        stderr: CapturedText::new(&stderr.bytes, stderr.dropped_bytes),
        stdin_error,
        kind,
        sealed: Vec::new(),
    }))
}

/// What somebody who looks after the worker may want to know.
fn remark(report: &Report) {
    let usage = &report.usage;
    tracing::debug!(
        child.pid = report.pid,
        outcome = ?report.outcome,
        peak_memory_bytes = usage.peak_memory_bytes,
        user_time = ?usage.user_time,
        system_time = ?usage.system_time,
        oom_kills = report.oom_kills,
        "the child has ended"
    );
    if report.pipes_held_open {
        let holders = report.pipe_holders.join(", ");
        tracing::warn!(child.pid = report.pid, holders, "a process that the action left behind kept its output open");
    }
    if !report.strays_ended.is_empty() {
        let strays = report.strays_ended.join(", ");
        tracing::warn!(child.pid = report.pid, strays, "processes that the action left behind were ended");
    }
    for note in &report.notes {
        tracing::warn!(child.pid = report.pid, note, "a setting of the child was not kept or may have ended it");
    }
}

fn ending(outcome: Outcome, peak_memory_bytes: u64, control: &Control) -> Result<Ending, Arc<StartError>> {
    Ok(match outcome {
        Outcome::Exited(code) => Ending::Exited(code),
        Outcome::NotStarted(error) => return Err(error),
        Outcome::Signalled { .. } => Ending::Signalled,
        Outcome::OutOfMemory => Ending::OutOfMemory { peak_memory_bytes },
        Outcome::TimedOut { limit, .. } => Ending::TimedOut(limit),
        Outcome::Cancelled { exit_code } if control.cancel.is_cancelled() => Ending::Cancelled { exit_code },
        Outcome::Cancelled { .. } => Ending::WorkerStopped,
        Outcome::Lost(why) => Ending::Lost(why),
    })
}

fn start_failure(error: &StartError) -> Failure {
    Failure { prefix: "Process error", cause: chain(error) }
}
