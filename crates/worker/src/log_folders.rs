//! The folders `execution_<id>` that log files are in while an execution runs.
//!
//! A folder that an execution leaves empty becomes that of a later one, under another name. To remove it and make the next
//! one anew is dear where it is done hundreds of times a second: ext4 gives no inode away again that was freed within the
//! last five seconds, and looks at each of those first, which was a fifth of the worker's processor time.

use std::fs;
use std::io;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use attune_model::ExecutionId;

use crate::files::{FOLDER_MODE, make_folders};

/// What the name of a folder begins with.
const PREFIX: &str = "execution_";
/// What it begins with as long as no execution has it: hidden, and unique also where several workers share the artifacts.
const SPARE_PREFIX: &str = ".execution_";
/// Most that are kept. As many are used up at once as executions begin before others end.
const MOST_SPARES: usize = 32;

/// All folders of a worker.
#[derive(Debug)]
pub(crate) struct LogFolders {
    artifacts_dir: PathBuf,
    spares: Mutex<Vec<PathBuf>>,
}

impl LogFolders {
    /// Folders in `artifacts_dir`. What a killed worker has kept is removed: another that lives just makes new ones.
    pub(crate) fn new(artifacts_dir: &Path) -> Self {
        let spares = fs::read_dir(artifacts_dir).into_iter().flatten().flatten();
        for spare in spares.filter(|entry| entry.file_name().as_encoded_bytes().starts_with(SPARE_PREFIX.as_bytes())) {
            remove(&spare.path());
        }
        Self { artifacts_dir: artifacts_dir.to_owned(), spares: Mutex::default() }
    }

    /// The folder that all are in.
    pub(crate) fn base(&self) -> &Path {
        &self.artifacts_dir
    }

    /// Where the files of an execution are while it runs.
    pub(crate) fn path(&self, execution: ExecutionId) -> PathBuf {
        self.artifacts_dir.join(format!("{PREFIX}{execution}"))
    }

    /// The executions that have one, of whatever worker.
    pub(crate) fn executions(&self) -> impl Iterator<Item = ExecutionId> {
        let id = |name: &str| name.strip_prefix(PREFIX).and_then(|id| id.parse().ok()).map(ExecutionId);
        let entries = fs::read_dir(&self.artifacts_dir).into_iter().flatten().flatten();
        entries.filter_map(move |entry| id(entry.file_name().to_str()?))
    }

    /// Makes sure that there is one.
    pub(crate) fn make(&self, execution: ExecutionId) -> io::Result<()> {
        let folder = self.path(execution);
        let mut spares = self.spares.lock().unwrap_or_else(PoisonError::into_inner);
        while !folder.is_dir()
            && let Some(spare) = spares.pop()
        {
            match fs::rename(&spare, &folder) {
                Ok(()) => return Ok(()),
                // A spare that somebody has removed is none.
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                // What is there is no empty folder, and is not replaced.
                Err(_) => {
                    spares.push(spare);
                    break;
                }
            }
        }
        make_folders(&self.artifacts_dir, &folder)
    }

    /// Takes it from an execution that has ended.
    pub(crate) fn take(&self, execution: ExecutionId) {
        let folder = self.path(execution);
        let mut spares = self.spares.lock().unwrap_or_else(PoisonError::into_inner);
        if spares.len() < MOST_SPARES && is_empty(&folder) {
            let spare = self.artifacts_dir.join(format!("{SPARE_PREFIX}{execution}"));
            if fs::rename(&folder, &spare).is_ok() {
                spares.push(spare);
            }
        } else {
            remove(&folder);
        }
    }
}

impl Drop for LogFolders {
    fn drop(&mut self) {
        for spare in self.spares.get_mut().unwrap_or_else(PoisonError::into_inner) {
            remove(spare);
        }
    }
}

/// Whether it is a folder as it was made, and not a link to one, without anything in it.
fn is_empty(folder: &Path) -> bool {
    fs::symlink_metadata(folder)
        .is_ok_and(|metadata| metadata.is_dir() && metadata.permissions().mode() & 0o7777 == FOLDER_MODE)
        && fs::read_dir(folder).is_ok_and(|mut entries| entries.next().is_none())
}

