//! Claiming, finishing and recovering executions.
//!
//! Claim and finish are one statement each, so each is one round trip and none leaves anything half done. What is claimed or
//! ends at the same time shares that statement.

use std::collections::BTreeMap;

use async_trait::async_trait;
use attune_model::rows::{Action, Execution, Pack};
use attune_model::status::ExecutionStatus;
use attune_model::{ExecutionId, WorkerId};
use attune_store::{
    Claim, ClaimedExecution, Fence, KeyRow, SecretValue, StoreError, WorkerStore, cancelled_result, cancelled_status,
};
use chrono::{DateTime, Utc};
use serde_json::Value;
use sqlx::Row as _;
use sqlx::postgres::PgRow;

use crate::columns::{Columns, JsonRow, document, json, secrets};
use crate::error::{During as _, refused};
use crate::pool::{Pool, Query};
use crate::together::{Answer, Together, answers, lost};
use crate::{PostgresStore, rows};

/// Claims the executions `$1` for the worker `$2`, each as it was scheduled at `$4`, if that is known. `$locking` says what is
/// done about a row that somebody else holds.
///
/// The row is locked first: what `seen` has is the last word, also for those who had to wait for another claim.
/// `started_at` is the fence, so it differs from that of any former claim even when the clock was set back.
/// The action is found by id, else by ref: one that was removed and came back has another id.
macro_rules! claim {
    ($locking:literal) => {
        concat!(
            r"
            WITH seen AS (
                SELECT found.*, asked.scheduled_at
                FROM unnest($1::bigint[], $4::timestamptz[]) AS asked (id, scheduled_at)
                CROSS JOIN LATERAL (
                    SELECT id, status, started_at, worker, updated FROM execution WHERE execution.id = asked.id
                    FOR NO KEY UPDATE ",
            $locking,
            r"
                ) AS found
            ), taken AS (
                UPDATE execution SET
                    status = CASE seen.status WHEN 'scheduled' THEN 'running' ELSE 'cancelled' END::execution_status_enum,
                    started_at = CASE seen.status WHEN 'scheduled'
                        THEN greatest(now(), execution.started_at + interval '1 microsecond') END,
                    result = CASE seen.status WHEN 'scheduled' THEN execution.result ELSE $3::jsonb END
                FROM seen
                WHERE execution.id = seen.id AND seen.worker = $2
                  AND (seen.status = 'scheduled' AND (seen.scheduled_at IS NULL OR seen.updated = seen.scheduled_at)
                       OR seen.status = 'canceling' AND seen.started_at IS NULL)
                RETURNING execution.*
            )
            SELECT seen.id, seen.status::text AS before,
                   to_json(taken.*) AS execution,
                   to_json(action.*) AS action,
                   (SELECT to_json(pack.*) FROM pack WHERE pack.id = action.pack) AS pack,
                   (SELECT to_json(runtime.*) FROM runtime WHERE runtime.id = action.runtime) AS runtime,
                   (SELECT json_agg(version.* ORDER BY version.id) FROM runtime_version AS version
                    WHERE version.runtime = action.runtime) AS versions,
                   enforcement.rule_ref, enforcement.trigger_ref,
                   (SELECT parent.action_ref FROM execution AS parent WHERE parent.id = taken.parent) AS parent_action_ref,
                   (SELECT json_agg(found.* ORDER BY found.rank, found.id) FROM (
                        SELECT id, name, owner_type, encrypted, encryption_key_hash, value, 1 AS rank
                        FROM key WHERE owner_type = 'system'
                        UNION ALL
                        SELECT id, name, owner_type, encrypted, encryption_key_hash, value, 2
                        FROM key WHERE owner_type = 'pack' AND owner_pack = action.pack
                        UNION ALL
                        SELECT id, name, owner_type, encrypted, encryption_key_hash, value, 3
                        FROM key WHERE owner_type = 'action' AND owner_action = action.id
                    ) AS found WHERE taken.status = 'running') AS keys,
                   (SELECT json_agg(secret.* ORDER BY secret.id) FROM execution_secret_value AS secret
                    WHERE secret.entity_type = 'execution_config' AND secret.entity_id = taken.id) AS secrets
            FROM seen
            LEFT JOIN taken ON taken.id = seen.id
            LEFT JOIN LATERAL (
                SELECT * FROM action WHERE action.id = taken.action
                UNION ALL
                SELECT * FROM action WHERE taken.action IS NULL AND action.ref = taken.action_ref
            ) AS action ON true
            LEFT JOIN enforcement ON enforcement.id = taken.enforcement
            "
        )
    };
}

