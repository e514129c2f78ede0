//! The hidden applet `__guard`: kills the agent's children when their time is over or the agent is gone.
//!
//! One thread, no runtime, no configuration. Ends only when the agent does.
//!
//! What it kills is what it was told about: a group while its leader is known, by a process descriptor and its start time,
//! to be the same process; every process that carries the mark of the run in its environment, wherever it went; and what is in
//! the control group of the run, where it has one, which hides nobody.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::{self, PipeReader, Read as _};
use std::os::fd::{AsFd as _, OwnedFd};
use std::process::ExitCode;
use std::thread;
use std::time::{Duration, Instant};

use attune_sys::{
    Disposition, Pid, Polled, SIGHUP, SIGINT, SIGKILL, SIGTERM, boottime, kill_group, pidfd_open, pidfd_send_signal,
    pidfd_signal_group,
};

use crate::guard::{Terms, extend};
use crate::mark::Mark;
use crate::procfs::{Stat, parse_pid, processes};

/// The wait stands still while the machine sleeps, and the deadline does not.
const LONGEST_WAIT: Duration = Duration::from_secs(1);

/// Each marked process that is killed may have started another one.
const SWEEP_LIMIT: Duration = Duration::from_secs(2);
const SWEEP_PAUSE: Duration = Duration::from_millis(1);

/// Guards until the agent at the other end of standard input is gone.
pub fn guard_main() -> ExitCode {
    match guard() {
        Ok(()) => ExitCode::SUCCESS,
        Err(_unheard) => ExitCode::FAILURE,
    }
}

fn guard() -> io::Result<()> {
    // Code of the same user could speak to it through /proc, in the agent's place.
    attune_sys::set_undumpable()?;
    // A service manager signals every process of the service; this one is needed until the last.
    for signal in [SIGTERM, SIGINT, SIGHUP] {
        attune_sys::set_disposition(signal, Disposition::Ignore)?;
    }
    let mut agent = PipeReader::from(io::stdin().as_fd().try_clone_to_owned()?);
    attune_sys::set_nonblocking(&agent)?;
    let mut guarded = Guarded::default();
    let mut lines = Lines::default();
    loop {
        // Without a deadline there is nothing to wait for but another word.
        let wait = guarded
            .next_deadline()
            .map_or(LONGEST_WAIT, |deadline| deadline.saturating_sub(boottime()).min(LONGEST_WAIT));
        attune_sys::poll(&mut [Polled::readable(Some(agent.as_fd()))], wait)?;
        // Everything that was said counts before anything is judged.
        let is_over = lines.read(&mut agent, &mut |line| guarded.hear(line));
        if is_over {
            kill(&guarded.children);
            return Ok(());
        }
        let due = guarded.take_due(boottime());
        kill(&due);
    }
}

/// What the agent has said.
#[derive(Default)]
struct Guarded {
    terms: Terms,
    children: BTreeMap<Pid, Target>,
    /// How many of the children are under each term. There may be hundreds of children, and each word about one of them is
    /// followed by a look at the deadlines.
    counts: BTreeMap<u64, usize>,
}

struct Target {
    /// None: it may live as long as the agent.
    term: Option<u64>,
    start: u64,
    /// None on kernels without, and when the child was gone already.
    process: Option<OwnedFd>,
    mark: Option<String>,
    /// Where a 1 kills its control group.
    switch: Option<String>,
}

impl Guarded {
    fn hear(&mut self, line: &str) {
        // The last word is a path, which may have blanks in it.
        let words: Vec<&str> = line.splitn(6, ' ').collect();
        match words[..] {
            ["until", term, deadline] => {
                if let (Ok(term), Ok(deadline)) = (term.parse(), deadline.parse()) {
                    let Self { terms, counts, .. } = self;
                    extend(terms, term, Duration::from_millis(deadline), |known| counts.contains_key(&known));
                }
            }
            ["watch", term, pid, start, mark, switch] => {
                if let (Some(pid), Ok(start)) = (parse_pid(pid), start.parse()) {
                    let term = term.parse().ok();
                    self.watch(pid, Target { term, ..Target::new(pid, start, mark, switch) });
                }
            }
            ["forget", pid] => {
                if let Some(pid) = parse_pid(pid) {
                    self.forget(pid);
                }
            }
            _ => {}
        }
    }

