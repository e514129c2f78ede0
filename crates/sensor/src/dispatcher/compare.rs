//! What is compared: the rows of the store, judged for this host, and whether there is anything new in them at all.
//!
//! As a rule there is not. Then nothing is read but a digest of the rows, and nothing is looked at but the files of the sensors.

use std::fmt::Display;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use attune_model::SensorId;
use attune_model::capabilities::CapabilityView;
use attune_model::chain;
use attune_store::{DesiredSensor, StoreError};
use tokio::task::spawn_blocking;
use tokio::time::Instant;

use super::Dispatcher;
use crate::context::{Context, STORE_LIMIT};
use crate::files::Look;
use crate::packs::Packs;
use crate::target::{Refusal, Target};

/// So long nothing but rows and files is believed to matter; an interpreter may be installed while the host runs.
const BELIEVED: Duration = Duration::from_mins(10);

/// A comparison that was made.
pub(super) struct Compared {
    digest: String,
    at: Instant,
}

impl Compared {
    pub(super) fn now(digest: String) -> Self {
        Self { digest, at: Instant::now() }
    }
}

/// One enabled sensor, and whether it is to run here.
pub(super) struct Judged {
    pub(super) sensor: SensorId,
    pub(super) sensor_ref: String,
    pub(super) verdict: Result<Target, Refusal>,
}

pub(super) fn judge_all(context: &Context, desired: Vec<DesiredSensor>) -> Vec<Judged> {
    let config = &context.config;
    let host = CapabilityView::of(&config.capabilities);
    let _still = context.packs.as_ref().map(Packs::hold_still);
    let mut look = Look::at(&config.paths.packs);
    let mut judge = |desired: DesiredSensor| {
        let (sensor, sensor_ref) = (desired.sensor.id, desired.sensor.r#ref.clone());
        let mut verdict = Target::judge(desired, &config.planner, &host, &mut look);
        if let (Ok(target), Some(packs)) = (&mut verdict, &context.packs) {
            target.follow(packs);
        }
        Judged { sensor, sensor_ref, verdict }
    };
    desired.into_iter().map(&mut judge).collect()
}

/// The answer of the store, in time.
pub(super) async fn asked<T>(
    context: &Context,
    question: impl Future<Output = Result<T, StoreError>>,
) -> Result<T, String> {
    let problem: &dyn Display = match context.deadline.within(STORE_LIMIT, question).await {
        Ok(Ok(answer)) => return Ok(answer),
        Ok(Err(error)) => &chain(&error),
        Err(late) => &late.to_string(),
    };
    Err(problem.to_string())
}

impl Dispatcher {
    /// Whether there would be nothing to do after another comparison.
    pub(super) async fn is_compared(&self, digest: &str) -> Result<bool, String> {
        let is_same = |compared: &Compared| compared.digest == digest && compared.at.elapsed() < BELIEVED;
        if !self.compared.as_ref().is_some_and(is_same) {
            return Ok(false);
        }
        let mut targets: Vec<Arc<Target>> = Vec::with_capacity(self.owners.len());
        for owner in self.owners.values() {
            // One that is not wanted any more is waited for, and forgotten by a comparison.
            match owner.wish.borrow().target().cloned().filter(|_| !owner.task.is_finished()) {
                Some(target) => targets.push(target),
                None => return Ok(false),
            }
        }
        let context = self.context.clone();
        let look = move || {
            let _still = context.packs.as_ref().map(Packs::hold_still);
            let mut look = Look::at(&context.config.paths.packs);
            targets.iter().all(|target| target.has_files_of_now(&mut look))
        };
        spawn_blocking(look).await.map_err(|error| error.to_string())
    }

    /// Reads what the rows of this host say about its sensors, after whatever earlier life of it. What becomes wanted later
    /// begins anew.
    pub(super) async fn read_history(&mut self, judged: &[Judged]) -> Result<(), String> {
        self.histories.clear();
        let is_first = self.started.is_some();
        if !is_first || judged.iter().all(|judged| judged.verdict.is_err()) {
            return Ok(());
        }
        let rows = asked(&self.context, self.context.store.processes(self.context.worker)).await?;
        let counts = |row: attune_model::rows::SensorProcess| {
            (row.sensor, (row.consecutive_failures, row.last_alerted_failure_count))
        };
        self.histories.extend(rows.into_iter().map(counts));
        Ok(())
    }
}
