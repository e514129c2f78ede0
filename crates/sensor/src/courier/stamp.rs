//! What tells the states of a file from each other.

use std::fs::{File, Metadata};
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::time::{Duration, SystemTime};

use serde::{Deserialize, Serialize};

/// File systems date changes a little earlier than clocks say.
const COARSE: Duration = Duration::from_secs(1);

/// What tells one state of a file from another. Nobody can write into a file, or put another one in its place, and keep all of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Stamp {
    pub(super) device: u64,
    pub(super) inode: u64,
    /// Its content, its name or its mode.
    pub(super) changed: SystemTime,
    pub(super) size: u64,
}

impl Stamp {
    fn of(metadata: &Metadata) -> Self {
        let seconds = u64::try_from(metadata.ctime()).unwrap_or_default();
        let nanoseconds = u32::try_from(metadata.ctime_nsec()).unwrap_or_default();
        Self {
            device: metadata.dev(),
            inode: metadata.ino(),
            changed: SystemTime::UNIX_EPOCH + Duration::new(seconds, nanoseconds),
            size: metadata.len(),
        }
    }

    /// Whether it is not older than a process that began then.
    pub(super) fn is_after(self, began: SystemTime) -> bool {
        self.changed >= began.checked_sub(COARSE).unwrap_or(began)
    }
}

/// None when there is no such file.
pub(super) fn opened(artifacts: &Path, path: &str) -> io::Result<Option<(File, Stamp)>> {
    let file = match attune_sys::open_beneath(artifacts, Path::new(path)) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        file => file?,
    };
    let metadata = file.metadata()?;
    Ok(metadata.is_file().then_some((file, Stamp::of(&metadata))))
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn whatever_happens_to_a_file_shows_and_nothing_else() {
        let folder = tempfile::tempdir().unwrap();
        let place = folder.path().join("file");
        let stamp = || opened(folder.path(), "file").unwrap().unwrap().1;
        fs::write(&place, "one").unwrap();
        let first = stamp();
        let written = fs::metadata(&place).unwrap().modified().unwrap();
        // Times are only so fine.
        let changes = |change: &dyn Fn()| {
            let before = stamp();
            while stamp() == before {
                change();
            }
        };
        changes(&|| fs::write(&place, "two").unwrap());
        changes(&|| File::options().append(true).open(&place).unwrap().set_modified(written).unwrap());
        changes(&|| {
            fs::write(folder.path().join("new"), "one").unwrap();
            fs::rename(folder.path().join("new"), &place).unwrap();
        });
        assert_ne!(stamp(), first);
        assert_eq!(stamp(), stamp());
        assert!(opened(folder.path(), "other").unwrap().is_none());
    }

    #[test]
    fn a_file_is_of_the_time_of_a_process_or_older() {
        let at = |seconds| SystemTime::UNIX_EPOCH + Duration::from_secs(seconds);
        let stamp = Stamp { device: 1, inode: 1, changed: at(100), size: 5 };
        assert!(stamp.is_after(at(50)) && stamp.is_after(at(101)));
        assert!(!stamp.is_after(at(102)));
    }
}
