//! The row of one sensor's process on this host. A change that could not be written is kept and written later: what the
//! row says last is what happened last.

use std::collections::VecDeque;
use std::future::pending;
use std::sync::Arc;
use std::time::Duration;

use attune_store::ProcessChange;
use tokio::time::{Instant, sleep, sleep_until};

use crate::context::Context;
use crate::recorder::{Unwritten, Written};
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
    /// Tells what becomes of the first of them, once it is handed in. Whoever waits for it may be called away at any time.
    under_way: Option<Written>,
    /// When it is handed in again.
    retry_at: Instant,
    /// Whether it was said that the store does not take it.
    is_told: bool,
}

impl Record {
    pub(crate) fn new(context: Arc<Context>) -> Self {
        Self { context, unwritten: VecDeque::new(), under_way: None, retry_at: Instant::now(), is_told: false }
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

    /// Puts a change in the place of whatever is not written yet. An alert and another number of rules take the place of nothing
    /// but their like: they say nothing about the process.
    pub(crate) fn set(&mut self, target: &Arc<Target>, change: ProcessChange) {
        match change {
            ProcessChange::Alerted { .. } => {}
            ProcessChange::Rules => {
                let is_first = self.unwritten.front().is_some_and(|(_, first)| *first == ProcessChange::Rules);
                self.unwritten.retain(|(_, waiting)| *waiting != ProcessChange::Rules);
                self.under_way.take_if(|_| is_first);
            }
            _ => {
                self.unwritten.clear();
                self.under_way = None;
            }
        }
        self.retry_at = Instant::now() + RETRY;
        self.unwritten.push_back((target.clone(), change));
    }

    /// Writes what was set, once. Cancel-safe: what is not known to be written stays.
    pub(crate) async fn write_set(&mut self) {
        // A failure is logged there; `retry` and `flush` come back to it.
        let _written = self.attempt().await;
    }

    /// Has what was set written with the next [`Record::retry`], which then does not wait.
    pub(crate) fn hurry(&mut self) {
        self.retry_at = Instant::now();
    }

    /// Writes what could not be written, after a while; never ends when there is nothing. Cancel-safe: what is not
    /// known to be written stays, and who comes back waits for the rest of that while.
    pub(crate) async fn retry(&mut self) {
        loop {
            if self.unwritten.is_empty() {
                pending::<()>().await;
            }
            if self.under_way.is_none() {
                sleep_until(self.retry_at).await;
            }
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
            let changes = &self.context.changes;
            let under_way = self.under_way.get_or_insert_with(|| changes.hand_in(target.clone(), change.clone()));
            let written = under_way.await;
            self.under_way = None;
            if let Err(Unwritten::Refused(problem)) = &written
                && !std::mem::replace(&mut self.is_told, true)
            {
                tracing::warn!(sensor.ref = %target.sensor.r#ref, error = problem, "failed to record the state of a sensor");
            }
            if written.is_err() {
                self.retry_at = Instant::now() + RETRY;
                return false;
            }
            self.is_told = false;
            self.unwritten.pop_front();
        }
        true
    }
}
