//! How long a failed sensor waits for its next start (numbers: a fact of the platform).

use std::time::Duration;

use attune_lifecycle::doubled;
use uuid::Uuid;

/// Each delay is shortened by up to this part (in 1/256) of a tenth, so that many sensors do not come back at once.
const JITTER_PARTS: u32 = 256;

/// The delay after the `failures`-th failure in a row, from 1.
pub(crate) fn delay(min: Duration, max: Duration, failures: u32) -> Duration {
    shortened(full_delay(min, max, failures), Uuid::new_v4().as_bytes()[0])
}

fn full_delay(min: Duration, max: Duration, failures: u32) -> Duration {
    doubled((min, max), failures.saturating_sub(1))
}

/// `full` minus at most a tenth.
pub(crate) fn shortened(full: Duration, random: u8) -> Duration {
    full.saturating_sub(full / 10 * u32::from(random) / JITTER_PARTS)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn delays_double_from_five_seconds_to_five_minutes() {
        let (min, max) = (Duration::from_secs(5), Duration::from_mins(5));
        for (failures, seconds) in
            [(0, 5), (1, 5), (2, 10), (3, 20), (4, 40), (5, 80), (6, 160), (7, 300), (u32::MAX, 300)]
        {
            assert_eq!(full_delay(min, max, failures).as_secs(), seconds, "after {failures}");
        }
    }

    #[test]
    fn the_jitter_only_shortens_and_never_by_more_than_a_tenth() {
        let full = Duration::from_secs(100);
        assert_eq!(shortened(full, 0), full);
        assert!(shortened(full, 255) >= Duration::from_secs(90));
    }
}
