//! The checksum of a pack's manifest, which tells whether dependencies have to be installed again.

use std::collections::HashMap;
use std::fmt::Write;
use std::fs::{self, Metadata};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use ring::digest::{SHA256, digest};

/// What tells one state of a file from another without reading it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Stamp {
    device: u64,
    inode: u64,
    bytes: u64,
    modified: (i64, i64),
    changed: (i64, i64),
}

impl Stamp {
    pub(super) fn of(metadata: &Metadata) -> Self {
        Self {
            device: metadata.dev(),
            inode: metadata.ino(),
            bytes: metadata.size(),
            modified: (metadata.mtime(), metadata.mtime_nsec()),
            changed: (metadata.ctime(), metadata.ctime_nsec()),
        }
    }
}

/// Checksums of files that have not changed since they were read.
#[derive(Debug, Default)]
pub(super) struct Checksums {
    known: Mutex<HashMap<PathBuf, (Stamp, String)>>,
}

impl Checksums {
    /// Lower-case hex SHA-256 of the file; none when there is none.
    pub(super) fn of(&self, file: &Path) -> io::Result<Option<String>> {
        let metadata = match fs::metadata(file) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            other => other?,
        };
        let stamp = Stamp::of(&metadata);
        let known = || self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, checksum)) = known().get(file).filter(|(known, _)| *known == stamp) {
            return Ok(Some(checksum.clone()));
        }
        let checksum = sha256_hex(&fs::read(file)?);
        known().insert(file.to_owned(), (stamp, checksum.clone()));
        Ok(Some(checksum))
    }
}

pub(super) fn sha256_hex(bytes: &[u8]) -> String {
    digest(&SHA256, bytes).as_ref().iter().fold(String::new(), |mut text, byte| {
        write!(text, "{byte:02x}").expect("writing to a String cannot fail");
        text
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_checksum_is_that_of_the_content_and_follows_it() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("requirements.txt");
        let checksums = Checksums::default();
        assert_eq!(checksums.of(&file).unwrap(), None);
        fs::write(&file, "abc").unwrap();
        let abc = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
        assert_eq!(checksums.of(&file).unwrap().as_deref(), Some(abc));
        assert_eq!(checksums.of(&file).unwrap().as_deref(), Some(abc));
        fs::write(&file, "abcd").unwrap();
        assert_ne!(checksums.of(&file).unwrap().as_deref(), Some(abc));
    }
}
