//! `attune-agents dev` from its start until its sensors are started, against the slowest interpreter it asks for a version.

use std::env;
use std::fs;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Command, Stdio, id};
use std::time::{Duration, Instant};

use attune_config::{child_env, process_env};
use attune_runtime::detect::time_of_one;
use attune_runtime::{Detected, Host, detect};

use crate::figure::{Figure, Goal, median};
use crate::program;

/// Odd, so that the median is one of them.
const ROUNDS: usize = 11;
const GOAL: Goal = Goal::Time(Duration::from_millis(300));

/// Builds the environments in a first start and measures the following ones.
pub(crate) fn run() -> Result<Figure, String> {
    let agents = program::path()?;
    let data = env::temp_dir().join(format!("attune-bench-dev-{}", id()));
    let measured = measure(&agents, &data);
    if let Err(error) = fs::remove_dir_all(&data) {
        return Err(format!("cannot remove {}: {error}", data.display()));
    }
    measured
}

fn measure(agents: &Path, data: &Path) -> Result<Figure, String> {
    let host = Host::new(child_env(&process_env(), &[]));
    let detected = detect(&host);
    time_until_ready(agents, data)?;
    let (mut ours, mut floor) = (Vec::with_capacity(ROUNDS), Vec::with_capacity(ROUNDS));
    for _ in 0..ROUNDS {
        floor.push(slowest(&detected, &host));
        ours.push(time_until_ready(agents, data)?);
    }
    Ok(Figure {
        name: "dev",
        what: "attune-agents dev until ready".to_owned(),
        ours: median(ours),
        floor_is: "its slowest interpreter's version alone".to_owned(),
        floor: median(floor),
        goal: GOAL,
        rounds: ROUNDS,
    })
}

#[expect(clippy::disallowed_methods, reason = "the start of a process is what is measured")]
fn time_until_ready(agents: &Path, data: &Path) -> Result<Duration, String> {
    let begun = Instant::now();
    let mut child = Command::new(agents)
        .args(["dev", "packs", "--json", "--for", "10ms", "--data"])
        .arg(data)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .map_err(|error| format!("cannot start {}: {error}", agents.display()))?;
    let stdout = child.stdout.take().ok_or("dev has no output")?;
    let mut ready = None;
    for line in BufReader::new(stdout).lines() {
        let line = line.map_err(|error| format!("cannot read the output of dev: {error}"))?;
        if ready.is_none() && line.contains("\"kind\":\"ready\"") {
            ready = Some(begun.elapsed());
        }
    }
    let status = child.wait().map_err(|error| format!("cannot wait for dev: {error}"))?;
    ready.ok_or_else(|| format!("dev ended with {status} before it was ready"))
}

fn slowest(detected: &[Detected], host: &Host) -> Duration {
    detected.iter().filter_map(|found| time_of_one(found, host)).max().unwrap_or_default()
}
