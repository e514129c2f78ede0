//! How long the end of a run may be tried to be stored and announced: for ever while the process lives, and for a short
//! time after its hard stop.

use std::error::Error;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use attune_lifecycle::{Backoff, CancellationToken, HARD_STOP_LIMIT, Stop};
use attune_model::chain;
use attune_store::{Decision, StoreError};
use tokio::time::{Instant, sleep, sleep_until};

/// Kept free of the time after the hard stop, for what follows the last attempt.
const RESERVE: Duration = Duration::from_secs(1);

/// Longest pause between attempts once the process is to go.
const HURRIED_PAUSE: Duration = Duration::from_millis(200);

/// Says that something which has failed is tried again: to everybody the first time, then to those who look closely.
pub(crate) fn trying_again(backoff: &Backoff, what: &str, error: &dyn Error) {
    let (error, attempts) = (chain(error), backoff.attempts());
    if attempts == 0 {
        tracing::warn!(error, "{what}, trying again until it works");
    } else {
        tracing::debug!(error, attempts, "{what} still, trying again");
    }
}

/// Waits between attempts.
#[derive(Debug, Clone)]
pub(crate) struct Patience {
    hard: CancellationToken,
    /// When the hard stop was seen first, by whichever clone was waiting.
    hard_since: Arc<OnceLock<Instant>>,
}

impl Patience {
    /// Ends a little before the process gives up on its tasks.
    pub(crate) fn new(stop: &Stop) -> Self {
        Self { hard: stop.hard().clone(), hard_since: Arc::default() }
    }

    /// Waits for `delay`, less once the process is to go. False: there is no time for another attempt.
    pub(crate) async fn wait(&self, delay: Duration) -> bool {
        if !self.hard.is_cancelled() {
            tokio::select! {
                () = sleep(delay) => return true,
                () = self.hard.cancelled() => {}
            }
        }
        let end = self.end();
        sleep_until(end.min(Instant::now() + delay.min(HURRIED_PAUSE))).await;
        Instant::now() < end
    }

    /// Asks storage until it answers. None: it never will, or there is no time left.
    pub(crate) async fn insist<T, F>(&self, what: &str, mut read: impl FnMut() -> F) -> Option<T>
    where
        F: Future<Output = Result<T, StoreError>>,
    {
        let mut backoff = Backoff::new(Duration::from_millis(100), Duration::from_secs(5));
        loop {
            match read().await {
                Ok(read) => return Some(read),
                // The same the next time; what else there is to do does not wait for it.
                Err(error) if error.decision() == Decision::Fail => {
                    tracing::error!(error = chain(&error), "{what}; they are left as they are");
                    return None;
                }
                Err(error) => trying_again(&backoff, what, &error),
            }
            if !self.wait(backoff.next_delay()).await {
                return None;
            }
        }
    }

    /// Comes when the time is over.
    pub(crate) async fn over(&self) {
        self.hard.cancelled().await;
        sleep_until(self.end()).await;
    }

    fn end(&self) -> Instant {
        *self.hard_since.get_or_init(Instant::now) + HARD_STOP_LIMIT.saturating_sub(RESERVE)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn attempts_go_on_until_shortly_after_the_hard_stop() {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
        runtime.block_on(async {
            let stop = Stop::new();
            let patience = Patience::new(&stop);
            for _ in 0..1000 {
                assert!(patience.wait(Duration::from_mins(1)).await);
            }
            stop.hard().cancel();
            let begun = Instant::now();
            let mut attempts = 0;
            while patience.wait(Duration::from_mins(1)).await {
                attempts += 1;
            }
            assert!(attempts > 5, "{attempts}");
            assert!(begun.elapsed() < HARD_STOP_LIMIT);
            patience.over().await;
            assert!(begun.elapsed() < HARD_STOP_LIMIT);
        });
    }
}
