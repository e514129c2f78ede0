//! The worker's row while it lives: fresh and active, and inactive at the end.

use std::sync::Arc;
use std::time::Duration;

use attune_lifecycle::{Backoff, CancellationToken};
use attune_model::chain;
use attune_model::measure::{Measure, Success};
use attune_model::status::WorkerStatus;
use attune_store::{Decision, StoreError};
use tokio::time::{Instant, MissedTickBehavior, interval, sleep, timeout};
use tracing::Instrument as _;

use crate::endings::file_left_logs;
use crate::readiness::Part;
use crate::shared::Shared;

/// How long the last write of the row may be tried: whoever believes that this worker is there gives it work until its heartbeats are
/// missed. A busy server takes its time when many agents leave at once.
const FAREWELL_LIMIT: Duration = Duration::from_secs(5);

/// The same once the process has to go.
const HURRIED_FAREWELL_LIMIT: Duration = Duration::from_millis(500);

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
    let say = || shared.store.set_worker_status(shared.id, WorkerStatus::Inactive);
    match insist_for_a_while(shared.stop.hard(), say).await {
        Ok(()) => tracing::info!("worker stopped"),
        Err(error) => tracing::warn!(error, "the row could not be set inactive"),
    }
}

/// Writes until storage takes it or will never, or the time is over.
async fn insist_for_a_while<F>(hard: &CancellationToken, mut write: impl FnMut() -> F) -> Result<(), String>
where
    F: Future<Output = Result<(), StoreError>>,
{
    let mut last = "storage does not answer".to_owned();
    let attempts = async {
        let mut backoff = Backoff::new(Duration::from_millis(50), Duration::from_secs(1));
        loop {
            match write().await {
                Ok(()) => return true,
                Err(error) => {
                    last = chain(&error);
                    if error.decision() == Decision::Fail {
                        return false;
                    }
                }
            }
            sleep(backoff.next_delay()).await;
        }
    };
    let hurry = async {
        hard.cancelled().await;
        sleep(HURRIED_FAREWELL_LIMIT).await;
    };
    let is_written = tokio::select! {
        biased;
        written = timeout(FAREWELL_LIMIT, attempts) => written.unwrap_or(false),
        () = hurry => false,
    };
    if is_written { Ok(()) } else { Err(last) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn unavailable() -> StoreError {
        StoreError::Unavailable { operation: "test".to_owned(), source: "the connection is gone".into() }
    }

    #[tokio::test(start_paused = true)]
    async fn the_last_write_waits_for_a_busy_server_and_is_tried_again() {
        let (hard, mut attempts) = (CancellationToken::new(), 0);
        let written = insist_for_a_while(&hard, || {
            attempts += 1;
            let is_lost = attempts < 3;
            async move {
                sleep(Duration::from_secs(1)).await;
                if is_lost { Err(unavailable()) } else { Ok(()) }
            }
        });
        assert_eq!(written.await, Ok(()));
        assert_eq!(attempts, 3);
    }

    #[tokio::test(start_paused = true)]
    async fn the_last_write_is_given_up_when_it_is_time_to_go() {
        let (hard, begun) = (CancellationToken::new(), Instant::now());
        let silent = insist_for_a_while(&hard, std::future::pending);
        assert_eq!(silent.await, Err("storage does not answer".to_owned()));
        assert_eq!(begun.elapsed(), FAREWELL_LIMIT);
        let away = insist_for_a_while(&hard, async || Err(unavailable())).await.unwrap_err();
        assert!(away.ends_with("the connection is gone"), "{away}");
        hard.cancel();
        let begun = Instant::now();
        insist_for_a_while(&hard, std::future::pending).await.unwrap_err();
        assert_eq!(begun.elapsed(), HURRIED_FAREWELL_LIMIT);
    }

    #[tokio::test(start_paused = true)]
    async fn a_last_write_that_storage_refuses_is_not_tried_again() {
        let (hard, mut attempts) = (CancellationToken::new(), 0);
        let refused = insist_for_a_while(&hard, || {
            attempts += 1;
            async { Err(StoreError::Refused { operation: "test".to_owned(), source: "no such column".into() }) }
        });
        refused.await.unwrap_err();
        assert_eq!(attempts, 1);
    }
}
