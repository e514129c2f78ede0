//! The course of one execution: claim, ack, run, finish, publish.
//!
//! The row decides at both ends. A claim that changes no row means that the execution is not ours; a finish that changes
//! no row means that somebody else has ended it, and our result is dropped. What was claimed ends in a terminal status,
//! also when a bug panics on the way, unless this process dies; then the next life of the worker ends it.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use attune_bus::{Delivery, Requeue};
use attune_lifecycle::Backoff;
use attune_model::ExecutionId;
use attune_model::chain;
use attune_model::measure::{ClaimAnswer, Measure};
use attune_model::rows::Execution;
use attune_model::status::ExecutionStatus;
use attune_store::{Claim, ClaimedExecution, Decision, LogStream, StoreError};
use chrono::{DateTime, Utc};
use futures_util::FutureExt as _;
use serde_json::Value;
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::{Instant, sleep, timeout};

use crate::announce::End;
use crate::cancellations::InHand;
use crate::endings::{Ended, PLACES_LIMIT, end_unfinished, tell, write_end};
use crate::executor::{Control, Sinks};
use crate::logs::LogOwner;
use crate::patience::trying_again;
use crate::result::{Conclusion, early_failure, storable};
use crate::running::Entered;
use crate::shared::Shared;

/// How long a worker that stops waits to hear what became of a claim.
const LOOK_LIMIT: Duration = Duration::from_secs(5);

/// One execution in hand.
#[derive(Debug)]
pub(crate) struct Course {
    shared: Arc<Shared>,
    in_hand: InHand,
    /// What the message says about the row, if there was one.
    scheduled_at: Option<DateTime<Utc>>,
    _place: OwnedSemaphorePermit,
}

/// What became of the attempt to claim.
enum Claiming {
    /// The store has spoken.
    Answered(Claim),
    /// The answer to an earlier attempt was lost and the row is running: that was us.
    AnswerLost,
    /// The worker stops, and as far as is known the execution was not claimed.
    Stopping,
    /// The store cannot do it.
    Refused(StoreError),
    /// Nobody knows: a bug.
    Panicked,
}

impl Claiming {
    fn measured(&self) -> ClaimAnswer {
        match self {
            Self::Answered(Claim::Claimed(_)) => ClaimAnswer::Claimed,
            Self::Answered(Claim::Cancelled(_)) => ClaimAnswer::Cancelled,
            Self::Answered(Claim::NotOurs { .. }) => ClaimAnswer::NotOurs,
            Self::Stopping => ClaimAnswer::GivenBack,
            Self::AnswerLost | Self::Refused(_) | Self::Panicked => ClaimAnswer::Failed,
        }
    }
}

impl Course {
    /// Takes an execution in hand; none when it is already.
    pub(crate) fn new(
        shared: Arc<Shared>,
        execution: ExecutionId,
        scheduled_at: Option<DateTime<Utc>>,
        place: OwnedSemaphorePermit,
    ) -> Option<Self> {
        let in_hand = shared.cancellations.take(execution)?;
        Some(Self { shared, in_hand, scheduled_at, _place: place })
    }

    /// Goes the whole way, with the slot that it takes until its row is written. `delivery` is the message that asked for it, if
    /// one did. A bug costs this execution its success, and nothing else.
    pub(crate) async fn run(self, slot: OwnedSemaphorePermit, delivery: Option<Delivery>) {
        if AssertUnwindSafe(self.go(slot, delivery)).catch_unwind().await.is_err() {
            self.end_panicked().await;
        }
    }

