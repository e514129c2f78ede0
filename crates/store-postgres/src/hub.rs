//! What the hub needs: packs, events, scheduling, recovery. Each part has a module of its own; here are the look-ups.

mod components;
mod event;
mod execution;
mod list;
mod pack;
mod recovery;
mod sensors;
mod token;
mod upsert;

use std::time::Duration;

use async_trait::async_trait;
use attune_model::rows::{Action, Execution, Pack, Rule, Sensor, Trigger, Worker};
use attune_model::status::ExecutionStatus;
use attune_model::{ExecutionId, IdentityId, TriggerId, WorkerId};
use attune_store::{
    Cancel, Candidate, Decide, EventSource, ExecutionFilter, ExecutionGuard, ExecutionView, HubStore, Intake, KeyOwner,
    NewExecution, NewKey, NewPack, Orphan, Overdue, PackChanges, PackRemoval, Page, PageRequest, Schedulable,
    StoreError, TokenSubject,
};
use serde_json::Value;
use sqlx::Row as _;

use crate::columns::{JsonRow, json};
use crate::error::During as _;
use crate::pool::Unit;
use crate::{PostgresStore, rows};
pub(crate) use token::{TokenSubjects, token_subjects};

#[async_trait]
impl HubStore for PostgresStore {
    async fn upsert_pack(&self, pack: &NewPack) -> Result<PackChanges, StoreError> {
        let operation = format!("load pack {}", pack.r#ref);
        let mut unit = self.write(&operation).await?;
        let changes = pack::upsert(&mut unit, pack, &operation).await;
        unit.end(changes, &operation).await
    }

    async fn delete_pack(&self, pack_ref: &str) -> Result<Option<PackRemoval>, StoreError> {
        let operation = format!("remove pack {pack_ref}");
        let mut unit = self.write(&operation).await?;
        let removal = pack::delete(&mut unit, pack_ref, &operation).await;
        unit.end(removal, &operation).await
    }

    async fn packs(&self) -> Result<Vec<Pack>, StoreError> {
        let query = sqlx::query(r#"SELECT to_json(pack.*) FROM pack ORDER BY ref COLLATE "C""#);
        self.rows(query, rows::pack, || "read the packs".to_owned()).await
    }

    async fn pack(&self, pack_ref: &str) -> Result<Option<Pack>, StoreError> {
        self.by_ref("SELECT to_json(pack.*) FROM pack WHERE ref = $1", pack_ref, rows::pack).await
    }

    async fn action(&self, action_ref: &str) -> Result<Option<Action>, StoreError> {
        self.by_ref("SELECT to_json(action.*) FROM action WHERE ref = $1", action_ref, rows::action).await
    }

    async fn sensor(&self, sensor_ref: &str) -> Result<Option<(Sensor, Vec<Trigger>)>, StoreError> {
        list::sensor(self, sensor_ref).await
    }

    async fn token_subject(&self, sensor_ref: &str) -> Result<Option<TokenSubject>, StoreError> {
        token::subject(self, sensor_ref).await
    }

    async fn trigger(&self, trigger_ref: &str) -> Result<Option<Trigger>, StoreError> {
        self.by_ref(r#"SELECT to_json("trigger".*) FROM "trigger" WHERE ref = $1"#, trigger_ref, rows::trigger).await
    }

    async fn trigger_rules(&self, trigger: TriggerId, page: PageRequest) -> Result<Page<Rule>, StoreError> {
        let mut unit = self.read("list rules").await?;
        let rules = list::trigger_rules(&mut unit, trigger, page).await;
        unit.end(rules, "list rules").await
    }

    async fn take_event(&self, source: EventSource<'_>, decide: &Decide<'_>) -> Result<Intake, StoreError> {
        let operation = match &source {
            EventSource::New(event) => format!("store an event of trigger {}", event.trigger_ref),
            EventSource::Stored(event) => format!("take event {event} in"),
        };
        let mut unit = self.write(&operation).await?;
        let intake = event::take(&mut unit, source, decide, &operation).await;
        unit.end(intake, &operation).await
    }

    async fn system_identity(&self) -> Result<IdentityId, StoreError> {
        // The sequence has to know of an id that it did not give.
        let query = sqlx::query(
            r"
            WITH made AS (
                INSERT INTO identity (id, login) VALUES (1, 'system') ON CONFLICT (id) DO NOTHING RETURNING id
            )
            SELECT setval(pg_get_serial_sequence('identity', 'id'),
                          greatest(made.id, (SELECT max(id) FROM identity))) FROM made
            ",
        );
        self.pool.execute(query).await.during(|| "make identity 1".to_owned())?;
        Ok(IdentityId(1))
    }

    async fn identity(&self, login: &str) -> Result<IdentityId, StoreError> {
        let operation = || format!("find or make identity {login}");
        // As a rule it exists, and nothing is written.
        let found = self.pool.optional(sqlx::query("SELECT id FROM identity WHERE login = $1").bind(login)).await;
        if let Some(row) = found.during(operation)? {
            return row.try_get(0).during(operation).map(IdentityId);
        }
        // The update changes nothing; without it a row that was made meanwhile is not returned.
        let query = sqlx::query(
            r"
            INSERT INTO identity (login) VALUES ($1)
            ON CONFLICT (login) DO UPDATE SET login = excluded.login
            RETURNING id
            ",
        )
        .bind(login);
        let row = self.pool.one(query).await;
        row.and_then(|row| row.try_get(0)).during(operation).map(IdentityId)
    }

    async fn insert_execution(&self, execution: &NewExecution) -> Result<Execution, StoreError> {
        let operation = format!("store an execution of {}", execution.action_ref);
        let mut unit = self.write(&operation).await?;
        let row = execution::insert(&mut unit, execution, None, &operation).await;
        unit.end(row, &operation).await
    }

    async fn execution(&self, id: ExecutionId) -> Result<Option<ExecutionView>, StoreError> {
        list::execution(self, id).await
    }

    async fn executions(&self, filter: &ExecutionFilter, page: PageRequest) -> Result<Page<ExecutionView>, StoreError> {
        let mut unit = self.read("list executions").await?;
        let executions = list::executions(&mut unit, filter, page).await;
        unit.end(executions, "list executions").await
    }

    async fn claim_scheduling(
        &self,
        id: ExecutionId,
        stale_after: Duration,
    ) -> Result<Option<Schedulable>, StoreError> {
        execution::claim_scheduling(self, id, stale_after).await
    }

    async fn unscheduled(&self, stale_after: Duration, limit: u32) -> Result<Vec<ExecutionId>, StoreError> {
        recovery::unscheduled(self, stale_after, limit).await
    }

    async fn assign_worker(&self, guard: &ExecutionGuard, worker: WorkerId) -> Result<Option<Execution>, StoreError> {
        execution::assign_worker(self, guard, worker).await
    }

    async fn give_back(&self, guard: &ExecutionGuard) -> Result<bool, StoreError> {
        execution::give_back(self, guard).await
    }

    async fn end_execution(
        &self,
        guard: &ExecutionGuard,
        status: ExecutionStatus,
        result: &Value,
    ) -> Result<Option<Execution>, StoreError> {
        execution::end(self, guard, status, result).await
    }

    async fn action_workers(&self) -> Result<Vec<Candidate>, StoreError> {
        list::action_workers(self).await
    }

    async fn workers(&self, page: PageRequest) -> Result<Page<Worker>, StoreError> {
        let mut unit = self.read("list workers").await?;
        let workers = list::workers(&mut unit, page).await;
        unit.end(workers, "list workers").await
    }

    async fn scheduled(
        &self,
        after: Option<ExecutionId>,
        limit: u32,
    ) -> Result<Vec<(Execution, Option<Action>)>, StoreError> {
        recovery::scheduled(self, after, limit).await
    }

    async fn cancel_execution(&self, id: ExecutionId, result: &Value) -> Result<Cancel, StoreError> {
        execution::cancel(self, id, result).await
    }

    async fn overdue(&self, age: Duration, limit: u32) -> Result<Vec<Overdue>, StoreError> {
        recovery::overdue(self, age, limit).await
    }

    async fn orphans(&self, silence: Duration, limit: u32) -> Result<Vec<Orphan>, StoreError> {
        recovery::orphans(self, silence, limit).await
    }

    async fn retire_silent_workers(&self, silence: Duration) -> Result<Vec<Worker>, StoreError> {
        recovery::retire_silent_workers(self, silence).await
    }

    async fn put_key(&self, key: &NewKey) -> Result<(), StoreError> {
        let (kind, pack, action) = match key.owner {
            KeyOwner::System => ("system", None, None),
            KeyOwner::Pack(pack) => ("pack", Some(pack.0), None),
            KeyOwner::Action(action) => ("action", None, Some(action.0)),
        };
        let query = sqlx::query(
            r"
            INSERT INTO key (ref, owner_type, owner_pack, owner_pack_ref, owner_action, owner_action_ref, name, encrypted,
                             encryption_key_hash, value)
            VALUES ($1, $2::owner_type_enum, $3, (SELECT ref FROM pack WHERE id = $3), $4,
                    (SELECT ref FROM action WHERE id = $4), $5, true, $6, $7::jsonb)
            ON CONFLICT (ref) DO UPDATE SET
                owner_type = excluded.owner_type, owner_identity = NULL, owner_sensor = NULL, owner_sensor_ref = NULL,
                owner_pack = excluded.owner_pack, owner_pack_ref = excluded.owner_pack_ref,
                owner_action = excluded.owner_action, owner_action_ref = excluded.owner_action_ref,
                name = excluded.name, encrypted = true, encryption_key_hash = excluded.encryption_key_hash,
                value = excluded.value
            ",
        )
        .bind(&key.r#ref)
        .bind(kind)
        .bind(pack)
        .bind(action)
        .bind(&key.name)
        .bind(&key.encryption_key_hash)
        .bind(json(&key.encrypted_value));
        self.pool.execute(query).await.during(|| format!("store key {}", key.r#ref)).map(drop)
    }

    async fn ping(&self) -> Result<(), StoreError> {
        self.pool.execute(sqlx::query("SELECT 1")).await.during(|| "reach the database".to_owned()).map(drop)
    }
}

impl PostgresStore {
    async fn by_ref<T>(
        &self,
        sql: &'static str,
        r#ref: &str,
        row: fn(JsonRow<'_>) -> Result<T, StoreError>,
    ) -> Result<Option<T>, StoreError> {
        self.first(sqlx::query(sql).bind(r#ref), row, || format!("look up {ref}")).await
    }
}

/// All rules, by ref.
async fn all_rules(unit: &mut Unit, operation: &str) -> Result<Vec<Rule>, StoreError> {
    let query = sqlx::query(r#"SELECT to_json(rule.*) FROM rule ORDER BY ref COLLATE "C""#);
    unit.rows(query, rows::rule, || operation.to_owned()).await
}
