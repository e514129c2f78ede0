//! Notices changes below pack folders.
//!
//! Editors save in bursts (write, rename, chmod), so changes are gathered until it is quiet for [`QUIET`], but not longer
//! than [`LATEST`]. What the kernel or the channel lost is reported as [`Change::Unknown`]: then everything is looked at.

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
    _watcher: RecommendedWatcher,
}

impl Watch {
    /// Starts to watch everything below `roots`.
    pub(super) fn start<'a>(roots: impl Iterator<Item = &'a Path>) -> notify::Result<Self> {
        let (sender, changes) = mpsc::channel(CAPACITY);
        let lost = Arc::new(AtomicBool::new(false));
        let notice = Notice { sender, lost: lost.clone() };
        let mut watcher = notify::recommended_watcher(move |event| notice.take(event))?;
        for root in roots {
            watcher.watch(root, RecursiveMode::Recursive)?;
        }
        Ok(Self { changes, lost, _watcher: watcher })
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
        Some(if self.lost.swap(false, Ordering::AcqRel) { Change::Unknown } else { Change::Paths(paths) })
    }
}

/// The other end, called on the watcher's own thread.
#[derive(Debug)]
struct Notice {
    sender: mpsc::Sender<PathBuf>,
    lost: Arc<AtomicBool>,
}

impl Notice {
    fn take(&self, event: notify::Result<Event>) {
        match event {
            Ok(event) if event.need_rescan() => self.lose(),
            Ok(event) if is_change(event.kind) => {
                for path in event.paths.into_iter().filter(|path| is_source(path)) {
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

/// Whether a path can be part of a pack: not what interpreters, editors and version control leave behind.
fn is_source(path: &Path) -> bool {
    let is_leftover = |name: &str| {
        let by_interpreter = matches!(name, "__pycache__" | "node_modules");
        by_interpreter || name == "4913" || name.ends_with('~')
    };
    // Deeper than this no pack has sources; what is above it may be called as it likes.
    let parts = path.components().rev().take(6).map(|part| part.as_os_str().to_string_lossy());
    let is_hidden = path.file_name().is_some_and(|name| name.to_string_lossy().starts_with('.'));
    !is_hidden && !parts.into_iter().any(|name| is_leftover(&name))
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn leftovers_of_editors_and_interpreters_are_not_sources() {
        for (path, expected) in [
            ("/p/demo/actions/a.py", true),
            ("/p/demo/actions/__pycache__/a.cpython-311.pyc", false),
            ("/p/demo/actions/.a.py.swp", false),
            ("/p/demo/actions/a.py~", false),
            ("/p/demo/node_modules/x/index.js", false),
            ("/p/.hidden/demo/pack.yaml", true),
        ] {
            assert_eq!(is_source(Path::new(path)), expected, "{path}");
        }
    }

    #[tokio::test]
    async fn a_burst_of_writes_is_one_change() {
        let folder = tempfile::tempdir().unwrap();
        let mut watch = Watch::start(std::iter::once(folder.path())).unwrap();
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
}
