//! Notices changes below pack folders.
//!
//! Editors save in bursts (write, rename, chmod), so changes are gathered until it is quiet for [`QUIET`], but not longer
//! than [`LATEST`]. What the kernel or the channel lost is reported as [`Change::Unknown`]: then everything is looked at.
//! A folder that is removed and made again, as a change of the branch does, is watched again.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use notify::event::{AccessKind, AccessMode};
use notify::{Event, EventKind, RecommendedWatcher, RecursiveMode, Watcher};
use tokio::sync::mpsc;
use tokio::time::{Instant, timeout_at};

/// A burst is over when nothing happened for this long.
const QUIET: Duration = Duration::from_millis(120);

/// A burst that does not end is looked at after this long.
const LATEST: Duration = Duration::from_secs(1);

/// Paths that may wait for the reader. Beyond it they are forgotten and everything is looked at.
const CAPACITY: usize = 4096;

/// What changed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Change {
    /// These files or folders.
    Paths(BTreeSet<PathBuf>),
    /// More than could be kept track of.
    Unknown,
}

/// Watches folders until it is dropped.
#[derive(Debug)]
pub(super) struct Watch {
    changes: mpsc::Receiver<PathBuf>,
    lost: Arc<AtomicBool>,
    scope: Arc<Scope>,
    watcher: RecommendedWatcher,
}

impl Watch {
    /// Starts to watch everything below `paths`, without what this program itself writes into `data`.
    pub(super) fn start(paths: &[PathBuf], data: &Path) -> notify::Result<Self> {
        let (sender, changes) = mpsc::channel(CAPACITY);
        let lost = Arc::new(AtomicBool::new(false));
        let scope = Arc::new(Scope::new(paths, data));
        let notice = Notice { sender, lost: lost.clone(), scope: scope.clone() };
        let watcher = notify::recommended_watcher(move |event| notice.take(event))?;
        let mut watch = Self { changes, lost, scope, watcher };
        watch.watch_roots()?;
        watch.watch_parents();
        Ok(watch)
    }

    fn watch_roots(&mut self) -> notify::Result<()> {
        self.scope.roots.iter().filter(|root| root.exists()).try_for_each(|root| {
            // Again is harmless: what is watched already stays so.
            self.watcher.watch(root, RecursiveMode::Recursive)
        })
    }

    /// Only from above it is seen that a folder comes back.
    fn watch_parents(&mut self) {
        let parents: BTreeSet<&Path> = self.scope.roots.iter().filter_map(|root| root.parent()).collect();
        // Below a root everything is watched already, and this would be less.
        for parent in parents.into_iter().filter(|parent| self.scope.root_of(parent).is_none()) {
            if let Err(error) = self.watcher.watch(parent, RecursiveMode::NonRecursive) {
                tracing::debug!(%error, folder = %parent.display(), "packs that are removed here and come back are not noticed");
            }
        }
    }

    /// The next burst of changes; none when watching has ended. Cancel-safe only between bursts.
    pub(super) async fn next(&mut self) -> Option<Change> {
        let mut paths = BTreeSet::from([self.changes.recv().await?]);
        let latest = Instant::now() + LATEST;
        loop {
            let until = (Instant::now() + QUIET).min(latest);
            match timeout_at(until, self.changes.recv()).await {
                Ok(Some(path)) => drop(paths.insert(path)),
                Ok(None) | Err(_) => break,
            }
        }
        let has_lost = self.lost.swap(false, Ordering::AcqRel);
        if (has_lost || self.scope.roots.iter().any(|root| paths.contains(root)))
            && let Err(error) = self.watch_roots()
        {
            tracing::warn!(%error, "failed to watch a pack folder that came back; restart to have its changes noticed");
        }
        Some(if has_lost { Change::Unknown } else { Change::Paths(paths) })
    }
}

/// Which paths are looked at.
#[derive(Debug)]
struct Scope {
    /// Real paths of what is watched.
    roots: Vec<PathBuf>,
    /// Where this program writes.
    data: PathBuf,
}

impl Scope {
    fn new(paths: &[PathBuf], data: &Path) -> Self {
        // One that does not exist yet is known by its parent.
        let real = |path: &PathBuf| {
            path.canonicalize().ok().or_else(|| Some(path.parent()?.canonicalize().ok()?.join(path.file_name()?)))
        };
        Self { roots: paths.iter().filter_map(real).collect(), data: data.to_owned() }
    }

    /// The innermost root above `path`.
    fn root_of(&self, path: &Path) -> Option<&Path> {
        let roots = self.roots.iter().filter(|root| path.starts_with(root));
        roots.max_by_key(|root| root.components().count()).map(PathBuf::as_path)
    }

