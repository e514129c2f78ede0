//! What the action worker needs: claiming, finishing and recovering executions.

use async_trait::async_trait;
use attune_model::rows::{Action, Execution, Pack, Runtime, RuntimeVersion};
use attune_model::status::{ExecutionStatus, OwnerType};
use attune_model::{ExecutionId, WorkerId};
use chrono::{DateTime, Utc};
use serde_json::Value;

use crate::{AgentStore, EnvironmentStore, LogStore, StoreError};

/// The right to write the end of one run. Every later write of the worker is guarded by all three.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Fence {
    /// Which execution.
    pub execution: ExecutionId,
    /// Which worker claimed it.
    pub worker: WorkerId,
    /// `execution.started_at` as the claim wrote it: a later claim has another one.
    pub started_at: DateTime<Utc>,
}

/// The error text of an execution that somebody cancelled (a fact of the platform).
pub const CANCELLED_TEXT: &str = "Execution cancelled by user";

/// The result of a run that was cancelled: what is known of it stays, and it was no success.
pub fn cancelled_result(result: &Value) -> Value {
    let mut keys = result.as_object().cloned().unwrap_or_default();
    keys.insert("succeeded".to_owned(), false.into());
    keys.insert("cancelled".to_owned(), true.into());
    keys.insert("error".to_owned(), CANCELLED_TEXT.into());
    Value::Object(keys)
}

/// What a `canceling` row becomes when its run ends with this status.
pub const fn cancelled_status(status: ExecutionStatus) -> ExecutionStatus {
    match status {
        ExecutionStatus::Abandoned => ExecutionStatus::Abandoned,
        _ => ExecutionStatus::Cancelled,
    }
}

/// What became of a claim.
#[derive(Debug, Clone, PartialEq)]
pub enum Claim {
    /// The row is `running` and ours.
    Claimed(Box<ClaimedExecution>),
    /// The row was `canceling` before we started it and is now `cancelled` by us; to be announced.
    Cancelled(Box<Execution>),
    /// The row is not `scheduled` for this worker (any more); the message is to be forgotten.
    NotOurs {
        /// What it is instead; none when there is no such row.
        status: Option<ExecutionStatus>,
    },
}

/// All that a run needs, read by the claim.
#[derive(Debug, Clone, PartialEq)]
pub struct ClaimedExecution {
    /// For the writes to come.
    pub fence: Fence,
    /// The row after the claim.
    pub execution: Execution,
    /// By `execution.action`, else by `action_ref`; none when it is gone.
    pub action: Option<Action>,
    /// The action's pack.
    pub pack: Option<Pack>,
    /// The action's runtime, when it names one that exists.
    pub runtime: Option<Runtime>,
    /// The versions of that runtime.
    pub runtime_versions: Vec<RuntimeVersion>,
    /// `rule_ref` and `trigger_ref` of the enforcement.
    pub enforcement: Option<(String, String)>,
    /// The parent's `action_ref`, for the token of workflow tasks.
    pub parent_action_ref: Option<String>,
    /// System, pack and action keys, in the order in which later ones override earlier ones.
    pub keys: Vec<KeyRow>,
    /// Encrypted parameters, to be put back into `execution.config`.
    pub secret_values: Vec<SecretValue>,
}

/// `key`, as far as a run needs it.
#[derive(Debug, Clone, PartialEq)]
pub struct KeyRow {
    /// Name under which the action sees it.
    pub name: String,
    /// Whose it is.
    pub owner_type: OwnerType,
    /// Whether `value` is encrypted.
    pub encrypted: bool,
    /// Digest of the key it is encrypted with.
    pub encryption_key_hash: Option<String>,
    /// The value, encrypted or not.
    pub value: Value,
}

/// `execution_secret_value` of one execution.
#[derive(Debug, Clone, PartialEq)]
pub struct SecretValue {
    /// JSON pointer into the document it belongs to.
    pub json_path: String,
    /// `parameter_schema` and the like.
    pub source_kind: String,
    /// Path in that source.
    pub source_ref: Option<String>,
    /// Base64 text in a JSON string.
    pub encrypted_value: Value,
    /// Digest of the key it is encrypted with.
    pub encryption_key_hash: Option<String>,
}

/// Claiming, finishing and recovering executions.
#[async_trait]
pub trait WorkerStore: AgentStore + EnvironmentStore + LogStore {
    /// Takes a `scheduled` row of this worker to `running`, sets `started_at` and reads all that the run needs.
    /// A `canceling` row of this worker that never started becomes `cancelled` at once, with the result
    /// `{"succeeded":false,"cancelled":true,"error":"Execution cancelled by user"}`.
    ///
    /// `scheduled_at` is the `updated` that a message says the row had when it was scheduled: a row that was scheduled anew
    /// since then is not ours by that message. Without it any `scheduled` row of this worker will do.
    async fn claim_execution(
        &self,
        execution: ExecutionId,
        worker: WorkerId,
        scheduled_at: Option<DateTime<Utc>>,
    ) -> Result<Claim, StoreError>;

    /// Writes the end of a run, with secrets of the result, in one unit. Guarded by the fence and by status `running`
    /// or `canceling`. Returns the status that is in the row now; none when somebody else decided in the meantime: the
    /// result is to be dropped.
    ///
    /// A cancel that was accepted is kept: a `canceling` row ends as `cancelled`, whatever came of the run, and its
    /// result is [`cancelled_result`] of this one. Only `abandoned` stays what it is.
    async fn finish_execution(
        &self,
        fence: &Fence,
        status: ExecutionStatus,
        result: &Value,
        secrets: &[SecretValue],
    ) -> Result<Option<ExecutionStatus>, StoreError>;

    /// The current status.
    async fn execution_status(&self, execution: ExecutionId) -> Result<Option<ExecutionStatus>, StoreError>;

    /// Rows that are `running` or `canceling` under this worker's id. At start these are left over from an earlier life.
    async fn unfinished_executions(&self, worker: WorkerId) -> Result<Vec<(Fence, Execution)>, StoreError>;

    /// Rows that are `scheduled` for this worker, or `canceling` without ever having started, oldest first: what a bus
    /// that forgot its messages has to be told again.
    async fn scheduled_executions(&self, worker: WorkerId) -> Result<Vec<ExecutionId>, StoreError>;

    /// Those of `executions` that this worker ran and that have ended, by id: whose logs an earlier life may have left.
    async fn ended_executions(
        &self,
        worker: WorkerId,
        executions: &[ExecutionId],
    ) -> Result<Vec<Execution>, StoreError>;

    /// The packs of the installation by ref, or the one of that ref, each with its actions by ref.
    async fn packs_with_actions(&self, pack_ref: Option<&str>) -> Result<Vec<(Pack, Vec<Action>)>, StoreError>;
}
