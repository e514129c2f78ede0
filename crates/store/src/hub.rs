//! What the hub needs: packs, events, enforcements, scheduling. Not used by agents.
//!
//! Everything here maps to columns of the platform's schema. Timestamps that callers hand back as guards
//! ([`ExecutionGuard::updated`]) must compare equal to the stored ones, so a store returns them exactly as it keeps them.

mod event;
mod execution;
mod pack;

use std::time::Duration;

use async_trait::async_trait;
use attune_model::rows::{Action, Execution, Pack, Rule, Sensor, Trigger, Worker};
use attune_model::status::ExecutionStatus;
use attune_model::{ActionId, ExecutionId, IdentityId, PackId, TriggerId, WorkerId};
use serde_json::Value;

use crate::{AgentStore, ArtifactStore, StoreError};

pub use event::{Decide, Enforced, EventSource, Intake, NewEnforcement, NewEvent, RuleTarget};
pub use execution::{
    Cancel, Candidate, ExecutionFilter, ExecutionGuard, ExecutionView, NewExecution, Orphan, Overdue,
    PlacementOverride, Schedulable,
};
pub use pack::{
    NewAction, NewPack, NewRule, NewRuntime, NewRuntimeVersion, NewSensor, NewTrigger, PackChanges, PackRemoval,
    RuleChange, Skipped,
};

/// A sensor, as far as its tokens are concerned.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TokenSubject {
    /// The refs of its triggers, sorted.
    pub trigger_refs: Vec<String>,
    /// Whose login is that of the sensor; none until [`HubStore::identity`] has made it.
    pub identity: Option<IdentityId>,
}

impl TokenSubject {
    /// The login of a sensor's identity (a fact of the platform).
    pub fn login(sensor_ref: &str) -> String {
        format!("sensor:{sensor_ref}")
    }
}

/// Packs, events, enforcements, scheduling.
#[async_trait]
pub trait HubStore: AgentStore + ArtifactStore {
    /// Makes the stored pack equal to `pack`: rows are found by ref and keep their ids, rows that are equal are not
    /// written (their `updated` stays), components that vanished are removed, refs are resolved to ids of any pack.
    ///
    /// An action or sensor whose runtime does not exist, a sensor with a trigger that does not exist or belongs to
    /// another sensor, and a rule whose trigger or action does not exist are skipped: they count as not in the pack.
    /// A ref that another pack owns is a [`StoreError::Conflict`]. Afterwards every rule of any pack whose trigger or
    /// action was missing and exists by ref now is linked to it.
    async fn upsert_pack(&self, pack: &NewPack) -> Result<PackChanges, StoreError>;

    /// Removes the pack and what it owns; executions and events stay. None when it does not exist.
    async fn delete_pack(&self, pack_ref: &str) -> Result<Option<PackRemoval>, StoreError>;

    /// All packs, by ref.
    async fn packs(&self) -> Result<Vec<Pack>, StoreError>;

    /// The pack.
    async fn pack(&self, pack_ref: &str) -> Result<Option<Pack>, StoreError>;

    /// The action.
    async fn action(&self, action_ref: &str) -> Result<Option<Action>, StoreError>;

    /// The sensor and its triggers, by ref.
    async fn sensor(&self, sensor_ref: &str) -> Result<Option<(Sensor, Vec<Trigger>)>, StoreError>;

    /// What a token for the sensor is made of. Asked for at every start of a sensor, hundreds at a time: one round trip.
    async fn token_subject(&self, sensor_ref: &str) -> Result<Option<TokenSubject>, StoreError>;

    /// The trigger.
    async fn trigger(&self, trigger_ref: &str) -> Result<Option<Trigger>, StoreError>;

    /// The rules of a trigger, disabled ones included, by row id.
    async fn trigger_rules(&self, trigger: TriggerId, page: PageRequest) -> Result<Page<Rule>, StoreError>;

    /// Takes an event in, as one unit: finds its trigger, stores the event when it is new, reads the rules it reaches,
    /// lets `decide` choose, and stores enforcements and `requested` executions.
    ///
    /// Reached are the enabled rules of the trigger in row order; none when the trigger is disabled. An event that is
    /// meant for one rule reaches only that one; a new event whose rule does not exist or has another trigger is stored
    /// without rule and reaches none.
    async fn take_event(&self, source: EventSource<'_>, decide: &Decide<'_>) -> Result<Intake, StoreError>;