/// Removes an empty folder.
fn remove(folder: &Path) {
    // It is not empty when something could not be filed, or when the action put a file of its own there.
    match fs::remove_dir(folder) {
        Ok(()) | Err(_) => {}
    }
}

#[cfg(test)]
mod tests {
    use std::fs::Permissions;
    use std::os::unix::fs::{MetadataExt, symlink};

    use super::*;

    const FIRST: ExecutionId = ExecutionId(1);
    const SECOND: ExecutionId = ExecutionId(2);

    fn names(folder: &Path) -> Vec<String> {
        let names = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
        let mut names: Vec<String> = names.collect();
        names.sort();
        names
    }

    #[test]
    fn an_empty_folder_becomes_that_of_the_next_execution() {
        let base = tempfile::tempdir().unwrap();
        let folders = LogFolders::new(base.path());
        folders.make(FIRST).unwrap();
        let made = folders.path(FIRST).metadata().unwrap();
        assert_eq!(made.permissions().mode() & 0o7777, 0o2775);
        folders.take(FIRST);
        assert_eq!(names(base.path()), [".execution_1"]);
        folders.make(SECOND).unwrap();
        folders.make(SECOND).unwrap();
        assert_eq!(names(base.path()), ["execution_2"]);
        assert_eq!(folders.path(SECOND).metadata().unwrap().ino(), made.ino());
        folders.take(SECOND);
        drop(folders);
        assert!(names(base.path()).is_empty());
    }

    #[test]
    fn what_is_no_empty_folder_of_its_own_is_given_to_nobody() {
        let base = tempfile::tempdir().unwrap();
        let elsewhere = tempfile::tempdir().unwrap();
        let folders = LogFolders::new(base.path());
        folders.make(FIRST).unwrap();
        fs::write(folders.path(FIRST).join("left"), "by the action").unwrap();
        folders.take(FIRST);
        symlink(elsewhere.path(), folders.path(SECOND)).unwrap();
        folders.take(SECOND);
        assert_eq!(names(base.path()), ["execution_1", "execution_2"]);
        folders.make(ExecutionId(3)).unwrap();
        assert!(names(&folders.path(ExecutionId(3))).is_empty());
        let left: Vec<ExecutionId> = folders.executions().collect();
        assert_eq!(left.len(), 3);
    }

    #[test]
    fn a_file_in_the_place_of_a_folder_costs_no_spare() {
        let base = tempfile::tempdir().unwrap();
        let folders = LogFolders::new(base.path());
        folders.make(FIRST).unwrap();
        folders.take(FIRST);
        fs::write(folders.path(SECOND), "").unwrap();
        folders.make(SECOND).unwrap();
        folders.make(ExecutionId(3)).unwrap();
        assert_eq!(names(base.path()), ["execution_2", "execution_3"]);
    }

    #[test]
    fn spares_of_a_killed_worker_go_and_a_living_one_does_without() {
        let base = tempfile::tempdir().unwrap();
        let living = LogFolders::new(base.path());
        living.make(FIRST).unwrap();
        living.take(FIRST);
        let started = LogFolders::new(base.path());
        assert!(names(base.path()).is_empty());
        living.make(SECOND).unwrap();
        assert_eq!(names(base.path()), ["execution_2"]);
        drop(started);
    }

    #[test]
    fn a_folder_that_an_action_has_closed_to_others_is_given_to_nobody() {
        let base = tempfile::tempdir().unwrap();
        let folders = LogFolders::new(base.path());
        folders.make(FIRST).unwrap();
        fs::set_permissions(folders.path(FIRST), Permissions::from_mode(0o700)).unwrap();
        folders.take(FIRST);
        assert!(names(base.path()).is_empty());
    }

    #[test]
    fn no_more_than_some_are_kept() {
        let base = tempfile::tempdir().unwrap();
        let folders = LogFolders::new(base.path());
        let executions = || (0..).map(ExecutionId).take(MOST_SPARES + 3);
        executions().for_each(|execution| folders.make(execution).unwrap());
        executions().for_each(|execution| folders.take(execution));
        assert_eq!(names(base.path()).len(), MOST_SPARES);
    }
}