/// Waits for a row that somebody holds.
const CLAIM: &str = claim!("");

/// Leaves such a row to those who can wait for it: it must not hold up the others.
const CLAIM_TOGETHER: &str = claim!("SKIP LOCKED");

/// A cancel that came first is kept: then $6 is the status, and the result gets the keys of $8. Who waited for the row sees
/// what the other one made of it.
const FINISH: &str = r"
    WITH ended AS (
        UPDATE execution SET
            status = CASE status WHEN 'canceling' THEN $6 ELSE $4 END::execution_status_enum,
            result = CASE WHEN status = 'canceling' AND $6 <> $4 THEN $5::jsonb || $8::jsonb ELSE $5::jsonb END
        WHERE id = $1 AND worker = $2 AND started_at = $3 AND status IN ('running', 'canceling')
        RETURNING id, status
    ), stored AS (
        INSERT INTO execution_secret_value (entity_type, entity_id, json_path, source_kind, source_ref, encrypted_value,
                                            encryption_key_hash)
        SELECT 'execution_result', ended.id, new.json_path, new.source_kind, new.source_ref, new.encrypted_value,
               new.encryption_key_hash
        FROM ended CROSS JOIN jsonb_to_recordset($7::jsonb)
             AS new (json_path text, source_kind text, source_ref text, encrypted_value jsonb, encryption_key_hash text)
        ON CONFLICT (entity_type, entity_id, json_path) DO UPDATE SET
            source_kind = excluded.source_kind,
            source_ref = excluded.source_ref,
            encrypted_value = excluded.encrypted_value,
            encryption_key_hash = excluded.encryption_key_hash
    )
    SELECT status::text FROM ended
";

/// The same for several executions without secrets, as far as their rows are free.
const FINISH_TOGETHER: &str = r"
    WITH free AS (
        SELECT given.*
        FROM unnest($1::bigint[], $2::bigint[], $3::timestamptz[], $4::text[], $5::text[], $6::text[])
             AS given (id, worker, started_at, status, result, cancelled)
        CROSS JOIN LATERAL (
            SELECT FROM execution
            WHERE execution.id = given.id AND execution.worker = given.worker AND execution.started_at = given.started_at
              AND execution.status IN ('running', 'canceling')
            FOR NO KEY UPDATE SKIP LOCKED
        ) AS held
    )
    UPDATE execution SET
        status = CASE execution.status WHEN 'canceling' THEN free.cancelled ELSE free.status END::execution_status_enum,
        result = CASE WHEN execution.status = 'canceling' AND free.cancelled <> free.status
            THEN free.result::jsonb || $7::jsonb ELSE free.result::jsonb END
    FROM free
    WHERE execution.id = free.id
    RETURNING execution.id, execution.status::text
";

/// Claims that are made together.
pub(crate) type Claims = Together<ClaimCall, Result<Claim, StoreError>>;

/// Ends that are written together.
pub(crate) type Finishes = Together<FinishCall, Result<ExecutionStatus, StoreError>>;

pub(crate) fn claims() -> Claims {
    Together::new(|pool, calls| Box::pin(claim_together(pool, calls)))
}

pub(crate) fn finishes() -> Finishes {
    Together::new(|pool, calls| Box::pin(finish_together(pool, calls)))
}

/// What a claim says.
#[derive(Debug, Clone, Copy)]
pub(crate) struct ClaimCall {
    execution: ExecutionId,
    worker: WorkerId,
    scheduled_at: Option<DateTime<Utc>>,
}

