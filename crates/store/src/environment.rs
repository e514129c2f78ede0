//! `pack_environment`: who builds which shared environment.

use std::time::Duration;

use async_trait::async_trait;
use attune_model::status::PackEnvironmentStatus;
use attune_model::{PackEnvironmentId, PackId, RuntimeId, RuntimeVersionId, WorkerId};
use chrono::{DateTime, Utc};

use crate::StoreError;

/// The environment of one pack for one runtime or version.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EnvironmentTarget {
    /// Which pack.
    pub pack: PackId,
    /// Its ref.
    pub pack_ref: String,
    /// Which runtime.
    pub runtime: RuntimeId,
    /// Its ref.
    pub runtime_ref: String,
    /// Which version, with its text; none for the runtime's own configuration.
    pub version: Option<(RuntimeVersionId, String)>,
    /// Absolute path of the environment.
    pub env_path: String,
    /// Lower-case hex SHA-256 of the manifest; none without one.
    pub manifest_checksum: Option<String>,
}

/// Its row.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EnvironmentRow {
    /// Key.
    pub id: PackEnvironmentId,
    /// Where it stands.
    pub status: PackEnvironmentStatus,
    /// Of the manifest it was built from or is wanted for.
    pub manifest_checksum: Option<String>,
    /// Who builds it.
    pub claimed_by: Option<WorkerId>,
    /// Until when, by the store's clock.
    pub claim_expires_at: Option<DateTime<Utc>>,
    /// Whether that time is over, by the store's clock.
    pub claim_expired: bool,
    /// Why the last build failed.
    pub install_error: Option<String>,
}

/// The end of a build.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum EnvironmentOutcome {
    /// Usable, built from a manifest with this checksum.
    Ready {
        /// None without a manifest.
        manifest_checksum: Option<String>,
        /// Output of the commands, bounded.
        log: String,
    },
    /// Not usable.
    Failed {
        /// For people.
        error: String,
        /// Output of the commands, bounded.
        log: String,
    },
}

/// One builder at a time.
#[async_trait]
pub trait EnvironmentStore: Send + Sync + std::fmt::Debug {
    /// Inserts the row as `pending` or refreshes refs, path and checksum; a changed path or checksum makes it `outdated`
    /// and clears the claim, unless a live `installing` claim exists.
    async fn upsert_environment(&self, target: &EnvironmentTarget) -> Result<EnvironmentRow, StoreError>;

    /// The row.
    async fn environment(&self, id: PackEnvironmentId) -> Result<Option<EnvironmentRow>, StoreError>;

    /// Takes the row to `installing` when it is `pending`, `failed` or `outdated`, or when its claim has expired.
    async fn claim_environment(
        &self,
        id: PackEnvironmentId,
        worker: WorkerId,
        lifetime: Duration,
    ) -> Result<bool, StoreError>;

    /// Prolongs an own `installing` claim; false when it was lost.
    async fn renew_environment_claim(
        &self,
        id: PackEnvironmentId,
        worker: WorkerId,
        lifetime: Duration,
    ) -> Result<bool, StoreError>;

    /// Marks a `ready` row `outdated` because it is broken on this host.
    async fn mark_environment_outdated(&self, id: PackEnvironmentId) -> Result<(), StoreError>;

    /// Ends an own claim; false when it was lost.
    async fn finish_environment(
        &self,
        id: PackEnvironmentId,
        worker: WorkerId,
        outcome: &EnvironmentOutcome,
    ) -> Result<bool, StoreError>;
}
