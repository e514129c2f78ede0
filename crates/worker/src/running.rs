//! What the worker runs at the moment, for those who look at it.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use attune_model::activity::Observer;
use attune_model::condition::Condition;
use attune_model::measure::Measure;
use attune_model::rows::Execution;
use attune_model::{ExecutionId, WorkerId};
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::Instant;

use crate::readiness::Readiness;

/// An execution that was claimed and has not ended. Nothing of what it was given.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RunningExecution {
    /// Its row.
    pub id: ExecutionId,
    /// Its action.
    pub action_ref: String,
    /// Since the claim.
    pub age: Duration,
}

/// A look at a worker from outside. Outlives it; clones are the same.
#[derive(Debug, Clone)]
pub struct Overview {
    pub(crate) id: WorkerId,
    pub(crate) slot_count: u16,
    pub(crate) readiness: Readiness,
    pub(crate) running: Running,
}

impl Overview {
    /// The worker's row.
    pub fn id(&self) -> WorkerId {
        self.id
    }

    /// How many executions run at once at most.
    pub fn slots(&self) -> u16 {
        self.slot_count
    }

    /// What has to be well for the worker to take work: its consumers and its row, as they are now.
    pub fn conditions(&self, all: &mut Vec<Condition>) {
        self.readiness.conditions(all);
    }

    /// What is running, by id.
    pub fn running(&self) -> Vec<RunningExecution> {
        let entries = self.running.entries();
        let look = |(id, entry): (&ExecutionId, &Entry)| RunningExecution {
            id: *id,
            action_ref: entry.action_ref.clone(),
            age: entry.since.elapsed(),
        };
        entries.iter().map(look).collect()
    }
}

#[derive(Debug)]
struct Entry {
    action_ref: String,
    since: Instant,
}

/// The claimed executions.
#[derive(Debug, Clone)]
pub(crate) struct Running {
    entries: Arc<Mutex<BTreeMap<ExecutionId, Entry>>>,
    observer: Arc<dyn Observer>,
}

impl Running {
    /// Nothing runs; starts and ends are told to `observer`.
    pub(crate) fn new(observer: Arc<dyn Observer>) -> Self {
        Self { entries: Arc::default(), observer }
    }

    fn entries(&self) -> MutexGuard<'_, BTreeMap<ExecutionId, Entry>> {
        self.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// `execution` runs in `slot` until the result is dropped.
    pub(crate) fn enter(&self, execution: &Execution, slot: OwnedSemaphorePermit) -> Entered {
        let since = Instant::now();
        let entry = Entry { action_ref: execution.action_ref.clone(), since };
        self.entries().insert(execution.id, entry);
        self.observer.measure(Measure::ExecutionStarted);
        Entered { id: execution.id, since, all: self.clone(), _slot: slot }
    }
}

/// An execution that runs, in its slot.
#[derive(Debug)]
pub(crate) struct Entered {
    id: ExecutionId,
    since: Instant,
    all: Running,
    _slot: OwnedSemaphorePermit,
}

impl Entered {
    /// When it was claimed.
    pub(crate) fn since(&self) -> Instant {
        self.since
    }
}

impl Drop for Entered {
    fn drop(&mut self) {
        self.all.entries().remove(&self.id);
        self.all.observer.measure(Measure::ExecutionLeft);
    }
}
