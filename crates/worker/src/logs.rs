//! The log files of one execution, and their place among the artifacts when it has ended.
//!
//! While the child runs each stream goes straight to `execution_<id>/<stream>.log`, made on its first byte, so that it
//! can be watched. At the end that very file is moved to its place as a version of the action's log artifact: nothing is
//! copied, nothing is lost, and no folder stays behind. Modes are facts of the platform: its services share a group.

use std::fs::{self, DirBuilder, File, OpenOptions, Permissions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::{Component, Path, PathBuf};

use attune_model::ExecutionId;
use attune_model::rows::{Action, Execution, Retention};
use attune_model::status::{OwnerType, RetentionPolicy};
use attune_process::Sink;
use attune_store::{LogArtifact, LogStore, LogStream, LogVersion};
use serde_json::json;

use crate::output::{NOTICE_RESERVE, truncation_notice};

const FOLDER_MODE: u32 = 0o2775;
const FILE_MODE: u32 = 0o664;

/// Both streams, in the order in which their versions are made.
const STREAMS: [LogStream; 2] = [LogStream::Stdout, LogStream::Stderr];

/// Whose logs these are and how long they are kept.
#[derive(Debug, Clone)]
pub(crate) struct LogOwner {
    execution: ExecutionId,
    action_ref: String,
    retention: (RetentionPolicy, i32),
}

impl LogOwner {
    /// The owner of an execution's logs; `default` where the action says nothing.
    pub(crate) fn new(execution: &Execution, action: Option<&Action>, default: (RetentionPolicy, i32)) -> Self {
        let Retention { policy, limit } = action.map(|action| action.log_retention).unwrap_or_default();
        Self {
            execution: execution.id,
            action_ref: execution.action_ref.clone(),
            retention: (policy.unwrap_or(default.0), limit.unwrap_or(default.1)),
        }
    }

    fn artifact(&self, stream: LogStream) -> LogArtifact {
        let (action, stream) = (&self.action_ref, stream.as_str());
        let (policy, limit) = self.retention;
        let mut policy_name = policy.as_str().to_owned();
        if let Some(first) = policy_name.get_mut(..1) {
            first.make_ascii_uppercase();
        }
        LogArtifact {
            r#ref: format!("{action}.{stream}.log"),
            scope: OwnerType::Action,
            owner: action.clone(),
            name: format!("{action} {stream}"),
            description: format!("Captured {stream} for action '{action}' (retention: {policy_name} {limit})"),
            retention_policy: policy,
            retention_limit: limit,
            execution: Some(self.execution),
            meta: json!({"stream": stream, "execution_id": self.execution}),
            created_by: "worker",
        }
    }
}

/// The log files of all executions of a worker.
#[derive(Debug, Clone)]
pub(crate) struct Logs {
    artifacts_dir: PathBuf,
}

impl Logs {
    /// Logs below `artifacts_dir`.
    pub(crate) fn new(artifacts_dir: &Path) -> Self {
        Self { artifacts_dir: artifacts_dir.to_owned() }
    }

    fn live_folder(&self, execution: ExecutionId) -> PathBuf {
        self.artifacts_dir.join(format!("execution_{execution}"))
    }

    /// Where the stream is while the execution runs.
    fn live_path(&self, execution: ExecutionId, stream: LogStream) -> PathBuf {
        self.live_folder(execution).join(format!("{}.log", stream.as_str()))
    }

    /// Takes a stream while it comes; at most `limit_bytes` are stored.
    pub(crate) fn sink(&self, execution: ExecutionId, stream: LogStream, limit_bytes: usize) -> LogSink {
        LogSink {
            stream,
            path: self.live_path(execution, stream),
            file: LogFile::Unopened,
            left_bytes: limit_bytes.saturating_sub(NOTICE_RESERVE),
        }
    }

    /// Gives the files of an ended execution their place; the path of the standard error, if there is any.
    ///
    /// Logs never decide about an execution: what goes wrong is reported and the file stays where it is.
    pub(crate) async fn file(&self, store: &dyn LogStore, owner: &LogOwner) -> Option<PathBuf> {
        let mut sizes = Vec::new();
        let mut stderr_log = None;
        for stream in STREAMS {
            let live = self.live_path(owner.execution, stream);
            let Some(size) = size_of(&live) else { continue };
            match self.file_one(store, owner, stream, &live).await {
                Ok((version, path)) => {
                    sizes.push((version.id, size));
                    if stream == LogStream::Stderr && !is_blank(&path) {
                        stderr_log = Some(path);
                    }
                }
                Err(error) => {
                    tracing::warn!(path = %live.display(), error, "log stays where it is: it could not be filed");
                }
            }
        }
        if !sizes.is_empty()
            && let Err(error) = store.set_log_sizes(&sizes).await
        {
            tracing::warn!(execution.id = %owner.execution, %error, "sizes of the logs could not be stored");
        }
        // It is not empty when something could not be filed, or when the action put a file of its own there.
        match fs::remove_dir(self.live_folder(owner.execution)) {
            Ok(()) | Err(_) => stderr_log,
        }
    }

    async fn file_one(
        &self,
        store: &dyn LogStore,
        owner: &LogOwner,
        stream: LogStream,
        live: &Path,
    ) -> Result<(LogVersion, PathBuf), String> {
        let version = store.add_log_version(&owner.artifact(stream)).await.map_err(|error| chain(&error))?;
        for expired in &version.expired_files {
            self.remove_expired(expired);
        }
        let path =
            self.below(&version.file_path).ok_or_else(|| format!("{:?} is no relative path", version.file_path))?;
        let moved = path
            .parent()
            .map_or(Ok(()), |folder| make_folders(&self.artifacts_dir, folder))
            .and_then(|()| fs::rename(live, &path));
        match moved {
            Ok(()) => Ok((version, path)),
            Err(error) => {
                // A version without a file would promise a log that nobody can read.
                if let Err(error) = store.set_log_sizes(&[(version.id, 0)]).await {
                    tracing::warn!(version = version.version, %error, "version without a file could not be removed");
                }
                Err(format!("{}: {error}", path.display()))
            }
        }
    }

    fn remove_expired(&self, file_path: &str) {
        let Some(path) = self.below(file_path) else {
            return;
        };
        match fs::remove_file(&path) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => {
                tracing::warn!(path = %path.display(), %error, "expired log could not be removed");
            }
        }
    }

    /// A stored path as a real one; none if it leads out of the folder.
    fn below(&self, file_path: &str) -> Option<PathBuf> {
        let path = Path::new(file_path);
        let plain = path.components().all(|component| matches!(component, Component::Normal(_)));
        (plain && path.components().next().is_some()).then(|| self.artifacts_dir.join(path))
    }
}

