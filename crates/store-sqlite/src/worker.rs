//! Claiming, finishing and recovering executions.

use async_trait::async_trait;
use attune_model::rows::{Action, Execution, Pack};
use attune_model::status::ExecutionStatus;
use attune_model::{ExecutionId, WorkerId};
use attune_store::{
    Claim, ClaimedExecution, Fence, KeyRow, SecretValue, StoreError, WorkerStore, cancelled_result, cancelled_status,
};
use chrono::{DateTime, Utc};
use serde_json::Value;
use sqlx::sqlite::{SqliteConnection, SqliteRow};

use crate::columns::{Columns, id_list, json, micros};
use crate::error::{During, refused};
use crate::{SqliteStore, now, rows};

#[async_trait]
impl WorkerStore for SqliteStore {
    async fn claim_execution(
        &self,
        execution: ExecutionId,
        worker: WorkerId,
        scheduled_at: Option<DateTime<Utc>>,
    ) -> Result<Claim, StoreError> {
        let operation = format!("claim execution {execution} for worker {worker}");
        let mut unit = self.write(&operation).await?;
        let taken = take(&mut unit, execution, worker, scheduled_at);
        let claim = if let Some(row) = taken.await.during(|| operation.clone())? {
            let execution = rows::execution(&row)?;
            Claim::Claimed(Box::new(read_for_run(&mut unit, execution, worker, &operation).await?))
        } else if let Some(row) = cancel_unstarted(&mut unit, execution, worker).await.during(|| operation.clone())? {
            Claim::Cancelled(Box::new(rows::execution(&row)?))
        } else {
            let row = sqlx::query("SELECT id, status FROM execution WHERE id = ?1")
                .bind(execution.0)
                .fetch_optional(&mut *unit)
                .await
                .during(|| operation.clone())?;
            Claim::NotOurs { status: row.map(|row| Columns::new("execution", &row).word("status")).transpose()? }
        };
        unit.commit().await.during(|| operation)?;
        Ok(claim)
    }

    async fn finish_execution(
        &self,
        fence: &Fence,
        status: ExecutionStatus,
        result: &Value,
        secrets: &[SecretValue],
    ) -> Result<Option<ExecutionStatus>, StoreError> {
        let operation = format!("finish execution {} as {status}", fence.execution);
        if !status.is_terminal() {
            return Err(refused(operation, "this status is not an end"));
        }
        let mut unit = self.write(&operation).await?;
        let row = sqlx::query(
            r"
            SELECT id, status FROM execution
            WHERE id = ?1 AND worker = ?2 AND started_at = ?3 AND status IN ('running', 'canceling')
            ",
        )
        .bind(fence.execution.0)
        .bind(fence.worker.0)
        .bind(micros(fence.started_at))
        .fetch_optional(&mut *unit)
        .await
        .during(|| operation.clone())?;
        let Some(row) = row else { return Ok(None) };
        // A cancel that came first is kept.
        let end = match Columns::new("execution", &row).word("status")? {
            ExecutionStatus::Canceling => cancelled_status(status),
            _ => status,
        };
        let result = if end == status { json(result) } else { json(&cancelled_result(result)) };
        sqlx::query("UPDATE execution SET status = ?2, result = ?3, updated = max(?4, updated + 1) WHERE id = ?1")
            .bind(fence.execution.0)
            .bind(end.as_str())
            .bind(result)
            .bind(micros(now()))
            .execute(&mut *unit)
            .await
            .during(|| operation.clone())?;
        for secret in secrets {
            put_secret(&mut unit, "execution_result", fence.execution.0, secret).await.during(|| operation.clone())?;
        }
        unit.commit().await.during(|| operation)?;
        Ok(Some(end))
    }

    async fn execution_status(&self, execution: ExecutionId) -> Result<Option<ExecutionStatus>, StoreError> {
        let row = sqlx::query("SELECT id, status FROM execution WHERE id = ?1")
            .bind(execution.0)
            .fetch_optional(&self.readers)
            .await
            .during(|| format!("read the status of execution {execution}"))?;
        row.map(|row| Columns::new("execution", &row).word("status")).transpose()
    }

    async fn unfinished_executions(&self, worker: WorkerId) -> Result<Vec<(Fence, Execution)>, StoreError> {
        let found = sqlx::query(
            r"
            SELECT * FROM execution
            WHERE worker = ?1 AND status IN ('running', 'canceling') AND started_at IS NOT NULL
            ORDER BY id
            ",
        )
        .bind(worker.0)
        .fetch_all(&self.readers)
        .await
        .during(|| format!("read the unfinished executions of worker {worker}"))?;
        found
            .iter()
            .map(|row| {
                let started_at = Columns::new("execution", row).time("started_at")?;
                let execution = rows::execution(row)?;
                Ok((Fence { execution: execution.id, worker, started_at }, execution))
            })
            .collect()
    }

