//! Whether the environment that is there can be used: complete, installed from this manifest, fit for this image.

use std::collections::HashMap;
use std::ffi::OsString;
use std::fs::{self, Metadata};
use std::io;
use std::path::{Component, Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use super::build::Site;
use super::generation;
use super::manifest::{Checksums, Stamp};
use super::origin::{Origin, Origins};
use super::{Environment, EnvironmentError, usage};
use crate::image::Image;
use crate::places::is_executable;

/// Holds the checksum of the manifest that was installed; name and content are facts of the platform.
pub(super) const MARKER: &str = ".attune_deps_installed";

/// As many as the kernel follows.
const MOST_LINKS: usize = 40;

/// What was found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Condition {
    /// Usable.
    Ready(Environment),
    /// Absent or incomplete, for this reason; to be built.
    Missing(String),
    /// Complete, but of another kind of image, for this reason; not to be touched.
    Unfit(String),
}

/// The condition, and the checksum of the manifest that it was held against.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Inspected {
    pub(super) condition: Condition,
    /// None when there is nothing to install.
    pub(super) checksum: Option<String>,
}

/// Remembers what has been looked at and has not changed since.
#[derive(Debug, Default)]
pub(super) struct Inspector {
    checksums: Checksums,
    origins: Origins,
    fitting: Mutex<HashMap<PathBuf, Stamp>>,
}

impl Inspector {
    pub(super) fn inspect(&self, site: &Site<'_>) -> Result<Inspected, EnvironmentError> {
        let checksum = self.checksum(site)?;
        let condition = self.condition(site, checksum.as_deref()).unwrap_or_else(|condition| condition);
        Ok(Inspected { condition, checksum })
    }

    /// What an environment that is built here depends on.
    pub(super) fn origin(&self, site: &Site<'_>) -> Origin {
        self.origins.of(site.chosen)
    }

    fn checksum(&self, site: &Site<'_>) -> Result<Option<String>, EnvironmentError> {
        let Some(manifest) = site.manifest.as_deref().filter(|_| site.installs()) else {
            return Ok(None);
        };
        self.checksums.of(manifest).map_err(|source| EnvironmentError::Io {
            what: "read the manifest",
            path: manifest.to_owned(),
            source,
        })
    }

    fn condition(&self, site: &Site<'_>, checksum: Option<&str>) -> Result<Condition, Condition> {
        // The build itself, not the link: what is started in it must not see another build half-way.
        let folder = generation::current(&site.env_dir).unwrap_or_else(|| site.env_dir.clone());
        if !folder.is_dir() {
            return Err(Condition::Missing("it does not exist".to_owned()));
        }
        // A lock before the look: what is held is not removed any more.
        let gone = || Condition::Missing("it was removed".to_owned());
        let in_use = usage::hold(&folder).ok_or_else(gone)?;
        if let Some(reason) = Origin::written(&folder).and_then(|origin| origin.misfit(&self.origin(site))) {
            return Err(Condition::Unfit(reason));
        }
        let interpreter = site.interpreter_in(&folder);
        if let Some(interpreter) = &interpreter {
            self.check_interpreter(interpreter, &folder)?;
        }
        if let Some(checksum) = checksum {
            check_marker(&folder.join(MARKER), checksum)?;
        }
        Ok(Condition::Ready(Environment::Ready { folder, interpreter, in_use }))
    }

    fn check_interpreter(&self, interpreter: &Path, env_dir: &Path) -> Result<(), Condition> {
        let metadata = present(interpreter, env_dir)?;
        let stamp = Stamp::of(&metadata);
        let fitting = || self.fitting.lock().unwrap_or_else(PoisonError::into_inner);
        if fitting().get(interpreter) == Some(&stamp) {
            return check_base(env_dir);
        }
        fit(interpreter, env_dir)?;
        fitting().insert(interpreter.to_owned(), stamp);
        Ok(())
    }
}

/// What the `interpreter` of the environment in `env_dir` is in the end, if it is there.
pub(super) fn present(interpreter: &Path, env_dir: &Path) -> Result<Metadata, Condition> {
    fs::metadata(interpreter).map_err(|error| absent(interpreter, env_dir, &error))
}

/// Whether programs of this image can be run by the `interpreter`, which is there, of the environment in `env_dir`.
pub(super) fn fit(interpreter: &Path, env_dir: &Path) -> Result<(), Condition> {
    if let Some(reason) = Image::of(interpreter).misfit() {
        return Err(Condition::Unfit(format!("{}: {reason}", interpreter.display())));
    }
    check_base(env_dir)
}

/// A link out of the environment leads to the Python of the image that built it, where that may well exist. What is not
/// there at all, or leads nowhere inside, was never complete.
fn absent(interpreter: &Path, env_dir: &Path, error: &io::Error) -> Condition {
    let end = end_of_links(interpreter);
    if end.starts_with(end_of_links(env_dir)) {
        return Condition::Missing(format!("{} cannot be used ({error})", interpreter.display()));
    }
    Condition::Unfit(format!("{} leads to {}, which does not exist here", interpreter.display(), end.display()))
}

/// Where `path` leads behind all links and without `..`, as the kernel would walk it, whether or not there is anything.
fn end_of_links(path: &Path) -> PathBuf {
    let mut end = PathBuf::new();
    let mut links = 0;
    let mut left: Vec<OsString> = steps(path);
    while let Some(step) = left.pop() {
        if step == ".." {
            // The root is its own parent.
            end.pop();
            continue;
        }
        end.push(&step);
        if let Some(target) = fs::read_link(&end).ok().filter(|_| links < MOST_LINKS) {
            links += 1;
            // An absolute target replaces what is there when it is pushed.
            end.pop();
            left.extend(steps(&target));
        }
    }
    end
}

/// The steps of a path, the first one last.
fn steps(path: &Path) -> Vec<OsString> {
    let named = path.components().filter(|step| *step != Component::CurDir);
    named.map(|step| step.as_os_str().to_owned()).rev().collect()
}

/// A virtual environment, also one with copied binaries, needs the standard library of the Python it was made from.
fn check_base(env_dir: &Path) -> Result<(), Condition> {
    let Ok(config) = fs::read_to_string(env_dir.join("pyvenv.cfg")) else {
        return Ok(());
    };
    let value = |key: &str| {
        let pairs = config.lines().filter_map(|line| line.split_once('='));
        pairs.map(|(name, value)| (name.trim(), value.trim())).find(|(name, _)| *name == key).map(|(_, value)| value)
    };
    let line = value("version").map(|version| version.splitn(3, '.').take(2).collect::<Vec<_>>().join("."));
    let base = match (value("executable"), value("home"), line) {
        (Some(executable), ..) => PathBuf::from(executable),
        (None, Some(home), Some(line)) => Path::new(home).join(format!("python{line}")),
        _ => return Ok(()),
    };
    if is_executable(&base) {
        return Ok(());
    }
    Err(Condition::Unfit(format!("it was made from {}, which does not exist here", base.display())))
}

fn check_marker(marker: &Path, checksum: &str) -> Result<(), Condition> {
    match fs::read_to_string(marker) {
        Ok(text) if text.trim() == checksum => Ok(()),
        Ok(_) => Err(Condition::Missing("the manifest has changed since dependencies were installed".to_owned())),
        Err(_) => Err(Condition::Missing("dependencies have not been installed completely".to_owned())),
    }
}