/// Writes one stream to its file. A file that cannot be written is reported once; the run goes on without it.
#[derive(Debug)]
pub(crate) struct LogSink {
    stream: LogStream,
    path: PathBuf,
    file: LogFile,
    left_bytes: usize,
}

#[derive(Debug)]
enum LogFile {
    Unopened,
    Open(File),
    /// The limit is reached, or it cannot be written.
    Closed,
}

impl Sink for LogSink {
    fn write(&mut self, chunk: &[u8]) {
        if chunk.is_empty() {
            return;
        }
        if let Err(error) = self.append(chunk) {
            tracing::warn!(path = %self.path.display(), %error, "log cannot be written; the execution goes on");
            self.file = LogFile::Closed;
        }
    }
}

impl LogSink {
    fn append(&mut self, chunk: &[u8]) -> io::Result<()> {
        if matches!(self.file, LogFile::Unopened) {
            self.file = LogFile::Open(create_log(&self.path)?);
        }
        let LogFile::Open(file) = &mut self.file else {
            return Ok(());
        };
        let kept = &chunk[..chunk.len().min(self.left_bytes)];
        file.write_all(kept)?;
        self.left_bytes -= kept.len();
        if kept.len() < chunk.len() {
            file.write_all(truncation_notice(self.stream.as_str()).as_bytes())?;
            self.file = LogFile::Closed;
        }
        Ok(())
    }
}

/// A new log file; what an earlier life left under its name is replaced, never followed.
fn create_log(path: &Path) -> io::Result<File> {
    let open = || OpenOptions::new().write(true).create_new(true).mode(FILE_MODE).open(path);
    let folder = path.parent().unwrap_or(Path::new("."));
    let file = match open() {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            make_folders(folder.parent().unwrap_or(folder), folder)?;
            open()
        }
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
            fs::remove_file(path)?;
            open()
        }
        other => other,
    }?;
    file.set_permissions(Permissions::from_mode(FILE_MODE))?;
    Ok(file)
}

/// Makes `folder` and what is missing between `base` and it, with the shared mode whatever the umask is.
fn make_folders(base: &Path, folder: &Path) -> io::Result<()> {
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
fn size_of(path: &Path) -> Option<u64> {
    let metadata = fs::symlink_metadata(path).ok()?;
    (metadata.is_file() && metadata.len() > 0).then_some(metadata.len())
}

/// Whether a log has nothing but white space. A long one counts as having more.
fn is_blank(path: &Path) -> bool {
    const LOOKED_AT_BYTES: u64 = 64 * 1024;
    size_of(path).is_none_or(|size| size <= LOOKED_AT_BYTES)
        && fs::read(path).is_ok_and(|bytes| bytes.iter().all(u8::is_ascii_whitespace))
}

/// An error with its causes.
pub(crate) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(inner) = cause {
        text = format!("{text}: {inner}");
        cause = inner.source();
    }
    text
}