    async fn scheduled_executions(&self, worker: WorkerId) -> Result<Vec<ExecutionId>, StoreError> {
        let found: Vec<i64> = sqlx::query_scalar(
            r"
            SELECT id FROM execution
            WHERE worker = ?1 AND (status = 'scheduled' OR (status = 'canceling' AND started_at IS NULL))
            ORDER BY created, id
            ",
        )
        .bind(worker.0)
        .fetch_all(&self.readers)
        .await
        .during(|| format!("read the scheduled executions of worker {worker}"))?;
        Ok(found.into_iter().map(ExecutionId).collect())
    }

    async fn ended_executions(
        &self,
        worker: WorkerId,
        executions: &[ExecutionId],
    ) -> Result<Vec<Execution>, StoreError> {
        let found = sqlx::query(
            r"
            SELECT * FROM execution
            WHERE worker = ?1 AND id IN (SELECT value FROM json_each(?2))
              AND status IN ('completed', 'failed', 'cancelled', 'timeout', 'abandoned')
            ORDER BY id
            ",
        )
        .bind(worker.0)
        .bind(id_list(executions))
        .fetch_all(&self.readers)
        .await
        .during(|| format!("read the ended executions of worker {worker}"))?;
        found.iter().map(rows::execution).collect()
    }

    async fn packs_with_actions(&self, pack_ref: Option<&str>) -> Result<Vec<(Pack, Vec<Action>)>, StoreError> {
        let operation = || "read packs and their actions".to_owned();
        let mut unit = self.read(&operation()).await?;
        let packs = sqlx::query("SELECT * FROM pack WHERE ?1 IS NULL OR ref = ?1 ORDER BY ref")
            .bind(pack_ref)
            .fetch_all(&mut *unit)
            .await
            .during(operation)?;
        let mut found = Vec::with_capacity(packs.len());
        for row in &packs {
            let pack = rows::pack(row)?;
            let actions = sqlx::query("SELECT * FROM action WHERE pack = ?1 ORDER BY ref")
                .bind(pack.id.0)
                .fetch_all(&mut *unit)
                .await
                .during(operation)?;
            found.push((pack, actions.iter().map(rows::action).collect::<Result<_, _>>()?));
        }
        Ok(found)
    }
}

/// `started_at` is the fence, so it differs from that of any former claim even when the clock was set back.
async fn take(
    unit: &mut SqliteConnection,
    execution: ExecutionId,
    worker: WorkerId,
    scheduled_at: Option<DateTime<Utc>>,
) -> Result<Option<SqliteRow>, sqlx::Error> {
    sqlx::query(
        r"
        UPDATE execution SET
            status = 'running',
            started_at = max(?3, coalesce(started_at, 0) + 1),
            updated = max(?3, updated + 1)
        WHERE id = ?1 AND worker = ?2 AND status = 'scheduled' AND (?4 IS NULL OR updated = ?4)
        RETURNING *
        ",
    )
    .bind(execution.0)
    .bind(worker.0)
    .bind(micros(now()))
    .bind(scheduled_at.map(micros))
    .fetch_optional(unit)
    .await
}

async fn cancel_unstarted(
    unit: &mut SqliteConnection,
    execution: ExecutionId,
    worker: WorkerId,
) -> Result<Option<SqliteRow>, sqlx::Error> {
    sqlx::query(
        r"
        UPDATE execution SET status = 'cancelled', result = ?4, updated = max(?3, updated + 1)
        WHERE id = ?1 AND worker = ?2 AND status = 'canceling' AND started_at IS NULL
        RETURNING *
        ",
    )
    .bind(execution.0)
    .bind(worker.0)
    .bind(micros(now()))
    .bind(json(&cancelled_result(&Value::Null)))
    .fetch_optional(unit)
    .await
}

async fn read_for_run(
    unit: &mut SqliteConnection,
    execution: Execution,
    worker: WorkerId,
    operation: &str,
) -> Result<ClaimedExecution, StoreError> {
    let during = || operation.to_owned();
    let started_at = execution.started_at.ok_or_else(|| refused(during(), "the claim left started_at empty"))?;
    let action = action_of(unit, &execution).await.during(during)?.map(|row| rows::action(&row)).transpose()?;
    let mut claimed = ClaimedExecution {
        fence: Fence { execution: execution.id, worker, started_at },
        pack: None,
        runtime: None,
        runtime_versions: Vec::new(),
        enforcement: enforcement_of(unit, &execution).await.during(during)?,
        parent_action_ref: parent_action_of(unit, &execution).await.during(during)?,
        keys: Vec::new(),
        secret_values: secrets_of(unit, &execution, operation).await?,
        execution,
        action: None,
    };
    if let Some(action) = action {
        let row = sqlx::query("SELECT * FROM pack WHERE id = ?1")
            .bind(action.pack.0)
            .fetch_optional(&mut *unit)
            .await
            .during(during)?;
        claimed.pack = row.map(|row| rows::pack(&row)).transpose()?;
        if let Some(runtime) = action.runtime {
            let row = sqlx::query("SELECT * FROM runtime WHERE id = ?1")
                .bind(runtime.0)
                .fetch_optional(&mut *unit)
                .await
                .during(during)?;
            claimed.runtime = row.map(|row| rows::runtime(&row)).transpose()?;
            let versions = sqlx::query("SELECT * FROM runtime_version WHERE runtime = ?1 ORDER BY id")
                .bind(runtime.0)
                .fetch_all(&mut *unit)
                .await
                .during(during)?;
            claimed.runtime_versions = versions.iter().map(rows::runtime_version).collect::<Result<_, _>>()?;
        }
        claimed.action = Some(action);
    }
    claimed.keys = keys_for(unit, &claimed, operation).await?;
    Ok(claimed)
}

