//! Exponential back-off with jitter.

use std::time::Duration;

use uuid::Uuid;

/// Delays that double from `min` to `max`, each shortened by up to a quarter so that many clients do not come back at once.
#[derive(Debug, Clone)]
pub struct Backoff {
    min: Duration,
    max: Duration,
    attempt: u32,
}

impl Backoff {
    /// Starts at `min`; `max` below `min` counts as `min`.
    pub fn new(min: Duration, max: Duration) -> Self {
        Self { min, max: max.max(min), attempt: 0 }
    }

    /// The delay before the next attempt.
    pub fn next_delay(&mut self) -> Duration {
        let full = doubled((self.min, self.max), self.attempt);
        self.attempt = self.attempt.saturating_add(1);
        let random = u32::from(Uuid::new_v4().as_bytes()[0]);
        full.saturating_sub(full * random / 1024)
    }

    /// Back to the start, after a success.
    pub fn reset(&mut self) {
        self.attempt = 0;
    }

    /// Attempts since the last success.
    pub fn attempts(&self) -> u32 {
        self.attempt
    }
}

/// The shortest delay, doubled so many times, and at most the longest.
pub fn doubled((min, max): (Duration, Duration), times: u32) -> Duration {
    min.saturating_mul(1_u32.checked_shl(times).unwrap_or(u32::MAX)).min(max.max(min))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn delays_double_up_to_the_limit_and_start_again() {
        let mut backoff = Backoff::new(Duration::from_millis(100), Duration::from_secs(2));
        for expected in [100, 200, 400, 800, 1600, 2000, 2000] {
            let full = Duration::from_millis(expected);
            let delay = backoff.next_delay();
            assert!(delay <= full && delay >= full * 3 / 4, "{delay:?} of {full:?}");
        }
        backoff.reset();
        assert!(backoff.next_delay() <= Duration::from_millis(100));
        for _ in 0..100 {
            assert!(backoff.next_delay() <= Duration::from_secs(2));
        }
    }

    #[test]
    fn the_longest_delay_is_reached_from_the_shortest() {
        let limits = (Duration::from_secs(1), Duration::from_hours(24));
        assert_eq!(doubled(limits, 16).as_secs(), 1 << 16);
        for times in [17, 31, 32, u32::MAX] {
            assert_eq!(doubled(limits, times), limits.1, "{times}");
        }
    }
}