/// What an end without secrets says.
#[derive(Debug)]
pub(crate) struct FinishCall {
    fence: Fence,
    status: ExecutionStatus,
    result: String,
}

fn claiming(execution: ExecutionId, worker: WorkerId) -> String {
    format!("claim execution {execution} for worker {worker}")
}

fn finishing(execution: ExecutionId, status: ExecutionStatus) -> String {
    format!("finish execution {execution} as {status}")
}

fn claim_query(sql: &'static str, worker: WorkerId, calls: &[ClaimCall]) -> Query<'static> {
    sqlx::query(sql)
        .bind(calls.iter().map(|call| call.execution.0).collect::<Vec<_>>())
        .bind(worker.0)
        .bind(json(&cancelled_result(&Value::Null)))
        .bind(calls.iter().map(|call| call.scheduled_at).collect::<Vec<_>>())
}

async fn claim_together(pool: Pool, calls: Vec<ClaimCall>) -> Vec<Answer<Result<Claim, StoreError>>> {
    // Each worker has a store of its own, and each execution one claim; whatever is different goes alone.
    let Some(worker) = calls.first().map(|call| call.worker) else { return Vec::new() };
    let mut asked = BTreeMap::new();
    for (at, call) in calls.iter().enumerate().filter(|(_, call)| call.worker == worker) {
        asked.entry(call.execution.0).or_insert(at);
    }
    let chosen: Vec<ClaimCall> = asked.values().map(|&at| calls[at]).collect();
    let rows = pool.all(claim_query(CLAIM_TOGETHER, worker, &chosen)).await;
    answers(&calls, &asked, rows, |row, call| claim_of(row, *call), |call| claiming(call.execution, call.worker))
}

async fn finish_together(pool: Pool, calls: Vec<FinishCall>) -> Vec<Answer<Result<ExecutionStatus, StoreError>>> {
    let mut asked = BTreeMap::new();
    for (at, call) in calls.iter().enumerate() {
        asked.entry(call.fence.execution.0).or_insert(at);
    }
    let chosen = || asked.values().map(|&at| &calls[at]);
    let query = sqlx::query(FINISH_TOGETHER)
        .bind(chosen().map(|call| call.fence.execution.0).collect::<Vec<_>>())
        .bind(chosen().map(|call| call.fence.worker.0).collect::<Vec<_>>())
        .bind(chosen().map(|call| call.fence.started_at).collect::<Vec<_>>())
        .bind(chosen().map(|call| call.status.as_str()).collect::<Vec<_>>())
        .bind(chosen().map(|call| call.result.as_str()).collect::<Vec<_>>())
        .bind(chosen().map(|call| cancelled_status(call.status).as_str()).collect::<Vec<_>>())
        .bind(json(&cancelled_result(&Value::Null)));
    let rows = pool.all(query).await;
    let operation = |call: &FinishCall| finishing(call.fence.execution, call.status);
    answers(&calls, &asked, rows, |row, call| status_of(row, call.fence.execution, || operation(call)), operation)
}

/// The one that an answer tells.
fn claim_of(row: &PgRow, call: ClaimCall) -> Result<Claim, StoreError> {
    let ClaimCall { execution, worker, scheduled_at: _ } = call;
    let operation = || claiming(execution, worker);
    let Some(taken) = document::<JsonRow<'_>>(row, "execution").during(operation)? else {
        let status = row.try_get::<&str, _>("before").during(operation)?.parse();
        return Ok(Claim::NotOurs { status: Some(status.map_err(|error| bad_status(execution, &error))?) });
    };
    let taken = rows::execution(taken)?;
    if taken.status == ExecutionStatus::Cancelled {
        return Ok(Claim::Cancelled(Box::new(taken)));
    }
    Ok(Claim::Claimed(Box::new(claimed(row, taken, worker, operation)?)))
}

