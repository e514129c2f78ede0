//! Files that the API never takes, because they are too long for it for instance. Their versions are gone, and to send them again
//! would end the same way; somebody may still want them. They are kept aside, the newest of them, for an operator to look at.

use std::fs::{self, DirBuilder};
use std::io;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use attune_model::ExecutionId;

/// Most bytes of all together; the last one is kept in any case.
const MOST_BYTES: u64 = 1024 * 1024 * 1024;
/// Most files.
const MOST_FILES: usize = 1000;

/// The folder of such files.
#[derive(Debug)]
pub(crate) struct Refused {
    folder: PathBuf,
}

impl Refused {
    /// Files in `folder`, which is made when it is needed.
    pub(crate) fn new(folder: PathBuf) -> Self {
        Self { folder }
    }

    /// Takes the file of a version away from where it would be sent again, and returns where it is. Older ones go when there
    /// are too many.
    pub(crate) fn put_aside(&self, execution: ExecutionId, version: i64, local: &Path) -> io::Result<PathBuf> {
        DirBuilder::new().recursive(true).mode(0o700).create(&self.folder)?;
        let name = local.file_name().unwrap_or_default().to_string_lossy();
        let aside = self.folder.join(format!("{execution}-{version}-{name}"));
        fs::rename(local, &aside)?;
        self.make_room(&aside, (MOST_FILES, MOST_BYTES));
        Ok(aside)
    }

    fn make_room(&self, newest: &Path, (files, bytes): (usize, u64)) {
        let entries = fs::read_dir(&self.folder).into_iter().flatten().flatten();
        let mut all: Vec<(SystemTime, PathBuf, u64)> = entries
            .filter_map(|entry| {
                let metadata = entry.metadata().ok()?;
                Some((metadata.modified().ok()?, entry.path(), metadata.len()))
            })
            .filter(|(_, path, _)| path != newest)
            .collect();
        all.sort();
        let length = |path| fs::symlink_metadata(path).map_or(0, |metadata| metadata.len());
        let (mut count, mut total) = (1, length(newest));
        for (_, path, length) in all.into_iter().rev() {
            count += 1;
            total += length;
            if count > files || total > bytes {
                match fs::remove_file(&path) {
                    Ok(()) => {
                        tracing::warn!(path = %path.display(), "an older file that the API did not take is gone, for room")
                    }
                    Err(error) => {
                        tracing::warn!(path = %path.display(), %error, "there is no room for files that the API does not take")
                    }
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn the_newest_are_kept_whatever_their_names_are() {
        let dir = tempfile::tempdir().unwrap();
        let refused = Refused::new(dir.path().join("7/refused"));
        let put = |version: i64, age: u64, length: usize| {
            let local = dir.path().join("v1.txt");
            fs::write(&local, vec![b'x'; length]).unwrap();
            let written = SystemTime::now() - Duration::from_secs(age);
            fs::File::options().write(true).open(&local).unwrap().set_modified(written).unwrap();
            refused.put_aside(ExecutionId(5), version, &local).unwrap()
        };
        let [old, older, new] = [put(1, 20, 4), put(2, 30, 4), put(3, 10, 4)];
        let left = || [&old, &older, &new].map(|path| path.exists());
        assert_eq!(old.file_name().unwrap(), "5-1-v1.txt");
        assert_eq!(left(), [true; 3]);
        refused.make_room(&new, (2, 1000));
        assert_eq!(left(), [true, false, true]);
        refused.make_room(&new, (2, 7));
        assert_eq!(left(), [false, false, true]);
        refused.make_room(&new, (0, 0));
        assert_eq!(left(), [false, false, true], "the last one is kept in any case");
    }
}
