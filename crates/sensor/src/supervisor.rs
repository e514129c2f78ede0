//! One sensor: started, watched, started again, stopped. Knows nothing of the world but what it is told to run.
//!
//! ```text
//!            wanted                    start failed, or it ended by itself
//!   idle ────────────► starting ─────────────────────────────► back-off
//!    ▲                  │   ▲  ▲                                 │ │
//!    │                  ▼   │  └───── delay over, or new input ──┘ │
//!    │                running                                      │
//!    │                  │  new input, token of a certain age:      │
//!    │                  │  prepare, stop, start again              │
//!    └── not wanted ────┴──────────────────────────────────────────┘
//! ```
//!
//! Invariant: one supervisor per sensor, one process per supervisor; a process is started only after the end of the one
//! before was seen, or, after a panic, killed. Every branch of a `select!` here is cancel-safe, except the end of the process, which is kept.

mod claim;
mod pack;
mod panicking;
mod phase;
mod preparing;
mod talk;

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use attune_model::activity::Activity;
use attune_model::chain;
use attune_model::measure::{Measure, RestartCause, SensorState};
use attune_model::status::SensorProcessStatus;
use attune_store::{ProcessChange, ProcessEnd};
use futures_util::FutureExt as _;
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until};

use crate::alerting::raise_alert;
use crate::context::Context;
use crate::delay::delay;
use crate::lease::Grant;
use crate::log::CurrentFile;
use crate::notify::Said;
use crate::process::{Event, Failure, Process, not_started};
use crate::record::Record;
use crate::start::{Prepared, StartFailure};
use crate::target::Target;

/// What a sensor should be running.
#[derive(Debug, Clone)]
pub(crate) enum Wish {
    Run(Arc<Target>),
    /// Nothing.
    Rest {
        /// How many rules wait for its events all the same; none: as many as before, as far as anybody knows.
        active_rules: Option<i32>,
    },
}

impl Wish {
    pub(crate) fn target(&self) -> Option<&Arc<Target>> {
        match self {
            Self::Run(target) => Some(target),
            Self::Rest { .. } => None,
        }
    }
}

/// Where a sensor stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) enum Phase {
    #[default]
    Idle,
    /// Another host runs it.
    Waiting,
    Starting,
    Running,
    Backoff,
}

/// What a supervisor says about its sensor.
#[derive(Debug, Clone, Default)]
pub(crate) struct Status {
    pub(crate) phase: Phase,
    /// Enabled rules that it serves.
    pub(crate) active_rules: i32,
    /// Whether the first wish was attended to, with whatever success.
    pub(crate) settled: bool,
    /// While it runs.
    pub(crate) pid: Option<u32>,
    /// What the running process said about itself.
    pub(crate) said: Said,
    /// Why it does not run, or not as it is wanted.
    pub(crate) reason: Option<String>,
    /// Failures in a row.
    pub(crate) failures: i32,
    /// Where its standard output and error go.
    pub(crate) logs: (CurrentFile, CurrentFile),
}

/// What follows the end of a process or of a start.
enum Next {
    /// Not wanted any more, or the host stops.
    Stop,
    /// A planned start with another input or another token.
    Again(Arc<Target>, Option<Box<Prepared>>),
    /// It is wanted and does not run.
    Failed(Failure),
    /// It is wanted, but not this host's any more.
    Lost,
}

/// What is to be done with a sensor that is wanted.
enum Todo {
    /// Start it, perhaps with what is prepared, and watch it.
    Run(Option<Box<Prepared>>),
    /// Wait; the failure is taken when it is told.
    BackOff(Option<Failure>),
}

/// The owner of one sensor.
pub(crate) struct Supervisor {
    context: Arc<Context>,
    wish: watch::Receiver<Wish>,
    status: watch::Sender<Status>,
    record: Record,
    /// Kept from before the first start until after the end of the last process and the word about it.
    grant: Option<Grant>,
    /// In a row, as the row says it.
    failures: i32,
    /// At which of them the last alert was raised.
    alerted: i32,
    /// Whether the next start sets both back.
    reset: bool,
    /// Why the next start is not the first one.
    cause: Option<RestartCause>,
    /// When the last process began to run.
    began: Instant,
}

