//! The data folder of `dev`: who owns it, where things are in it.
//!
//! ```text
//! .attune/
//! ├── lock            held by the one `dev` that works here; its pid for people
//! ├── attune.db       rows, see attune-store-sqlite
//! ├── key             signs tokens and encrypts secrets; made once, readable by its owner only
//! ├── token           of the person who sits here, for the HTTP API; made anew at every start
//! ├── packs/          links to the pack folders, so that they share one base folder
//! ├── runtime_envs/   environments
//! └── artifacts/      logs and files
//! ```

use std::fs::{self, DirBuilder, File, OpenOptions, TryLockError};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, symlink};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use attune_model::Secret;
use thiserror::Error;

/// How long the lock of a `dev` that is dead may outlive it.
const LEFT_OVER_LIMIT: Duration = Duration::from_secs(2);

/// Why the data folder cannot be used.
#[derive(Debug, Error)]
pub(super) enum DataError {
    /// A folder or file cannot be made or read.
    #[error("failed to {what} {}: choose another folder with --data", path.display())]
    Unusable {
        /// For example `create the data folder`.
        what: &'static str,
        /// Which.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// Somebody else works here.
    #[error("another `dev` ({owner}) works in {}: stop it, or choose another folder with --data", path.display())]
    Locked {
        /// The data folder.
        path: PathBuf,
        /// `process 123`, as far as known.
        owner: String,
    },
}

/// A data folder that is ours until it is dropped.
#[derive(Debug)]
pub(super) struct Data {
    root: PathBuf,
    key: Secret,
    _lock: File,
}

impl Data {
    /// Makes what is missing and takes the lock.
    pub(super) fn open(root: &Path) -> Result<Self, DataError> {
        make_folder(root)?;
        let root = root.canonicalize().map_err(|source| DataError::Unusable {
            what: "find the data folder",
            path: root.to_owned(),
            source,
        })?;
        let lock = lock(&root)?;
        for name in ["packs", "runtime_envs", "artifacts"] {
            make_folder(&root.join(name))?;
        }
        let key = read_or_make_key(&root.join("key"))?;
        Ok(Self { root, key, _lock: lock })
    }

    /// The folder itself, as its real path.
    pub(super) fn root(&self) -> &Path {
        &self.root
    }

    /// Of the store.
    pub(super) fn database(&self) -> PathBuf {
        self.root.join("attune.db")
    }

    /// Base folder of all packs.
    pub(super) fn packs(&self) -> PathBuf {
        self.root.join("packs")
    }

    /// Base folder of environments.
    pub(super) fn runtime_envs(&self) -> PathBuf {
        self.root.join("runtime_envs")
    }

    /// Base folder of logs and files.
    pub(super) fn artifacts(&self) -> PathBuf {
        self.root.join("artifacts")
    }

    /// Signs tokens and encrypts secrets.
    pub(super) fn key(&self) -> &Secret {
        &self.key
    }

    /// Leaves the token where the person finds it.
    pub(super) fn write_token(&self, token: &Secret) -> Result<(), DataError> {
        let path = self.root.join("token");
        write_private(&path, token.expose()).map_err(|source| DataError::Unusable {
            what: "write the token",
            path,
            source,
        })
    }

    /// Removes the links of an earlier life.
    pub(super) fn clear_links(&self) -> Result<(), DataError> {
        let failed = |source| DataError::Unusable { what: "clear the pack links in", path: self.packs(), source };
        for entry in fs::read_dir(self.packs()).map_err(failed)? {
            let entry = entry.map_err(failed)?;
            if entry.file_type().map_err(failed)?.is_symlink() {
                fs::remove_file(entry.path()).map_err(failed)?;
            }
        }
        Ok(())
    }

    /// Makes the pack at `folder` known under its ref.
    pub(super) fn link_pack(&self, pack_ref: &str, folder: &Path) -> Result<(), DataError> {
        let link = self.packs().join(pack_ref);
        let folder = folder.canonicalize().map_err(|source| DataError::Unusable {
            what: "find the pack folder",
            path: folder.to_owned(),
            source,
        })?;
        if fs::read_link(&link).is_ok_and(|target| target == folder) {
            return Ok(());
        }
        // A link is replaced by renaming a new one over it: nobody sees the pack missing in between.
        let fresh = self.packs().join(format!(".{pack_ref}.new"));
        let failed = |source| DataError::Unusable { what: "link a pack as", path: link.clone(), source };
        match fs::remove_file(&fresh) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(failed(error)),
        }
        symlink(folder, &fresh).and_then(|()| fs::rename(&fresh, &link)).map_err(failed)
    }
}

fn make_folder(path: &Path) -> Result<(), DataError> {
    DirBuilder::new().recursive(true).mode(0o755).create(path).map_err(|source| DataError::Unusable {
        what: "create the folder",
        path: path.to_owned(),
        source,
    })
}

fn lock(root: &Path) -> Result<File, DataError> {
    let path = root.join("lock");
    let failed = |source| DataError::Unusable { what: "open the lock", path: path.clone(), source };
    let begun = Instant::now();
    loop {
        let mut file =
            OpenOptions::new().read(true).write(true).create(true).truncate(false).open(&path).map_err(failed)?;
        match file.try_lock() {
            Ok(()) => {
                file.set_len(0).map_err(failed)?;
                file.write_all(std::process::id().to_string().as_bytes()).map_err(failed)?;
                return Ok(file);
            }
            Err(TryLockError::WouldBlock) => {}
            Err(TryLockError::Error(source)) => return Err(failed(source)),
        }
        let owner = owner_of(&mut file);
        // A child that was being started when its `dev` was killed holds a copy of the lock until it becomes its program.
        let is_left_over = owner.is_some_and(|pid| !Path::new(&format!("/proc/{pid}")).exists());
        if !is_left_over || begun.elapsed() > LEFT_OVER_LIMIT {
            let owner = owner.map_or_else(|| "an unknown process".to_owned(), |pid| format!("process {pid}"));
            return Err(DataError::Locked { path: root.to_owned(), owner });
        }
        std::thread::park_timeout(Duration::from_millis(10));
    }
}

/// Whose pid is in the lock. None also while a new owner is writing it.
fn owner_of(file: &mut File) -> Option<u32> {
    let mut pid = String::new();
    match file.read_to_string(&mut pid) {
        Ok(_) => pid.trim().parse().ok(),
        Err(_) => None,
    }
}

/// The key must not change while encrypted values exist, so it is made once and never overwritten.
fn read_or_make_key(path: &Path) -> Result<Secret, DataError> {
    let failed = |source| DataError::Unusable { what: "read or make the key", path: path.to_owned(), source };
    match fs::read_to_string(path) {
        Ok(text) if text.trim().len() >= 32 => return Ok(Secret::new(text.trim().to_owned())),
        Ok(_) => return Err(failed(io::Error::other("it is shorter than 32 characters; restore or remove it"))),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(failed(error)),
    }
    let no_random = || failed(io::Error::other("the system has no random numbers"));
    let key = attune_security::random_secret().ok_or_else(no_random)?;
    write_private(path, key.expose()).map_err(failed)?;
    Ok(key)
}

/// Writes a file that only its owner can read, whole or not at all.
fn write_private(path: &Path, text: &str) -> io::Result<()> {
    let fresh = path.with_extension("new");
    match fs::remove_file(&fresh) {
        Ok(()) => {}
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(error),
    }
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&fresh)?;
    file.write_all(text.as_bytes())?;
    file.sync_all()?;
    fs::rename(&fresh, path)
}
