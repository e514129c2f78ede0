//! What the tasks of one worker have in common.

use std::sync::Arc;

use attune_lifecycle::{Stop, Tasks};
use attune_model::WorkerId;
use attune_model::activity::Observer;
use attune_store::WorkerStore;
use tokio::sync::Semaphore;

use crate::announce::Announcer;
use crate::building::Building;
use crate::cancellations::Cancellations;
use crate::executor::Executor;
use crate::logs::Logs;
use crate::patience::Patience;
use crate::readiness::Readiness;
use crate::runtimes::Runtimes;

/// Built once, when the worker is spawned.
#[derive(Debug)]
pub(crate) struct Shared {
    /// The worker's row.
    pub(crate) id: WorkerId,
    /// Rows.
    pub(crate) store: Arc<dyn WorkerStore>,
    /// Messages.
    pub(crate) announcer: Announcer,
    /// Runs one action.
    pub(crate) executor: Executor,
    /// For actions that name no runtime.
    pub(crate) runtimes: Runtimes,
    /// Their logs.
    pub(crate) logs: Logs,
    /// What is in hand.
    pub(crate) cancellations: Cancellations,
    /// Whether work can be taken.
    pub(crate) readiness: Readiness,
    /// One permit for each execution at a time.
    pub(crate) slots: Arc<Semaphore>,
    /// How many permits there are.
    pub(crate) slot_count: u16,
    /// Who watches.
    pub(crate) observer: Arc<dyn Observer>,
    /// The end.
    pub(crate) stop: Stop,
    /// How long after it something may still be tried.
    pub(crate) patience: Patience,
    /// Everything that runs.
    pub(crate) tasks: Tasks,
}

impl Shared {
    /// For environments that executions need.
    pub(crate) fn building(&self) -> Building<'_> {
        Building {
            store: Some(&*self.store),
            worker: self.id,
            observer: &*self.observer,
        }
    }
}
