//! Executions to workers.
//!
//! ```text
//!   requested ─► claim ─► scheduling ─► choose ─┬─► worker ─► scheduled ─► dispatch message
//!       ▲                                       ├─► none can ever ─────► failed
//!       └── until a worker that fits is back ───┴─► none just now
//! ```
//!
//! One task does it all, one execution at a time: the load that a choice relies on includes the choice before it.

mod choose;
mod recovery;

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use attune_bus::{Delivery, Event, Subscription, decode};
use attune_lifecycle::{Backoff, Stop};
use attune_model::message::{Exchange, ExecutionDispatch, ExecutionRequested};
use attune_model::rows::{Action, Execution};
use attune_model::status::{ExecutionStatus, WorkerStatus};
use attune_model::{ExecutionId, JsonMap, WorkerId, schema};
use attune_store::{Candidate, ExecutionGuard, Schedulable, StoreError};
use serde_json::{Value, json};
use tokio::time::{Instant, MissedTickBehavior, interval};

use crate::core::Core;
use crate::vitals::Part;
use choose::{Choice, Chooser};

/// The queue of requests; the name is a fact of the platform.
pub(crate) const QUEUE: &str = "attune.execution.requests.queue";

/// Its binding.
pub(crate) const BINDING: (Exchange, &str) = (Exchange::Executions, "execution.requested");

/// A `scheduling` row that was not touched for so long was left behind by a scheduler that died.
const STALE: Duration = Duration::from_secs(30);

/// Rows per query of a sweep.
const BATCH: u32 = 200;

/// A sweep that finds nothing to do waits longer before the next, up to this.
const LONGEST_SWEEP_PERIOD: Duration = Duration::from_mins(5);

/// What of the workers decides whether an execution that waits should be looked at again.
type Fleet = Vec<(WorkerId, WorkerStatus, bool, bool, JsonMap)>;

/// Gives executions to workers.
#[derive(Debug)]
pub(crate) struct Scheduler {
    core: Arc<Core>,
    stop: Stop,
    chooser: Chooser,
    /// The fleet as it was when an execution had to wait; none when none waits.
    waiting_for: Option<Fleet>,
    /// Given to a worker, but the message could not be published.
    undelivered: Vec<ExecutionId>,
    sweeps: Backoff,
    next_sweep: Instant,
    /// When claims can be taken over that an earlier life of the hub, or an error, may have left in `scheduling`.
    take_over: Option<Instant>,
}

impl Scheduler {
    pub(crate) fn new(core: Arc<Core>, stop: Stop) -> Self {
        let longest = LONGEST_SWEEP_PERIOD.max(core.config.sweep_period);
        Self {
            chooser: Chooser::new(core.config.heartbeat_limit),
            sweeps: Backoff::new(core.config.sweep_period, longest),
            core,
            stop,
            waiting_for: None,
            undelivered: Vec::new(),
            next_sweep: Instant::now(),
            take_over: Some(Instant::now() + STALE),
        }
    }

