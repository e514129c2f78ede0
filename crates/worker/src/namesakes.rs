//! Other live processes of this worker's name. They have its row and its queues, as everything on the platform goes by the
//! name, and what they run is not for this one to end.

use std::sync::Arc;
use std::time::Duration;

use attune_bus::Bus;
use attune_model::{WorkerId, chain};
use tokio::time::sleep;

use crate::readiness::{Part, Readiness};
use crate::subscription::cancel_queue;

/// How long a process that was killed a moment ago may still be counted by the broker, in pauses between two looks.
const FORGETTING: [Duration; 4] =
    [Duration::from_millis(25), Duration::from_millis(75), Duration::from_millis(200), Duration::from_millis(700)];

/// Known by their consumers of cancels, which live for as long as anything runs.
#[derive(Debug)]
pub(crate) struct Namesakes {
    bus: Arc<dyn Bus>,
    worker: WorkerId,
    found: bool,
    period: Duration,
}

impl Namesakes {
    /// Looks for them before this worker consumes anything. `consumers` were there when its queue of cancels was declared:
    /// none, as is usual, and nothing is asked. Later looks are a `period` apart.
    pub(crate) async fn find(bus: Arc<dyn Bus>, worker: WorkerId, mut consumers: u32, period: Duration) -> Self {
        let mut pauses = FORGETTING.into_iter();
        while consumers > 0
            && let Some(pause) = pauses.next()
        {
            sleep(pause).await;
            consumers = bus.declare(&cancel_queue(worker)).await.unwrap_or(consumers);
        }
        Self { bus, worker, found: consumers > 0, period }
    }

    /// Whether there were any at the start.
    pub(crate) fn were_there(&self) -> bool {
        self.found
    }

    /// Comes when none is left. Seen twice: one that has to connect again is gone for a moment only.
    pub(crate) async fn gone(&self, readiness: &Readiness) {
        let mut seen_alone = false;
        loop {
            sleep(self.period).await;
            let is_alone = self.is_alone(readiness).await;
            if is_alone && seen_alone {
                return;
            }
            seen_alone = is_alone;
        }
    }

    async fn is_alone(&self, readiness: &Readiness) -> bool {
        match self.bus.declare(&cancel_queue(self.worker)).await {
            // One is this worker's own, if that is there.
            Ok(consumers) => consumers <= 1 && readiness.is_up(Part::Cancels),
            Err(error) => {
                tracing::debug!(error = chain(&error), "other processes of this name cannot be looked for");
                false
            }
        }
    }
}
