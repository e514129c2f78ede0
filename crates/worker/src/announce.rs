//! Messages about executions. The row is always written first.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use attune_bus::{Bus, BusError, Outgoing};
use attune_lifecycle::Backoff;
use attune_model::ActionId;
use attune_model::activity::Observer;
use attune_model::chain;
use attune_model::clock::Clock;
use attune_model::measure::Measure;
use attune_model::message::{ExecutionCompleted, ExecutionStatusChanged};
use attune_model::rows::Execution;
use attune_model::status::ExecutionStatus;
use serde_json::Value;

use crate::patience::Patience;
use crate::untold::Owed;

/// Longest result that goes along with a message; readers of more find it in the row, which is what counts. A broker closes the
/// channel of whoever sends more than it takes, 16 MiB from RabbitMQ 4 on, and would do so with every attempt.
const RESULT_LIMIT_BYTES: usize = 8 * 1024 * 1024;

/// The sender's name in every message.
const SERVICE: &str = "worker";

/// Tells the platform how executions go.
#[derive(Debug, Clone)]
pub(crate) struct Announcer {
    bus: Arc<dyn Bus>,
    clock: Arc<dyn Clock>,
    observer: Arc<dyn Observer>,
}

/// Whether a result is short enough for a message.
fn fits(result: &Value) -> bool {
    /// Takes as many bytes as there is room for, and forgets them.
    struct Room(usize);

    impl io::Write for Room {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0 = self.0.checked_sub(bytes.len()).ok_or(io::ErrorKind::WriteZero)?;
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    let fits = serde_json::to_writer(Room(RESULT_LIMIT_BYTES), result).is_ok();
    if !fits {
        tracing::info!(
            limit_bytes = RESULT_LIMIT_BYTES,
            "the result is too long for a message; it is in the row alone"
        );
    }
    fits
}

/// A terminal status that was written.
#[derive(Debug)]
pub(crate) struct End<'a> {
    /// Whose.
    pub(crate) execution: &'a Execution,
    /// The action, when the row does not name it.
    pub(crate) action: Option<ActionId>,
    /// The written status.
    pub(crate) status: ExecutionStatus,
    /// The written result.
    pub(crate) result: &'a Value,
}

impl Announcer {
    /// Publishes on `bus`.
    pub(crate) fn new(bus: Arc<dyn Bus>, clock: Arc<dyn Clock>, observer: Arc<dyn Observer>) -> Self {
        Self { bus, clock, observer }
    }

    /// Says that an execution runs. Only watchers miss it, so a failure is not retried.
    pub(crate) async fn running(&self, execution: &Execution) {
        let message = self.status_changed(execution, ExecutionStatus::Scheduled, ExecutionStatus::Running);
        let published = match message {
            Ok(message) => self.bus.publish(&[message]).await,
            Err(error) => Err(error),
        };
        if let Err(error) = published {
            tracing::warn!(error = chain(&error), "`running` could not be announced");
        }
    }

    /// Says that an execution ended, both messages in one batch. The second frees its slot in the platform's scheduler,
    /// so they are repeated until the broker has them or this process has to go: then `owed` is left to the next life.
    pub(crate) async fn ended(&self, end: &End<'_>, owed: Option<Owed>, patience: &Patience) {
        let messages = match self.messages(end) {
            Ok(messages) => messages,
            Err(error) => {
                tracing::error!(error = chain(&error), "the end could not be announced");
                return;
            }
        };
        let mut backoff = Backoff::new(Duration::from_millis(100), Duration::from_secs(5));
        while let Err(error) = self.bus.publish(&messages).await {
            let delay = backoff.next_delay();
            if backoff.attempts() == 1 {
                tracing::warn!(error = chain(&error), "the end could not be announced, trying on");
            } else {
                tracing::debug!(error = chain(&error), "the end could not be announced again");
            }
            self.observer.measure(Measure::PublishRetried);
            if !patience.wait(delay).await {
                tracing::error!("the end is stored but was not announced; the next start of this worker does it");
                return;
            }
        }
        if let Some(owed) = owed {
            owed.settle();
        }
    }

    fn messages(&self, end: &End<'_>) -> Result<[Outgoing; 2], BusError> {
        let completed = ExecutionCompleted {
            execution_id: end.execution.id,
            // An integer is required; readers go by the execution.
            action_id: end.execution.action.or(end.action).unwrap_or(ActionId(0)),
            action_ref: end.execution.action_ref.clone(),
            status: end.status.capitalised().to_owned(),
            result: fits(end.result).then(|| end.result.clone()),
            completed_at: self.clock.now(),
        };
        Ok([
            // The platform's workers name the status that the row has by now, and so it says nothing about the time before.
            self.status_changed(end.execution, end.status, end.status)?,
            Outgoing::new(&completed, SERVICE, self.clock.now())?,
        ])
    }

    fn status_changed(
        &self,
        execution: &Execution,
        previous: ExecutionStatus,
        new: ExecutionStatus,
    ) -> Result<Outgoing, BusError> {
        let now = self.clock.now();
        let payload = ExecutionStatusChanged {
            execution_id: execution.id,
            action_ref: execution.action_ref.clone(),
            previous_status: previous.as_str().to_owned(),
            new_status: new.as_str().to_owned(),
            changed_at: now,
        };
        Outgoing::new(&payload, SERVICE, now)
    }
}