impl Supervisor {
    /// Goes on counting where `history` stopped: failures, and at which of them the last alert was raised. Without one it begins
    /// anew, whatever its row says of earlier times.
    pub(crate) fn new(
        context: Arc<Context>,
        wish: watch::Receiver<Wish>,
        status: watch::Sender<Status>,
        history: Option<(i32, i32)>,
    ) -> Self {
        let record = Record::new(context.clone());
        context.observer.measure(Measure::SensorMoved { from: None, to: Some(SensorState::Idle) });
        let (failures, alerted) = history.unwrap_or_default();
        // An alert mark above the count is of an earlier series.
        let alerted = if alerted > failures { 0 } else { alerted };
        let (reset, began) = (history.is_none(), Instant::now());
        Self { context, wish, status, record, grant: None, failures, alerted, reset, cause: None, began }
    }

    /// Until the host stops or forgets the sensor. No process is left.
    pub(crate) async fn run(mut self) {
        while let Some(target) = self.wanted().await {
            let last = self.keep_running(target).await;
            if let Some(run_dir) = &self.context.run_dir {
                run_dir.remove_token(last.sensor.id);
            }
            let last = match *self.wish.borrow() {
                Wish::Rest { active_rules: Some(count) } => Arc::new(last.with_rules(count)),
                _ => last,
            };
            self.record_stopped(&last).await;
            self.grant = None;
            self.observe(&last, SensorProcessStatus::Stopped, None, None);
            self.set_phase(Phase::Idle, &last);
            // The next wish is another beginning.
            self.forget_failures();
        }
        self.record.flush().await;
    }

    /// While the host stops, giving the grants back writes all rows at once.
    async fn record_stopped(&mut self, target: &Arc<Target>) {
        let phase = self.status.borrow().phase;
        let is_leased = self.context.config.timing.lease_time.is_some();
        let is_told = match phase {
            Phase::Running => self.grant.is_some(),
            // It was told when the right was lost.
            Phase::Waiting => true,
            _ => false,
        };
        if !(self.context.stop.soft().is_cancelled() && is_leased && is_told && self.record.is_written()) {
            self.record.write(target, ProcessChange::Stopped).await;
        }
    }

    /// Waits for a wish; none when there will be no more.
    async fn wanted(&mut self) -> Option<Arc<Target>> {
        loop {
            if self.context.stop.soft().is_cancelled() {
                return None;
            }
            if let Some(target) = self.latest() {
                return Some(target);
            }
            tokio::select! {
                () = self.context.stop.soft().cancelled() => return None,
                changed = self.wish.changed() => if changed.is_err() { return None },
                () = self.record.retry() => {}
            }
        }
    }

    /// The wish of now.
    fn latest(&mut self) -> Option<Arc<Target>> {
        self.wish.borrow_and_update().target().cloned()
    }

    /// Until the sensor is not wanted any more; the last target is returned.
    async fn keep_running(&mut self, mut target: Arc<Target>) -> Arc<Target> {
        let mut todo = Todo::Run(None);
        self.cause = None;
        loop {
            let next = AssertUnwindSafe(self.step(&mut target, &mut todo)).catch_unwind().await;
            let next = match next {
                Ok(next) => next,
                Err(_told) => self.panicked(&target, &todo).await,
            };
            todo = match next {
                Next::Stop => return target,
                Next::Again(new, prepared) => {
                    target = new;
                    Todo::Run(prepared)
                }
                Next::Lost => {
                    self.lose(&target).await;
                    Todo::Run(None)
                }
                Next::Failed(failure) => Todo::BackOff(Some(failure)),
            };
        }
    }

    async fn step(&mut self, target: &mut Arc<Target>, todo: &mut Todo) -> Next {
        // Boxed is what a sensor that simply runs does not do: it would be part of every waiting task.
        let prepared = match todo {
            Todo::BackOff(failure) => {
                let failure = failure.take().unwrap_or_default();
                return Box::pin(self.back_off(target, failure)).await;
            }
            // Until the sensor may run again something else may be wanted.
            Todo::Run(prepared) => prepared.take().filter(|_| self.grant.as_ref().is_some_and(Grant::is_valid)),
        };
        if let Err(next) = Box::pin(self.obtain(target)).await {
            return next;
        }
        match Box::pin(self.start(target, prepared)).await {
            Ok(process) => self.watch(process, target).await,
            Err(next) => next,
        }
    }

