//! Log artifacts of actions and sensors.

use async_trait::async_trait;
use attune_model::ExecutionId;
use attune_model::status::{OwnerType, RetentionPolicy};
use serde_json::Value;

use crate::StoreError;

/// A standard stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum LogStream {
    /// Standard output.
    Stdout,
    /// Standard error.
    Stderr,
}

impl LogStream {
    /// `stdout` or `stderr`.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Stdout => "stdout",
            Self::Stderr => "stderr",
        }
    }
}

/// The artifact that versions of one log belong to, and the version to add.
#[derive(Debug, Clone, PartialEq)]
pub struct LogArtifact {
    /// `artifact.ref`, for example `mypack.deploy.stdout.log`.
    pub r#ref: String,
    /// Whose it is.
    pub scope: OwnerType,
    /// That owner's ref.
    pub owner: String,
    /// For people.
    pub name: String,
    /// For people.
    pub description: String,
    /// Unit of retention.
    pub retention_policy: RetentionPolicy,
    /// How many of it.
    pub retention_limit: i32,
    /// The execution that wrote it; none for sensors.
    pub execution: Option<ExecutionId>,
    /// `artifact_version.meta`.
    pub meta: Value,
    /// `artifact_version.created_by`: `worker` or `sensor`.
    pub created_by: &'static str,
}

/// A new version.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogVersion {
    /// `artifact_version.id`.
    pub id: i64,
    /// `artifact_version.version`, from 1.
    pub version: i32,
    /// Below `artifacts_dir`: the ref with `/` for `.`, then `/v<n>.txt`.
    pub file_path: String,
    /// Files of versions that retention removed just now; the caller deletes them.
    pub expired_files: Vec<String>,
}

/// A log that is complete.
#[derive(Debug, Clone, PartialEq)]
pub struct EndedLog {
    /// The artifact and the version to add.
    pub artifact: LogArtifact,
    /// How long it is; above 0.
    pub size_bytes: u64,
}

/// A file of an execution that has a version but no size yet: the action registered it and wrote it itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RegisteredFile {
    /// `artifact_version.id`.
    pub id: i64,
    /// Whose.
    pub execution: ExecutionId,
    /// Below `artifacts_dir`.
    pub file_path: String,
}

/// A version that is a file, of an artifact that a sensor owns.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SensorFile {
    /// `artifact_version.id`.
    pub id: i64,
    /// The sensor.
    pub owner: String,
    /// Below `artifacts_dir`.
    pub file_path: String,
    /// None as long as nobody has said how long it is.
    pub size_bytes: Option<u64>,
}

/// What [`LogStore::file_logs`] did and found.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct FiledLogs {
    /// The version of each log, in the order of the logs.
    pub versions: Vec<LogVersion>,
    /// Files that the executions registered, by version id.
    pub registered: Vec<RegisteredFile>,
}

/// Versions of log artifacts.
#[async_trait]
pub trait LogStore: Send + Sync + std::fmt::Debug {
    /// Finds or makes the artifact and adds a version. Concurrent calls get different versions of one artifact.
    async fn add_log_version(&self, artifact: &LogArtifact) -> Result<LogVersion, StoreError>;

    /// Adds the versions of complete logs with their sizes, and looks which files `executions` registered. All in one unit:
    /// the logs of many executions that ended at about the same time cost as much as those of one.
    async fn file_logs(&self, logs: &[EndedLog], executions: &[ExecutionId]) -> Result<FiledLogs, StoreError>;

    /// The versions that the logs of an execution have already, with the refs of their artifacts: who cannot know whether an
    /// earlier call of [`file_logs`](Self::file_logs) did its work asks here.
    async fn log_versions(&self, execution: ExecutionId) -> Result<Vec<(String, LogVersion)>, StoreError>;

    /// The files of what these sensors own, by version id.
    async fn sensor_files(&self, sensor_refs: &[String]) -> Result<Vec<SensorFile>, StoreError>;

    /// Writes final sizes in bytes, by version id; a size of 0 deletes the version. Its file is the caller's to delete, and
    /// before: the number may be given out again at once.
    async fn set_log_sizes(&self, sizes: &[(i64, u64)]) -> Result<(), StoreError>;
}
