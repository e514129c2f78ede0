//! Files that live as long as one run: parameters and inline code, readable by their owner only.
//!
//! The name cannot be guessed and the file is made anew or not at all, so that in a shared temporary folder nobody can
//! put a link or a file of their own in its place.

use std::fs::{DirBuilder, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use attune_security::random_secret;

/// A file that is removed when it is dropped.
#[derive(Debug)]
pub(crate) struct ScratchFile {
    path: PathBuf,
}

impl ScratchFile {
    /// Writes `content` into a new file of mode 0400 in `folder`, which is made if it is missing.
    pub(crate) fn create(folder: &Path, kind: &str, extension: &str, content: &[u8]) -> io::Result<Self> {
        let random = random_secret().ok_or_else(|| io::Error::other("the system has no random bytes to give"))?;
        let path = folder.join(format!("attune-{kind}-{}{extension}", random.expose()));
        let mut file = match open_new(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
                open_new(&path)
            }
            other => other,
        }?;
        // From here on a failure removes the file.
        let scratch = Self { path };
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
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn the_file_is_private_and_gone_afterwards() {
        let dir = tempfile::tempdir().unwrap();
        let folder = dir.path().join("not/there");
        let file = ScratchFile::create(&folder, "parameters", ".json", b"{}").unwrap();
        let path = file.path().to_owned();
        assert_eq!(std::fs::read(&path).unwrap(), b"{}");
        assert_eq!(path.metadata().unwrap().permissions().mode() & 0o7777, 0o400);
        assert_eq!(folder.metadata().unwrap().permissions().mode() & 0o777, 0o700);
        let other = ScratchFile::create(&folder, "parameters", ".json", b"{}").unwrap();
        assert_ne!(other.path(), path);
        drop(file);
        assert!(!path.exists());
    }
}