    async fn go(&self, slot: OwnedSemaphorePermit, delivery: Option<Delivery>) {
        let begun = Instant::now();
        // The message would keep its place with the broker for as long as this worker lives.
        let claiming = AssertUnwindSafe(self.claim()).catch_unwind().await.unwrap_or(Claiming::Panicked);
        self.shared.observer.measure(Measure::Claim { answer: claiming.measured(), took: begun.elapsed() });
        let answer = match &claiming {
            Claiming::Stopping => Some(Requeue::Yes),
            Claiming::Refused(_) | Claiming::Panicked => Some(Requeue::No),
            Claiming::Answered(_) | Claiming::AnswerLost => None,
        };
        // The claim is committed or will not come: from here on the row keeps what the message told.
        if let Some(delivery) = delivery {
            let answered = match answer {
                None => delivery.ack().await,
                Some(requeue) => delivery.reject(requeue).await,
            };
            if let Err(error) = answered {
                tracing::debug!(%error, "dispatch will come again and find the row taken");
            }
        }
        match claiming {
            Claiming::Answered(Claim::Claimed(claimed)) => self.execute(*claimed, slot).await,
            Claiming::Answered(Claim::Cancelled(execution)) => {
                self.announce_cancelled(&execution).await;
            }
            Claiming::Answered(Claim::NotOurs { status: Some(ExecutionStatus::Scheduled) }) => {
                tracing::info!("dispatch forgotten: the execution was scheduled anew, or for another worker");
                // Its own message is on its way; should that be lost, the row is found.
                self.shared.rescheduled.notify_one();
            }
            Claiming::Answered(Claim::NotOurs { status }) => {
                let status = status.map_or("gone", ExecutionStatus::as_str);
                tracing::info!(status, "dispatch forgotten: the execution is not ours to start");
            }
            Claiming::AnswerLost => {
                let lost = "worker lost its connection to storage while it started the execution";
                self.end_claimed(ExecutionStatus::Abandoned, lost).await;
            }
            Claiming::Refused(error) => {
                let error = chain(&error);
                tracing::error!(error, "execution cannot be claimed; where it was not, it is left to the scheduler");
                // It was, when only what the claim brought cannot be read.
                self.end_claimed(ExecutionStatus::Failed, &format!("the execution cannot be read: {error}")).await;
            }
            Claiming::Panicked => self.end_panicked().await,
            Claiming::Stopping => tracing::info!("dispatch given back: the worker stops"),
        }
    }

    async fn end_panicked(&self) {
        tracing::error!("the course of the execution panicked; this is a bug of the worker");
        self.end_claimed(ExecutionStatus::Failed, "the worker failed while it had the execution").await;
    }

    /// Ends the execution if it was claimed, and nobody can run it.
    async fn end_claimed(&self, status: ExecutionStatus, reason: &str) {
        end_unfinished(&self.shared, Some(self.in_hand.execution()), (status, reason)).await;
    }

    async fn claim(&self) -> Claiming {
        let mut backoff = Backoff::new(Duration::from_millis(100), Duration::from_secs(5));
        loop {
            let execution = self.in_hand.execution();
            let claim = self.shared.store.claim_execution(execution, self.shared.id, self.scheduled_at).await;
            let error = match claim {
                Ok(Claim::NotOurs { status: Some(ExecutionStatus::Running | ExecutionStatus::Canceling) })
                    if backoff.attempts() > 0 =>
                {
                    return Claiming::AnswerLost;
                }
                Ok(claim) => return Claiming::Answered(claim),
                Err(error) => error,
            };
            match error.decision() {
                Decision::Fail => return Claiming::Refused(error),
                Decision::Retry => trying_again(&backoff, "execution cannot be claimed", &error),
            }
            tokio::select! {
                () = sleep(backoff.next_delay()) => {}
                () = self.shared.stop.soft().cancelled() => return self.look_once_more().await,
            }
        }
    }

    /// An attempt has failed and there will be no other: should only its answer be lost, the row runs and nobody runs it. Where storage
    /// does not say, or does it only later, the next life of this worker ends it, or the scheduler.
    async fn look_once_more(&self) -> Claiming {
        let Shared { store, stop, id, .. } = &*self.shared;
        let looked = tokio::select! {
            looked = timeout(LOOK_LIMIT, store.unfinished_executions(*id)) => looked.ok(),
            () = stop.hard().cancelled() => None,
        };
        match looked {
            Some(Ok(rows)) if rows.iter().any(|(fence, _)| fence.execution == self.in_hand.execution()) => {
                return Claiming::AnswerLost;
            }
            Some(Ok(_)) => {}
            Some(Err(error)) => tracing::warn!(error = chain(&error), "whether the execution was claimed is not known"),
            None => tracing::warn!("whether the execution was claimed is not known: storage does not answer"),
        }
        Claiming::Stopping
    }