#[async_trait]
impl WorkerStore for PostgresStore {
    async fn claim_execution(
        &self,
        execution: ExecutionId,
        worker: WorkerId,
        scheduled_at: Option<DateTime<Utc>>,
    ) -> Result<Claim, StoreError> {
        let call = ClaimCall { execution, worker, scheduled_at };
        match self.claims.call(&self.pool, call).await {
            Answer::Is(claim) => return claim,
            Answer::Lost => return Err(lost(claiming(execution, worker))),
            Answer::Alone => {}
        }
        let row = self.pool.optional(claim_query(CLAIM, worker, &[call])).await;
        match row.during(|| claiming(execution, worker))? {
            Some(row) => claim_of(&row, call),
            None => Ok(Claim::NotOurs { status: None }),
        }
    }

    async fn finish_execution(
        &self,
        fence: &Fence,
        status: ExecutionStatus,
        result: &Value,
        new: &[SecretValue],
    ) -> Result<Option<ExecutionStatus>, StoreError> {
        let operation = || finishing(fence.execution, status);
        if !status.is_terminal() {
            return Err(refused(operation(), "this status is not an end"));
        }
        if new.is_empty() {
            let call = FinishCall { fence: *fence, status, result: json(result) };
            match self.finishes.call(&self.pool, call).await {
                Answer::Is(status) => return status.map(Some),
                Answer::Lost => return Err(lost(operation())),
                Answer::Alone => {}
            }
        }
        let query = sqlx::query(FINISH)
            .bind(fence.execution.0)
            .bind(fence.worker.0)
            .bind(fence.started_at)
            .bind(status.as_str())
            .bind(json(result))
            .bind(cancelled_status(status).as_str())
            .bind(secrets(new))
            .bind(json(&cancelled_result(&Value::Null)));
        let Some(row) = self.pool.optional(query).await.during(operation)? else { return Ok(None) };
        status_of(&row, fence.execution, operation).map(Some)
    }

    async fn execution_status(&self, execution: ExecutionId) -> Result<Option<ExecutionStatus>, StoreError> {
        let operation = || format!("read the status of execution {execution}");
        let query = sqlx::query("SELECT status::text FROM execution WHERE id = $1").bind(execution.0);
        let Some(row) = self.pool.optional(query).await.during(operation)? else { return Ok(None) };
        status_of(&row, execution, operation).map(Some)
    }

    async fn unfinished_executions(&self, worker: WorkerId) -> Result<Vec<(Fence, Execution)>, StoreError> {
        let query = sqlx::query(
            r"
            SELECT to_json(execution.*) FROM execution
            WHERE worker = $1 AND status IN ('running', 'canceling') AND started_at IS NOT NULL
            ORDER BY id
            ",
        )
        .bind(worker.0);
        let operation = || format!("read the unfinished executions of worker {worker}");
        let found = self.rows(query, rows::execution_to_end, operation).await?;
        found
            .into_iter()
            .map(|execution| {
                let started_at = execution.started_at.ok_or(sqlx::Error::RowNotFound).during(operation)?;
                Ok((Fence { execution: execution.id, worker, started_at }, execution))
            })
            .collect()
    }

    async fn scheduled_executions(&self, worker: WorkerId) -> Result<Vec<ExecutionId>, StoreError> {
        let query = sqlx::query(
            r"
            SELECT id FROM execution
            WHERE worker = $1 AND (status = 'scheduled' OR (status = 'canceling' AND started_at IS NULL))
            ORDER BY created, id
            ",
        )
        .bind(worker.0);
        let operation = || format!("read the scheduled executions of worker {worker}");
        let found = self.pool.all(query).await.during(operation)?;
        found.iter().map(|row| row.try_get(0).map(ExecutionId).during(operation)).collect()
    }

    async fn ended_executions(
        &self,
        worker: WorkerId,
        executions: &[ExecutionId],
    ) -> Result<Vec<Execution>, StoreError> {
        let ids: Vec<i64> = executions.iter().map(|execution| execution.0).collect();
        let query = sqlx::query(
            r"
            SELECT to_json(execution.*) FROM execution
            WHERE worker = $1 AND id = ANY ($2)
              AND status IN ('completed', 'failed', 'cancelled', 'timeout', 'abandoned')
            ORDER BY id
            ",
        )
        .bind(worker.0)
        .bind(ids);
        self.rows(query, rows::execution_to_end, || format!("read the ended executions of worker {worker}")).await
    }

