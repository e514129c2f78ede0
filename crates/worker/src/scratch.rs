//! Files that live as long as one run: parameters and inline code, readable by nobody but the user that the action runs as.
//!
//! The name cannot be guessed and the file is made anew or not at all, so that in a shared temporary folder nobody can
//! put a link or a file of their own in its place.

use std::fs::{DirBuilder, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, fchown};
use std::path::{Path, PathBuf};

use attune_process::User;
use attune_security::random_secret;

/// Where such files go, and who reads them.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Scratch<'a> {
    /// Made if it is missing.
    pub(crate) folder: &'a Path,
    /// None for this process's own user.
    pub(crate) reader: Option<&'a User>,
}

/// A file that is removed when it is dropped.
#[derive(Debug)]
pub(crate) struct ScratchFile {
    path: PathBuf,
}

impl ScratchFile {
    /// Writes `content` into a new file of mode 0400.
    pub(crate) fn create(scratch: Scratch<'_>, kind: &str, extension: &str, content: &[u8]) -> io::Result<Self> {
        let Scratch { folder, reader } = scratch;
        let random = random_secret().ok_or_else(|| io::Error::other("the system has no random bytes to give"))?;
        let path = folder.join(format!("attune-{kind}-{}{extension}", random.expose()));
        let mut file = match open_new(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                // Another user has to get through it; names cannot be guessed.
                let mode = if reader.is_some() { 0o711 } else { 0o700 };
                DirBuilder::new().recursive(true).mode(mode).create(folder)?;
                open_new(&path)
            }
            other => other,
        }?;
        // From here on a failure removes the file.
        let scratch = Self { path };
        if let Some(User { uid, gid, .. }) = reader {
            fchown(&file, Some(*uid), Some(*gid))?;
        }
        file.write_all(content)?;
        Ok(scratch)
    }

    /// Where it is.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }
}

fn open_new(path: &Path) -> io::Result<File> {
    OpenOptions::new().write(true).create_new(true).mode(0o400).open(path)
}

impl Drop for ScratchFile {
    fn drop(&mut self) {
        match std::fs::remove_file(&self.path) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => {
                tracing::warn!(path = %self.path.display(), %error, "temporary file could not be removed");
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{MetadataExt, PermissionsExt};

    use super::*;

    #[test]
    fn the_file_is_private_and_gone_afterwards() {
        let dir = tempfile::tempdir().unwrap();
        let folder = dir.path().join("not/there");
        let scratch = Scratch { folder: &folder, reader: None };
        let file = ScratchFile::create(scratch, "parameters", ".json", b"{}").unwrap();
        let path = file.path().to_owned();
        assert_eq!(std::fs::read(&path).unwrap(), b"{}");
        assert_eq!(path.metadata().unwrap().permissions().mode() & 0o7777, 0o400);
        assert_eq!(folder.metadata().unwrap().permissions().mode() & 0o777, 0o700);
        let other = ScratchFile::create(scratch, "parameters", ".json", b"{}").unwrap();
        assert_ne!(other.path(), path);
        drop(file);
        assert!(!path.exists());
    }

    #[test]
    fn the_file_belongs_to_whoever_is_to_read_it() {
        let dir = tempfile::tempdir().unwrap();
        let folder = dir.path().join("not/there");
        // Only root may give files away.
        let own = attune_process::effective_user();
        let uid = if own == 0 { 65_534 } else { own };
        let gid = if own == 0 { 65_534 } else { dir.path().metadata().unwrap().gid() };
        let reader = User { uid, gid, groups: Vec::new() };
        let file = ScratchFile::create(Scratch { folder: &folder, reader: Some(&reader) }, "code", ".sh", b"").unwrap();
        let metadata = file.path().metadata().unwrap();
        assert_eq!((metadata.uid(), metadata.gid(), metadata.mode() & 0o7777), (uid, gid, 0o400));
        assert_eq!(folder.metadata().unwrap().mode() & 0o777, 0o711);
    }
}