    async fn execute(&self, mut claimed: ClaimedExecution, slot: OwnedSemaphorePermit) {
        if let (None, Some(action)) = (&claimed.runtime, &claimed.action) {
            let advertised = self.shared.executor.advertised();
            let found = self.shared.runtimes.of_file(&*self.shared.store, &action.entrypoint, &advertised.runtimes);
            match found.await {
                Ok(Some((runtime, versions))) => {
                    claimed.runtime = Some(runtime);
                    claimed.runtime_versions = versions;
                }
                Ok(None) => {}
                Err(error) => tracing::warn!(error = chain(&error), "runtimes cannot be read"),
            }
        }
        let running = self.shared.running.enter(&claimed.execution, slot);
        let claimed = Arc::new(claimed);
        tracing::info!(action = claimed.execution.action_ref, "execution started");
        let announcing = self.shared.announcer.running(&claimed.execution);
        let end = async {
            let conclusion = self.run_action(claimed.clone()).await;
            self.conclude(&claimed, conclusion, running).await
        };
        // A broker that does not answer holds up the messages, never the row.
        let ((), written) = tokio::join!(announcing, end);
        if let Some(written) = written {
            tell(&self.shared, written).await;
        }
    }

    /// In a task of its own, so that a bug that panics there costs one execution its success and nothing else.
    async fn run_action(&self, claimed: Arc<ClaimedExecution>) -> Conclusion {
        let shared = self.shared.clone();
        let control = Control { cancel: self.in_hand.cancel().clone(), hard: shared.stop.hard().clone() };
        let ran = self.shared.tasks.spawn(async move {
            tokio::select! {
                () = shared.ensure_pack(&claimed) => {}
                () = control.ended() => {}
            }
            let sinks = shared.sinks(&claimed);
            shared.executor.run(&claimed, Some(shared.claims()), &control, sinks).await
        });
        ran.await.unwrap_or_else(|error| {
            tracing::error!(%error, "running the action panicked; this is a bug of the worker");
            Conclusion::Failed(early_failure("Execution failed", "the worker failed while it ran the action"))
        })
    }

    async fn conclude(&self, claimed: &ClaimedExecution, conclusion: Conclusion, running: Entered) -> Option<Ended> {
        let (shared, since) = (&self.shared, running.since());
        let logs = LogOwner::new(&claimed.execution, claimed.action.as_ref(), shared.executor.config().log_retention);
        // Asked as late as possible: a cancel that came while the action ended is obeyed.
        let conclusion = if self.in_hand.cancel().is_cancelled() { conclusion.cancelled() } else { conclusion };
        let ended = Ended {
            fence: claimed.fence,
            execution: claimed.execution.clone(),
            action: claimed.action.as_ref().map(|action| action.id),
            status: conclusion.status(),
            result: storable(conclusion.document(None)),
            secrets: conclusion.sealed().to_vec(),
            logs: Some(logs),
            entered: None,
            running: Some(running),
            owed: None,
        };
        let written = write_end(shared, ended, None, PLACES_LIMIT).await?;
        shared.observer.measure(Measure::ExecutionEnded { status: written.status, took: Some(since.elapsed()) });
        tracing::info!(status = %written.status, action = written.execution.action_ref, "execution ended");
        Some(written)
    }

    async fn announce_cancelled(&self, execution: &Execution) {
        self.shared.observer.measure(Measure::ExecutionEnded { status: ExecutionStatus::Cancelled, took: None });
        tracing::info!(action = execution.action_ref, "execution was cancelled before it started");
        let end = End {
            execution,
            action: None,
            status: ExecutionStatus::Cancelled,
            result: execution.result.as_ref().unwrap_or(&Value::Null),
        };
        let owed = self.shared.untold.owe(execution.id);
        self.shared.announcer.ended(&end, Some(owed), &self.shared.patience).await;
    }
}

impl Shared {
    /// Fetches the pack of an action that is not here. A failure shows when its code is not found.
    async fn ensure_pack(&self, claimed: &ClaimedExecution) {
        if let (Some(packs), Some(action)) = (self.pack_sync(), &claimed.action)
            && let Err(error) = packs.ensure(&action.pack_ref).await
        {
            tracing::warn!(pack = action.pack_ref, error = chain(&error), "pack is not here");
        }
    }

    /// The log files of an execution. An action whose result has secrets may print them: its standard output is not kept.
    fn sinks(&self, claimed: &ClaimedExecution) -> Sinks {
        let config = self.executor.config();
        let execution = claimed.execution.id;
        let stdout = (!crate::executor::has_secret_output(claimed.action.as_ref()))
            .then(|| self.filing.logs().sink(execution, LogStream::Stdout, config.max_stdout_bytes));
        Sinks {
            stdout: stdout.map(|sink| Box::new(sink) as _),
            stderr: Some(Box::new(self.filing.logs().sink(execution, LogStream::Stderr, config.max_stderr_bytes))),
        }
    }
}
