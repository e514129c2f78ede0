//! Whether a folder of agents is what an install makes of it.

use std::fmt;
use std::fs::{self, File};
use std::io;
use std::path::Path;

use crate::install::versioned;
use crate::layout::{LINKS, PROGRAM, agent_for, checksum_file, checksum_line, version_file};
use crate::{Facts, Machine, facts};

/// Something that is not as it should be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// The name in the folder.
    pub name: String,
    /// What about it.
    pub problem: String,
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.name, self.problem)
    }
}

/// Compares `folder` with the program `wanted`, which is for this machine. Empty when all is well. Whole copies of the
/// program are as good as links: that is what `cp` makes of them.
pub fn verify(folder: &Path, wanted: &Facts, machine: Machine) -> Vec<Finding> {
    let mut findings = Vec::new();
    let mut found = |name: &str, problem: String| findings.push(Finding { name: name.to_owned(), problem });
    let names = [PROGRAM].into_iter().chain(LINKS).map(str::to_owned).chain([agent_for(machine)]);
    for name in names {
        if let Some(problem) = program_problem(&folder.join(&name), wanted) {
            found(&name, problem);
        }
    }
    let mut texts = vec![(checksum_file(PROGRAM), checksum_line(&wanted.sha256, PROGRAM))];
    if let Some(version) = &wanted.version {
        let files = versioned(machine, true).into_iter();
        texts.extend(files.map(|(name, program)| (version_file(&name), format!("{program} {version}\n"))));
    }
    for (name, text) in texts {
        match fs::read_to_string(folder.join(&name)) {
            Ok(content) if content == text => {}
            Ok(content) => found(&name, format!("says {:?} and not {:?}", content.trim_end(), text.trim_end())),
            Err(error) => found(&name, unreadable(&error)),
        }
    }
    findings
}

fn program_problem(path: &Path, wanted: &Facts) -> Option<String> {
    let here = match File::open(path).and_then(|mut file| facts(&mut file)) {
        Ok(here) => here,
        Err(error) => return Some(unreadable(&error)),
    };
    match &here.machine {
        Err(why) => return Some(why.to_string()),
        Ok(machine) if Ok(*machine) != wanted.machine => return Some(format!("it is for {machine}")),
        Ok(_) if here.sha256 != wanted.sha256 => return Some(another(&here)),
        Ok(_) => {}
    }
    let executable = attune_sys::may_execute(path);
    (!executable).then(|| "this user may not execute it, by its mode or because of a noexec mount".to_owned())
}

fn another(here: &Facts) -> String {
    let version = here.version.as_deref().map(|version| format!(", version {version}")).unwrap_or_default();
    format!("it is another file{version}: {} bytes, sha256 {}", here.size, here.sha256)
}

fn unreadable(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::NotFound => "it is missing".to_owned(),
        _ => format!("it cannot be read: {error}"),
    }
}
