//! The row of one sensor's process on this host. A change that could not be written is kept and written later: what the
//! row says last is what happened last.

use std::collections::VecDeque;
use std::future::pending;
use std::sync::Arc;
use std::time::Duration;

use attune_store::ProcessChange;
use tokio::time::sleep;

use crate::context::Context;
use crate::target::Target;

const RETRY: Duration = Duration::from_secs(2);
const LAST_TRIES: usize = 2;
const LAST_RETRY: Duration = Duration::from_millis(200);

/// Writes changes of one row.
#[derive(Debug)]
pub(crate) struct Record {
    context: Arc<Context>,
    /// The oldest first.
    unwritten: VecDeque<(Arc<Target>, ProcessChange)>,
}

impl Record {
    pub(crate) fn new(context: Arc<Context>) -> Self {
        Self { context, unwritten: VecDeque::new() }
    }

    /// Writes a change, once; see [`Record::retry`].
    pub(crate) async fn write(&mut self, target: &Arc<Target>, change: ProcessChange) {
        self.set(target, change);
        self.write_set().await;
    }

    /// Whether the row says what was said last.
    pub(crate) fn is_written(&self) -> bool {
        self.unwritten.is_empty()
    }

    /// Puts a change in the place of whatever is not written yet. An alert takes the place of nothing: it says nothing about
    /// the process.
    pub(crate) fn set(&mut self, target: &Arc<Target>, change: ProcessChange) {
        if !matches!(change, ProcessChange::Alerted { .. }) {
            self.unwritten.clear();
        }
        self.unwritten.push_back((target.clone(), change));
    }

    /// Writes what was set, once. Cancel-safe: what is not known to be written stays.
    pub(crate) async fn write_set(&mut self) {
        // A failure is logged there; `retry` and `flush` come back to it.
        let _written = self.attempt().await;
    }

    /// Writes what could not be written, after a while; never ends when there is nothing. Cancel-safe: what is not
    /// known to be written stays.
    pub(crate) async fn retry(&mut self) {
        loop {
            if self.unwritten.is_empty() {
                pending::<()>().await;
            }
            sleep(RETRY).await;
            if self.attempt().await {
                return;
            }
        }
    }

    /// Writes what could not be written, a few times at once: there is no later.
    pub(crate) async fn flush(&mut self) {
        for _ in 0..LAST_TRIES {
            if self.attempt().await {
                return;
            }
            sleep(LAST_RETRY).await;
        }
    }

    async fn attempt(&mut self) -> bool {
        while let Some((target, change)) = self.unwritten.front() {
            if let Err(problem) = self.context.changes.write(target.clone(), change.clone()).await {
                tracing::warn!(sensor.ref = %target.sensor.r#ref, error = %problem, "failed to record the state of a sensor");
                return false;
            }
            self.unwritten.pop_front();
        }
        true
    }
}
