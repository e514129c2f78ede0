//! What an environment depends on in the image that built it, and whether another image has that, too.
//!
//! Files of an environment name its interpreter by path (`pyvenv.cfg`, first lines of installed scripts), and its native
//! parts are made for one interpreter line, one libc and one machine. A build writes down what it was made with; before it
//! is used, that is held against the image that wants to. What one of the two does not know speaks against nothing.

use std::collections::HashMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use serde::{Deserialize, Serialize};

use super::manifest::{Stamp, sha256_hex};
use crate::detect::Detected;
use crate::image::{Image, Libc};
use crate::places::is_executable;
use crate::plan::Chosen;

/// The file inside a build that tells its origin.
pub(super) const ORIGIN: &str = ".attune_origin";

/// Digits of a tag: enough for the few kinds of images that share a folder.
const TAG_DIGITS: usize = 8;

/// Native add-ons of Node are made for a major version, those of the others for a minor one.
const BY_MAJOR_VERSION: [&str; 2] = ["node", "nodejs"];

/// What the files of an environment depend on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Origin {
    /// The interpreter behind all links; none when code runs without one.
    interpreter: Option<PathBuf>,
    /// The part of its version that native parts depend on.
    line: Option<String>,
    libc: Libc,
    /// The newest symbols of glibc that native parts can ask for.
    glibc: Option<[u32; 2]>,
    architecture: String,
}

impl Origin {
    /// That of an image with this interpreter.
    fn of(interpreter: Option<&Path>) -> Self {
        let image = interpreter.map_or(Image::Unknown, Image::of);
        Self {
            interpreter: interpreter.map(Path::to_owned),
            line: None,
            libc: image.libc(),
            glibc: image.glibc(),
            architecture: image.architecture().unwrap_or(std::env::consts::ARCH).to_owned(),
        }
    }

    /// The one that was written down in the build in `folder`; none for builds of others.
    pub(super) fn written(folder: &Path) -> Option<Self> {
        let text = fs::read(folder.join(ORIGIN)).ok()?;
        serde_json::from_slice(&text).ok()
    }

    /// Writes it down in the build in `folder`.
    pub(super) fn write(&self, folder: &Path) -> io::Result<()> {
        fs::write(folder.join(ORIGIN), serde_json::to_vec(self)?)
    }

    /// An image as far as the environment itself tells what to look for. The version, which only running tells, is that of the
    /// `detected` interpreter at the same place.
    pub(super) fn here(&self, detected: &[Detected]) -> Self {
        let interpreter = self.interpreter.as_deref();
        let same = detected.iter().find(|detected| Some(&*detected.real_path) == interpreter);
        let line = same.and_then(|detected| line_of(&detected.path, detected.version.as_deref()?));
        Self { line, ..Self::of(interpreter) }
    }

    /// A name for images whose environments can be shared: they depend on the same.
    pub(super) fn tag(&self) -> String {
        // An array of facts, none of which can be mistaken for another.
        let text = format!("{:?}", (&self.interpreter, &self.line, self.libc.as_str(), self.glibc, &self.architecture));
        sha256_hex(text.as_bytes())[..TAG_DIGITS].to_owned()
    }

    /// Why an environment from here cannot be used in the image `here`; none when nothing speaks against it.
    pub(super) fn misfit(&self, here: &Self) -> Option<String> {
        let differ = |one: &Option<String>, other: &Option<String>| one.is_some() && other.is_some() && one != other;
        let known = |libc: Libc| libc != Libc::Unknown;
        if self.architecture != here.architecture {
            return Some(format!("it was made for {}, this image is for {}", self.architecture, here.architecture));
        }
        if let Some(interpreter) = self.interpreter.as_deref().filter(|path| !is_executable(path)) {
            return Some(format!("it was made with {}, which does not exist here", interpreter.display()));
        }
        if differ(&self.line, &here.line) {
            let text = |line: &Option<String>| line.clone().unwrap_or_default();
            return Some(format!("it was made with version {}, this image has {}", text(&self.line), text(&here.line)));
        }
        if known(self.libc) && known(here.libc) && self.libc != here.libc {
            return Some(format!("it was made for {}, this image has {}", self.libc.as_str(), here.libc.as_str()));
        }
        let (made, has) = self.glibc.zip(here.glibc)?;
        let text = |[major, minor]: [u32; 2]| format!("{major}.{minor}");
        (made > has).then(|| format!("it was made with glibc {}, this image has the older {}", text(made), text(has)))
    }
}

