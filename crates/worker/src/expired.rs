//! Files that nobody needs any more and that could not be removed yet, for example because the API is away. The list is on disk
//! as well: nothing else names these files once their versions are gone.

use std::collections::BTreeSet;
use std::fs::{self, DirBuilder, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::PathBuf;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// Most that are remembered.
const MOST: usize = 10_000;
/// Lines of files that are gone by now, beyond as many as there are others, before the list is written anew.
const MOST_STALE: usize = 256;

/// All of them.
#[derive(Debug)]
pub(crate) struct Expired {
    list: PathBuf,
    known: Mutex<Known>,
}

#[derive(Debug, Default)]
struct Known {
    files: BTreeSet<String>,
    /// How many lines the list on disk has.
    lines: usize,
    /// Whether it was said that the disk does not take the list.
    told: bool,
}

impl Expired {
    /// What is in `list`, which is made when it is needed.
    pub(crate) fn read(list: PathBuf) -> Self {
        let text = fs::read_to_string(&list).unwrap_or_else(|error| {
            if error.kind() != io::ErrorKind::NotFound {
                tracing::warn!(path = %list.display(), %error, "files that an earlier life was to remove are not known");
            }
            String::new()
        });
        // A line that was cut off by the end of that life is none.
        let files: BTreeSet<String> = text.lines().filter_map(|line| serde_json::from_str(line).ok()).collect();
        if !files.is_empty() {
            tracing::info!(files = files.len(), "files that an earlier life could not remove are removed");
        }
        let known = Mutex::new(Known { files, lines: text.lines().count(), told: false });
        Self { list, known }
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Remembers a file. False: there are too many.
    pub(crate) fn remember(&self, file_path: &str) -> bool {
        let mut known = self.known();
        if known.files.contains(file_path) {
            return true;
        }
        if known.files.len() >= MOST {
            return false;
        }
        known.files.insert(file_path.to_owned());
        let kept = self.append(file_path);
        self.tell(&mut known, kept);
        known.lines += 1;
        true
    }

    /// It is gone, or is somebody's again.
    pub(crate) fn forget(&self, file_path: &str) {
        let mut known = self.known();
        if known.files.remove(file_path) && (known.files.is_empty() || known.lines > 2 * known.files.len() + MOST_STALE)
        {
            let kept = self.write(&known.files);
            self.tell(&mut known, kept);
            known.lines = known.files.len();
        }
    }

    /// One of them.
    pub(crate) fn next(&self) -> Option<String> {
        self.known().files.first().cloned()
    }

    fn append(&self, file_path: &str) -> io::Result<()> {
        let open = || OpenOptions::new().append(true).create(true).mode(0o600).open(&self.list);
        let mut list = match open() {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                if let Some(folder) = self.list.parent() {
                    DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
                }
                open()
            }
            other => other,
        }?;
        list.write_all(line(file_path).as_bytes())
    }

    fn write(&self, files: &BTreeSet<String>) -> io::Result<()> {
        if files.is_empty() {
            return fs::remove_file(&self.list);
        }
        let beside = self.list.with_extension("new");
        let text: String = files.iter().map(|file_path| line(file_path)).collect();
        let mut list = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&beside)?;
        list.write_all(text.as_bytes())?;
        fs::rename(beside, &self.list)
    }

    /// Once for each time that it begins to fail.
    fn tell(&self, known: &mut Known, kept: io::Result<()>) {
        match kept {
            Ok(()) => known.told = false,
            Err(error) if !known.told => {
                known.told = true;
                tracing::warn!(path = %self.list.display(), %error, "expired files may stay if the worker is killed now");
            }
            Err(_) => {}
        }
    }
}

fn line(file_path: &str) -> String {
    format!("{}\n", serde_json::Value::from(file_path))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all(expired: &Expired) -> Vec<String> {
        expired.known().files.iter().cloned().collect()
    }

    #[test]
    fn what_is_to_be_removed_outlives_the_process_and_leaves_nothing_when_it_is_done() {
        let dir = tempfile::tempdir().unwrap();
        let list = dir.path().join("7/expired");
        let expired = Expired::read(list.clone());
        let odd = "demo/say/two\nlines \"x\".txt";
        for file_path in ["demo/a", odd, "demo/b", "demo/a"] {
            assert!(expired.remember(file_path));
        }
        expired.forget("demo/b");
        // The process ended in the middle of a line.
        OpenOptions::new().append(true).open(&list).unwrap().write_all(b"\"demo/cut").unwrap();
        let next = Expired::read(list.clone());
        assert_eq!(all(&next), ["demo/a", "demo/b", odd], "one that is gone already is removed once more");
        for file_path in ["demo/a", "demo/b", odd] {
            next.forget(file_path);
        }
        assert!(!list.exists() && next.next().is_none());
    }

    #[test]
    fn a_list_that_is_never_empty_does_not_grow_and_neither_does_what_is_remembered() {
        let dir = tempfile::tempdir().unwrap();
        let list = dir.path().join("expired");
        let expired = Expired::read(list.clone());
        assert!(expired.remember("stays"));
        for number in 0..10 * MOST_STALE {
            assert!(expired.remember(&number.to_string()));
            expired.forget(&number.to_string());
        }
        assert!(fs::read_to_string(&list).unwrap().lines().count() <= MOST_STALE + 4);
        assert!(all(&Expired::read(list)).contains(&"stays".to_owned()));
        for number in 1..MOST {
            assert!(expired.remember(&number.to_string()));
        }
        assert!(!expired.remember("one more") && expired.remember("stays"));
    }
}
