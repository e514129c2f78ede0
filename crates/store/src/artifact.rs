//! Artifacts of actions, sensors and people: their rows, their versions, and what is in them.

use async_trait::async_trait;
use attune_model::rows::{Artifact, ArtifactVersion};
use attune_model::status::{ArtifactType, ArtifactVisibility, OwnerType, RetentionPolicy};
use attune_model::{ArtifactId, ArtifactVersionId, ExecutionId};
use serde_json::Value;

use crate::{Page, PageRequest, StoreError};

/// Where a version is, below the folder of artifacts: the ref with `/` for `.`, then `/v<n>.<extension>`. A fact of the
/// platform.
pub fn artifact_path(artifact_ref: &str, version: i32, extension: &str) -> String {
    format!("{}/v{version}.{extension}", artifact_ref.replace('.', "/"))
}

/// An artifact to be made.
#[derive(Debug, Clone, PartialEq)]
pub struct NewArtifact {
    /// Name.
    pub r#ref: String,
    /// What owns it.
    pub scope: OwnerType,
    /// That owner's ref.
    pub owner: String,
    /// Kind.
    pub r#type: ArtifactType,
    /// Who may read it.
    pub visibility: ArtifactVisibility,
    /// For people.
    pub name: Option<String>,
    /// For people.
    pub description: Option<String>,
    /// MIME type.
    pub content_type: Option<String>,
    /// What is no file.
    pub data: Option<Value>,
    /// Unit of retention.
    pub retention_policy: RetentionPolicy,
    /// How many of it.
    pub retention_limit: i32,
}

/// What is to be different about an artifact; none stays as it is.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct ArtifactChange {
    /// Who may read it.
    pub visibility: Option<ArtifactVisibility>,
    /// For people.
    pub name: Option<String>,
    /// For people.
    pub description: Option<String>,
    /// MIME type.
    pub content_type: Option<String>,
    /// Unit of retention.
    pub retention_policy: Option<RetentionPolicy>,
    /// How many of it.
    pub retention_limit: Option<i32>,
}

/// What a version holds.
#[derive(Debug, Clone, PartialEq)]
pub enum VersionContent {
    /// Bytes in the row.
    Bytes(Vec<u8>),
    /// A document in the row.
    Json(Value),
    /// A file with this extension that its maker writes; where it is is decided with the number.
    File {
        /// Without a dot.
        extension: &'static str,
    },
}

impl VersionContent {
    /// How large it is, as far as it is known.
    pub fn size(&self) -> Option<i64> {
        let length = match self {
            Self::Bytes(bytes) => bytes.len(),
            Self::Json(document) => document.to_string().len(),
            Self::File { .. } => return None,
        };
        Some(i64::try_from(length).unwrap_or(i64::MAX))
    }
}

/// A version to be added.
#[derive(Debug, Clone, PartialEq)]
pub struct NewVersion {
    /// Which execution made it.
    pub execution: Option<ExecutionId>,
    /// MIME type.
    pub content_type: Option<String>,
    /// What it holds.
    pub content: VersionContent,
    /// Free.
    pub meta: Option<Value>,
    /// For people.
    pub created_by: Option<String>,
}

/// A version that was added.
#[derive(Debug, Clone, PartialEq)]
pub struct AddedVersion {
    /// The row.
    pub version: ArtifactVersion,
    /// Files of versions that retention removed just now, oldest first; the caller deletes them.
    pub expired_files: Vec<String>,
}

/// Which version of an artifact.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum VersionNumber {
    /// The one with the highest number.
    Latest,
    /// This one.
    Number(i32),
}

impl VersionNumber {
    /// None for the newest.
    pub fn number(self) -> Option<i32> {
        match self {
            Self::Latest => None,
            Self::Number(number) => Some(number),
        }
    }
}

/// Artifacts and their versions.
#[async_trait]
pub trait ArtifactStore: Send + Sync + std::fmt::Debug {
    /// Stores an artifact. None when there is one of that ref; of two calls at once one makes it.
    async fn create_artifact(&self, artifact: &NewArtifact) -> Result<Option<Artifact>, StoreError>;

    /// The artifact.
    async fn artifact(&self, id: ArtifactId) -> Result<Option<Artifact>, StoreError>;

    /// The artifact of that ref; of several the one with the lowest id.
    async fn artifact_of_ref(&self, artifact_ref: &str) -> Result<Option<Artifact>, StoreError>;

    /// Changes an artifact. None when it does not exist.
    async fn change_artifact(&self, id: ArtifactId, change: &ArtifactChange) -> Result<Option<Artifact>, StoreError>;

    /// Writes `artifact.data`. None when it does not exist.
    async fn set_artifact_data(&self, id: ArtifactId, data: &Value) -> Result<Option<Artifact>, StoreError>;

    /// Adds an entry to the list in `artifact.data`, which begins with it when there is no list. Of entries that are added
    /// at once none is lost. None when the artifact does not exist.
    async fn add_progress(&self, id: ArtifactId, entry: &Value) -> Result<Option<Artifact>, StoreError>;

    /// Removes an artifact and its versions. Files of the versions, oldest first, which the caller deletes; none when it
    /// does not exist.
    async fn delete_artifact(&self, id: ArtifactId) -> Result<Option<Vec<String>>, StoreError>;

    /// Adds the version after the highest one, removes the oldest beyond the limit when versions are what is kept, and
    /// shows size and type at the artifact. Concurrent calls get different numbers. None when the artifact does not exist.
    async fn add_version(&self, id: ArtifactId, version: &NewVersion) -> Result<Option<AddedVersion>, StoreError>;

    /// Versions of an artifact, newest first.
    async fn versions(&self, id: ArtifactId, page: PageRequest) -> Result<Page<ArtifactVersion>, StoreError>;

    /// One version.
    async fn version(&self, id: ArtifactId, number: VersionNumber) -> Result<Option<ArtifactVersion>, StoreError>;

    /// The bytes in the row of a version; none when it holds something else or is gone.
    async fn version_bytes(&self, version: ArtifactVersionId) -> Result<Option<Vec<u8>>, StoreError>;

    /// The artifacts that an execution made versions of, by id.
    async fn execution_artifacts(
        &self,
        execution: ExecutionId,
        page: PageRequest,
    ) -> Result<Page<Artifact>, StoreError>;
}
