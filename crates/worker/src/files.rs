//! Where files of executions end up: in the folder that the platform shares, or with its API.
//!
//! Which of the two is decided once, at the start. The folder is the fast path: a log is moved, never copied.

use std::fs::{self, DirBuilder, Permissions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::{Component, Path, PathBuf};

use async_trait::async_trait;
use attune_http::{HttpError, PlatformApi, UPLOAD_LIMIT_BYTES};
use thiserror::Error;

/// Agents that run as different users of one group share the folder. Facts of the platform.
pub(crate) const FOLDER_MODE: u32 = 0o2775;
pub(crate) const FILE_MODE: u32 = 0o664;

/// Why a file is not where it belongs.
#[derive(Debug, Error)]
pub(crate) enum FileError {
    /// The path leads out of the folder.
    #[error("{0:?} is no relative path below the folder of artifacts")]
    Outside(String),
    /// The file system refused.
    #[error("failed to {what} {}", path.display())]
    Io {
        /// What was attempted.
        what: &'static str,
        /// With what.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// It is longer than the API takes.
    #[error("{} has {size} bytes; the API takes at most {UPLOAD_LIMIT_BYTES}", path.display())]
    TooLong {
        /// Which file.
        path: PathBuf,
        /// How long it is.
        size: u64,
    },
    /// The API refused, or cannot be reached.
    #[error("the API does not have the file")]
    Api(#[from] HttpError),
    /// Others are under way to the API, and do not arrive.
    #[error("the API is slow, and as many files as may be are under way to it")]
    Busy,
    /// This process has to go.
    #[error("the worker stops before the API has taken the file")]
    GivenUp,
}

impl FileError {
    /// Whether it will be the same the next time.
    pub(crate) fn is_final(&self) -> bool {
        match self {
            Self::Outside(_) | Self::TooLong { .. } => true,
            Self::Api(error) => error.is_refusal(),
            Self::Io { .. } | Self::Busy | Self::GivenUp => false,
        }
    }

    /// Whether other files would have it as well.
    pub(crate) fn is_general(&self) -> bool {
        matches!(self, Self::Api(_) | Self::Busy | Self::GivenUp) && !self.is_final()
    }
}

/// Files below `artifacts_dir`, by the paths that artifact versions have.
#[async_trait]
pub(crate) trait Files: Send + Sync + std::fmt::Debug {
    /// Whether giving a file its place costs next to nothing, so that a result can wait for it.
    fn is_instant(&self) -> bool;

    /// Gives a complete local file its place. After an error it is still where it was.
    async fn place(&self, local: &Path, file_path: &str) -> Result<(), FileError>;

    /// Size of a file that an action wrote at its place in the local folder; none when there is none.
    async fn settle(&self, file_path: &str) -> Result<Option<u64>, FileError>;

    /// Removes a file; one that is not there is no error.
    async fn remove(&self, file_path: &str) -> Result<(), FileError>;
}

/// The shared folder.
#[derive(Debug)]
pub(crate) struct SharedFolder {
    artifacts_dir: PathBuf,
}

impl SharedFolder {
    pub(crate) fn new(artifacts_dir: &Path) -> Self {
        Self { artifacts_dir: artifacts_dir.to_owned() }
    }
}

#[async_trait]
impl Files for SharedFolder {
    fn is_instant(&self) -> bool {
        true
    }

    async fn place(&self, local: &Path, file_path: &str) -> Result<(), FileError> {
        let path = below(&self.artifacts_dir, file_path)?;
        let folder = path.parent().unwrap_or(&self.artifacts_dir);
        make_folders(&self.artifacts_dir, folder)
            .and_then(|()| fs::rename(local, &path))
            .map_err(|source| FileError::Io { what: "move a log to", path, source })
    }

    async fn settle(&self, file_path: &str) -> Result<Option<u64>, FileError> {
        Ok(size_of(&below(&self.artifacts_dir, file_path)?))
    }

    async fn remove(&self, file_path: &str) -> Result<(), FileError> {
        remove_local(below(&self.artifacts_dir, file_path)?)
    }
}

/// The API, with the local folder as the place where actions write.
#[derive(Debug)]
pub(crate) struct Uploads {
    artifacts_dir: PathBuf,
    api: PlatformApi,
}

impl Uploads {
    pub(crate) fn new(artifacts_dir: &Path, api: PlatformApi) -> Self {
        Self { artifacts_dir: artifacts_dir.to_owned(), api }
    }

    /// Sends a whole file in one call: nothing can come in another order, and nothing half.
    async fn send(&self, local: &Path, file_path: &str) -> Result<u64, FileError> {
        let unreadable = |source| FileError::Io { what: "read", path: local.to_owned(), source };
        let file = fs::File::open(local).map_err(unreadable)?;
        let size = file.metadata().map_err(unreadable)?.len();
        if size > UPLOAD_LIMIT_BYTES {
            return Err(FileError::TooLong { path: local.to_owned(), size });
        }
        self.api.put_file(file_path, file, size).await?;
        Ok(size)
    }
}

#[async_trait]
impl Files for Uploads {
    fn is_instant(&self) -> bool {
        false
    }

    async fn place(&self, local: &Path, file_path: &str) -> Result<(), FileError> {
        below(&self.artifacts_dir, file_path)?;
        self.send(local, file_path).await?;
        remove_local(local.to_owned())
    }

    async fn settle(&self, file_path: &str) -> Result<Option<u64>, FileError> {
        let local = below(&self.artifacts_dir, file_path)?;
        if size_of(&local).is_some() {
            let size = self.send(&local, file_path).await?;
            remove_local(local)?;
            return Ok(Some(size));
        }
        // The action may have sent it there itself.
        Ok(self.api.file_size(file_path).await?.filter(|size| *size > 0))
    }

    async fn remove(&self, file_path: &str) -> Result<(), FileError> {
        below(&self.artifacts_dir, file_path)?;
        Ok(self.api.delete_file(file_path).await?)
    }
}

/// A stored path as a real one, which never leads out of the folder.
pub(crate) fn below(artifacts_dir: &Path, file_path: &str) -> Result<PathBuf, FileError> {
    let path = Path::new(file_path);
    let plain = path.components().all(|component| matches!(component, Component::Normal(_)));
    if plain && path.components().next().is_some() && !file_path.contains('\0') {
        Ok(artifacts_dir.join(path))
    } else {
        Err(FileError::Outside(file_path.to_owned()))
    }
}

fn remove_local(path: PathBuf) -> Result<(), FileError> {
    match fs::remove_file(&path) {
        Err(source) if source.kind() != io::ErrorKind::NotFound => Err(FileError::Io { what: "remove", path, source }),
        _ => Ok(()),
    }
}

/// Makes `folder` and what is missing between `base` and it, with the shared mode whatever the umask is.
pub(crate) fn make_folders(base: &Path, folder: &Path) -> io::Result<()> {
    if folder.is_dir() {
        return Ok(());
    }
    DirBuilder::new().recursive(true).mode(FOLDER_MODE).create(base)?;
    let Ok(rest) = folder.strip_prefix(base) else {
        return Ok(());
    };
    let mut path = base.to_owned();
    for component in rest.components() {
        path.push(component);
        match DirBuilder::new().mode(FOLDER_MODE).create(&path) {
            Ok(()) => fs::set_permissions(&path, Permissions::from_mode(FOLDER_MODE))?,
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// Size of a regular file with content.
pub(crate) fn size_of(path: &Path) -> Option<u64> {
    let metadata = fs::symlink_metadata(path).ok()?;
    (metadata.is_file() && metadata.len() > 0).then_some(metadata.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_stored_path_leads_out_of_the_folder() {
        let base = Path::new("/artifacts");
        assert_eq!(below(base, "demo/report/v1.txt").unwrap(), Path::new("/artifacts/demo/report/v1.txt"));
        for bad in ["", "/etc/passwd", "../x", "a/../../x", "a/..", "a\0b", "."] {
            assert!(matches!(below(base, bad), Err(FileError::Outside(_))), "{bad:?}");
        }
    }

    #[tokio::test]
    async fn a_file_is_moved_into_folders_of_the_group_and_removed_once() {
        let dir = tempfile::tempdir().unwrap();
        let local = dir.path().join("live");
        fs::write(&local, "text").unwrap();
        let files = SharedFolder::new(&dir.path().join("artifacts"));
        files.place(&local, "demo/act/stdout/log/v1.txt").await.unwrap();
        assert!(!local.exists());
        let folder = dir.path().join("artifacts/demo/act/stdout");
        assert_eq!(folder.metadata().unwrap().permissions().mode() & 0o7777, FOLDER_MODE);
        assert_eq!(files.settle("demo/act/stdout/log/v1.txt").await.unwrap(), Some(4));
        files.remove("demo/act/stdout/log/v1.txt").await.unwrap();
        files.remove("demo/act/stdout/log/v1.txt").await.unwrap();
        assert_eq!(files.settle("demo/act/stdout/log/v1.txt").await.unwrap(), None);
        assert!(files.place(&local, "../../x").await.is_err());
    }
}
