//! What both agents need: their own `worker` row and the runtimes.

use async_trait::async_trait;
use attune_model::rows::{Runtime, RuntimeVersion, Worker};
use attune_model::status::{WorkerRole, WorkerStatus, WorkerType};
use attune_model::{JsonMap, WorkerId};
use chrono::{DateTime, Utc};

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
    /// Host name.
    pub host: Option<String>,
    /// Port, when configured.
    pub port: Option<i32>,
    /// See `attune_model::capabilities`.
    pub capabilities: JsonMap,
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
}
