//! `cargo run --release -p attune-bench -- NAME [--json]`: figures of the hot paths beside their floors.
//!
//! A floor is measured in the same process and the same rounds as our figure, so a slow machine slows down both.

mod agent;
mod bus;
mod capture;
mod detect;
mod dev;
mod executions;
mod figure;
mod place;
mod program;
mod report;
mod run;
mod sensors;
mod soak;
mod spawn;
mod words;

use std::io::{self, Write};
use std::process::ExitCode;
use std::time::Duration;

use argh::FromArgs;

use executions::Volume;
use figure::{Figure, OutputMode};

/// Measures a hot path and the floor beside it.
#[derive(Debug, FromArgs)]
struct Arguments {
    /// what to measure: bus, capture, detect, dev, executions, run, sensors, spawn; soak runs until it is told otherwise
    #[argh(positional)]
    name: String,
    /// print JSON
    #[argh(switch)]
    json: bool,
    /// soak: how long, as in 90s, 30m, 2h (default: 30m)
    #[argh(option, long = "for", default = "Duration::from_mins(30)", from_str_fn(length))]
    length: Duration,
    /// soak: let things fail
    #[argh(switch)]
    faults: bool,
    /// executions: how many (default: 2000)
    #[argh(option, short = 'n', default = "2000")]
    executions: usize,
    /// executions: how many at once (default: 10)
    #[argh(option, default = "10")]
    at_once: usize,
    /// sensors: how many (default: 500)
    #[argh(option, default = "500")]
    sensors: usize,
    /// sensors: measure nothing but so many starts, each beside a floor
    #[argh(option)]
    starts: Option<usize>,
    /// executions: how many messages wait while the rate is measured again (default: 20000)
    #[argh(option, default = "20_000")]
    waiting: usize,
    /// executions: leave out the two minutes without work
    #[argh(switch)]
    busy: bool,
}

fn length(text: &str) -> Result<Duration, String> {
    let (number, unit) = text.split_at(text.len().saturating_sub(1));
    let seconds = match unit {
        "s" => 1,
        "m" => 60,
        "h" => 3600,
        _ => return Err(format!("{text:?} is not a number with s, m or h")),
    };
    let number: u64 = number.parse().map_err(|_| format!("{text:?} is not a number with s, m or h"))?;
    Ok(Duration::from_secs(number * seconds))
}

/// Measures, or says why that is not possible here.
type Bench = fn() -> Result<Vec<Figure>, String>;

/// Every benchmark, by name.
const BENCHES: &[(&str, Bench)] = &[
    ("bus", || one(bus::run())),
    ("capture", capture::run),
    ("detect", || one(detect::run())),
    ("dev", || one(dev::run())),
    ("run", || one(run::run())),
    ("spawn", spawn::run),
];

fn one(measured: Result<Figure, String>) -> Result<Vec<Figure>, String> {
    measured.map(|figure| vec![figure])
}

fn main() -> ExitCode {
    let arguments: Arguments = argh::from_env();
    let mode = if arguments.json { OutputMode::Json } else { OutputMode::Text };
    let outcome = match BENCHES.iter().find(|(name, _)| *name == arguments.name) {
        Some((_, run)) => run().map(|figures| figures.iter().map(|figure| figure.print(mode)).collect::<String>()),
        None if arguments.name == "soak" => {
            soak::run(soak::Wish { length: arguments.length, faults: arguments.faults })
        }
        None if arguments.name == "executions" => {
            let Arguments { executions, at_once, waiting, busy, .. } = arguments;
            executions::run(Volume { executions, at_once, waiting, busy }, mode)
        }
        None if arguments.name == "sensors" => sensors::run(arguments.sensors, arguments.starts, mode),
        None => Err(format!("no benchmark {:?}; there are: {}, executions, sensors, soak", arguments.name, names())),
    };
    let printed = outcome.and_then(|text| {
        let written = io::stdout().lock().write_all(text.as_bytes());
        written.map_err(|error| format!("cannot write the figures: {error}"))
    });
    match printed {
        Ok(()) => ExitCode::SUCCESS,
        Err(problem) => complain(&problem),
    }
}

fn names() -> String {
    BENCHES.iter().map(|(name, _)| *name).collect::<Vec<_>>().join(", ")
}

fn complain(problem: &str) -> ExitCode {
    // With standard error gone there is nobody left to tell; the exit code still does.
    drop(writeln!(io::stderr(), "attune-bench: {problem}"));
    ExitCode::FAILURE
}
