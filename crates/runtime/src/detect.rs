//! Detection: which interpreters this machine has.
//!
//! Every interpreter is asked for its version at the same time, in a thread of its own and with a limit, before any async
//! runtime exists. Everything else is read from files, so the whole takes about as long as the slowest interpreter.

use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use attune_model::capabilities::DetectedInterpreter;
use attune_model::order;
use attune_process::probe;

use crate::host::{Found, Host};
use crate::image::Image;
use crate::places::is_executable;
use crate::probe_table::{PROBES, Probe};
use crate::tools::{self, Tool};

/// How long one interpreter may take to print its version.
pub const PROBE_LIMIT: Duration = Duration::from_secs(2);

/// Probes are begun in this order: on a machine with few cores the slow ones must not wait for the quick ones.
const SLOWEST_FIRST: &[&str] = &["java", "r", "node", "ruby", "python", "go", "perl", "shell"];

/// One interpreter of this machine.
#[derive(Debug, Clone, PartialEq)]
pub struct Detected {
    /// Folded runtime name.
    pub name: &'static str,
    /// Where its name led.
    pub path: PathBuf,
    /// The file that is really started: shims and symlinks followed.
    pub real_path: PathBuf,
    /// None when it printed none in time.
    pub version: Option<String>,
    /// What kind of file the real path is.
    pub image: Image,
    /// What it can make environments with.
    pub tools: Vec<Tool>,
    /// How long the version took.
    pub took: Duration,
    /// Why there is no version.
    pub problem: Option<String>,
}

impl Detected {
    /// As in `worker.capabilities`.
    pub fn interpreter(&self) -> DetectedInterpreter {
        DetectedInterpreter {
            name: self.name.to_owned(),
            path: self.path.display().to_string(),
            version: self.version.clone(),
        }
    }
}

/// Finds and asks all interpreters of [`PROBES`], in that order.
pub fn detect(host: &Host) -> Vec<Detected> {
    detect_only(host, |_| true)
}

/// The same for those whose folded name is `wanted`.
pub fn detect_only(host: &Host, wanted: impl Fn(&str) -> bool) -> Vec<Detected> {
    let mut detected: Vec<Detected> = thread::scope(|scope| {
        let begin = |(probe, found): (&'static Probe, Found)| {
            let asked = found.clone();
            let thread = thread::Builder::new().name(format!("probe-{}", probe.name));
            match thread.spawn_scoped(scope, move || examine(probe, asked, host)) {
                Ok(thread) => Asked::Elsewhere(thread),
                // No more threads to be had: slower, but the same answer.
                Err(_) => Asked::Here(examine(probe, found, host)),
            }
        };
        let probes = SLOWEST_FIRST
            .iter()
            .filter(|name| wanted(name))
            .filter_map(|name| PROBES.iter().find(|probe| probe.name == *name));
        let asked: Vec<_> =
            probes.filter_map(|probe| locate(probe, host).map(|found| (probe, found))).map(begin).collect();
        asked.into_iter().filter_map(Asked::answer).collect()
    });
    order::sort_by_key(&mut detected, |detected| PROBES.iter().position(|probe| probe.name == detected.name));
    detected
}

enum Asked<'scope> {
    Elsewhere(thread::ScopedJoinHandle<'scope, Detected>),
    Here(Detected),
}

impl Asked<'_> {
    fn answer(self) -> Option<Detected> {
        match self {
            // A probe that panicked has been reported by the panic itself; the others still count.
            Self::Elsewhere(thread) => thread.join().ok(),
            Self::Here(detected) => Some(detected),
        }
    }
}

/// The first binary of the runtime that exists. A shell is looked for in `/bin` first.
pub(crate) fn locate(probe: &Probe, host: &Host) -> Option<Found> {
    probe.binaries.iter().find_map(|name| {
        let fixed = PathBuf::from("/bin").join(name);
        if matches!(*name, "bash" | "sh") && is_executable(&fixed) {
            return Some(Found { path: fixed.clone(), program: fixed });
        }
        host.find(name)
    })
}

/// Starts the binary once, the way detection does, and says how long it took: what detection is measured against.
pub fn time_of_one(detected: &Detected, host: &Host) -> Option<Duration> {
    let probe = PROBES.iter().find(|probe| probe.name == detected.name)?;
    let found = host.resolve(detected.path.clone())?;
    let begun = Instant::now();
    ask(probe, &found.program, host).ok()?;
    Some(begun.elapsed())
}

fn examine(probe: &Probe, found: Found, host: &Host) -> Detected {
    let begun = Instant::now();
    let answer = ask(probe, &found.program, host);
    let took = begun.elapsed();
    let (version, problem) = match answer {
        Ok(version) => (Some(version), None),
        Err(problem) => (None, Some(problem)),
    };
    let real_path = found.program.canonicalize().unwrap_or_else(|_| found.program.clone());
    let tools = tools::of(probe.name, &found.program, &real_path, host);
    Detected {
        name: probe.name,
        path: found.path,
        image: Image::of(&real_path),
        real_path,
        version,
        tools,
        took,
        problem,
    }
}

fn ask(probe: &Probe, program: &Path, host: &Host) -> Result<String, String> {
    let output = probe_once(probe, program, host)?;
    if let Some(version) = probe.version_in(&output.stdout, &output.stderr) {
        return Ok(version);
    }
    if output.timed_out {
        return Err(format!("gave no version within {} s", PROBE_LIMIT.as_secs()));
    }
    let ending = output.exit_code.map_or_else(|| "ended by a signal".to_owned(), |code| format!("exit code {code}"));
    Err(format!("printed no version ({ending})"))
}

fn probe_once(what: &Probe, program: &Path, host: &Host) -> Result<attune_process::ProbeOutput, String> {
    probe(program, what.version_args, host.env(), PROBE_LIMIT).map_err(|error| attune_model::chain(&error))
}
