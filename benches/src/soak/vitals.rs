//! What the worker's process takes.

use std::fs;
use std::time::Duration;

/// One look at it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Vitals {
    after: Duration,
    asked: usize,
    resident_kib: u64,
    descriptors: usize,
    threads: u64,
    processes: usize,
    /// Children that ended and were not waited for.
    pub(crate) zombies: usize,
}

impl Vitals {
    /// Above the lines.
    pub(crate) const HEAD: &str = "seconds  asked  resident_KiB  descriptors  threads  processes  zombies";

    /// Looks at a process and what it started. All is zero while it is being started again.
    pub(crate) fn of(pid: u32, after: Duration, asked: usize) -> Self {
        let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
        let number = |name: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(name))?;
            line.split_whitespace().next()?.parse::<u64>().ok()
        };
        let below = descendants(pid);
        Self {
            after,
            asked,
            resident_kib: number("VmRSS:").unwrap_or(0),
            descriptors: fs::read_dir(format!("/proc/{pid}/fd")).map_or(0, Iterator::count),
            threads: number("Threads:").unwrap_or(0),
            processes: below.len(),
            zombies: below.iter().filter(|state| **state == 'Z').count(),
        }
    }

    /// As a line.
    pub(crate) fn line(&self) -> String {
        let Self { after, asked, resident_kib, descriptors, threads, processes, zombies } = self;
        let seconds = after.as_secs();
        format!("{seconds:7}{asked:7}{resident_kib:14}{descriptors:13}{threads:9}{processes:11}{zombies:9}")
    }
}

/// The states of all processes below `pid`.
fn descendants(pid: u32) -> Vec<char> {
    let entries = fs::read_dir("/proc").into_iter().flatten().filter_map(Result::ok);
    let numbers = entries.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    let all: Vec<(u32, u32, char)> =
        numbers.filter_map(|number| Some((number, parent(number)?.0, parent(number)?.1))).collect();
    let (mut family, mut states) = (vec![pid], Vec::new());
    while let Some(parent) = family.pop() {
        for (number, _, state) in all.iter().filter(|(_, of, _)| *of == parent) {
            family.push(*number);
            states.push(*state);
        }
    }
    states
}

/// Parent and state. The name may hold anything, so what counts comes after its last bracket.
fn parent(pid: u32) -> Option<(u32, char)> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let mut fields = stat.rsplit_once(')')?.1.split_whitespace();
    let state = fields.next()?.chars().next()?;
    Some((fields.next()?.parse().ok()?, state))
}

/// First and last figures, the first being those after a quarter of the time, when all is warm.
pub(crate) fn summary(samples: &[Vitals], last: Vitals) -> String {
    let alive: Vec<&Vitals> = samples.iter().filter(|sample| sample.threads > 0).collect();
    let Some(warm) = alive.get(alive.len() / 4) else { return String::new() };
    let most = |of: fn(&Vitals) -> u64| alive.iter().map(|sample| of(sample)).max().unwrap_or(0);
    let line = |name: &str, of: fn(&Vitals) -> u64| {
        format!("{name}: warm {}, most {}, at rest {}\n", of(warm), most(of), of(&last))
    };
    [
        line("resident KiB", |sample| sample.resident_kib),
        line("descriptors", |sample| u64::try_from(sample.descriptors).unwrap_or(u64::MAX)),
        line("threads", |sample| sample.threads),
        line("processes", |sample| u64::try_from(sample.processes).unwrap_or(u64::MAX)),
        line("zombies", |sample| u64::try_from(sample.zombies).unwrap_or(u64::MAX)),
    ]
    .concat()
}
