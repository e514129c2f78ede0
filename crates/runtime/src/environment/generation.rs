//! The folders of builds beside the name that points to the current one.

use std::collections::hash_map::RandomState;
use std::ffi::OsStr;
use std::fs::{self, Permissions};
use std::hash::{BuildHasher, Hasher};
use std::io;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use super::usage::{self, Lock};

/// Digits of the random part of a name.
const TAG_DIGITS: usize = 8;

/// A build on its way to becoming the environment.
#[derive(Debug, Clone)]
pub(super) struct Generation {
    /// Where it is built, and stays.
    pub(super) path: PathBuf,
    env_dir: PathBuf,
}

impl Generation {
    /// A folder name that is not taken. `env_dir` must have a parent.
    pub(super) fn new(env_dir: &Path) -> Self {
        loop {
            let path = hidden(env_dir, &tag());
            if fs::symlink_metadata(&path).is_err() {
                return Self { path, env_dir: env_dir.to_owned() };
            }
        }
    }

    /// Makes it the environment and returns what it replaces. Whoever looks sees the old one or the new one; the old one
    /// stays for those who use it.
    pub(super) fn publish(&self) -> io::Result<Option<PathBuf>> {
        // First what needs room: a full volume is found while the old one still has its name.
        let link = hidden(&self.env_dir, &format!("{}.link", tag()));
        // Relative: the volume may be mounted elsewhere in another container.
        symlink(self.path.file_name().unwrap_or_default(), &link)?;
        self.replace_by(&link).inspect_err(|_| {
            // The link is of no use now; that it cannot be removed either adds nothing to the error.
            drop(fs::remove_file(&link));
        })
    }

    fn replace_by(&self, link: &Path) -> io::Result<Option<PathBuf>> {
        if !fs::symlink_metadata(&self.env_dir).is_ok_and(|metadata| metadata.is_dir()) {
            let previous = current(&self.env_dir);
            fs::rename(link, &self.env_dir)?;
            return Ok(previous);
        }
        // Made in place by another kind of builder. A folder cannot be replaced by a symlink in one step.
        let aside = hidden(&self.env_dir, &tag());
        fs::rename(&self.env_dir, &aside)?;
        fs::rename(link, &self.env_dir).inspect_err(|_| {
            // Others run in it by that name. If another build has taken the name meanwhile, that one is good as well.
            drop(fs::rename(&aside, &self.env_dir));
        })?;
        Ok(Some(aside))
    }
}

/// The folder that the environment's name points to.
pub(super) fn current(env_dir: &Path) -> Option<PathBuf> {
    let target = fs::read_link(env_dir).ok()?;
    Some(env_dir.parent()?.join(target))
}

/// Removes builds that are neither among `keep` nor so young that somebody may still be building them, and that nobody
/// uses: what crashed builders left behind, and environments that were replaced.
pub(super) fn remove_old(env_dir: &Path, keep: &[Option<PathBuf>], age: Duration) {
    let Some(parent) = env_dir.parent() else {
        return;
    };
    let is_old = |path: &Path| {
        let modified = fs::symlink_metadata(path).and_then(|metadata| metadata.modified());
        modified.is_ok_and(|modified| SystemTime::now().duration_since(modified).is_ok_and(|since| since > age))
    };
    let entries = fs::read_dir(parent).into_iter().flatten().flatten().map(|entry| entry.path());
    let builds =
        entries.filter(|path| is_build(path, env_dir)).filter(|path| !keep.iter().flatten().any(|kept| kept == path));
    for path in builds.filter(|path| is_old(path)) {
        if let Err(error) = remove_unused(&path) {
            tracing::warn!(path = %path.display(), %error, "an old environment could not be removed");
        }
    }
}

fn remove_unused(path: &Path) -> io::Result<()> {
    // What a link leads to is not what is removed.
    if path.is_symlink() {
        return fs::remove_file(path);
    }
    let _alone = match usage::alone(path) {
        Lock::Held(file) => file,
        Lock::Gone => return Ok(()),
        Lock::Taken => {
            tracing::debug!(path = %path.display(), "an old environment is still in use");
            return Ok(());
        }
        Lock::Refused(error) => return Err(error),
    };
    remove(path)
}

/// Removes a tree, also one with read-only folders (Go's module cache is one), and what is gone already. It can take seconds.
pub fn remove(path: &Path) -> io::Result<()> {
    match fs::remove_dir_all(path) {
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
            make_writable(path)?;
            fs::remove_dir_all(path)
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}

fn make_writable(folder: &Path) -> io::Result<()> {
    fs::set_permissions(folder, Permissions::from_mode(0o700))?;
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            make_writable(&entry.path())?;
        }
    }
    Ok(())
}

