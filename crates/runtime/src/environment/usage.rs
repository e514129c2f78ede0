//! Who uses a build: a shared lock on it, for as long as code of it runs.
//!
//! The kernel keeps the lock with the file, so processes of all containers that mount the volume see it, and releases it when
//! its holder dies, however that happens. Reading is enough to hold it: users need no rights on the volume that they do not
//! need anyway. Builds are removed only by who gets the lock for itself.

use std::fs::{File, OpenOptions, TryLockError};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::Arc;

use super::origin::ORIGIN;

/// Keeps a build from being removed until it and its clones are dropped. Two of them are always equal: they say nothing about
/// which build it is.
#[derive(Debug, Clone, Default)]
pub struct InUse {
    /// None where the file system has no locks.
    _held: Option<Arc<File>>,
}

impl PartialEq for InUse {
    fn eq(&self, _other: &Self) -> bool {
        true
    }
}

impl Eq for InUse {}

/// What came of looking for a lock.
pub(super) enum Lock {
    Held(File),
    /// Somebody else holds one that excludes it.
    Taken,
    /// There is nothing left to lock.
    Gone,
    /// Not possible here.
    Refused(io::Error),
}

/// Marks the build in `folder` as used; none when it is being removed or has been.
pub(super) fn hold(folder: &Path) -> Option<InUse> {
    match lock(open(folder), File::try_lock_shared) {
        Lock::Held(file) => Some(InUse { _held: Some(Arc::new(file)) }),
        Lock::Taken | Lock::Gone => None,
        Lock::Refused(error) => {
            tracing::debug!(folder = %folder.display(), %error, "others cannot see that this environment is in use");
            Some(InUse::default())
        }
    }
}

/// For who wants to remove the build in `folder`.
pub(super) fn alone(folder: &Path) -> Lock {
    // A lock that excludes others needs a file that could be written, on network file systems.
    let writable = OpenOptions::new().read(true).write(true).open(folder.join(ORIGIN));
    lock(writable.or_else(|_| open(folder)), File::try_lock)
}

fn lock(opened: io::Result<File>, try_lock: fn(&File) -> Result<(), TryLockError>) -> Lock {
    let file = match opened {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Lock::Gone,
        Err(error) => return Lock::Refused(error),
    };
    match try_lock(&file) {
        Err(TryLockError::WouldBlock) => Lock::Taken,
        Err(TryLockError::Error(error)) => Lock::Refused(error),
        // The name may have gone between the two calls.
        Ok(()) if file.metadata().is_ok_and(|metadata| metadata.nlink() == 0) => Lock::Gone,
        Ok(()) => Lock::Held(file),
    }
}

/// A file of the build, because network file systems have locks for files only; builds of others have no such file.
fn open(folder: &Path) -> io::Result<File> {
    File::open(folder.join(ORIGIN)).or_else(|_| File::open(folder))
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn many_use_a_build_and_who_removes_it_is_alone() {
        for name in ["a build of ours", "a build of others"] {
            let dir = tempfile::tempdir().unwrap();
            if name == "a build of ours" {
                fs::write(dir.path().join(ORIGIN), "").unwrap();
            }
            let (one, two) = (hold(dir.path()).unwrap(), hold(dir.path()).unwrap());
            drop(one.clone());
            drop(one);
            assert!(matches!(alone(dir.path()), Lock::Taken), "{name}");
            drop(two);
            let Lock::Held(remover) = alone(dir.path()) else { panic!("{name} is not free") };
            assert_eq!(hold(dir.path()), None, "{name} is being removed");
            drop(remover);
            assert!(hold(dir.path()).is_some(), "{name} was not removed after all");
        }
    }

    #[test]
    fn what_has_gone_cannot_be_used() {
        assert_eq!(hold(Path::new("/nowhere/at/all")), None);
        assert!(matches!(alone(Path::new("/nowhere/at/all")), Lock::Gone));
    }
}