    /// Recovers what an earlier life left behind, then schedules until the stop.
    pub(crate) async fn run(mut self, mut requests: Subscription) {
        self.dispatch_again(None).await;
        self.sweep().await;
        let mut tick = interval(self.core.config.fleet_period);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            let event = tokio::select! {
                biased;
                () = self.stop.soft().cancelled() => break,
                event = requests.next() => event,
                _ = tick.tick() => {
                    self.tick().await;
                    continue;
                }
            };
            match event {
                Event::Delivery(delivery) => self.requested(delivery).await,
                Event::Up => {
                    self.core.vitals.report(Part::Requests, true);
                    self.sweep().await;
                }
                Event::Down => self.core.vitals.report(Part::Requests, false),
                Event::Closed => break,
            }
        }
        requests.end().await;
    }

    /// The row is the truth: the message is done with whatever comes of it, the sweep finds what was left.
    async fn requested(&mut self, delivery: Delivery) {
        match decode::<ExecutionRequested>(&delivery.body) {
            Ok((_, message)) => self.schedule(message.execution_id).await,
            Err(error) => {
                let error: &dyn std::error::Error = &error;
                tracing::warn!(error, queue = QUEUE, "message refused");
            }
        }
        if let Err(error) = delivery.ack().await {
            let error: &dyn std::error::Error = &error;
            tracing::debug!(error, "delivery will come again");
        }
    }

    async fn tick(&mut self) {
        if !self.undelivered.is_empty() {
            let only: HashSet<ExecutionId> = self.undelivered.drain(..).collect();
            self.dispatch_again(Some(&only)).await;
        }
        if self.waiting_for.is_some() {
            match self.core.store.action_workers().await {
                Ok(workers) if self.waiting_for.as_ref() != Some(&self.fleet(&workers)) => {
                    self.sweep().await;
                    return;
                }
                Ok(_) => {}
                Err(error) => log_store_error("read the workers", &error),
            }
        }
        let now = Instant::now();
        if now >= self.next_sweep || self.take_over.take_if(|at| now >= *at).is_some() {
            self.sweep().await;
        }
    }

    /// Schedules one execution. Errors are logged; the row stays for the sweep.
    async fn schedule(&mut self, id: ExecutionId) {
        if let Err(error) = self.try_schedule(id).await {
            self.failed(id, &error);
        }
    }

    /// The claim may be in the row all the same.
    fn failed(&mut self, id: ExecutionId, error: &StoreError) {
        log_store_error(&format!("schedule execution {id}"), error);
        self.take_over = Some(Instant::now() + STALE);
    }

    /// Whether it left the queue of waiting executions.
    async fn try_schedule(&mut self, id: ExecutionId) -> Result<bool, StoreError> {
        let Some(claimed) = self.core.store.claim_scheduling(id, STALE).await? else {
            return Ok(false);
        };
        let guard = ExecutionGuard::from(&claimed.execution);
        let workers = self.core.store.action_workers().await?;
        match self.chooser.choose(&claimed, &workers) {
            Choice::Worker(worker) => self.assign(&guard, worker, claimed.action.as_ref()).await,
            Choice::Never(reason) => self.fail(&guard, &reason).await,
            Choice::NotNow(reason) if self.has_waited_too_long(&claimed) => {
                let limit = self.core.config.waiting_limit.as_secs();
                self.fail(&guard, &format!("no worker took it within {limit} s: {reason}")).await
            }
            Choice::NotNow(reason) => {
                self.core.store.give_back(&guard).await?;
                if self.waiting_for.is_none() {
                    tracing::warn!(execution = id.0, action = claimed.execution.action_ref, reason, "execution waits");
                }
                self.waiting_for = Some(self.fleet(&workers));
                Ok(false)
            }
        }
    }

    async fn assign(
        &mut self,
        guard: &ExecutionGuard,
        worker: WorkerId,
        action: Option<&Action>,
    ) -> Result<bool, StoreError> {
        if let Some(execution) = self.core.store.assign_worker(guard, worker).await? {
            self.dispatch(&execution, worker, action).await;
            Ok(true)
        } else {
            tracing::debug!(execution = guard.execution.0, "somebody else decided while a worker was chosen");
            Ok(false)
        }
    }

    /// Tells the worker. Only ever after the row says so.
    async fn dispatch(&mut self, execution: &Execution, worker: WorkerId, action: Option<&Action>) {
        let mut outbox = self.core.outbox();
        outbox.add(&ExecutionDispatch {
            execution_id: execution.id,
            worker_id: worker,
            action_ref: execution.action_ref.clone(),
            config: with_defaults(execution.config.as_ref(), action),
            scheduled_attempt_updated_at: Some(execution.updated),
        });
        if !outbox.send(&*self.core.bus).await {
            self.undelivered.push(execution.id);
        }
    }

    async fn fail(&self, guard: &ExecutionGuard, reason: &str) -> Result<bool, StoreError> {
        tracing::warn!(execution = guard.execution.0, reason, "execution cannot be scheduled");
        let result = json!({
            "succeeded": false,
            "error": format!("Execution is unschedulable: {reason}"),
            "failed_by": "execution_scheduler",
        });
        Ok(self.core.end(guard, ExecutionStatus::Failed, &result).await?.is_some())
    }

    fn has_waited_too_long(&self, claimed: &Schedulable) -> bool {
        // `updated` was set by the claim a moment ago: both times are the store's.
        let waited = claimed.execution.updated.signed_duration_since(claimed.execution.created);
        waited.to_std().is_ok_and(|waited| waited > self.core.config.waiting_limit)
    }

    fn fleet(&self, workers: &[Candidate]) -> Fleet {
        let entry = |candidate: &Candidate| {
            let worker = &candidate.worker;
            let fresh = self.chooser.is_fresh(candidate);
            (worker.id, worker.status, worker.cordoned, fresh, worker.capabilities.clone())
        };
        workers.iter().map(entry).collect()
    }
}

/// The parameters with the schema's defaults; what is stored stays without them.
fn with_defaults(config: Option<&Value>, action: Option<&Action>) -> Option<Value> {
    let Some(param_schema) = action.and_then(|action| action.param_schema.as_ref()) else {
        return config.cloned();
    };
    let mut parameters = match config {
        Some(Value::Object(parameters)) => parameters.clone(),
        None | Some(Value::Null) => JsonMap::new(),
        Some(other) => return Some(other.clone()),
    };
    schema::apply_defaults(param_schema, &mut parameters);
    Some(Value::Object(parameters))
}

fn log_store_error(operation: &str, error: &(dyn std::error::Error + 'static)) {
    tracing::error!(error, operation, "storage failed; trying again later");
}
