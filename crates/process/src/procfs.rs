//! What `/proc` says about processes. Names and variables are bytes of other people: anything may be in them.

use std::fs::{self, File};
use std::io::{self, Read as _};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use attune_sys::Pid;

/// How long holders of a pipe are looked for, and how many are named: there may be any number of processes.
const HOLDERS_LIMIT: Duration = Duration::from_millis(500);
const HOLDERS: usize = 8;

/// What most files there are shorter than.
const USUAL_BYTES: usize = 4096;

/// A file that does not say how long it is: its length is not asked for, and the buffer does not begin small, or the kernel would
/// be asked many times for what comes in one piece.
pub(crate) fn read(path: impl AsRef<Path>) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::with_capacity(USUAL_BYTES);
    File::open(path)?.take(u64::MAX).read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// A part of `/proc/<pid>/stat`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Stat {
    pub(crate) state: u8,
    pub(crate) parent: u32,
    pub(crate) group: u32,
    /// In ticks since the machine started.
    pub(crate) started: u64,
}

impl Stat {
    /// None when the process is gone, or `/proc` is not there.
    pub(crate) fn of(process: Pid) -> Option<Self> {
        Self::parse(&read(format!("/proc/{process}/stat")).ok()?)
    }

    /// The name before the fields may contain anything, also spaces and parentheses.
    pub(crate) fn parse(line: &[u8]) -> Option<Self> {
        let after_name = line.windows(2).rposition(|pair| pair == b") ")? + 2;
        let mut fields = str::from_utf8(&line[after_name..]).ok()?.split_ascii_whitespace();
        let &[state] = fields.next()?.as_bytes() else {
            return None;
        };
        let parent = fields.next()?.parse().ok()?;
        let group = fields.next()?.parse().ok()?;
        let started = fields.nth(16)?.parse().ok()?;
        Some(Self { state, parent, group, started })
    }

    /// It runs no code any more and only waits for its parent.
    pub(crate) fn is_dead(&self) -> bool {
        matches!(self.state, b'Z' | b'X' | b'x')
    }
}

/// The name that `process` gives itself; empty when it is gone.
pub(crate) fn name_of(process: Pid) -> String {
    let name = read(format!("/proc/{process}/comm")).unwrap_or_default();
    String::from_utf8_lossy(&name).trim_end().escape_debug().to_string()
}

/// A process in words.
pub(crate) fn described(process: Pid, name: &str) -> String {
    format!("{name} ({process})")
}

/// The other processes that have one of `pipes` open, in words. A pipe is what a link in `/proc/<pid>/fd` shows. Those of other
/// users may be hidden, and there is a limit.
pub(crate) fn holders_of(pipes: &[PathBuf]) -> Vec<String> {
    if pipes.is_empty() {
        return Vec::new();
    }
    let begun = Instant::now();
    processes()
        .take_while(|_| begun.elapsed() < HOLDERS_LIMIT)
        .filter(|process| *process != Pid::current())
        .filter(|process| seen(*process, || holds(*process, pipes)).unwrap_or(false))
        .take(HOLDERS)
        .map(|process| described(process, &name_of(process)))
        .collect()
}

fn holds(process: Pid, pipes: &[PathBuf]) -> io::Result<bool> {
    for file in fs::read_dir(format!("/proc/{process}/fd"))?.flatten() {
        match fs::read_link(file.path()) {
            Ok(file) if pipes.contains(&file) => return Ok(true),
            Err(error) if is_hidden(&error) => return Err(error),
            // Another file, or one that was closed in between.
            _ => {}
        }
    }
    Ok(false)
}

/// All processes that can be seen from here.
pub(crate) fn processes() -> impl Iterator<Item = Pid> {
    let listed = fs::read_dir("/proc").into_iter().flatten().flatten();
    listed.filter_map(|entry| parse_pid(entry.file_name().to_str()?))
}

pub(crate) fn parse_pid(text: &str) -> Option<Pid> {
    text.parse().ok().and_then(Pid::new)
}

/// The value of `name` in the environment that `process` was started with.
pub(crate) fn variable(process: Pid, name: &str) -> Option<String> {
    variable_in(&environment_of(process).ok()?, name).map(str::to_owned)
}

fn environment_of(process: Pid) -> io::Result<Vec<u8>> {
    seen(process, || read(format!("/proc/{process}/environ")))
}