    /// Whether a path can be part of a pack: not what interpreters, editors, version control and this program leave behind.
    fn is_source(&self, path: &Path) -> bool {
        let Some(root) = self.root_of(path) else { return false };
        if self.data.starts_with(root) && path.starts_with(&self.data) {
            return false;
        }
        // What is above the root may be called as it likes.
        let below = path.strip_prefix(root).unwrap_or(path);
        !below.components().any(|part| is_leftover(&part.as_os_str().to_string_lossy()))
    }
}

/// `4913` is how vim tries whether it can write.
fn is_leftover(name: &str) -> bool {
    matches!(name, "__pycache__" | "node_modules" | "4913") || name.starts_with('.') || name.ends_with('~')
}

/// The other end, called on the watcher's own thread.
#[derive(Debug)]
struct Notice {
    sender: mpsc::Sender<PathBuf>,
    lost: Arc<AtomicBool>,
    scope: Arc<Scope>,
}

impl Notice {
    fn take(&self, event: notify::Result<Event>) {
        match event {
            Ok(event) if event.need_rescan() => self.lose(),
            Ok(event) if is_change(event.kind) => {
                for path in event.paths.into_iter().filter(|path| self.scope.is_source(path)) {
                    if self.sender.try_send(path).is_err() {
                        // Full: the reader has a burst to look at, and finds the flag when it is done with it.
                        self.lost.store(true, Ordering::Release);
                    }
                }
            }
            Ok(_) => {}
            Err(error) => {
                tracing::warn!(%error, "failed to watch a pack folder; looking at everything");
                self.lose();
            }
        }
    }

    fn lose(&self) {
        self.lost.store(true, Ordering::Release);
        // Wakes the reader; a full channel means that it is awake.
        if self.sender.try_send(PathBuf::new()).is_err() {
            tracing::debug!("the reader of changes is busy");
        }
    }
}

/// Reading is no change; of writing the end counts, so that half-written files are not read.
fn is_change(kind: EventKind) -> bool {
    match kind {
        EventKind::Access(kind) => kind == AccessKind::Close(AccessMode::Write),
        EventKind::Any | EventKind::Create(_) | EventKind::Modify(_) | EventKind::Remove(_) | EventKind::Other => true,
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn leftovers_and_what_this_program_writes_are_not_sources() {
        let scope = |data: &str| Scope { roots: vec!["/.p/demo".into()], data: data.into() };
        for (path, expected) in [
            ("/.p/demo/actions/a.py", true),
            ("/.p/demo", true),
            ("/.p/other/actions/a.py", false),
            ("/.p/demo/actions/__pycache__/a.cpython-311.pyc", false),
            ("/.p/demo/actions/.a.py.swp", false),
            ("/.p/demo/actions/a.py~", false),
            ("/.p/demo/node_modules/x/index.js", false),
            ("/.p/demo/.git/index", false),
            ("/.p/demo/data/attune.db-wal", false),
        ] {
            assert_eq!(scope("/.p/demo/data").is_source(Path::new(path)), expected, "{path}");
        }
        assert!(scope("/.p").is_source(Path::new("/.p/demo/pack.yaml")), "packs may be in the data folder");
    }

    #[tokio::test]
    async fn a_burst_of_writes_is_one_change() {
        let folder = tempfile::tempdir().unwrap();
        let mut watch = watch(folder.path());
        let (a, b) = (folder.path().join("a.yaml"), folder.path().join("b.py"));
        fs::write(&a, "1").unwrap();
        fs::write(&b, "2").unwrap();
        fs::write(&a, "3").unwrap();
        let mut seen = BTreeSet::new();
        while seen.len() < 2 {
            match watch.next().await {
                Some(Change::Paths(paths)) => seen.extend(paths),
                other => panic!("expected paths, got {other:?}"),
            }
        }
        assert_eq!(seen, BTreeSet::from([a, b]));
    }
    #[tokio::test]
    async fn a_folder_that_comes_back_is_watched_again() {
        let scratch = tempfile::tempdir().unwrap();
        let folder = scratch.path().join("packs");
        fs::create_dir(&folder).unwrap();
        let mut watch = watch(&folder);
        fs::remove_dir(&folder).unwrap();
        wait_for(&mut watch, &folder).await;
        fs::create_dir(&folder).unwrap();
        wait_for(&mut watch, &folder).await;
        fs::write(folder.join("a.yaml"), "1").unwrap();
        wait_for(&mut watch, &folder.join("a.yaml")).await;
    }

    fn watch(folder: &Path) -> Watch {
        Watch::start(&[folder.to_owned()], Path::new("/nowhere")).unwrap()
    }

    async fn wait_for(watch: &mut Watch, wanted: &Path) {
        loop {
            match watch.next().await {
                Some(Change::Paths(paths)) if paths.contains(wanted) => return,
                Some(_) => {}
                None => panic!("the watch ended before {} changed", wanted.display()),
            }
        }
    }
}
