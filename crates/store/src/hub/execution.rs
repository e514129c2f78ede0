//! Executions from the request to the worker, and the guards of every step.

use std::time::Duration;

use attune_model::rows::{Action, Execution, Retention, Runtime, Worker};
use attune_model::status::ExecutionStatus;
use attune_model::{ActionId, ExecutionId, IdentityId};
use chrono::{DateTime, Utc};
use serde_json::Value;

use crate::SecretValue;

/// `worker_*` columns of `execution`: none inherits the action's, an empty value is no constraint.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct PlacementOverride {
    /// `worker_selector`.
    pub selector: Option<Value>,
    /// `worker_tolerations`.
    pub tolerations: Option<Value>,
    /// `worker_affinity`.
    pub affinity: Option<Value>,
}

/// An execution to be stored as `requested`.
#[derive(Debug, Clone, PartialEq)]
pub struct NewExecution {
    /// What runs.
    pub action: ActionId,
    /// Its ref.
    pub action_ref: String,
    /// Flat parameters, secrets replaced by the marker.
    pub config: Value,
    /// Encrypted parts of `config`.
    pub secrets: Vec<SecretValue>,
    /// Extra variables of the child.
    pub env_vars: Option<Value>,
    /// The execution that asks for it.
    pub parent: Option<ExecutionId>,
    /// On whose behalf.
    pub executor: IdentityId,
    /// Rights of its token.
    pub permission_set_refs: Vec<String>,
    /// Retention of its artifacts; none copies the action's.
    pub artifact_retention: Option<Retention>,
    /// Where it may run.
    pub placement: PlacementOverride,
}

/// An execution with where it came from.
#[derive(Debug, Clone, PartialEq)]
pub struct ExecutionView {
    /// The row.
    pub execution: Execution,
    /// Its enforcement's `rule_ref`.
    pub rule_ref: Option<String>,
    /// Its enforcement's `trigger_ref`.
    pub trigger_ref: Option<String>,
}

/// Which executions to list; an empty filter lists all.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ExecutionFilter {
    /// Any of these, or any at all when empty.
    pub statuses: Vec<ExecutionStatus>,
    /// Of this action.
    pub action_ref: Option<String>,
}

/// The state that a later write relies on: the row is changed only while both still hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ExecutionGuard {
    /// Which execution.
    pub execution: ExecutionId,
    /// Its status.
    pub status: ExecutionStatus,
    /// Its `updated`.
    pub updated: DateTime<Utc>,
}

impl From<&Execution> for ExecutionGuard {
    fn from(row: &Execution) -> Self {
        Self { execution: row.id, status: row.status, updated: row.updated }
    }
}

/// A row that is `scheduling` by the caller, with all that choosing a worker needs.
#[derive(Debug, Clone, PartialEq)]
pub struct Schedulable {
    /// The row after the claim.
    pub execution: Execution,
    /// Its own placement.
    pub placement: PlacementOverride,
    /// By `execution.action`, else by `action_ref`; none when it is gone.
    pub action: Option<Action>,
    /// The action's runtime.
    pub runtime: Option<Runtime>,
}

/// An action worker, as the scheduler sees it.
#[derive(Debug, Clone, PartialEq)]
pub struct Candidate {
    /// The row.
    pub worker: Worker,
    /// Age of its heartbeat by the store's clock; none without one, zero when it lies in the future.
    pub heartbeat_age: Option<Duration>,
    /// Its executions that are `scheduled`, `running` or `canceling`.
    pub load: u64,
}

/// What became of the wish to cancel.
#[derive(Debug, Clone, PartialEq)]
pub enum Cancel {
    /// It had not started and is `cancelled` now.
    Cancelled {
        /// The status before.
        before: ExecutionStatus,
        /// The row now.
        execution: Box<Execution>,
    },
    /// It was running and is `canceling` now; its worker is to be told.
    Canceling {
        /// The row now.
        execution: Box<Execution>,
    },
    /// It was `canceling` before.
    Already {
        /// The row.
        execution: Box<Execution>,
    },
    /// It had ended.
    Ended {
        /// The row.
        execution: Box<Execution>,
    },
    /// There is no such row.
    Unknown,
}

/// A `scheduled` row that its worker did not start.
#[derive(Debug, Clone, PartialEq)]
pub struct Overdue {
    /// The row.
    pub execution: Execution,
    /// Since its last change, by the store's clock.
    pub age: Duration,
}

/// A `running` or `canceling` row whose worker is gone, not active, or silent.
#[derive(Debug, Clone, PartialEq)]
pub struct Orphan {
    /// The row.
    pub execution: Execution,
    /// Its worker; none when that row is gone.
    pub worker: Option<Worker>,
    /// Age of its heartbeat by the store's clock.
    pub heartbeat_age: Option<Duration>,
}