/// The origins of interpreters that have not changed since they were looked at.
#[derive(Debug, Default)]
pub(super) struct Origins {
    known: Mutex<HashMap<PathBuf, (Stamp, Origin)>>,
}

impl Origins {
    /// Of what this image would build.
    pub(super) fn of(&self, chosen: &Chosen) -> Origin {
        let origin = chosen.interpreter.as_deref().map_or_else(|| Origin::of(None), |path| self.with(path));
        let line = chosen.interpreter.as_deref().zip(chosen.interpreter_version.as_deref());
        Origin { line: line.and_then(|(interpreter, version)| line_of(interpreter, version)), ..origin }
    }

    fn with(&self, interpreter: &Path) -> Origin {
        // Behind its links, a name without a version tells the version: python3 leads to python3.12.
        let real = fs::canonicalize(interpreter).unwrap_or_else(|_| interpreter.to_owned());
        let Some(stamp) = fs::metadata(&real).ok().map(|metadata| Stamp::of(&metadata)) else {
            return Origin::of(Some(&real));
        };
        let known = || self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, origin)) = known().get(&real).filter(|(known, _)| *known == stamp) {
            return origin.clone();
        }
        let origin = Origin::of(Some(&real));
        known().insert(real, (stamp, origin.clone()));
        origin
    }
}

fn line_of(interpreter: &Path, version: &str) -> Option<String> {
    let binary = interpreter.file_name()?.to_str()?;
    let parts = if BY_MAJOR_VERSION.contains(&binary) { 1 } else { 2 };
    let digits = version.trim_start_matches(|first: char| !first.is_ascii_digit());
    let line = digits.split('.').take(parts).collect::<Vec<_>>();
    // "20" says nothing about a minor version.
    (line.len() == parts && !line[0].is_empty()).then(|| line.join("."))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// An image with Node 20, as far as there is a program at that path.
    fn image() -> Origin {
        Origin {
            interpreter: Some("/bin/sh".into()),
            line: Some("20".to_owned()),
            libc: Libc::Glibc,
            glibc: Some([2, 36]),
            architecture: "x86_64".to_owned(),
        }
    }

    fn misfit(change: impl FnOnce(&mut Origin)) -> Option<String> {
        let mut made = image();
        change(&mut made);
        made.misfit(&image())
    }

    #[test]
    fn what_does_not_fit_is_told_apart_with_its_reason() {
        assert_eq!(misfit(|_| {}), None);
        let nowhere = misfit(|made| made.interpreter = Some("/nowhere/node".into()));
        assert_eq!(nowhere.unwrap(), "it was made with /nowhere/node, which does not exist here");
        let line = misfit(|made| made.line = Some("18".to_owned()));
        assert_eq!(line.unwrap(), "it was made with version 18, this image has 20");
        assert_eq!(misfit(|made| made.libc = Libc::Musl).unwrap(), "it was made for musl, this image has glibc");
        let newer = misfit(|made| made.glibc = Some([2, 41]));
        assert_eq!(newer.unwrap(), "it was made with glibc 2.41, this image has the older 2.36");
        let machine = misfit(|made| made.architecture = "aarch64".to_owned());
        assert_eq!(machine.unwrap(), "it was made for aarch64, this image is for x86_64");
    }

    #[test]
    fn an_older_glibc_and_what_is_not_known_fit() {
        assert_eq!(misfit(|made| made.glibc = Some([2, 9])), None);
        assert_eq!(misfit(|made| made.glibc = None), None);
        assert_eq!(misfit(|made| made.line = None), None);
        assert_eq!(misfit(|made| made.libc = Libc::Unknown), None);
    }

    #[test]
    fn images_of_one_tag_can_use_what_each_other_built() {
        let tag = |change: fn(&mut Origin)| {
            let mut origin = image();
            change(&mut origin);
            origin.tag()
        };
        assert_eq!(tag(|_| {}), image().tag());
        let others: [fn(&mut Origin); 5] = [
            |origin| origin.interpreter = None,
            |origin| origin.line = None,
            |origin| origin.libc = Libc::Static,
            |origin| origin.glibc = Some([2, 35]),
            |origin| origin.architecture = "x86".to_owned(),
        ];
        for other in others {
            assert_ne!(tag(other), image().tag());
        }
    }

    #[test]
    fn it_is_read_as_it_was_written() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(Origin::written(dir.path()), None);
        image().write(dir.path()).unwrap();
        assert_eq!(Origin::written(dir.path()), Some(image()));
        fs::write(dir.path().join(ORIGIN), "{}").unwrap();
        assert_eq!(Origin::written(dir.path()), None, "of another version of this program");
    }
}
