//! What all parts of the hub share, and the steps that more than one of them takes.

use std::sync::Arc;

use attune_bus::Bus;
use attune_model::clock::Clock;
use attune_model::message::{ExecutionCancelRequested, ExecutionStatusChanged};
use attune_model::rows::Execution;
use attune_model::status::ExecutionStatus;
use attune_model::{ExecutionId, IdentityId};
use attune_store::{Cancel, ExecutionGuard, HubStore, NewExecution, StoreError};
use chrono::{DateTime, Utc};
use serde_json::{Value, json};

use crate::HubConfig;
use crate::outbox::Outbox;
use crate::vitals::Vitals;

/// Storage, bus, clock and settings.
#[derive(Debug)]
pub(crate) struct Core {
    pub(crate) config: HubConfig,
    pub(crate) store: Arc<dyn HubStore>,
    pub(crate) bus: Arc<dyn Bus>,
    pub(crate) clock: Arc<dyn Clock>,
    /// Identity 1.
    pub(crate) system: IdentityId,
    pub(crate) vitals: Vitals,
}

impl Core {
    pub(crate) fn now(&self) -> DateTime<Utc> {
        self.clock.now()
    }

    pub(crate) fn outbox(&self) -> Outbox {
        Outbox::new(self.now())
    }

    /// Stores an execution and asks for its scheduling.
    pub(crate) async fn request_execution(&self, execution: &NewExecution) -> Result<Execution, StoreError> {
        let stored = self.store.insert_execution(execution).await?;
        let mut outbox = self.outbox();
        outbox.requested(&stored);
        outbox.send(&*self.bus).await;
        Ok(stored)
    }

    /// Ends an execution that no worker will end, and says so. None when somebody else was faster.
    pub(crate) async fn end(
        &self,
        guard: &ExecutionGuard,
        status: ExecutionStatus,
        result: &Value,
    ) -> Result<Option<Execution>, StoreError> {
        let ended = self.store.end_execution(guard, status, result).await?;
        if let Some(execution) = &ended {
            let mut outbox = self.outbox();
            outbox.completed(execution);
            outbox.send(&*self.bus).await;
        }
        Ok(ended)
    }

    /// Begins a cancel: what has not started is cancelled at once, the worker of what runs is told.
    pub(crate) async fn cancel(&self, id: ExecutionId) -> Result<Cancel, StoreError> {
        let result = json!({"error": "Cancelled by user before execution started"});
        let outcome = self.store.cancel_execution(id, &result).await?;
        let mut outbox = self.outbox();
        match &outcome {
            Cancel::Cancelled { before, execution } => {
                outbox.add(&status_changed(execution, *before));
                outbox.completed(execution);
            }
            Cancel::Canceling { execution } => {
                outbox.add(&status_changed(execution, ExecutionStatus::Running));
                if let Some(worker_id) = execution.worker {
                    outbox.add(&ExecutionCancelRequested { execution_id: id, worker_id });
                } else {
                    tracing::warn!(execution = id.0, "a running execution has no worker to tell");
                }
            }
            Cancel::Already { .. } | Cancel::Ended { .. } | Cancel::Unknown => {}
        }
        outbox.send(&*self.bus).await;
        Ok(outcome)
    }
}

fn status_changed(execution: &Execution, before: ExecutionStatus) -> ExecutionStatusChanged {
    ExecutionStatusChanged {
        execution_id: execution.id,
        action_ref: execution.action_ref.clone(),
        previous_status: before.to_string(),
        new_status: execution.status.to_string(),
        changed_at: execution.updated,
    }
}
