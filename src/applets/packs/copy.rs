//! A pack folder into the folder that agents share: whole or not at all, also while actions of it run.

use std::ffi::OsString;
use std::fs::{self, Permissions};
use std::io;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};

use thiserror::Error;

/// Shared folders are writable for the group and hand it on (a fact of the platform).
const FOLDER_MODE: u32 = 0o2775;

/// Version control and caches of interpreters are nothing that runs.
const LEFT_OUT: [&str; 2] = [".git", "__pycache__"];

/// Why a pack could not be copied.
#[derive(Debug, Error)]
#[error("failed to copy pack {pack_ref}: {what} {}", path.display())]
pub(super) struct CopyError {
    pack_ref: String,
    what: &'static str,
    path: PathBuf,
    source: io::Error,
}

/// Makes `base`/`pack_ref` what `from` is, and removes what it was before. A reader sees the old pack or the new one.
pub(super) fn replace(pack_ref: &str, from: &Path, base: &Path) -> Result<(), CopyError> {
    let failed = |what, path: &Path| {
        let (pack_ref, path) = (pack_ref.to_owned(), path.to_owned());
        move |source| CopyError { pack_ref, what, path, source }
    };
    fs::create_dir_all(base).map_err(failed("make the folder", base))?;
    let place = base.join(pack_ref);
    let beside = |kind: &str| base.join(format!(".{pack_ref}.{kind}.{}", std::process::id()));
    let (fresh, old) = (beside("new"), beside("old"));
    remove(&fresh).map_err(failed("clear", &fresh))?;
    remove(&old).map_err(failed("clear", &old))?;
    let copied = copy(from, &fresh);
    if copied.is_err() {
        // The error that matters is the first one.
        drop(remove(&fresh));
    }
    copied.map_err(failed("read or write below", from))?;
    if place.symlink_metadata().is_ok() {
        fs::rename(&place, &old).map_err(failed("move away", &place))?;
    }
    if let Err(source) = fs::rename(&fresh, &place) {
        // Back to what was there: an old pack is better than none.
        drop(fs::rename(&old, &place));
        return Err(failed("put in place", &place)(source));
    }
    remove(&old).map_err(failed("remove", &old))
}

fn remove(path: &Path) -> io::Result<()> {
    let removed = match path.symlink_metadata() {
        Ok(found) if found.is_dir() => fs::remove_dir_all(path),
        Ok(_) => fs::remove_file(path),
        Err(error) => Err(error),
    };
    match removed {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        Ok(()) | Err(_) => Ok(()),
    }
}

fn copy(from: &Path, to: &Path) -> io::Result<()> {
    fs::create_dir(to)?;
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        let name: OsString = entry.file_name();
        if LEFT_OUT.iter().any(|left_out| name == *left_out) {
            continue;
        }
        let (source, target) = (entry.path(), to.join(&name));
        let kind = entry.file_type()?;
        if kind.is_dir() {
            copy(&source, &target)?;
        } else if kind.is_symlink() {
            symlink(fs::read_link(&source)?, &target)?;
        } else if kind.is_file() {
            // With its mode: native actions are executable.
            fs::copy(&source, &target)?;
        }
    }
    fs::set_permissions(to, Permissions::from_mode(FOLDER_MODE))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pack_is_replaced_as_a_whole() {
        let root = tempfile::tempdir().unwrap();
        let (from, base) = (root.path().join("demo"), root.path().join("packs"));
        fs::create_dir_all(from.join("actions")).unwrap();
        fs::create_dir_all(from.join(".git")).unwrap();
        fs::write(from.join("actions/run"), "#!/bin/sh\n").unwrap();
        fs::set_permissions(from.join("actions/run"), Permissions::from_mode(0o755)).unwrap();
        symlink("run", from.join("actions/again")).unwrap();
        fs::create_dir_all(base.join("demo/actions")).unwrap();
        fs::write(base.join("demo/actions/gone"), "old").unwrap();

        replace("demo", &from, &base).unwrap();

        let there = base.join("demo/actions");
        assert_eq!(fs::metadata(there.join("run")).unwrap().permissions().mode() & 0o777, 0o755);
        assert_eq!(fs::read_link(there.join("again")).unwrap(), Path::new("run"));
        assert_eq!(fs::metadata(&there).unwrap().permissions().mode() & 0o7777, FOLDER_MODE);
        assert!(!there.join("gone").exists() && !base.join("demo/.git").exists());
        let left: Vec<OsString> = fs::read_dir(&base).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        assert_eq!(left, ["demo"]);
        replace("demo", &from, &base).unwrap();
    }

    #[test]
    fn a_pack_that_cannot_be_read_leaves_the_old_one() {
        let root = tempfile::tempdir().unwrap();
        let base = root.path().join("packs");
        fs::create_dir_all(base.join("demo")).unwrap();
        fs::write(base.join("demo/pack.yaml"), "ref: demo").unwrap();
        let error = replace("demo", &root.path().join("nowhere"), &base).unwrap_err();
        assert!(error.to_string().starts_with("failed to copy pack demo: read or write below"), "{error}");
        assert_eq!(fs::read_to_string(base.join("demo/pack.yaml")).unwrap(), "ref: demo");
        assert_eq!(fs::read_dir(&base).unwrap().count(), 1);
    }
}