    /// Identity 1, which executions without an owner belong to; made (login `system`) when it does not exist.
    async fn system_identity(&self) -> Result<IdentityId, StoreError>;

    /// The identity of that login; made when it does not exist.
    async fn identity(&self, login: &str) -> Result<IdentityId, StoreError>;

    /// Stores an execution as `requested`.
    async fn insert_execution(&self, execution: &NewExecution) -> Result<Execution, StoreError>;

    /// The execution.
    async fn execution(&self, id: ExecutionId) -> Result<Option<ExecutionView>, StoreError>;

    /// Executions, newest first.
    async fn executions(&self, filter: &ExecutionFilter, page: PageRequest) -> Result<Page<ExecutionView>, StoreError>;

    /// Takes a `requested` row, or a `scheduling` one that was not touched for `stale_after`, to `scheduling`. None when
    /// it is neither.
    async fn claim_scheduling(&self, id: ExecutionId, stale_after: Duration)
    -> Result<Option<Schedulable>, StoreError>;

    /// Rows that [`HubStore::claim_scheduling`] would take, least recently touched first.
    async fn unscheduled(&self, stale_after: Duration, limit: u32) -> Result<Vec<ExecutionId>, StoreError>;

    /// `scheduling` → `scheduled` with that worker. None when the guard does not hold any more.
    async fn assign_worker(&self, guard: &ExecutionGuard, worker: WorkerId) -> Result<Option<Execution>, StoreError>;

    /// `scheduling` → `requested`. False when the guard does not hold any more.
    async fn give_back(&self, guard: &ExecutionGuard) -> Result<bool, StoreError>;

    /// Writes a terminal status and a result. None when the guard does not hold any more.
    async fn end_execution(
        &self,
        guard: &ExecutionGuard,
        status: ExecutionStatus,
        result: &Value,
    ) -> Result<Option<Execution>, StoreError>;

    /// All action workers, by name.
    async fn action_workers(&self) -> Result<Vec<Candidate>, StoreError>;

    /// All workers of both roles, by name.
    async fn workers(&self, page: PageRequest) -> Result<Page<Worker>, StoreError>;

    /// All `scheduled` rows with their action, oldest first, from the first id above `after`: what a bus that forgot its
    /// messages has to be told again.
    async fn scheduled(
        &self,
        after: Option<ExecutionId>,
        limit: u32,
    ) -> Result<Vec<(Execution, Option<Action>)>, StoreError>;

    /// Begins a cancel, as one unit. `requested`, `scheduling` and `scheduled` become `cancelled` with `result`,
    /// `running` becomes `canceling`.
    async fn cancel_execution(&self, id: ExecutionId, result: &Value) -> Result<Cancel, StoreError>;

    /// `scheduled` rows that were not touched for `age`, oldest first.
    async fn overdue(&self, age: Duration, limit: u32) -> Result<Vec<Overdue>, StoreError>;

    /// `running` and `canceling` rows whose worker is missing, `inactive`, `error`, or silent for `silence`; by id.
    async fn orphans(&self, silence: Duration, limit: u32) -> Result<Vec<Orphan>, StoreError>;

    /// Sets workers of both roles that were silent for `silence` (or never gave a sign) to `inactive`; returns those
    /// that were something else before.
    async fn retire_silent_workers(&self, silence: Duration) -> Result<Vec<Worker>, StoreError>;

    /// Stores a key, replacing the one of that ref.
    async fn put_key(&self, key: &NewKey) -> Result<(), StoreError>;

    /// Whether storage answers.
    async fn ping(&self) -> Result<(), StoreError>;
}

/// Which page of a list, from 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PageRequest {
    /// From 1.
    pub page: u32,
    /// From 1.
    pub page_size: u32,
}

/// One page.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Page<T> {
    /// Its rows.
    pub items: Vec<T>,
    /// Rows of all pages.
    pub total: u64,
}

/// Whose key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum KeyOwner {
    /// Everybody's.
    System,
    /// The pack with this id.
    Pack(PackId),
    /// The action with this id.
    Action(ActionId),
}

/// A key to be stored under `ref`.
#[derive(Debug, Clone, PartialEq)]
pub struct NewKey {
    /// Unique, parts separated by dots.
    pub r#ref: String,
    /// Whose.
    pub owner: KeyOwner,
    /// Name under which actions see it; unique per owner.
    pub name: String,
    /// The encrypted value.
    pub encrypted_value: Value,
    /// Digest of the key it is encrypted with.
    pub encryption_key_hash: String,
}
