//! Results that cannot be written for now: kept on disk as well, so that they outlive this process.
//!
//! An entry holds what the row would hold, and where an encryption key is configured it is sealed with it. Without one it is
//! plain, as the row is then: only the worker's own user may read it (0600, below a 0700 folder). It is complete or not
//! there: written beside its place, synced, renamed. The row decides what becomes of it: an entry whose execution was ended
//! by somebody else is dropped.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use attune_model::order;
use attune_model::rows::Execution;
use attune_model::status::ExecutionStatus;
use attune_model::{ActionId, WorkerId, chain};
use attune_security::{SealError, SealingKey};
use attune_store::{Fence, SecretValue};
use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use thiserror::Error;

use crate::endings::Ended;
use crate::logs::LogOwner;

/// Most bytes of all entries together; what does not fit is kept in memory only.
const LIMIT_BYTES: u64 = 512 * 1024 * 1024;

const EXTENSION: &str = "result";
const UNREADABLE: &str = "unreadable";

/// Why an entry could not be kept or read.
#[derive(Debug, Error)]
enum SpoolError {
    #[error("the file system refused")]
    Io(#[from] io::Error),
    #[error("it is no entry of a spool")]
    Shape(#[from] serde_json::Error),
    #[error("it cannot be sealed or opened with the encryption key")]
    Seal(#[from] SealError),
    #[error("it is sealed, and no encryption key is configured")]
    NoKey,
    #[error("entries would have more than {LIMIT_BYTES} bytes")]
    Full,
}

/// An end on disk.
#[derive(Debug, Serialize, Deserialize)]
struct Entry {
    worker: WorkerId,
    started_at: DateTime<Utc>,
    execution: Execution,
    action: Option<ActionId>,
    status: ExecutionStatus,
    result: Value,
    secrets: Vec<Sealed>,
    logs: Option<LogOwner>,
}

#[derive(Debug, Serialize, Deserialize)]
struct Sealed {
    json_path: String,
    source_kind: String,
    source_ref: Option<String>,
    encrypted_value: Value,
    encryption_key_hash: Option<String>,
}

/// The file of an entry.
#[derive(Debug)]
pub(crate) struct Kept {
    path: PathBuf,
    bytes: u64,
    used: Arc<AtomicU64>,
}

impl Kept {
    /// The entry is not needed any more.
    pub(crate) fn remove(self) {
        match fs::remove_file(&self.path) {
            Ok(()) => {
                self.used.fetch_sub(self.bytes, Ordering::Relaxed);
            }
            Err(error) => {
                tracing::warn!(path = %self.path.display(), %error, "entry of the spool could not be removed");
            }
        }
    }
}

/// The entries of one worker.
#[derive(Debug, Clone)]
pub(crate) struct Spool {
    folder: PathBuf,
    key: Option<SealingKey>,
    used: Arc<AtomicU64>,
}

impl Spool {
    /// Entries in `folder`, which is made when it is needed.
    pub(crate) fn new(folder: PathBuf, key: Option<SealingKey>) -> Self {
        Self { folder, key, used: Arc::default() }
    }

    /// Where they are, with other things that have to outlive this process.
    pub(crate) fn folder(&self) -> &Path {
        &self.folder
    }

    /// Keeps an end. None when the disk does not take it: then it is in memory only.
    pub(crate) async fn keep(&self, end: &Ended) -> Option<Kept> {
        let execution = end.fence.execution;
        let kept = match self.encode(end) {
            Ok(bytes) => {
                let (spool, name) = (self.clone(), name(&end.fence));
                attune_lifecycle::spawn_blocking(move || spool.write(&name, &bytes))
                    .await
                    .unwrap_or_else(|panicked| Err(io::Error::other(panicked).into()))
            }
            Err(error) => Err(error),
        };
        match kept {
            Ok(kept) => {
                tracing::info!(execution.id = %execution, path = %kept.path.display(), "result is kept on disk for now");
                Some(kept)
            }
            Err(error) => {
                let error = chain(&error);
                tracing::warn!(execution.id = %execution, error, "result is kept in memory only: the disk does not take it");
                None
            }
        }
    }

    /// The entries that earlier lives kept, oldest first, to be read one by one. What they had half written goes.
    pub(crate) async fn left(&self) -> Vec<PathBuf> {
        let spool = self.clone();
        let listed = attune_lifecycle::spawn_blocking(move || spool.list()).await;
        listed.unwrap_or_else(|panicked| {
            tracing::error!(error = %panicked, "the spool could not be read; this is a bug of the worker");
            Vec::new()
        })
    }

    /// An entry. One that cannot be read is put aside and named.
    pub(crate) async fn read(&self, path: PathBuf) -> Option<(Kept, Ended)> {
        let spool = self.clone();
        let read = attune_lifecycle::spawn_blocking(move || spool.read_one(path)).await;
        read.unwrap_or_else(|panicked| {
            tracing::error!(error = %panicked, "an entry of the spool could not be read; this is a bug of the worker");
            None
        })
    }

    fn encode(&self, end: &Ended) -> Result<Vec<u8>, SpoolError> {
        let Ended { fence, execution, action, status, result, secrets, logs, entered, running: _, owed: _ } = end;
        // Whatever was entered may have no file yet.
        let logs = logs.as_ref().or(entered.as_ref().map(|(owner, _)| owner));
        let sealed = |secret: &SecretValue| Sealed {
            json_path: secret.json_path.clone(),
            source_kind: secret.source_kind.clone(),
            source_ref: secret.source_ref.clone(),
            encrypted_value: secret.encrypted_value.clone(),
            encryption_key_hash: secret.encryption_key_hash.clone(),
        };
        let entry = serde_json::to_value(Entry {
            worker: fence.worker,
            started_at: fence.started_at,
            execution: execution.clone(),
            action: *action,
            status: *status,
            result: result.clone(),
            secrets: secrets.iter().map(sealed).collect(),
            logs: logs.cloned(),
        })?;
        let stored = match &self.key {
            Some(key) => key.seal(&entry)?,
            None => entry,
        };
        Ok(serde_json::to_vec(&stored)?)
    }

    fn decode(&self, bytes: &[u8]) -> Result<Ended, SpoolError> {
        let stored: Value = serde_json::from_slice(bytes)?;
        let entry = match (&stored, &self.key) {
            (Value::String(_), Some(key)) => key.open(&stored, Some(key.hash()))?,
            (Value::String(_), None) => return Err(SpoolError::NoKey),
            _ => stored,
        };
        let Entry { worker, started_at, execution, action, status, result, secrets, logs } =
            serde_json::from_value(entry)?;
        let opened = |secret: Sealed| SecretValue {
            json_path: secret.json_path,
            source_kind: secret.source_kind,
            source_ref: secret.source_ref,
            encrypted_value: secret.encrypted_value,
            encryption_key_hash: secret.encryption_key_hash,
        };
        let fence = Fence { execution: execution.id, worker, started_at };
        let secrets = secrets.into_iter().map(opened).collect();
        let logs = logs.map(LogOwner::again);
        Ok(Ended { fence, execution, action, status, result, secrets, logs, entered: None, running: None, owed: None })
    }

    fn write(&self, name: &str, bytes: &[u8]) -> Result<Kept, SpoolError> {
        let size = u64::try_from(bytes.len()).unwrap_or(u64::MAX);
        if self.used.load(Ordering::Relaxed).saturating_add(size) > LIMIT_BYTES {
            return Err(SpoolError::Full);
        }
        DirBuilder::new().recursive(true).mode(0o700).create(&self.folder)?;
        fs::set_permissions(&self.folder, fs::Permissions::from_mode(0o700))?;
        let beside = self.folder.join(format!(".{name}"));
        let path = self.folder.join(format!("{name}.{EXTENSION}"));
        let written = write_synced(&beside, bytes).and_then(|()| fs::rename(&beside, &path));
        if let Err(error) = written.and_then(|()| File::open(&self.folder)?.sync_all()) {
            // Half of it would only take room.
            if let Err(leftover) = fs::remove_file(&beside)
                && leftover.kind() != io::ErrorKind::NotFound
            {
                tracing::debug!(path = %beside.display(), error = %leftover, "a half-written entry stays");
            }
            return Err(error.into());
        }
        self.used.fetch_add(size, Ordering::Relaxed);
        Ok(Kept { path, bytes: size, used: self.used.clone() })
    }

    fn list(&self) -> Vec<PathBuf> {
        let mut paths = Vec::new();
        for entry in fs::read_dir(&self.folder).into_iter().flatten().flatten() {
            let path = entry.path();
            if path.extension().is_some_and(|extension| extension == EXTENSION) {
                self.used.fetch_add(entry.metadata().map_or(0, |metadata| metadata.len()), Ordering::Relaxed);
                paths.push(path);
            } else if entry.file_name().as_encoded_bytes().starts_with(b".")
                && let Err(error) = fs::remove_file(&path)
            {
                tracing::debug!(path = %path.display(), %error, "a half-written entry stays");
            }
        }
        order::sort(&mut paths);
        paths
    }

    fn read_one(&self, path: PathBuf) -> Option<(Kept, Ended)> {
        let bytes = path.metadata().map_or(0, |metadata| metadata.len());
        match fs::read(&path).map_err(SpoolError::from).and_then(|content| self.decode(&content)) {
            Ok(end) => Some((Kept { path, bytes, used: self.used.clone() }, end)),
            Err(error) => {
                tracing::error!(path = %path.display(), error = chain(&error), "entry of the spool is put aside");
                self.used.fetch_sub(bytes, Ordering::Relaxed);
                if let Err(error) = fs::rename(&path, path.with_extension(UNREADABLE)) {
                    tracing::warn!(path = %path.display(), %error, "it could not be renamed");
                }
                None
            }
        }
    }
}

/// One for each run; names sort by execution.
fn name(fence: &Fence) -> String {
    format!("{:020}-{}", fence.execution.0, fence.started_at.timestamp_micros())
}

fn write_synced(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(path)?;
    file.write_all(bytes)?;
    file.sync_all()
}
