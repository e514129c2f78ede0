//! How something stands that is told to be up or down.

use std::time::Duration;

use tokio::time::Instant;

/// What was last told about one part of a service.
#[derive(Debug, Clone, Copy)]
pub struct Standing {
    up: bool,
    /// Since when.
    since: Instant,
    /// When it was last told to be up.
    seen: Instant,
}

impl Standing {
    /// Down, from now on.
    pub fn down() -> Self {
        let now = Instant::now();
        Self { up: false, since: now, seen: now }
    }

    /// Takes what is told, and says whether that is a change.
    pub fn tell(&mut self, up: bool) -> bool {
        let now = Instant::now();
        let changed = self.up != up;
        if changed {
            (self.up, self.since) = (up, now);
        }
        if up {
            self.seen = now;
        }
        changed
    }

    /// What was last told.
    pub fn is_up(&self) -> bool {
        self.up
    }

    /// Since when that is told.
    pub fn since(&self) -> std::time::Instant {
        self.since.into_std()
    }

    /// Since when it was not told to be up for as long as `limit`; none when it was.
    pub fn stale_since(&self, limit: Duration) -> Option<std::time::Instant> {
        (self.seen.elapsed() >= limit).then(|| (self.seen + limit).into_std())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_change_is_told_once_and_silence_grows_stale() {
        const LIMIT: Duration = Duration::from_secs(10);
        let mut standing = Standing::down();
        let begun = standing.since();
        tokio::time::advance(Duration::from_secs(1)).await;
        assert!(!standing.tell(false) && standing.since() == begun);
        assert!(standing.tell(true) && standing.is_up());
        let up = standing.since();
        tokio::time::advance(Duration::from_secs(9)).await;
        assert!(!standing.tell(true) && standing.since() == up);
        tokio::time::advance(Duration::from_millis(9_999)).await;
        assert_eq!(standing.stale_since(LIMIT), None);
        tokio::time::advance(Duration::from_millis(1)).await;
        assert_eq!(standing.stale_since(LIMIT), Some(up + Duration::from_secs(19)));
    }
}