    fn watch(&mut self, pid: Pid, target: Target) {
        self.forget(pid);
        if let Some(term) = target.term {
            *self.counts.entry(term).or_default() += 1;
        }
        self.children.insert(pid, target);
    }

    fn forget(&mut self, pid: Pid) -> Option<Target> {
        let target = self.children.remove(&pid)?;
        if let Some(term) = target.term
            && let Some(count) = self.counts.get_mut(&term)
        {
            *count -= 1;
            if *count == 0 {
                self.counts.remove(&term);
            }
        }
        Some(target)
    }

    /// A term that was never told of is over.
    fn deadline(&self, term: u64) -> Duration {
        self.terms.get(&term).copied().unwrap_or_default()
    }

    /// None: all children may live as long as the agent.
    fn next_deadline(&self) -> Option<Duration> {
        self.counts.keys().map(|term| self.deadline(*term)).min()
    }

    /// Those whose time is over.
    fn take_due(&mut self, now: Duration) -> BTreeMap<Pid, Target> {
        if self.next_deadline().is_none_or(|deadline| now < deadline) {
            return BTreeMap::new();
        }
        let is_due = |target: &Target| target.term.is_some_and(|term| now >= self.deadline(term));
        let due: Vec<Pid> = self.children.iter().filter(|(_, target)| is_due(target)).map(|(pid, _)| *pid).collect();
        due.into_iter().filter_map(|pid| Some((pid, self.forget(pid)?))).collect()
    }
}

fn kill(children: &BTreeMap<Pid, Target>) {
    for (pid, target) in children {
        target.kill_group(*pid);
        if let Some(switch) = &target.switch {
            // Without one there is still the mark, and nobody could be told.
            drop(fs::write(switch, "1"));
        }
    }
    let marks: BTreeSet<&str> = children.values().filter_map(|target| target.mark.as_deref()).collect();
    if marks.is_empty() {
        return;
    }
    let begun = Instant::now();
    while kill_marked(&marks) > 0 && begun.elapsed() < SWEEP_LIMIT {
        thread::park_timeout(SWEEP_PAUSE);
    }
}

impl Target {
    fn new(pid: Pid, start: u64, mark: &str, switch: &str) -> Self {
        // First the descriptor, then the look: whoever has that number now is whom the descriptor means.
        let process = pidfd_open(pid).ok().filter(|_| start_time(pid) == Some(start));
        let word = |word: &str| (word != "-").then(|| word.to_owned());
        Self { term: None, start, process, mark: word(mark), switch: word(switch) }
    }

    /// Kills the group that the child leads or led; on older kernels only while the child has not been reaped, because after
    /// that the number may be somebody else's, and the mark has to do.
    fn kill_group(&self, pid: Pid) {
        let is_same = match &self.process {
            Some(process) => match pidfd_signal_group(process, SIGKILL) {
                Err(error) if error.kind() == io::ErrorKind::InvalidInput => pidfd_send_signal(process, 0).is_ok(),
                // Done, or nobody is there.
                _ => false,
            },
            None => start_time(pid) == Some(self.start),
        };
        if is_same {
            // Gone in between, or of another user: the sweep may still reach it, and nobody could be told.
            drop(kill_group(pid, SIGKILL));
        }
    }
}

/// Kills all that carry one of the marks; says how many there were.
fn kill_marked(marks: &BTreeSet<&str>) -> usize {
    processes().filter(|pid| kill_if_marked(*pid, marks)).count()
}

