//! Messages that are published after a unit of work was committed.

use attune_bus::{Bus, Outgoing};
use attune_model::message::{ExecutionCompleted, ExecutionRequested, Payload};
use attune_model::rows::Execution;
use chrono::{DateTime, Utc};

/// `headers.source_service` of everything that a hub publishes.
pub const SOURCE_SERVICE: &str = "attune-hub";

/// Collects messages and publishes them together, in order.
#[derive(Debug)]
pub(crate) struct Outbox {
    now: DateTime<Utc>,
    messages: Vec<Outgoing>,
}

impl Outbox {
    /// An empty one for messages made at `now`.
    pub(crate) fn new(now: DateTime<Utc>) -> Self {
        Self { now, messages: Vec::new() }
    }

    /// Adds a message.
    pub(crate) fn add<P: Payload>(&mut self, payload: &P) {
        match Outgoing::new(payload, SOURCE_SERVICE, self.now) {
            Ok(message) => self.messages.push(message),
            Err(error) => {
                let error: &dyn std::error::Error = &error;
                tracing::error!(error, "message left out");
            }
        }
    }

    /// Adds the request to schedule an execution.
    pub(crate) fn requested(&mut self, execution: &Execution) {
        self.add(&ExecutionRequested {
            execution_id: execution.id,
            action_id: execution.action,
            action_ref: execution.action_ref.clone(),
            parent_id: execution.parent,
            enforcement_id: execution.enforcement,
            config: execution.config.clone(),
        });
    }

    /// Adds the news that an execution has ended. The platform requires the action's id: without one nobody is told.
    pub(crate) fn completed(&mut self, execution: &Execution) {
        let Some(action_id) = execution.action else {
            return;
        };
        self.add(&ExecutionCompleted {
            execution_id: execution.id,
            action_id,
            action_ref: execution.action_ref.clone(),
            status: execution.status.capitalised().to_owned(),
            result: execution.result.clone(),
            completed_at: execution.updated,
        });
    }

    /// Publishes everything. False when the bus did not take it, which is logged: the rows are committed, so what the
    /// messages would have started is found again later.
    pub(crate) async fn send(self, bus: &dyn Bus) -> bool {
        if self.messages.is_empty() {
            return true;
        }
        let count = self.messages.len();
        match bus.publish(&self.messages).await {
            Ok(()) => true,
            Err(error) => {
                let error: &dyn std::error::Error = &error;
                tracing::warn!(error, count, "messages could not be published; the rows are stored");
                false
            }
        }
    }
}
