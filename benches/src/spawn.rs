//! Starting a child until its end is seen, beside a bare `posix_spawn` and `waitpid`, with 16, 256 and 1,024 MB of agent memory.
//!
//! One round is one child of each kind, in turn; the sizes are visited again and again, so that a slow minute of the machine
//! meets all of them. What a child costs in a prepared agent, which adopts strays and has control groups, comes last, because
//! a process cannot undo that; its floor is the one from before.

use std::collections::BTreeMap;
use std::hint::black_box;
use std::path::Path;
use std::process::{Command as StdCommand, Stdio};
use std::time::{Duration, Instant};

use attune_process::{Command, EXEC_APPLET, Launcher, Outcome, Policy, start};
use tokio::runtime::{Builder, Runtime};

use crate::figure::{Figure, Goal, median};
use crate::program;

const SIZES_MB: [usize; 3] = [16, 256, 1024];
const VISITS: usize = 9;
const ROUNDS_PER_VISIT: usize = 40;

/// The shortest program there is.
const CHILD: &str = "/bin/true";

/// How a child is started.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Kind {
    Floor,
    Plain,
    SetUp,
}

const KINDS: [Kind; 3] = [Kind::Floor, Kind::Plain, Kind::SetUp];

/// Times until a start returned, and until the end was seen.
#[derive(Debug, Default)]
struct Times {
    started: Vec<Duration>,
    ended: Vec<Duration>,
}

struct Bench {
    runtime: Runtime,
    policy: Policy,
    times: BTreeMap<(usize, Kind), Times>,
}

/// Measures all kinds at all sizes.
pub(crate) fn run() -> Result<Vec<Figure>, String> {
    let launcher = Launcher { program: program::path()?, args: vec![EXEC_APPLET.into()] };
    let runtime = Builder::new_current_thread().enable_all().build().map_err(|error| format!("no runtime: {error}"))?;
    let policy = Policy { dies_with_agent: true, launcher, ..Policy::default() };
    let mut bench = Bench { runtime, policy, times: BTreeMap::new() };
    for _ in 0..VISITS {
        for size in SIZES_MB {
            let memory = vec![1_u8; size * 1_000_000];
            for _ in 0..ROUNDS_PER_VISIT {
                for kind in KINDS {
                    bench.measure(size, kind)?;
                }
            }
            black_box(&memory);
        }
    }
    let mut figures = bench.figures();
    figures.extend(bench.prepared()?);
    Ok(figures)
}

impl Bench {
    fn measure(&mut self, size: usize, kind: Kind) -> Result<(), String> {
        let begun = Instant::now();
        let started = match kind {
            Kind::Floor => floor()?,
            Kind::Plain => self.ours(None)?,
            Kind::SetUp => self.ours(Some(self.policy.clone()))?,
        };
        let times = self.times.entry((size, kind)).or_default();
        times.ended.push(begun.elapsed());
        times.started.push(started);
        Ok(())
    }

    /// How long the start itself took.
    fn ours(&self, policy: Option<Policy>) -> Result<Duration, String> {
        self.runtime.block_on(async {
            let mut command = Command::new(CHILD);
            command.policy = policy;
            let begun = Instant::now();
            let child = start(command).map_err(|error| error.to_string())?;
            let started = begun.elapsed();
            let report = child.supervise(None, std::future::pending()).await;
            match (report.outcome, &report.notes[..]) {
                (Outcome::Exited(0), []) => Ok(started),
                (outcome, notes) => Err(format!("{CHILD} ended with {outcome:?} {notes:?}")),
            }
        })
    }

    fn ended(&self, size: usize, kind: Kind) -> Duration {
        self.times.get(&(size, kind)).map(|times| median(times.ended.clone())).unwrap_or_default()
    }

    fn started(&self, size: usize, kind: Kind) -> Duration {
        self.times.get(&(size, kind)).map(|times| median(times.started.clone())).unwrap_or_default()
    }

    fn what(&self, size: usize, kind: Kind, name: &str) -> String {
        let rate = 1.0 / self.ended(size, kind).as_secs_f64();
        let floor_rate = 1.0 / self.ended(size, Kind::Floor).as_secs_f64();
        let micros = self.started(size, kind).as_micros();
        let floor_micros = self.started(size, Kind::Floor).as_micros();
        format!(
            "{name}, {size} MB, start returns after {micros} us (floor {floor_micros}), {rate:.0}/s (floor {floor_rate:.0}), to its end"
        )
    }

    fn figures(&self) -> Vec<Figure> {
        let mut figures = Vec::new();
        let (plain, set_up) = ("a child", "a child through __exec");
        for (kind, name, goal) in [
            (Kind::Plain, plain, Goal::Ratio(1.15)),
            (Kind::SetUp, set_up, Goal::Difference(Duration::from_micros(600))),
        ] {
            for size in SIZES_MB {
                let what = self.what(size, kind, name);
                let (ours, floor) = (self.ended(size, kind), self.ended(size, Kind::Floor));
                figures.push(figure(what, ours, "posix_spawn and waitpid", floor, goal));
            }
            // The largest agent beside the smallest.
            let (small, large) = (SIZES_MB[0], SIZES_MB[SIZES_MB.len() - 1]);
            let what = format!("{name}, {large} MB");
            let (ours, floor) = (self.ended(large, kind), self.ended(small, kind));
            figures.push(figure(what, ours, "the same at 16 MB", floor, Goal::Ratio(1.2)));
        }
        figures
    }

    /// The same in an agent that adopts strays and gives children control groups, where that is allowed here.
    fn prepared(&mut self) -> Result<Vec<Figure>, String> {
        let size = SIZES_MB[0];
        let floor = self.ended(size, Kind::Floor);
        if let Some(note) = attune_process::prepare().first() {
            return Err(format!("this machine forbids too much: {note}"));
        }
        for kind in [Kind::Plain, Kind::SetUp] {
            self.times.remove(&(size, kind));
        }
        let memory = vec![1_u8; size * 1_000_000];
        for _ in 0..VISITS * ROUNDS_PER_VISIT {
            self.measure(size, Kind::Plain)?;
            self.measure(size, Kind::SetUp)?;
        }
        black_box(&memory);
        attune_process::end_all_strays(Duration::from_secs(1));
        let figures = [
            (Kind::Plain, "a child of a prepared agent", Goal::Difference(Duration::from_millis(1))),
            (Kind::SetUp, "a child of a prepared agent through __exec", Goal::Difference(Duration::from_millis(2))),
        ]
        .map(|(kind, name, goal)| {
            figure(self.what(size, kind, name), self.ended(size, kind), "posix_spawn and waitpid", floor, goal)
        });
        Ok(figures.into())
    }
}

fn figure(what: String, ours: Duration, floor_is: &str, floor: Duration, goal: Goal) -> Figure {
    Figure { name: "spawn", what, ours, floor_is: floor_is.to_owned(), floor, goal, rounds: VISITS * ROUNDS_PER_VISIT }
}

/// What std does for this is the system call and nothing else.
#[expect(clippy::disallowed_methods, reason = "the floor")]
fn floor() -> Result<Duration, String> {
    let begun = Instant::now();
    let mut command = StdCommand::new(Path::new(CHILD));
    command.env_clear().stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    let mut child = command.spawn().map_err(|error| format!("{CHILD} does not start: {error}"))?;
    let started = begun.elapsed();
    let status = child.wait().map_err(|error| format!("{CHILD} cannot be waited for: {error}"))?;
    if status.success() { Ok(started) } else { Err(format!("{CHILD} ended with {status}")) }
}
