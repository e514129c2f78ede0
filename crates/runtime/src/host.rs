//! What an agent knows about the machine it runs on: the variables that children may see, and where programs are.

use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};

use crate::places::Places;
use crate::shim;

/// Where programs are looked up when `PATH` is not set.
const CUSTOMARY_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// The machine as children see it.
#[derive(Debug)]
pub struct Host {
    env: Vec<(OsString, OsString)>,
    places: Places,
    directory: Option<PathBuf>,
}

/// A program that was found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Found {
    /// Where the name led.
    pub path: PathBuf,
    /// What to start: the same, or the interpreter that a version manager's shim stands for. A shim is a shell script
    /// that costs tens of milliseconds at every start.
    pub program: PathBuf,
}

impl Host {
    /// `env` is the complete environment of probes and of the commands that build environments: `PATH`, `HOME`, `LANG`,
    /// `TZ`, proxy and CA variables, as the agent was given them. It must not hold secrets of the agent.
    pub fn new(env: Vec<(OsString, OsString)>) -> Self {
        let value = |name: &str| lookup(&env, name).filter(|value| !value.is_empty());
        let path = value("PATH").map_or_else(|| OsString::from(CUSTOMARY_PATH), OsStr::to_owned);
        let home = value("HOME").map(PathBuf::from);
        Self { places: Places::new(&path, home.as_deref()), env, directory: None }
    }

    /// Lets shims of version managers see the version files of `directory` and of the folders above it.
    #[must_use]
    pub fn in_directory(mut self, directory: impl Into<PathBuf>) -> Self {
        self.directory = Some(directory.into());
        self
    }

    /// Looks programs up in `PATH` alone, not in the usual prefixes beside it.
    #[must_use]
    pub fn path_only(mut self) -> Self {
        self.places = self.places.path_only();
        self
    }

    /// The environment of probes and of commands that build environments.
    pub fn env(&self) -> &[(OsString, OsString)] {
        &self.env
    }

    /// One variable of it.
    pub fn var(&self, name: &str) -> Option<&OsStr> {
        lookup(&self.env, name)
    }

    /// Finds a program by its bare name, first in `PATH`, then in the usual prefixes. A shim that stands for nothing is
    /// passed over.
    pub fn find(&self, name: &str) -> Option<Found> {
        self.places.candidates(name).find_map(|path| self.resolve(path))
    }

    /// What starting `path` comes to; none for a shim whose version manager has no version chosen.
    pub fn resolve(&self, path: PathBuf) -> Option<Found> {
        let program = match shim::resolve(&path, self) {
            shim::Resolved::NotAShim | shim::Resolved::Unclear => path.clone(),
            shim::Resolved::To(program) => program,
            shim::Resolved::Nothing => return None,
        };
        Some(Found { path, program })
    }

    /// The environment with `directories` in front of `PATH`, so that a script such as `npm` finds its interpreter.
    pub fn env_with_path(&self, directories: &[&Path]) -> Vec<(OsString, OsString)> {
        let mut path = OsString::new();
        for directory in directories {
            path.push(directory);
            path.push(":");
        }
        path.push(self.var("PATH").unwrap_or(OsStr::new(CUSTOMARY_PATH)));
        let others = self.env.iter().filter(|(name, _)| name != "PATH").cloned();
        std::iter::once((OsString::from("PATH"), path)).chain(others).collect()
    }

    /// Where version managers begin to look for version files.
    pub(crate) fn directory(&self) -> Option<&Path> {
        self.directory.as_deref()
    }

    /// The home folder that children see.
    pub(crate) fn home(&self) -> Option<&Path> {
        self.var("HOME").map(Path::new)
    }
}

fn lookup<'a>(env: &'a [(OsString, OsString)], name: &str) -> Option<&'a OsStr> {
    env.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_os_str())
}