    async fn start(&mut self, target: &Arc<Target>, prepared: Option<Box<Prepared>>) -> Result<Process, Next> {
        self.set_phase(Phase::Starting, target);
        if let Some(cause) = self.cause.take() {
            self.context.observer.measure(Measure::SensorRestarted(cause));
        }
        self.record.set(target, ProcessChange::Starting);
        self.observe(target, SensorProcessStatus::Starting, None, None);
        let prepared = match prepared {
            Some(prepared) => Ok(*prepared),
            None => self.prepare(target).await,
        };
        let prepared = match prepared {
            Err(StartFailure::Replaced) => return Err(self.replaced(target).await),
            Err(StartFailure::Stopping) => return Err(Next::Stop),
            prepared => prepared.map_err(|error| start_failure(&error))?,
        };
        let context = self.context.clone();
        let _turn = context.turns.start.acquire().await;
        // Preparing may take minutes (dependencies): what is started must still be what is wanted.
        if let Some(next) = self.superseded(target) {
            return Err(next);
        }
        match self.grant.as_ref().filter(|grant| grant.is_valid()) {
            Some(grant) => prepared.start(&self.context, target, grant).await.map_err(|error| start_failure(&error)),
            None => Err(Next::Lost),
        }
    }

    /// What to do instead when the wish changed in the meantime.
    fn superseded(&mut self, target: &Arc<Target>) -> Option<Next> {
        if self.context.stop.soft().is_cancelled() || self.wish.has_changed().is_err() {
            return Some(Next::Stop);
        }
        match self.latest() {
            None => Some(Next::Stop),
            Some(new) if new.has_input_of(target) => None,
            Some(new) => Some(self.again(&new, None)),
        }
    }

    /// Says that the process runs. It is served meanwhile, however long the store takes; its end comes first.
    async fn announce(&mut self, process: &mut Process, target: &Arc<Target>) -> Result<(), Next> {
        let (pid, reset_failures) = (process.pid.cast_signed(), std::mem::take(&mut self.reset));
        self.began = process.began;
        self.record.set(target, ProcessChange::Running { pid, reset_failures });
        let revoked = self.revoked();
        tokio::select! {
            biased;
            failure = process.ended() => return Err(self.failed(failure)),
            () = self.context.stop.soft().cancelled() => {}
            () = revoked.cancelled() => {}
            () = self.record.write_set() => {}
        }
        self.observe(target, SensorProcessStatus::Running, Some(process), None);
        self.status.send_modify(|status| {
            status.pid = Some(process.pid);
            status.reason = None;
            status.logs = process.logs();
        });
        self.set_phase(Phase::Running, target);
        Ok(())
    }

    async fn watch(&mut self, mut process: Process, target: &mut Arc<Target>) -> Next {
        if let Err(next) = Box::pin(self.announce(&mut process, target)).await {
            return next;
        }
        let revoked = self.revoked();
        let patience = self.context.config.timing.watchdog;
        loop {
            let renew_at = process.renewal.at();
            let new = tokio::select! {
                biased;
                event = process.next(patience) => match event {
                    Event::Ended(failure) => return self.failed(failure),
                    Event::Hangs => return Box::pin(self.hung(process)).await,
                    Event::Heard => {
                        self.hear(&process);
                        continue;
                    }
                },
                () = self.context.stop.soft().cancelled() => None,
                () = revoked.cancelled() => {
                    process.end().await;
                    return Next::Lost;
                }
                changed = self.wish.changed() => match changed {
                    Ok(()) => self.latest(),
                    Err(_closed) => None,
                },
                () = sleep_until(renew_at), if process.said.keeps_token => {
                    if let Some(next) = Box::pin(self.renew_token(&mut process, target)).await {
                        process.end().await;
                        return next;
                    }
                    continue;
                }
                () = sleep_until(renew_at) => Some(target.clone()),
                () = self.record.retry() => continue,
            };
            let Some(new) = new else {
                process.end().await;
                return Next::Stop;
            };
            let is_renewal = Arc::ptr_eq(&new, target);
            let knows_itself = process.said.keeps_rules && target.differs_in_rules_only(&new);
            if !is_renewal && (new.has_input_of(target) || knows_itself) {
                let has_other_rules = new.active_rules != target.active_rules;
                *target = new;
                if has_other_rules {
                    self.record.set(target, ProcessChange::Rules);
                    self.record.hurry();
                }
                self.set_phase(Phase::Running, target);
                continue;
            }
            if let Some(next) = Box::pin(self.replace(&mut process, &new, is_renewal)).await {
                // The old one is gone before the new one comes.
                process.end().await;
                *target = new;
                return next;
            }
        }
    }

