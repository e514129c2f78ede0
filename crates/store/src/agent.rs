//! What both agents need: their own `worker` row and the runtimes.

use async_trait::async_trait;
use attune_model::rows::{Runtime, RuntimeVersion, Worker};
use attune_model::status::{WorkerRole, WorkerStatus, WorkerType};
use attune_model::{JsonMap, PackId, RuntimeId, RuntimeVersionId, WorkerId};
use chrono::{DateTime, Utc};
use serde_json::Value;

use crate::StoreError;

/// What an agent writes about itself when it starts.
#[derive(Debug, Clone, PartialEq)]
pub struct WorkerRegistration {
    /// Unique over both roles.
    pub name: String,
    /// Which agent.
    pub role: WorkerRole,
    /// Written on insert only.
    pub worker_type: WorkerType,
    /// Written on insert only; one that does not exist is left out.
    pub runtime: Option<RuntimeId>,
    /// Host name.
    pub host: Option<String>,
    /// Port, when configured.
    pub port: Option<i32>,
    /// See `attune_model::capabilities`.
    pub capabilities: JsonMap,
}

/// A runtime that an agent found on its machine and the installation does not know: a row of its own.
#[derive(Debug, Clone, PartialEq)]
pub struct DetectedRuntime {
    /// `auto.` and the name.
    pub r#ref: String,
    /// The row that this one was made from: `installation` is copied.
    pub template: Option<RuntimeId>,
    /// The template's.
    pub pack: Option<PackId>,
    /// The template's.
    pub pack_ref: Option<String>,
    /// For people.
    pub description: String,
    /// Display name.
    pub name: String,
    /// The names it can be asked for by.
    pub aliases: Vec<String>,
    /// Verification data.
    pub distributions: Value,
    /// How it starts code.
    pub execution_config: Value,
    /// What was found, and where.
    pub detection_config: Value,
}

/// The agent's own row, and what the installation can run.
#[async_trait]
pub trait AgentStore: Send + Sync + std::fmt::Debug {
    /// The store's time, which leases and heartbeats are measured with.
    async fn now(&self) -> Result<DateTime<Utc>, StoreError>;

    /// Inserts the row or takes over the one of that name and role: status `active`, fresh heartbeat, host and
    /// capabilities. Type and cordon of an existing row stay as they are.
    ///
    /// A row of that name with the other role is a [`StoreError::Conflict`].
    async fn register_worker(&self, registration: &WorkerRegistration) -> Result<Worker, StoreError>;

    /// Refreshes the heartbeat by the store's clock; `status` is written along with it (`active` while working).
    /// False when the row is gone.
    async fn heartbeat(&self, worker: WorkerId, status: WorkerStatus) -> Result<bool, StoreError>;

    /// Writes the status alone.
    async fn set_worker_status(&self, worker: WorkerId, status: WorkerStatus) -> Result<(), StoreError>;

    /// Replaces the capabilities.
    async fn set_capabilities(&self, worker: WorkerId, capabilities: &JsonMap) -> Result<(), StoreError>;

    /// All runtimes, by ref.
    async fn runtimes(&self) -> Result<Vec<Runtime>, StoreError>;

    /// All versions of all runtimes, by runtime and row id.
    async fn runtime_versions(&self) -> Result<Vec<RuntimeVersion>, StoreError>;

    /// Adds the row, marked as `auto_detected`. False when there is one of that ref, also when another agent was quicker.
    async fn add_detected_runtime(&self, runtime: &DetectedRuntime) -> Result<bool, StoreError>;

    /// Writes `available` and the time of each version that was verified; one that is gone is no error.
    async fn set_verified_versions(&self, versions: &[(RuntimeVersionId, bool)]) -> Result<(), StoreError>;
}
