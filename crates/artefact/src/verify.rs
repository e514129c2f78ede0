//! Whether a folder of agents is what an install makes of it.

use std::fmt;
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use crate::install::{program_name, versioned};
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

/// Compares `folder` with the program `wanted`, which is for `machine`. Empty when all is well. Whole copies of the
/// program are as good as links: that is what `cp` makes of them.
pub fn verify(folder: &Path, wanted: &Facts, machine: Machine) -> Vec<Finding> {
    let mut findings = Vec::new();
    let mut found = |name: &str, problem: String| findings.push(Finding { name: name.to_owned(), problem });
    let own = Machine::own() == Some(machine);
    let here = [PROGRAM].into_iter().chain(LINKS).filter(|_| own).map(str::to_owned);
    for name in here.chain([agent_for(machine)]) {
        let path = folder.join(&name);
        // What is only handed out is not executed here.
        let problem = content_problem(&path, wanted).or_else(|| changeable(&path));
        if let Some(problem) = problem.or_else(|| access_problem(&path).filter(|_| own)) {
            found(&name, problem);
        }
    }
    let program = program_name(machine);
    let mut texts = vec![(checksum_file(&program), checksum_line(&wanted.sha256, &program))];
    if let Some(version) = &wanted.version {
        let files = versioned(machine, own).into_iter();
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

fn content_problem(path: &Path, wanted: &Facts) -> Option<String> {
    let here = match File::open(path).and_then(|mut file| facts(&mut file)) {
        Ok(here) => here,
        Err(error) => return Some(unreadable(&error)),
    };
    match &here.machine {
        Err(why) => Some(why.to_string()),
        Ok(machine) if Ok(*machine) != wanted.machine => Some(format!("it is for {machine}")),
        Ok(_) if here.sha256 != wanted.sha256 => Some(another(&here)),
        Ok(_) => None,
    }
}

/// Agents execute what is there, some as root. The owner's bit is no harm: `cp` leaves it.
fn changeable(path: &Path) -> Option<String> {
    let mode = fs::metadata(path).ok()?.permissions().mode() & 0o7777;
    (mode & 0o022 != 0).then(|| format!("others than its owner may change it (mode {mode:04o})"))
}

fn access_problem(path: &Path) -> Option<String> {
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
