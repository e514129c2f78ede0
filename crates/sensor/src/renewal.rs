//! When the token of a running process is replaced, and what there is to say when that does not work.

use std::time::Duration;

use attune_lifecycle::Backoff;
use tokio::time::Instant;

use crate::token::Token;

/// The next attempt for one process.
#[derive(Debug)]
pub(crate) struct Renewal {
    at: Instant,
    expires_at: Instant,
    trouble: Option<Trouble>,
}

/// Since when it does not work.
#[derive(Debug)]
struct Trouble {
    backoff: Backoff,
    has_expired: bool,
}

/// What is new. Everything else has been said.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum News {
    /// It did not work for the first time; the token is still good for so long.
    Failed(Duration),
    /// The token is good for nothing any more.
    Expired,
}

impl Renewal {
    /// Of a token that has just come.
    pub(crate) fn of(token: &Token) -> Self {
        let now = Instant::now();
        Self { at: now + token.renew_after, expires_at: now + token.life, trouble: None }
    }

    pub(crate) fn at(&self) -> Instant {
        self.at
    }

    /// Whether the last attempt failed.
    pub(crate) fn has_failed(&self) -> bool {
        self.trouble.is_some()
    }

    /// An attempt failed. The next one comes later from time to time, but not so late that the token would expire before it
    /// could come: half of its life that is left is waited for at most.
    pub(crate) fn failed(&mut self, (min, max): (Duration, Duration)) -> Option<News> {
        let now = Instant::now();
        let left = self.expires_at.saturating_duration_since(now);
        let is_first = self.trouble.is_none();
        let trouble =
            self.trouble.get_or_insert_with(|| Trouble { backoff: Backoff::new(min, max), has_expired: false });
        let wait = trouble.backoff.next_delay();
        self.at = now + if left.is_zero() { wait } else { wait.min((left / 2).max(min)) };
        if left.is_zero() {
            return (!std::mem::replace(&mut trouble.has_expired, true)).then_some(News::Expired);
        }
        is_first.then_some(News::Failed(left))
    }
}

#[cfg(test)]
mod tests {
    use attune_model::Secret;
    use tokio::time::advance;

    use super::*;

    const LIMITS: (Duration, Duration) = (Duration::from_secs(1), Duration::from_mins(1));

    fn renewal(life: u64) -> Renewal {
        let life = Duration::from_secs(life);
        Renewal::of(&Token { value: Secret::new("token".to_owned()), renew_after: life * 8 / 10, life })
    }

    #[tokio::test(start_paused = true)]
    async fn attempts_to_renew_a_token_come_later_and_later_and_again_sooner_before_it_expires() {
        let mut renewal = renewal(3600);
        let mut waits = Vec::new();
        let mut news = Vec::new();
        while waits.len() < 50 {
            advance(renewal.at().saturating_duration_since(Instant::now())).await;
            news.extend(renewal.failed(LIMITS));
            waits.push(renewal.at() - Instant::now());
        }
        assert!(waits[0] <= LIMITS.0 && waits[3] >= Duration::from_secs(6), "{waits:?}");
        assert!(waits.iter().all(|wait| *wait <= LIMITS.1), "{waits:?}");
        // It has expired by now.
        let [News::Failed(left), News::Expired] = news[..] else { panic!("{news:?}") };
        assert!(left <= Duration::from_mins(12), "{left:?}");
        let at = waits.iter().rposition(|wait| *wait <= LIMITS.0).unwrap();
        assert!(at > 10, "the last attempts before it expires are close together: {waits:?}");
        assert!(renewal.has_failed());
    }

    #[tokio::test(start_paused = true)]
    async fn a_token_that_is_renewed_in_time_is_no_news() {
        let renewal = renewal(100);
        assert_eq!(renewal.at() - Instant::now(), Duration::from_secs(80));
        assert!(!renewal.has_failed());
    }
}
