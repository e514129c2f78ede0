//! What messages that were lost would have started: at start and on a slow timer.

use std::collections::HashSet;

use attune_model::ExecutionId;
use tokio::time::Instant;

use super::{BATCH, STALE, Scheduler, log_store_error};

impl Scheduler {
    /// Schedules every row that is `requested` or was left in `scheduling`.
    pub(super) async fn sweep(&mut self) {
        self.waiting_for = None;
        let mut seen = HashSet::new();
        let mut progress = false;
        loop {
            let batch = match self.core.store.unscheduled(STALE, BATCH).await {
                Ok(batch) => batch,
                Err(error) => {
                    log_store_error("look for executions without worker", &error);
                    break;
                }
            };
            // Rows that went back to wait are the most recently touched ones, so a batch without news ends the round.
            let news: Vec<ExecutionId> = batch.into_iter().filter(|id| seen.insert(*id)).collect();
            for id in &news {
                if self.stop.soft().is_cancelled() {
                    return;
                }
                match self.try_schedule(*id).await {
                    Ok(left) => progress |= left,
                    Err(error) => self.failed(*id, &error),
                }
            }
            if news.is_empty() {
                break;
            }
        }
        if progress {
            self.sweeps.reset();
        }
        self.next_sweep = Instant::now() + self.sweeps.next_delay();
    }

    /// Publishes the dispatch message of every `scheduled` row again, or of some. A worker that has it already does
    /// nothing: its claim is guarded.
    pub(super) async fn dispatch_again(&mut self, only: Option<&HashSet<ExecutionId>>) {
        let mut after = None;
        loop {
            let batch = match self.core.store.scheduled(after, BATCH).await {
                Ok(batch) => batch,
                Err(error) => {
                    log_store_error("look for executions whose worker has not begun", &error);
                    self.undelivered.extend(only.into_iter().flatten());
                    return;
                }
            };
            let Some((last, _)) = batch.last() else {
                return;
            };
            after = Some(last.id);
            for (execution, action) in &batch {
                if self.stop.soft().is_cancelled() {
                    return;
                }
                let wanted = only.is_none_or(|only| only.contains(&execution.id));
                if let Some(worker) = execution.worker.filter(|_| wanted) {
                    self.dispatch(execution, worker, action.as_ref()).await;
                }
            }
        }
    }
}
