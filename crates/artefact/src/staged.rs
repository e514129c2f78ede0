//! A file or link that appears under its final name whole, or not at all.
//!
//! It is made beside its place under a name of its own, synchronised and renamed. Processes that run the old file keep
//! it: the rename takes the name from it, not the content.

use std::fs::{self, File, OpenOptions, Permissions};
use std::io::{self, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use thiserror::Error;

/// How often another name is tried when one is taken, by a file that an ended process left behind.
const TRIES: u32 = 100;

/// Why something could not be put in its place. Nothing half-written is left behind.
#[derive(Debug, Error)]
pub enum PlaceError {
    /// There is no such folder, and it cannot be made.
    #[error("failed to make the folder {}", .0.display())]
    Folder(PathBuf, #[source] io::Error),
    /// Its mount allows no writing.
    #[error("{} is read-only: mount the volume writable for this container", .0.display())]
    ReadOnly(PathBuf),
    /// No room.
    #[error("{} is full: there is no room for {} bytes", path.display(), wanted)]
    Full {
        /// Which folder.
        path: PathBuf,
        /// Size of the whole file that did not fit.
        wanted: u64,
    },
    /// Permissions.
    #[error("this user may not write to {}: run as its owner, or as root", .0.display())]
    Denied(PathBuf),
    /// Mounted without the right to execute.
    #[error("programs cannot be started from {}: it is mounted noexec", .0.display())]
    NoExec(PathBuf),
    /// Something of another kind has the name.
    #[error("{} is a folder; something else is to have this name", .0.display())]
    Taken(PathBuf),
    /// Anything else.
    #[error("failed to write {}", path.display())]
    Write {
        /// What.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
}

impl PlaceError {
    /// Tells the errors apart that an operator can do something about.
    pub(crate) fn of(folder: &Path, name: &str, wanted: u64) -> impl Fn(io::Error) -> Self {
        let (folder, path) = (folder.to_owned(), folder.join(name));
        move |source| match source.kind() {
            io::ErrorKind::ReadOnlyFilesystem => Self::ReadOnly(folder.clone()),
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => Self::Full { path: folder.clone(), wanted },
            io::ErrorKind::PermissionDenied => Self::Denied(folder.clone()),
            io::ErrorKind::IsADirectory | io::ErrorKind::DirectoryNotEmpty => Self::Taken(path.clone()),
            _ => Self::Write { path: path.clone(), source },
        }
    }
}

/// A file that is being written. Dropped before [`Staged::place`], it is gone.
#[derive(Debug)]
pub struct Staged {
    folder: PathBuf,
    temporary: PathBuf,
    file: File,
    size: u64,
    placed: bool,
}

impl Staged {
    /// Begins one in `folder`, which will have this size.
    pub fn new(folder: &Path, size: u64) -> Result<Self, PlaceError> {
        let failed = PlaceError::of(folder, "a new file", size);
        for _ in 0..TRIES {
            let temporary = folder.join(temporary_name());
            match OpenOptions::new().write(true).create_new(true).mode(0o600).open(&temporary) {
                Ok(file) => return Ok(Self { folder: folder.to_owned(), temporary, file, size, placed: false }),
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
                Err(error) => return Err(failed(error)),
            }
        }
        Err(failed(io::ErrorKind::AlreadyExists.into()))
    }

    /// Adds to it.
    pub fn write(&mut self, bytes: &[u8]) -> Result<(), PlaceError> {
        self.file.write_all(bytes).map_err(PlaceError::of(&self.folder, "a new file", self.size))
    }

    /// Gives it its mode and brings it to the disk.
    pub fn seal(&mut self, mode: u32) -> Result<(), PlaceError> {
        let failed = PlaceError::of(&self.folder, "a new file", self.size);
        self.file.set_permissions(Permissions::from_mode(mode)).map_err(&failed)?;
        self.file.sync_all().map_err(&failed)
    }

    /// Whether a program could be started there. Everybody may execute the sealed file by its mode: what can still forbid
    /// it is the mount.
    pub fn check_executable(&self) -> Result<(), PlaceError> {
        if attune_sys::may_execute(&self.temporary) { Ok(()) } else { Err(PlaceError::NoExec(self.folder.clone())) }
    }

    /// Makes it `name`, in place of what has that name.
    pub fn place(mut self, name: &str) -> Result<(), PlaceError> {
        fs::rename(&self.temporary, self.folder.join(name)).map_err(PlaceError::of(&self.folder, name, self.size))?;
        self.placed = true;
        Ok(())
    }
}

impl Drop for Staged {
    fn drop(&mut self) {
        if !self.placed {
            discard(&self.temporary);
        }
    }
}

/// Makes `name` a symbolic link to `target`, in place of what has that name.
pub(crate) fn place_link(folder: &Path, name: &str, target: &str) -> Result<(), PlaceError> {
    let failed = PlaceError::of(folder, name, 0);
    for _ in 0..TRIES {
        let temporary = folder.join(temporary_name());
        match symlink(target, &temporary) {
            Ok(()) => {
                return fs::rename(&temporary, folder.join(name)).map_err(|error| {
                    discard(&temporary);
                    failed(error)
                });
            }
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            Err(error) => return Err(failed(error)),
        }
    }
    Err(failed(io::ErrorKind::AlreadyExists.into()))
}

/// Makes `name` a small file with this text.
pub(crate) fn place_text(folder: &Path, name: &str, text: &str) -> Result<(), PlaceError> {
    let mut staged = Staged::new(folder, u64::try_from(text.len()).unwrap_or(u64::MAX))?;
    staged.write(text.as_bytes())?;
    staged.seal(0o444)?;
    staged.place(name)
}

/// Brings the names of `folder` to the disk.
pub(crate) fn sync_folder(folder: &Path) -> Result<(), PlaceError> {
    let synced = File::open(folder).and_then(|folder| folder.sync_all());
    match synced {
        // Some network file systems cannot do it for folders; they do it by themselves.
        Err(error) if error.kind() == io::ErrorKind::InvalidInput => Ok(()),
        other => other.map_err(PlaceError::of(folder, "", 0)),
    }
}

fn discard(path: &Path) {
    // Already on the way out with the error that matters; a file that stays is harmless under its own name.
    drop(fs::remove_file(path));
}

/// Process ids are the same in different containers on one volume: the clock tells them apart, and `create_new` the rest.
fn temporary_name() -> String {
    static COUNT: AtomicU64 = AtomicU64::new(0);
    let count = COUNT.fetch_add(1, Ordering::Relaxed);
    let since_1970 = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    format!("{TEMPORARY_PREFIX}{}-{:x}-{count}", std::process::id(), since_1970.as_nanos())
}

/// What every name of an unfinished file begins with.
pub(crate) const TEMPORARY_PREFIX: &str = ".attune-new-";