    /// A start because of another input.
    fn again(&mut self, new: &Arc<Target>, prepared: Option<Box<Prepared>>) -> Next {
        self.forget_failures();
        self.cause = Some(RestartCause::Changed);
        Next::Again(new.clone(), prepared)
    }

    /// Failures with one input say nothing about another.
    fn forget_failures(&mut self) {
        (self.failures, self.alerted, self.reset) = (0, 0, true);
    }

    /// Records the failure and waits; [`Next::Again`] when it is time for the next start.
    async fn back_off(&mut self, target: &mut Arc<Target>, failure: Failure) -> Next {
        // A process that never was has not run for the shortest time.
        let has_run = !failure.ran_for.is_zero();
        self.cause = Some(if has_run { RestartCause::Ended } else { RestartCause::StartFailed });
        let timing = &self.context.config.timing;
        if failure.ran_for >= timing.healthy_after {
            (self.failures, self.alerted) = (0, 0);
        }
        self.failures = self.failures.saturating_add(1);
        let wait = delay(timing.backoff_min, timing.backoff_max, self.failures.unsigned_abs());
        let until = Instant::now() + wait;
        if failure.is_local {
            // Another host may have what is missing here.
            self.grant = None;
        }
        // Also while the store does not take it.
        self.set_phase(Phase::Backoff, target);
        self.record_failure(target, &failure, wait).await;
        let revoked = self.revoked();
        loop {
            tokio::select! {
                biased;
                () = self.context.stop.soft().cancelled() => return Next::Stop,
                changed = self.wish.changed() => {
                    let new = if changed.is_ok() { self.latest() } else { None };
                    match new {
                        None => return Next::Stop,
                        Some(new) if new.has_input_of(target) => *target = new,
                        Some(new) => return self.again(&new, None),
                    }
                }
                () = revoked.cancelled() => return Next::Lost,
                () = sleep_until(until) => return Next::Again(target.clone(), None),
                () = self.record.retry() => {}
            }
        }
    }

    async fn record_failure(&mut self, target: &Arc<Target>, failure: &Failure, wait: Duration) {
        let now = self.context.clock.now();
        let end = ProcessEnd {
            consecutive_failures: self.failures,
            exit_code: failure.exit_code,
            signal: failure.signal,
            stderr_excerpt: failure.excerpt.clone(),
            next_restart_at: chrono::TimeDelta::from_std(wait).ok().map(|wait| now + wait),
        };
        let reason = format!("{}; next start in {:.1} s", failure.reason, wait.as_secs_f64());
        tracing::warn!(sensor.ref = %target.sensor.r#ref, failures = self.failures, "sensor does not run: {reason}");
        self.status.send_modify(|status| status.reason = Some(reason.clone()));
        self.context.observer.observe(Activity::Sensor {
            sensor_ref: target.sensor.r#ref.clone(),
            status: SensorProcessStatus::Backoff,
            pid: None,
            reason: Some(reason),
            log: failure.log.clone(),
        });
        self.record.write(target, ProcessChange::Backoff(end.clone())).await;
        if raise_alert(&self.context, target, &end, wait, self.alerted).await {
            self.alerted = self.failures;
            self.record.write(target, ProcessChange::Alerted { failures: self.failures }).await;
        }
    }

    fn observe(&self, target: &Target, status: SensorProcessStatus, process: Option<&Process>, reason: Option<String>) {
        let pid = process.map(|process| process.pid);
        if status == SensorProcessStatus::Starting {
            // What comes of it is told in a moment, and there are hundreds of them after a start of the host.
            tracing::debug!(sensor.ref = %target.sensor.r#ref, "sensor is starting");
        } else {
            tracing::info!(sensor.ref = %target.sensor.r#ref, child.pid = pid, "sensor is {status}");
        }
        self.context.observer.observe(Activity::Sensor {
            sensor_ref: target.sensor.r#ref.clone(),
            status,
            pid,
            reason,
            log: process.and_then(Process::log),
        });
    }
}

fn start_failure(error: &StartFailure) -> Next {
    Next::Failed(Failure { is_local: error.is_local(), ..not_started(&chain(error)) })
}
