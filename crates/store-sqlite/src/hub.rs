//! What the hub needs: packs, events, scheduling, recovery. Each part has a module of its own; here are the look-ups.

mod components;
mod event;
mod execution;
mod list;
mod pack;
mod recovery;
mod sensors;
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
use chrono::{DateTime, TimeDelta, Utc};
use serde_json::Value;
use sqlx::sqlite::{SqliteConnection, SqliteRow};

use crate::columns::{Columns, json, micros};
use crate::error::During;
use crate::{SqliteStore, now, rows, written};

#[async_trait]
impl HubStore for SqliteStore {
    async fn upsert_pack(&self, pack: &NewPack) -> Result<PackChanges, StoreError> {
        let operation = format!("load pack {}", pack.r#ref);
        let mut unit = self.write(&operation).await?;
        let changes = pack::upsert(&mut unit, pack, &operation).await?;
        unit.commit().await.during(|| operation)?;
        Ok(changes)
    }

    async fn delete_pack(&self, pack_ref: &str) -> Result<Option<PackRemoval>, StoreError> {
        let operation = format!("remove pack {pack_ref}");
        let mut unit = self.write(&operation).await?;
        let removal = pack::delete(&mut unit, pack_ref, &operation).await?;
        unit.commit().await.during(|| operation)?;
        Ok(removal)
    }

    async fn packs(&self) -> Result<Vec<Pack>, StoreError> {
        let found = sqlx::query("SELECT * FROM pack ORDER BY ref")
            .fetch_all(&self.readers)
            .await
            .during(|| "read the packs".to_owned())?;
        found.iter().map(rows::pack).collect()
    }

    async fn pack(&self, pack_ref: &str) -> Result<Option<Pack>, StoreError> {
        self.by_ref("SELECT * FROM pack WHERE ref = ?1", pack_ref, rows::pack).await
    }

    async fn action(&self, action_ref: &str) -> Result<Option<Action>, StoreError> {
        self.by_ref("SELECT * FROM action WHERE ref = ?1", action_ref, rows::action).await
    }

    async fn sensor(&self, sensor_ref: &str) -> Result<Option<(Sensor, Vec<Trigger>)>, StoreError> {
        let mut unit = self.read("read a sensor").await?;
        let operation = || format!("read sensor {sensor_ref}");
        let row = sqlx::query("SELECT * FROM sensor WHERE ref = ?1")
            .bind(sensor_ref)
            .fetch_optional(&mut *unit)
            .await
            .during(operation)?;
        let Some(row) = row else { return Ok(None) };
        let sensor = rows::sensor(&row)?;
        let triggers = sqlx::query(r#"SELECT * FROM "trigger" WHERE sensor = ?1 ORDER BY ref"#)
            .bind(sensor.id.0)
            .fetch_all(&mut *unit)
            .await
            .during(operation)?;
        let triggers = triggers.iter().map(rows::trigger).collect::<Result<_, _>>()?;
        unit.commit().await.during(operation)?;
        Ok(Some((sensor, triggers)))
    }

    async fn token_subject(&self, sensor_ref: &str) -> Result<Option<TokenSubject>, StoreError> {
        let Some((_, triggers)) = self.sensor(sensor_ref).await? else { return Ok(None) };
        let operation = || format!("read the identity of sensor {sensor_ref}");
        let found = sqlx::query("SELECT id FROM identity WHERE login = ?1")
            .bind(TokenSubject::login(sensor_ref))
            .fetch_optional(&self.readers)
            .await
            .during(operation)?;
        let identity = found.map(|row| Columns::new("identity", &row).get("id").map(IdentityId)).transpose()?;
        Ok(Some(TokenSubject { trigger_refs: triggers.into_iter().map(|trigger| trigger.r#ref).collect(), identity }))
    }

    async fn trigger(&self, trigger_ref: &str) -> Result<Option<Trigger>, StoreError> {
        self.by_ref(r#"SELECT * FROM "trigger" WHERE ref = ?1"#, trigger_ref, rows::trigger).await
    }

    async fn trigger_rules(&self, trigger: TriggerId, page: PageRequest) -> Result<Page<Rule>, StoreError> {
        let mut unit = self.read("list rules").await?;
        let rules = list::trigger_rules(&mut unit, trigger, page).await?;
        unit.commit().await.during(|| "list rules".to_owned())?;
        Ok(rules)
    }

    async fn take_event(&self, source: EventSource<'_>, decide: &Decide<'_>) -> Result<Intake, StoreError> {
        let operation = match &source {
            EventSource::New(event) => format!("store an event of trigger {}", event.trigger_ref),
            EventSource::Stored(event) => format!("take event {event} in"),
        };
        let mut unit = self.write(&operation).await?;
        let intake = event::take(&mut unit, source, decide, &operation).await?;
        unit.commit().await.during(|| operation)?;
        Ok(intake)
    }

    async fn system_identity(&self) -> Result<IdentityId, StoreError> {
        sqlx::query("INSERT INTO identity (id, login, created, updated) VALUES (1, 'system', ?1, ?1) ON CONFLICT (id) DO NOTHING")
            .bind(micros(now()))
            .execute(&self.writer)
            .await
            .during(|| "make identity 1".to_owned())?;
        Ok(IdentityId(1))
    }

    async fn identity(&self, login: &str) -> Result<IdentityId, StoreError> {
        // The update changes nothing; without it a row that exists is not returned.
        let query = sqlx::query(
            r"
            INSERT INTO identity (login, created, updated) VALUES (?1, ?2, ?2)
            ON CONFLICT (login) DO UPDATE SET login = login
            RETURNING id
            ",
        )
        .bind(login)
        .bind(micros(now()));
        let row = written(query, &self.writer)
            .await
            .and_then(|row| row.ok_or(sqlx::Error::RowNotFound))
            .during(|| format!("find or make identity {login}"))?;
        Columns::new("identity", &row).get("id").map(IdentityId)
    }

    async fn insert_execution(&self, execution: &NewExecution) -> Result<Execution, StoreError> {
        let operation = format!("store an execution of {}", execution.action_ref);
        let mut unit = self.write(&operation).await?;
        let row = execution::insert(&mut unit, execution, None, &operation).await?;
        unit.commit().await.during(|| operation)?;
        Ok(row)
    }

    async fn execution(&self, id: ExecutionId) -> Result<Option<ExecutionView>, StoreError> {
        list::execution(&self.readers, id).await
    }

    async fn executions(&self, filter: &ExecutionFilter, page: PageRequest) -> Result<Page<ExecutionView>, StoreError> {
        let mut unit = self.read("list executions").await?;
        let executions = list::executions(&mut unit, filter, page).await?;
        unit.commit().await.during(|| "list executions".to_owned())?;
        Ok(executions)
    }

    async fn claim_scheduling(
        &self,
        id: ExecutionId,
        stale_after: Duration,
    ) -> Result<Option<Schedulable>, StoreError> {
        let operation = format!("claim execution {id} for scheduling");
        let mut unit = self.write(&operation).await?;
        let claimed = execution::claim_scheduling(&mut unit, id, stale_after, &operation).await?;
        unit.commit().await.during(|| operation)?;
        Ok(claimed)
    }

    async fn unscheduled(&self, stale_after: Duration, limit: u32) -> Result<Vec<ExecutionId>, StoreError> {
        recovery::unscheduled(&self.readers, stale_after, limit).await
    }

    async fn assign_worker(&self, guard: &ExecutionGuard, worker: WorkerId) -> Result<Option<Execution>, StoreError> {
        execution::assign_worker(&self.writer, guard, worker).await
    }

    async fn give_back(&self, guard: &ExecutionGuard) -> Result<bool, StoreError> {
        execution::give_back(&self.writer, guard).await
    }

    async fn end_execution(
        &self,
        guard: &ExecutionGuard,
        status: ExecutionStatus,
        result: &Value,
    ) -> Result<Option<Execution>, StoreError> {
        execution::end(&self.writer, guard, status, result).await
    }

    async fn action_workers(&self) -> Result<Vec<Candidate>, StoreError> {
        list::action_workers(&self.readers).await
    }

    async fn workers(&self, page: PageRequest) -> Result<Page<Worker>, StoreError> {
        let mut unit = self.read("list workers").await?;
        let workers = list::workers(&mut unit, page).await?;
        unit.commit().await.during(|| "list workers".to_owned())?;
        Ok(workers)
    }

    async fn scheduled(
        &self,
        after: Option<ExecutionId>,
        limit: u32,
    ) -> Result<Vec<(Execution, Option<Action>)>, StoreError> {
        let mut unit = self.read("read scheduled executions").await?;
        let found = recovery::scheduled(&mut unit, after, limit).await?;
        unit.commit().await.during(|| "read scheduled executions".to_owned())?;
        Ok(found)
    }

    async fn cancel_execution(&self, id: ExecutionId, result: &Value) -> Result<Cancel, StoreError> {
        let operation = format!("cancel execution {id}");
        let mut unit = self.write(&operation).await?;
        let cancel = execution::cancel(&mut unit, id, result, &operation).await?;
        unit.commit().await.during(|| operation)?;
        Ok(cancel)
    }

    async fn overdue(&self, age: Duration, limit: u32) -> Result<Vec<Overdue>, StoreError> {
        recovery::overdue(&self.readers, age, limit).await
    }

    async fn orphans(&self, silence: Duration, limit: u32) -> Result<Vec<Orphan>, StoreError> {
        let mut unit = self.read("look for orphaned executions").await?;
        let found = recovery::orphans(&mut unit, silence, limit).await?;
        unit.commit().await.during(|| "look for orphaned executions".to_owned())?;
        Ok(found)
    }

    async fn retire_silent_workers(&self, silence: Duration) -> Result<Vec<Worker>, StoreError> {
        recovery::retire_silent_workers(&self.writer, silence).await
    }

    async fn put_key(&self, key: &NewKey) -> Result<(), StoreError> {
        let (kind, pack, action) = match key.owner {
            KeyOwner::System => ("system", None, None),
            KeyOwner::Pack(pack) => ("pack", Some(pack.0), None),
            KeyOwner::Action(action) => ("action", None, Some(action.0)),
        };
        sqlx::query(
            r"
            INSERT INTO key (ref, owner_type, owner_pack, owner_pack_ref, owner_action, owner_action_ref, name, encrypted,
                             encryption_key_hash, value, created, updated)
            VALUES (?1, ?2, ?3, (SELECT ref FROM pack WHERE id = ?3), ?4, (SELECT ref FROM action WHERE id = ?4), ?5, 1,
                    ?6, ?7, ?8, ?8)
            ON CONFLICT (ref) DO UPDATE SET
                owner_type = excluded.owner_type, owner_identity = NULL, owner_sensor = NULL, owner_sensor_ref = NULL,
                owner_pack = excluded.owner_pack, owner_pack_ref = excluded.owner_pack_ref,
                owner_action = excluded.owner_action, owner_action_ref = excluded.owner_action_ref,
                name = excluded.name, encrypted = 1, encryption_key_hash = excluded.encryption_key_hash,
                value = excluded.value, updated = excluded.updated
            ",
        )
        .bind(&key.r#ref)
        .bind(kind)
        .bind(pack)
        .bind(action)
        .bind(&key.name)
        .bind(&key.encryption_key_hash)
        .bind(json(&key.encrypted_value))
        .bind(micros(now()))
        .execute(&self.writer)
        .await
        .during(|| format!("store key {}", key.r#ref))
        .map(drop)
    }

    async fn ping(&self) -> Result<(), StoreError> {
        sqlx::query("SELECT 1").execute(&self.readers).await.during(|| "reach the database".to_owned()).map(drop)
    }
}

impl SqliteStore {
    async fn by_ref<T>(
        &self,
        sql: &'static str,
        r#ref: &str,
        row: fn(&SqliteRow) -> Result<T, StoreError>,
    ) -> Result<Option<T>, StoreError> {
        let found =
            sqlx::query(sql).bind(r#ref).fetch_optional(&self.readers).await.during(|| format!("look up {ref}"))?;
        found.map(|found| row(&found)).transpose()
    }
}

/// The moment that lies `age` before now; what was last touched then or earlier is that old.
fn before(age: Duration) -> i64 {
    let then = TimeDelta::from_std(age).ok().and_then(|age| now().checked_sub_signed(age));
    micros(then.unwrap_or(DateTime::<Utc>::MIN_UTC))
}

/// How old something is that was touched `then`; the future counts as now.
fn age(then: DateTime<Utc>, now: DateTime<Utc>) -> Duration {
    (now - then).to_std().unwrap_or_default()
}

/// All rules, by ref.
async fn all_rules(unit: &mut SqliteConnection, operation: &str) -> Result<Vec<Rule>, StoreError> {
    let found = sqlx::query("SELECT * FROM rule ORDER BY ref").fetch_all(unit).await.during(|| operation.to_owned())?;
    found.iter().map(rows::rule).collect()
}
