//! The end of the host has one limit for everything in it, whatever the servers do then.

use std::future::Future;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use attune_lifecycle::CancellationToken;
use thiserror::Error;
use tokio::time::{Instant, sleep_until, timeout};

/// What is said after the last process has ended (lines of logs, rows, leases) may take so long altogether.
const LAST_WORDS: Duration = Duration::from_secs(2);

/// Why there is no answer.
#[derive(Debug, Error)]
pub(crate) enum Late {
    /// It took too long.
    #[error("no answer within {0:?}")]
    Slow(Duration),
    /// The host has to be gone.
    #[error("no answer before the end of the host")]
    Ending,
}

/// When the host has to be gone: so long after its stop was asked for. Clones are the same.
#[derive(Debug, Clone)]
pub(crate) struct Deadline {
    soft: CancellationToken,
    limit: Duration,
    at: Arc<OnceLock<Instant>>,
}

impl Deadline {
    /// Sensors may take `grace` of it.
    pub(crate) fn new(soft: CancellationToken, grace: Duration) -> Self {
        Self { soft, limit: grace + LAST_WORDS, at: Arc::default() }
    }

    /// The stop was asked for, now at the latest.
    pub(crate) fn begin(&self) -> Instant {
        *self.at.get_or_init(|| Instant::now() + self.limit)
    }

    /// Waits for it. Cancel-safe.
    pub(crate) async fn passed(&self) {
        self.soft.cancelled().await;
        sleep_until(self.begin()).await;
    }

    /// What comes of `work` within `limit` and before the host has to be gone.
    pub(crate) async fn within<T>(&self, limit: Duration, work: impl Future<Output = T>) -> Result<T, Late> {
        tokio::select! {
            biased;
            done = timeout(limit, work) => done.map_err(|_elapsed| Late::Slow(limit)),
            () = self.passed() => Err(Late::Ending),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::future::pending;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn whoever_waits_then_ends_at_the_same_time() {
        let soft = CancellationToken::new();
        let deadline = Deadline::new(soft.clone(), Duration::from_secs(5));
        let late = deadline.within(Duration::from_mins(1), pending::<()>()).await;
        assert!(matches!(late, Err(Late::Slow(_))), "it holds no longer than asked while the host runs");
        let begun = Instant::now();
        soft.cancel();
        let one_after_another = async {
            for _ in 0..10 {
                let late = deadline.within(Duration::from_mins(1), pending::<()>()).await;
                assert!(matches!(late, Err(Late::Ending)));
            }
        };
        tokio::join!(deadline.passed(), one_after_another);
        assert_eq!(begun.elapsed().as_secs(), 7);
        assert!(deadline.within(Duration::from_secs(1), async {}).await.is_ok(), "what is ready counts");
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_said_first_when_the_sensors_have_ended_has_only_what_is_left() {
        let soft = CancellationToken::new();
        let deadline = Deadline::new(soft.clone(), Duration::from_secs(5));
        let begun = Instant::now();
        soft.cancel();
        deadline.begin();
        tokio::time::advance(Duration::from_secs(5)).await;
        let late = deadline.within(Duration::from_mins(1), pending::<()>()).await;
        assert!(matches!(late, Err(Late::Ending)));
        assert_eq!(begun.elapsed().as_secs(), 7);
    }
}
