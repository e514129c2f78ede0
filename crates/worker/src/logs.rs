//! The log files of one execution while it runs.
//!
//! Each stream goes straight to `execution_<id>/<stream>.log`, made on its first byte, so that it can be watched. At the end
//! that very file becomes a version of the action's log artifact, see [`crate::filing`]: nothing is lost, and no folder
//! stays behind, see [`crate::log_folders`]. Modes are facts of the platform: its services share a group.

use std::fs::{self, File, OpenOptions, Permissions};
use std::io::{self, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use attune_model::ExecutionId;
use attune_model::rows::{Action, Execution, Retention};
use attune_model::status::{OwnerType, RetentionPolicy};
use attune_process::Sink;
use attune_store::{LogArtifact, LogStream};
use serde::{Deserialize, Serialize};
use serde_json::json;

use crate::files::{FILE_MODE, size_of};
use crate::log_folders::LogFolders;
use crate::output::{NOTICE_RESERVE, truncation_notice};

/// Both streams, in the order in which their versions are made.
const STREAMS: [LogStream; 2] = [LogStream::Stdout, LogStream::Stderr];

/// In the folder of an execution until all of its files are with the API.
const UNSENT: &str = ".unsent";

/// Whose logs these are and how long they are kept.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct LogOwner {
    execution: ExecutionId,
    action_ref: String,
    retention: (RetentionPolicy, i32),
    /// Whether an attempt to enter them was made whose outcome is not known.
    #[serde(default)]
    again: bool,
}

impl LogOwner {
    /// The owner of an execution's logs; `default` where the action says nothing.
    pub(crate) fn new(execution: &Execution, action: Option<&Action>, default: (RetentionPolicy, i32)) -> Self {
        let Retention { policy, limit } = action.map(|action| action.log_retention).unwrap_or_default();
        Self {
            execution: execution.id,
            action_ref: execution.action_ref.clone(),
            retention: (policy.unwrap_or(default.0), limit.unwrap_or(default.1)),
            again: false,
        }
    }

    /// The owner of logs that may have versions already.
    pub(crate) fn again(self) -> Self {
        Self { again: true, ..self }
    }

    /// Whether they may have.
    pub(crate) fn is_again(&self) -> bool {
        self.again
    }

    /// Whose.
    pub(crate) fn execution(&self) -> ExecutionId {
        self.execution
    }

    /// The artifact of a stream, and the version to add to it.
    pub(crate) fn artifact(&self, stream: LogStream) -> LogArtifact {
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
    folders: Arc<LogFolders>,
}

impl Logs {
    /// Logs below `artifacts_dir`.
    pub(crate) fn new(artifacts_dir: &Path) -> Self {
        Self { folders: Arc::new(LogFolders::new(artifacts_dir)) }
    }

    /// Where the stream is while the execution runs.
    fn live_path(&self, execution: ExecutionId, stream: LogStream) -> PathBuf {
        self.folders.path(execution).join(format!("{}.log", stream.as_str()))
    }

    /// Takes a stream while it comes; at most `limit_bytes` are stored.
    pub(crate) fn sink(&self, execution: ExecutionId, stream: LogStream, limit_bytes: usize) -> LogSink {
        LogSink {
            folders: self.folders.clone(),
            execution,
            stream,
            path: self.live_path(execution, stream),
            file: LogFile::Unopened,
            left_bytes: limit_bytes.saturating_sub(NOTICE_RESERVE),
        }
    }

    /// The folder that everything is below.
    pub(crate) fn folder(&self) -> &Path {
        self.folders.base()
    }

    /// The streams of an ended execution that have content.
    pub(crate) fn live(&self, owner: &LogOwner) -> Vec<LiveLog> {
        let live = |stream| {
            let path = self.live_path(owner.execution, stream);
            size_of(&path).map(|size_bytes| LiveLog { stream, path, size_bytes })
        };
        STREAMS.into_iter().filter_map(live).collect()
    }

    /// Whether anything came on standard error.
    pub(crate) fn has_stderr(&self, owner: &LogOwner) -> bool {
        size_of(&self.live_path(owner.execution, LogStream::Stderr)).is_some()
    }

    /// The executions, of whatever worker, that have files where they were written, or a mark.
    pub(crate) fn left(&self) -> Vec<ExecutionId> {
        let is_left = |execution: &ExecutionId| {
            STREAMS.into_iter().any(|stream| size_of(&self.live_path(*execution, stream)).is_some())
                || self.mark_path(*execution).exists()
        };
        self.folders.executions().filter(is_left).collect()
    }

    /// Marks an execution that has files to be sent: those that it registered are not in its folder.
    pub(crate) fn mark(&self, execution: ExecutionId) {
        let marked = self.folders.make(execution).and_then(|()| File::create(self.mark_path(execution)));
        if let Err(error) = marked {
            tracing::warn!(%error, "files of the execution may be forgotten if the worker is killed now");
        }
    }

    fn mark_path(&self, execution: ExecutionId) -> PathBuf {
        self.folders.path(execution).join(UNSENT)
    }

    /// Nothing of an ended execution is left to be filed: its folder goes, unless something else is in it.
    pub(crate) fn remove_folder(&self, execution: ExecutionId) {
        match fs::remove_file(self.mark_path(execution)) {
            // There is none where files are not sent.
            Ok(()) | Err(_) => self.folders.take(execution),
        }
    }
}

/// A stream that is complete, at the place where it was written.
#[derive(Debug)]
pub(crate) struct LiveLog {
    /// Which.
    pub(crate) stream: LogStream,
    /// Where.
    pub(crate) path: PathBuf,
    /// How long, above 0.
    pub(crate) size_bytes: u64,
}

impl LiveLog {
    /// Whether it has nothing but white space. A long one counts as having more.
    pub(crate) fn is_blank(&self) -> bool {
        const LOOKED_AT_BYTES: u64 = 64 * 1024;
        self.size_bytes <= LOOKED_AT_BYTES
            && fs::read(&self.path).is_ok_and(|bytes| bytes.iter().all(u8::is_ascii_whitespace))
    }
}

/// Writes one stream to its file. A file that cannot be written is reported once; the run goes on without it.
#[derive(Debug)]
pub(crate) struct LogSink {
    folders: Arc<LogFolders>,
    execution: ExecutionId,
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
            self.file = LogFile::Open(self.create()?);
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

    /// A new log file; what an earlier life left under its name is replaced, never followed.
    fn create(&self) -> io::Result<File> {
        let open = || OpenOptions::new().write(true).create_new(true).mode(FILE_MODE).open(&self.path);
        let file = match open() {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                self.folders.make(self.execution)?;
                open()
            }
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                fs::remove_file(&self.path)?;
                open()
            }
            other => other,
        }?;
        file.set_permissions(Permissions::from_mode(FILE_MODE))?;
        Ok(file)
    }
}