/// `.NAME.TAG` beside `NAME`.
pub(super) fn hidden(env_dir: &Path, tag: &str) -> PathBuf {
    let name = env_dir.file_name().unwrap_or_default().to_string_lossy();
    env_dir.with_file_name(format!(".{name}.{tag}"))
}

fn is_build(path: &Path, env_dir: &Path) -> bool {
    let name = env_dir.file_name().unwrap_or_default().to_string_lossy();
    let tag = path.file_name().and_then(OsStr::to_str).and_then(|own| own.strip_prefix(&format!(".{name}.")));
    let tag = tag.map(|tag| tag.strip_suffix(".link").or_else(|| tag.strip_suffix(".cache")).unwrap_or(tag));
    tag.is_some_and(|tag| tag.len() == TAG_DIGITS && tag.bytes().all(|byte| byte.is_ascii_hexdigit()))
}

pub(super) fn tag() -> String {
    // The keys of a RandomState are random; that is all the randomness that a folder name needs.
    format!("{:0TAG_DIGITS$x}", RandomState::new().build_hasher().finish() & 0xffff_ffff)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn built(env_dir: &Path, content: &str) -> Generation {
        let generation = Generation::new(env_dir);
        fs::create_dir(&generation.path).unwrap();
        fs::write(generation.path.join("content"), content).unwrap();
        generation
    }

    fn content(env_dir: &Path) -> String {
        fs::read_to_string(env_dir.join("content")).unwrap()
    }

    #[test]
    fn a_build_replaces_a_link_and_a_folder_and_leaves_the_old_one_in_place() {
        let dir = tempfile::tempdir().unwrap();
        let env_dir = dir.path().join("python");
        fs::create_dir(&env_dir).unwrap();
        fs::write(env_dir.join("content"), "by others").unwrap();
        let first = built(&env_dir, "first");
        let aside = first.publish().unwrap().unwrap();
        assert_eq!(content(&aside), "by others");
        assert_eq!(content(&env_dir), "first");
        let second = built(&env_dir, "second");
        assert_eq!(second.publish().unwrap(), Some(first.path.clone()));
        assert_eq!((content(&env_dir), content(&first.path)), ("second".into(), "first".into()));
        assert_eq!(current(&env_dir), Some(second.path));
        assert!(fs::read_link(&env_dir).unwrap().is_relative());
    }

    #[test]
    fn a_folder_keeps_its_name_when_the_link_cannot_be_made() {
        let dir = tempfile::tempdir().unwrap();
        // With the suffix of a link it is longer than a name can be; put aside it would not be.
        let env_dir = dir.path().join("n".repeat(243));
        fs::create_dir(&env_dir).unwrap();
        fs::write(env_dir.join("content"), "by others").unwrap();
        let refused = built(&env_dir, "next").publish().unwrap_err();
        assert_eq!(refused.kind(), io::ErrorKind::InvalidFilename, "{refused}");
        assert_eq!(content(&env_dir), "by others");
    }

    #[test]
    fn a_folder_gets_its_name_back_when_the_link_cannot_take_it() {
        let dir = tempfile::tempdir().unwrap();
        let env_dir = dir.path().join("python");
        fs::create_dir(&env_dir).unwrap();
        fs::write(env_dir.join("content"), "by others").unwrap();
        let gone = dir.path().join("gone");
        built(&env_dir, "next").replace_by(&gone).unwrap_err();
        assert_eq!(content(&env_dir), "by others");
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 2, "the folder and the build");
    }

    #[test]
    fn only_old_builds_of_the_same_environment_are_removed() {
        let dir = tempfile::tempdir().unwrap();
        let env_dir = dir.path().join("node");
        let (kept, old) = (built(&env_dir, "kept"), built(&env_dir, "old"));
        let of_another = built(&dir.path().join("node.js"), "another");
        fs::set_permissions(&old.path, Permissions::from_mode(0o555)).unwrap();
        remove_old(&env_dir, &[], Duration::from_hours(1));
        assert!(old.path.is_dir(), "somebody may be building it");
        remove_old(&env_dir, &[Some(kept.path.clone()), None], Duration::ZERO);
        assert!(kept.path.is_dir() && of_another.path.is_dir() && !old.path.exists());
    }
}