/// By id, else by ref: an action that was removed and came back has another id.
pub(crate) async fn action_of(
    unit: &mut SqliteConnection,
    execution: &Execution,
) -> Result<Option<SqliteRow>, sqlx::Error> {
    sqlx::query("SELECT * FROM action WHERE id = ?1 OR (?1 IS NULL AND ref = ?2)")
        .bind(execution.action.map(|id| id.0))
        .bind(&execution.action_ref)
        .fetch_optional(unit)
        .await
}

async fn enforcement_of(
    unit: &mut SqliteConnection,
    execution: &Execution,
) -> Result<Option<(String, String)>, sqlx::Error> {
    let Some(enforcement) = execution.enforcement else {
        return Ok(None);
    };
    sqlx::query_as("SELECT rule_ref, trigger_ref FROM enforcement WHERE id = ?1")
        .bind(enforcement.0)
        .fetch_optional(unit)
        .await
}

async fn parent_action_of(unit: &mut SqliteConnection, execution: &Execution) -> Result<Option<String>, sqlx::Error> {
    let Some(parent) = execution.parent else {
        return Ok(None);
    };
    sqlx::query_scalar("SELECT action_ref FROM execution WHERE id = ?1").bind(parent.0).fetch_optional(unit).await
}

/// System keys, then the pack's, then the action's, each in row order: later ones override earlier ones.
async fn keys_for(
    unit: &mut SqliteConnection,
    claimed: &ClaimedExecution,
    operation: &str,
) -> Result<Vec<KeyRow>, StoreError> {
    let found = sqlx::query(
        r"
        SELECT id, name, owner_type, encrypted, encryption_key_hash, value, 1 AS rank FROM key WHERE owner_type = 'system'
        UNION ALL
        SELECT id, name, owner_type, encrypted, encryption_key_hash, value, 2 FROM key WHERE owner_pack = ?1
        UNION ALL
        SELECT id, name, owner_type, encrypted, encryption_key_hash, value, 3 FROM key WHERE owner_action = ?2
        ORDER BY rank, id
        ",
    )
    .bind(claimed.action.as_ref().map(|action| action.pack.0))
    .bind(claimed.action.as_ref().map(|action| action.id.0))
    .fetch_all(unit)
    .await
    .during(|| operation.to_owned())?;
    found
        .iter()
        .map(|row| {
            let of = Columns::new("key", row);
            Ok(KeyRow {
                name: of.get("name")?,
                owner_type: of.word("owner_type")?,
                encrypted: of.get("encrypted")?,
                encryption_key_hash: of.get("encryption_key_hash")?,
                value: of.json("value")?,
            })
        })
        .collect()
}

async fn secrets_of(
    unit: &mut SqliteConnection,
    execution: &Execution,
    operation: &str,
) -> Result<Vec<SecretValue>, StoreError> {
    let found = sqlx::query(
        "SELECT * FROM execution_secret_value WHERE entity_type = 'execution_config' AND entity_id = ?1 ORDER BY id",
    )
    .bind(execution.id.0)
    .fetch_all(unit)
    .await
    .during(|| operation.to_owned())?;
    found
        .iter()
        .map(|row| {
            let of = Columns::new("execution_secret_value", row);
            Ok(SecretValue {
                json_path: of.get("json_path")?,
                source_kind: of.get("source_kind")?,
                source_ref: of.get("source_ref")?,
                encrypted_value: of.json("encrypted_value")?,
                encryption_key_hash: of.get("encryption_key_hash")?,
            })
        })
        .collect()
}

/// Stores one encrypted value of `entity`, in place of an older one.
pub(crate) async fn put_secret(
    unit: &mut SqliteConnection,
    entity_type: &str,
    entity: i64,
    secret: &SecretValue,
) -> Result<(), sqlx::Error> {
    sqlx::query(
        r"
        INSERT INTO execution_secret_value (entity_type, entity_id, json_path, source_kind, source_ref, encrypted_value,
                                            encryption_key_hash, created)
        VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)
        ON CONFLICT (entity_type, entity_id, json_path) DO UPDATE SET
            source_kind = excluded.source_kind,
            source_ref = excluded.source_ref,
            encrypted_value = excluded.encrypted_value,
            encryption_key_hash = excluded.encryption_key_hash
        ",
    )
    .bind(entity_type)
    .bind(entity)
    .bind(&secret.json_path)
    .bind(&secret.source_kind)
    .bind(&secret.source_ref)
    .bind(json(&secret.encrypted_value))
    .bind(&secret.encryption_key_hash)
    .bind(micros(now()))
    .execute(unit)
    .await
    .map(drop)
}