/// Whether `process` is just becoming another program, and shows neither arguments nor environment yet; or ending, and shows
/// nothing any more, while what it started is still its own. One that was started without any looks like that for good.
pub(crate) fn is_changing(process: Pid) -> bool {
    let has_no_arguments = || read(format!("/proc/{process}/cmdline")).is_ok_and(|line| line.is_empty());
    match environment_of(process) {
        Ok(environment) => environment.is_empty() && has_no_arguments(),
        Err(error) => !is_hidden(&error),
    }
}

/// What `look` finds of `process`; if that is hidden from this user, what the user of the process finds. A container's root may
/// become every user, but has no privilege to trace others.
fn seen<T>(process: Pid, look: impl Fn() -> io::Result<T>) -> io::Result<T> {
    let refused = match look() {
        Err(refused) if is_hidden(&refused) => refused,
        done => return done,
    };
    let owner =
        fs::metadata(format!("/proc/{process}")).ok().filter(|owner| owner.uid() != attune_sys::effective_user());
    let found = owner.and_then(|owner| attune_sys::as_file_user(owner.uid(), owner.gid(), look));
    found.unwrap_or(Err(refused))
}

fn is_hidden(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::PermissionDenied
}

/// The value of `name` in a `/proc/<pid>/environ`.
pub(crate) fn variable_in<'a>(environment: &'a [u8], name: &str) -> Option<&'a str> {
    environment.split(|byte| *byte == 0).find_map(|variable| {
        let value = variable.strip_prefix(name.as_bytes())?.strip_prefix(b"=")?;
        str::from_utf8(value).ok()
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::corpus::cases;

    #[test]
    fn the_corpus_of_states_is_read_as_expected() {
        for (path, case) in cases("stat", 15) {
            let [line, expected] = &case[..] else { panic!("{}", path.display()) };
            let found = Stat::parse(line).map_or_else(
                || "none".to_owned(),
                |stat| format!("{} {} {} {}", char::from(stat.state), stat.parent, stat.group, stat.started),
            );
            assert_eq!(found.as_bytes(), expected, "{}", path.display());
        }
    }

    #[test]
    fn the_corpus_of_environments_is_read_as_expected() {
        for (path, case) in cases("environ", 12) {
            let [environment, expected] = &case[..] else { panic!("{}", path.display()) };
            let found = variable_in(environment, "ATTUNE").unwrap_or("none");
            assert_eq!(found.as_bytes(), expected, "{}", path.display());
        }
    }

    proptest! {
        #[test]
        fn the_fields_are_found_behind_any_name(
            name in prop::collection::vec(any::<u8>(), 0..16),
            parent in any::<u32>(),
            group in any::<u32>(),
            started in any::<u64>(),
        ) {
            let mut line = b"7 (".to_vec();
            line.extend(name);
            line.extend(format!(") S {parent} {group} 7 0 -1 4194560 1 2 3 4 5 6 7 8 20 0 1 0 {started} 99 1").bytes());
            prop_assert_eq!(Stat::parse(&line), Some(Stat { state: b'S', parent, group, started }));
        }

        #[test]
        fn any_other_line_is_no_panic(line in prop::collection::vec(any::<u8>(), 0..60), close in any::<bool>()) {
            let line = if close { [&line[..], b") ", &line].concat() } else { line };
            Stat::parse(&line);
        }

        #[test]
        fn a_variable_is_found_among_any_others(
            before in prop::collection::vec("[A-Z]{0,4}=?[a-z=]{0,6}", 0..5),
            value in "[^\\x00]{0,12}",
            after in prop::collection::vec(any::<u8>(), 0..20),
        ) {
            prop_assume!(before.iter().all(|variable| !variable.starts_with("WANTED=")));
            let mut block = before.join("\0").into_bytes();
            block.extend([b"\0WANTED=", value.as_bytes(), b"\0", &after].concat());
            prop_assert_eq!(variable_in(&block, "WANTED"), Some(&*value));
        }
    }

    #[test]
    fn this_process_is_found_with_its_parent_and_is_alive() {
        let own = Stat::of(Pid::current()).unwrap();
        assert_eq!(own.parent, std::os::unix::process::parent_id());
        assert!(!own.is_dead() && own.started > 0);
        assert!(processes().any(|process| process == Pid::current()));
    }
}
