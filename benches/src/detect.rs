//! Detection of all interpreters against the slowest single version probe.

use std::time::{Duration, Instant};

use attune_config::{child_env, process_env};
use attune_runtime::detect::time_of_one;
use attune_runtime::{Detected, Host, detect};

use crate::figure::{Figure, Goal, median};

/// Odd, so that the median is one of them.
const ROUNDS: usize = 15;
const GOAL: Goal = Goal::Ratio(1.3);

/// Measures both in alternating rounds.
pub(crate) fn run() -> Result<Figure, String> {
    let fresh_host = || Host::new(child_env(&process_env(), &[]));
    let host = fresh_host();
    let detected = detect(&host);
    if detected.is_empty() {
        return Err("detect: this machine has no interpreter to measure against".to_owned());
    }
    let slowest = slowest(&detected, &host);
    let (mut ours, mut floor) = (Vec::with_capacity(ROUNDS), Vec::with_capacity(ROUNDS));
    for _ in 0..ROUNDS {
        floor.push(time_of_one(slowest, &host).ok_or_else(|| format!("detect: {} gave no version", slowest.name))?);
        let begun = Instant::now();
        detect(&fresh_host());
        ours.push(begun.elapsed());
    }
    Ok(Figure {
        name: "detect",
        what: format!("{} interpreters", detected.len()),
        ours: median(ours),
        floor_is: format!("{} alone", slowest.path.display()),
        floor: median(floor),
        goal: GOAL,
        rounds: ROUNDS,
    })
}

/// By the median of a few probes each, without any other at the same time.
fn slowest<'a>(detected: &'a [Detected], host: &Host) -> &'a Detected {
    let alone = |found: &&Detected| {
        let times: Vec<Duration> = (0..3).filter_map(|_| time_of_one(found, host)).collect();
        median(times)
    };
    detected.iter().max_by_key(alone).unwrap_or(&detected[0])
}
