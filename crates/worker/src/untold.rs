//! Ends that may be in their rows and are not announced yet. The platform's scheduler frees a slot, and a workflow goes on, when it
//! is told so; a process that is killed between the row and the message would leave both waiting.
//!
//! A file with a place of eight bytes for each of them: the id of the execution, or nought. Nothing waits for the disk: the file
//! outlives the process. After a power loss it may be half a minute old, and an end is announced twice, which readers bear.

use std::collections::BTreeMap;
use std::fs::{DirBuilder, File, OpenOptions};
use std::io::{self, Read as _};
use std::os::unix::fs::{DirBuilderExt as _, FileExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use attune_model::ExecutionId;

/// Most of an earlier life's file that is read.
const MOST_BYTES: u64 = 64 * 1024;

const PLACE: usize = size_of::<i64>();

/// All of them.
#[derive(Debug)]
pub(crate) struct Untold {
    path: PathBuf,
    places: Mutex<Places>,
}

#[derive(Debug, Default)]
struct Places {
    file: Option<File>,
    taken: Vec<bool>,
    /// Those of earlier lives, and their places.
    left: Vec<(usize, ExecutionId)>,
    /// The disk does not take it, or another process has it.
    is_given_up: bool,
}

/// An end that has to be announced. Dropped without [`Owed::settle`], it is left to the next life.
#[derive(Debug)]
pub(crate) struct Owed {
    untold: Arc<Untold>,
    place: Option<usize>,
}

impl Owed {
    /// It was announced, or there is nothing to be announced.
    pub(crate) fn settle(self) {
        if let Some(place) = self.place {
            self.untold.places().clear(place);
        }
    }
}

impl Untold {
    /// In `folder`, which is made when it is needed.
    pub(crate) fn open(folder: &Path) -> Arc<Self> {
        let path = folder.join("untold");
        let mut places = Places::default();
        match open(OpenOptions::new().read(true).write(true), &path) {
            Ok(file) => places.take_over(file),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => places.give_up(&error),
        }
        Arc::new(Self { path, places: Mutex::new(places) })
    }

    fn places(&self) -> MutexGuard<'_, Places> {
        self.places.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Before an end is written.
    pub(crate) fn owe(self: &Arc<Self>, execution: ExecutionId) -> Owed {
        let mut places = self.places();
        if places.file.is_none() && !places.is_given_up {
            match make(&self.path) {
                Ok(file) => places.file = Some(file),
                Err(error) => places.give_up(&error),
            }
        }
        Owed { untold: self.clone(), place: places.enter(execution) }
    }

    /// What an earlier life may have written without a word, to whoever asks first.
    pub(crate) fn left(self: &Arc<Self>) -> BTreeMap<ExecutionId, Owed> {
        let left = std::mem::take(&mut self.places().left);
        let owed = |place| Owed { untold: self.clone(), place: Some(place) };
        left.into_iter().map(|(place, execution)| (execution, owed(place))).collect()
    }
}

impl Places {
    fn take_over(&mut self, file: File) {
        let mut bytes = Vec::new();
        if let Err(error) = (&file).take(MOST_BYTES).read_to_end(&mut bytes) {
            return self.give_up(&error);
        }
        let ids = bytes.as_chunks::<PLACE>().0.iter().map(|bytes| i64::from_le_bytes(*bytes));
        self.taken = ids.clone().map(|id| id != 0).collect();
        self.left = ids.enumerate().filter(|(_, id)| *id != 0).map(|(place, id)| (place, ExecutionId(id))).collect();
        self.file = Some(file);
    }

    fn enter(&mut self, execution: ExecutionId) -> Option<usize> {
        self.file.as_ref()?;
        let free = self.taken.iter().position(|taken| !taken);
        let place = free.unwrap_or_else(|| {
            self.taken.push(false);
            self.taken.len() - 1
        });
        self.write(place, execution.0);
        self.taken[place] = true;
        Some(place)
    }

    fn clear(&mut self, place: usize) {
        self.write(place, 0);
        self.taken[place] = false;
    }

    fn write(&mut self, place: usize, id: i64) {
        let Some(file) = &self.file else { return };
        let offset = u64::try_from(place * PLACE).unwrap_or(u64::MAX);
        if let Err(error) = file.write_all_at(&id.to_le_bytes(), offset) {
            self.give_up(&error);
        }
    }

    fn give_up(&mut self, error: &io::Error) {
        tracing::warn!(%error, "a killed worker's next life will not know which ends it has not announced");
        self.is_given_up = true;
        self.file = None;
    }
}

fn make(path: &Path) -> io::Result<File> {
    if let Some(folder) = path.parent() {
        DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
    }
    open(OpenOptions::new().read(true).write(true).create(true).truncate(false).mode(0o600), path)
}

/// For this process alone: two of one worker's name would take each other's places.
fn open(options: &OpenOptions, path: &Path) -> io::Result<File> {
    let file = options.open(path)?;
    file.try_lock()?;
    Ok(file)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What is left in `folder`, and stays there.
    fn left(folder: &Path) -> Vec<i64> {
        Untold::open(folder).left().keys().map(|execution| execution.0).collect()
    }

    #[test]
    fn what_was_not_settled_is_left_to_the_next_life() {
        let dir = tempfile::tempdir().unwrap();
        let folder = dir.path().join("7");
        let first = Untold::open(&folder);
        assert!(!folder.exists(), "nothing is written for nothing");
        let [one, two, three] = [1, 2, 3].map(|id| first.owe(ExecutionId(id)));
        three.settle();
        let four = first.owe(ExecutionId(4));
        one.settle();
        assert!(first.left().is_empty());
        drop(first);
        // Whoever still owes holds the file; a killed process does not.
        drop((two, four));

        assert_eq!(left(&folder), [2, 4]);
        let second = Untold::open(&folder);
        let mut owed = second.left();
        assert!(second.left().is_empty());
        second.owe(ExecutionId(5)).settle();
        owed.remove(&ExecutionId(4)).unwrap().settle();
        drop((second, owed));
        assert_eq!(left(&folder), [2], "what could not be announced is owed on");
        Untold::open(&folder).left().into_values().for_each(Owed::settle);
        assert_eq!(left(&folder), [0_i64; 0]);
        assert_eq!(folder.join("untold").metadata().unwrap().len(), 24, "places are used again");
    }

    #[test]
    fn another_process_of_the_name_has_it_alone() {
        let dir = tempfile::tempdir().unwrap();
        let first = Untold::open(dir.path());
        let owed = first.owe(ExecutionId(1));
        let second = Untold::open(dir.path());
        assert!(second.left().is_empty());
        second.owe(ExecutionId(2)).settle();
        drop((second, first, owed));
        assert_eq!(left(dir.path()), [1]);
    }

    #[test]
    fn a_folder_that_takes_nothing_costs_only_the_memory() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("file");
        std::fs::write(&file, "").unwrap();
        let untold = Untold::open(&file.join("folder"));
        untold.owe(ExecutionId(1)).settle();
        assert!(untold.left().is_empty());
    }
}
