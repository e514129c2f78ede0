//! One builder at a time in this process, and on this machine.

use std::collections::HashMap;
use std::fs::{File, TryLockError};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use tokio::time::{Instant, sleep};

use super::build::Site;
use super::{EnvironmentError, shared};

/// How often a lock of another process is tried: the kernel has no asynchronous way to wait for it.
const TRY_EVERY: Duration = Duration::from_millis(50);

/// How the last build of an environment in this process failed.
#[derive(Debug)]
pub(super) struct LastFailure {
    pub(super) ended: std::time::Instant,
    pub(super) cause: String,
}

type BuildLock = tokio::sync::Mutex<Option<LastFailure>>;

/// The locks of this process. Those that nobody holds or waits for are forgotten.
#[derive(Debug, Default)]
pub(super) struct Locks {
    known: Mutex<HashMap<PathBuf, Weak<BuildLock>>>,
}

impl Locks {
    pub(super) fn of(&self, env_dir: &Path) -> Arc<BuildLock> {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(lock) = known.get(env_dir).and_then(Weak::upgrade) {
            return lock;
        }
        known.retain(|_, lock| lock.strong_count() > 0);
        let lock = Arc::new(BuildLock::default());
        known.insert(env_dir.to_owned(), Arc::downgrade(&lock));
        lock
    }
}

/// Held until dropped; the kernel releases it when its holder dies, so a crashed build never blocks the next one.
#[derive(Debug)]
pub(super) struct FileLock {
    _file: File,
}

/// Waits for the lock file of the environment. Cancel-safe: nothing is held until the end.
pub(super) async fn acquire(site: &Site<'_>, limit: Duration) -> Result<FileLock, EnvironmentError> {
    site.create_parent()?;
    let path = site.beside("lock");
    let refused = |what| {
        let path = path.clone();
        move |source| EnvironmentError::Io { what, path, source }
    };
    // The file is never removed: whoever removed it could take it from under another process that just opened it.
    let file = shared::open(&path).map_err(refused("open the lock file"))?;
    let deadline = Instant::now() + limit;
    loop {
        match file.try_lock() {
            Ok(()) => return Ok(FileLock { _file: file }),
            Err(TryLockError::Error(source)) => return Err(refused("lock")(source)),
            Err(TryLockError::WouldBlock) if Instant::now() >= deadline => {
                return Err(EnvironmentError::Waited { env_dir: site.env_dir.clone(), limit });
            }
            Err(TryLockError::WouldBlock) => sleep(TRY_EVERY).await,
        }
    }
}