    async fn packs_with_actions(&self, pack_ref: Option<&str>) -> Result<Vec<(Pack, Vec<Action>)>, StoreError> {
        let operation = || "read packs and their actions".to_owned();
        let query = sqlx::query(
            r#"
            SELECT to_json(pack.*) AS pack,
                   (SELECT json_agg(action.* ORDER BY action.ref COLLATE "C") FROM action
                    WHERE action.pack = pack.id) AS actions
            FROM pack WHERE $1::text IS NULL OR pack.ref = $1 ORDER BY pack.ref COLLATE "C"
            "#,
        )
        .bind(pack_ref);
        let found = self.pool.all(query).await.during(operation)?;
        let mut packs = Vec::with_capacity(found.len());
        for row in &found {
            let pack = document::<JsonRow<'_>>(row, "pack").during(operation)?.ok_or(sqlx::Error::RowNotFound);
            let actions = document::<Vec<JsonRow<'_>>>(row, "actions").during(operation)?.unwrap_or_default();
            let actions = actions.into_iter().map(rows::action).collect::<Result<_, _>>()?;
            packs.push((rows::pack(pack.during(operation)?)?, actions));
        }
        Ok(packs)
    }
}

fn claimed(
    row: &PgRow,
    execution: Execution,
    worker: WorkerId,
    operation: impl Fn() -> String,
) -> Result<ClaimedExecution, StoreError> {
    let one = |column| document::<JsonRow<'_>>(row, column).during(&operation);
    let many = |column| document::<Vec<JsonRow<'_>>>(row, column).during(&operation).map(Option::unwrap_or_default);
    let text = |column| row.try_get::<Option<String>, _>(column).during(&operation);
    let started_at = execution.started_at.ok_or_else(|| refused(operation(), "the claim left started_at empty"))?;
    Ok(ClaimedExecution {
        fence: Fence { execution: execution.id, worker, started_at },
        execution,
        action: one("action")?.map(rows::action).transpose()?,
        pack: one("pack")?.map(rows::pack).transpose()?,
        runtime: one("runtime")?.map(rows::runtime).transpose()?,
        runtime_versions: many("versions")?.into_iter().map(rows::runtime_version).collect::<Result<_, _>>()?,
        enforcement: text("rule_ref")?.zip(text("trigger_ref")?),
        parent_action_ref: text("parent_action_ref")?,
        keys: many("keys")?.into_iter().map(key).collect::<Result<_, _>>()?,
        secret_values: many("secrets")?.into_iter().map(secret_value).collect::<Result<_, _>>()?,
    })
}

fn key(row: JsonRow<'_>) -> Result<KeyRow, StoreError> {
    let mut of = Columns::new("key", row);
    Ok(KeyRow {
        name: of.get("name")?,
        owner_type: of.get("owner_type")?,
        encrypted: of.get("encrypted")?,
        encryption_key_hash: of.get("encryption_key_hash")?,
        value: of.get("value")?,
    })
}

fn secret_value(row: JsonRow<'_>) -> Result<SecretValue, StoreError> {
    let mut of = Columns::new("execution_secret_value", row);
    Ok(SecretValue {
        json_path: of.get("json_path")?,
        source_kind: of.get("source_kind")?,
        source_ref: of.get("source_ref")?,
        encrypted_value: of.get("encrypted_value")?,
        encryption_key_hash: of.get("encryption_key_hash")?,
    })
}

/// The status in a row.
fn status_of(
    row: &PgRow,
    execution: ExecutionId,
    operation: impl FnOnce() -> String,
) -> Result<ExecutionStatus, StoreError> {
    let status = row.try_get::<&str, _>("status").during(operation)?.parse();
    status.map_err(|error| bad_status(execution, &error))
}

fn bad_status(execution: ExecutionId, error: &dyn std::fmt::Display) -> StoreError {
    let (key, detail) = (execution.to_string(), error.to_string());
    StoreError::Inconsistent { table: "execution", column: "status", key, detail }
}
