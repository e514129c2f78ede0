//! The worker's row while it lives: fresh and active, and inactive at the end.

use std::sync::Arc;
use std::time::Duration;

use attune_lifecycle::CancellationToken;
use attune_model::chain;
use attune_model::measure::{Measure, Success};
use attune_model::status::WorkerStatus;
use tokio::time::{Instant, MissedTickBehavior, interval, timeout};
use tracing::Instrument as _;

use crate::endings::file_left_logs;
use crate::readiness::Part;
use crate::shared::Shared;

/// How long the last write of the row may take.
const FAREWELL_LIMIT: Duration = Duration::from_millis(500);

/// Keeps the row fresh and active until everything has ended.
pub(crate) async fn beat(shared: Arc<Shared>, period: Duration, drained: CancellationToken) {
    let mut ticks = interval(period.max(Duration::from_millis(10)));
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut is_missing = false;
    loop {
        tokio::select! {
            () = drained.cancelled() => return,
            _now = ticks.tick() => {}
        }
        let begun = Instant::now();
        let written = timeout(period, shared.store.heartbeat(shared.id, WorkerStatus::Active)).await;
        let success = if matches!(written, Ok(Ok(true))) { Success::Ok } else { Success::Failed };
        shared.observer.measure(Measure::Heartbeat { success, took: begun.elapsed() });
        match written {
            Ok(Ok(true)) => {
                if std::mem::take(&mut is_missing) {
                    tracing::info!("heartbeats are written again");
                }
                shared.readiness.up(Part::Heartbeat);
                if shared.filing.has_left() {
                    let shared = shared.clone();
                    shared.tasks.clone().spawn(async move { file_left_logs(&shared).await }.in_current_span());
                }
            }
            Ok(Ok(false)) => {
                tracing::error!("the row of this worker is gone; starting again makes a new one");
                shared.readiness.down(Part::Heartbeat);
                shared.stop.soft().cancel();
                return;
            }
            Ok(Err(error)) => missed(&shared, &mut is_missing, &chain(&error)),
            Err(_elapsed) => missed(&shared, &mut is_missing, "storage does not answer in time"),
        }
    }
}

/// A heartbeat could not be written. Said once, until one is.
fn missed(shared: &Shared, is_missing: &mut bool, error: &str) {
    if std::mem::replace(is_missing, true) {
        tracing::debug!(error, "no heartbeat");
    } else {
        tracing::warn!(error, "no heartbeat, trying on");
    }
    shared.readiness.down(Part::Heartbeat);
}

/// Says that the worker takes no work any more.
pub(crate) async fn farewell(shared: &Shared) {
    match timeout(FAREWELL_LIMIT, shared.store.set_worker_status(shared.id, WorkerStatus::Inactive)).await {
        Ok(Ok(())) => tracing::info!("worker stopped"),
        Ok(Err(error)) => {
            tracing::warn!(error = chain(&error), "the row could not be set inactive");
        }
        Err(_elapsed) => {
            tracing::warn!("the row could not be set inactive: storage does not answer");
        }
    }
}
