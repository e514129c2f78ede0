//! Files and folders around an environment that builders of one group write in turns, whoever made them and whatever its umask was.

use std::fs::{self, DirBuilder, File, OpenOptions, Permissions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::Path;

use super::generation;

/// Builders may run as different users of one group.
const MODE: u32 = 0o664;
/// So that what they make in it belongs to the group, too.
const FOLDER_MODE: u32 = 0o2775;

/// Opens the file for writing as it is, or makes it.
pub(super) fn open(path: &Path) -> io::Result<File> {
    let file = OpenOptions::new().create(true).truncate(false).write(true).mode(MODE).open(path)?;
    // The umask has taken bits from the mode. Only the owner can put them back, and has done so when it was not us.
    if let Err(error) = file.set_permissions(Permissions::from_mode(MODE)) {
        tracing::debug!(path = %path.display(), %error, "the mode of the file is left as it is");
    }
    Ok(file)
}

/// Makes the folder, unless somebody else does so at the same time. Its umask takes bits from the mode, and only the owner can put
/// them back; so it gets its name when it is as the others need it.
pub(super) fn make_folder(folder: &Path) -> io::Result<()> {
    if let Some(above) = folder.parent() {
        DirBuilder::new().recursive(true).mode(FOLDER_MODE).create(above)?;
    }
    let new = generation::hidden(folder, &generation::tag());
    fs::create_dir(&new)?;
    let placed = fs::set_permissions(&new, Permissions::from_mode(FOLDER_MODE)).and_then(|()| fs::rename(&new, folder));
    let Err(error) = placed else { return Ok(()) };
    fs::remove_dir(&new)?;
    if folder.is_dir() { Ok(()) } else { Err(error) }
}

/// Replaces its content.
pub(super) fn write(path: &Path, content: &[u8]) -> io::Result<()> {
    let mut file = open(path)?;
    file.set_len(0)?;
    file.write_all(content)
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicBool, Ordering};

    use super::*;

    #[test]
    fn whoever_finds_a_folder_may_use_it_though_it_is_being_made() {
        let dir = tempfile::tempdir().unwrap();
        let folder = dir.path().join("pack");
        let mode = || folder.metadata().ok().map(|found| found.permissions().mode() & 0o7777);
        let is_over = AtomicBool::new(false);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                for _ in 0..1000 {
                    make_folder(&folder).unwrap();
                    fs::remove_dir(&folder).unwrap();
                }
                is_over.store(true, Ordering::Relaxed);
            });
            while !is_over.load(Ordering::Relaxed) {
                assert!(matches!(mode(), None | Some(FOLDER_MODE)), "another builder would be refused");
            }
        });
        // Another was faster, has begun, and wants it otherwise.
        fs::create_dir(&folder).unwrap();
        fs::write(folder.join("lock"), "").unwrap();
        fs::set_permissions(&folder, Permissions::from_mode(0o2777)).unwrap();
        make_folder(&folder).unwrap();
        assert_eq!(mode(), Some(0o2777));
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1, "nothing is left beside it");
    }

    #[test]
    fn the_group_may_write_the_file_whatever_the_umask_is() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log");
        write(&path, b"the longer text").unwrap();
        assert_eq!(path.metadata().unwrap().permissions().mode() & 0o777, 0o664);
        write(&path, b"short").unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"short");
    }
}
