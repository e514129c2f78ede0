//! One no-op action through `attune-agents run` against the least that a shell action needs.

use std::process::Command;
use std::time::Duration;

use crate::figure::{Figure, Goal, median};
use crate::program;

/// Odd, so that the median is one of them.
const ROUNDS: usize = 51;
const GOAL: Goal = Goal::Difference(Duration::from_millis(15));

/// Measures both in alternating rounds.
pub(crate) fn run() -> Result<Figure, String> {
    let agents = program::path()?;
    let (mut ours, mut floor) = (Vec::with_capacity(ROUNDS), Vec::with_capacity(ROUNDS));
    for _ in 0..ROUNDS {
        floor.push(program::time(Command::new("/bin/sh").args(["-c", ":"]))?);
        ours.push(program::time(Command::new(&agents).args(["run", "core.noop", "--packs", "packs", "--json"]))?);
    }
    Ok(Figure {
        name: "run",
        what: "attune-agents run core.noop".to_owned(),
        ours: median(ours),
        floor_is: "/bin/sh -c :".to_owned(),
        floor: median(floor),
        goal: GOAL,
        rounds: ROUNDS,
    })
}