fn kill_if_marked(pid: Pid, marks: &BTreeSet<&str>) -> bool {
    let is_marked = || Mark::of(pid).is_some_and(|mark| marks.contains(mark.as_str()));
    if !is_marked() {
        return false;
    }
    match pidfd_open(pid) {
        // Looked at again, now that the number cannot change its meaning.
        Ok(process) => is_marked() && pidfd_send_signal(&process, SIGKILL).is_ok(),
        Err(error) if attune_sys::is_no_such_process(&error) => false,
        Err(_no_descriptors) => attune_sys::kill(pid, SIGKILL).is_ok(),
    }
}

/// When `pid` was started, in ticks since the start of the machine. Together with the number it means one process.
pub(crate) fn start_time(pid: Pid) -> Option<u64> {
    Stat::of(pid).map(|stat| stat.started)
}

/// Whole lines out of a pipe.
#[derive(Default)]
struct Lines {
    partial: Vec<u8>,
}

impl Lines {
    /// Hands on all lines that are there; says whether the other end is closed.
    fn read(&mut self, pipe: &mut PipeReader, hear: &mut dyn FnMut(&str)) -> bool {
        let mut chunk = [0; 4096];
        loop {
            match pipe.read(&mut chunk) {
                Ok(0) => return true,
                Ok(count) => self.accept(&chunk[..count], hear),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return false,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(_broken) => return true,
            }
        }
    }

    fn accept(&mut self, bytes: &[u8], hear: &mut dyn FnMut(&str)) {
        for piece in bytes.split_inclusive(|byte| *byte == b'\n') {
            self.partial.extend_from_slice(piece);
            if piece.ends_with(b"\n") {
                let line = std::mem::take(&mut self.partial);
                hear(str::from_utf8(&line).unwrap_or_default().trim_end());
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_start_of_a_process_tells_it_from_a_later_one_of_that_number() {
        let own = Pid::current();
        let start = start_time(own).unwrap();
        assert!(start > 0);
        assert!(Target::new(own, start, "-", "-").process.is_some());
        let other = Target::new(own, start + 1, "-", "-");
        assert!(other.process.is_none());
        // Would end this very test if it believed the number.
        other.kill_group(own);
    }

    #[test]
    fn lines_come_whole_however_they_are_cut() {
        let mut lines = Lines::default();
        let mut heard = Vec::new();
        for piece in ["until 1", "2\nwatch 7 8 9.1\nfor", "get 7\n"] {
            lines.accept(piece.as_bytes(), &mut |line| heard.push(line.to_owned()));
        }
        assert_eq!(heard, ["until 12", "watch 7 8 9.1", "forget 7"]);
    }

    #[test]
    fn another_term_extends_nothing_for_the_children_of_the_one_before() {
        let mut guarded = Guarded::default();
        let after = |guarded: &mut Guarded, ms| {
            let due = guarded.take_due(Duration::from_millis(ms));
            due.into_keys().map(Pid::get).collect::<Vec<u32>>()
        };
        // None of these numbers is anybody's, and nobody is killed here.
        for line in
            ["until 1 100", "watch 1 4190001 1 - -", "watch - 4190002 1 - -", "until 2 200", "watch 2 4190003 1 - -"]
        {
            guarded.hear(line);
        }
        assert!(after(&mut guarded, 99).is_empty());
        guarded.hear("until 2 300");
        assert_eq!(after(&mut guarded, 100), [4_190_001]);
        // Started under the term before, and told of after it.
        guarded.hear("until 2 400");
        guarded.hear("watch 1 4190004 1 - -");
        assert_eq!(after(&mut guarded, 100), [4_190_004]);
        assert_eq!(guarded.terms.keys().copied().collect::<Vec<_>>(), [2]);
        assert_eq!(after(&mut guarded, 400), [4_190_003]);
        assert_eq!(guarded.children.len(), 1, "that one lives as long as the agent");
    }

    #[test]
    fn what_is_not_understood_changes_nothing() {
        let mut guarded = Guarded::default();
        let lines =
            ["", "until", "until 1", "until x 1", "watch - x 1 - -", "watch - -1 1 - -", "forget me not", "watch 1"];
        for line in lines {
            guarded.hear(line);
        }
        assert!(guarded.terms.is_empty() && guarded.children.is_empty());
    }
}
