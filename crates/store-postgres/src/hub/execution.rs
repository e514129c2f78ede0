//! Executions from the request to the worker. Every step says which state it comes from.

use std::time::Duration;

use attune_model::rows::Execution;
use attune_model::status::{ExecutionStatus, RetentionPolicy};
use attune_model::{EnforcementId, ExecutionId, WorkerId};
use attune_store::{Cancel, ExecutionGuard, NewExecution, PlacementOverride, Schedulable, SecretValue, StoreError};
use serde_json::Value;

use crate::columns::{Columns, JsonRow, document, json, micros, secrets};
use crate::error::{During as _, refused};
use crate::pool::{Query, Unit};
use crate::{PostgresStore, rows};

/// Stores `new` as `requested`, with the secrets of its parameters.
pub(super) async fn insert(
    unit: &mut Unit,
    new: &NewExecution,
    enforcement: Option<EnforcementId>,
    operation: &str,
) -> Result<Execution, StoreError> {
    let during = || operation.to_owned();
    let query = sqlx::query(
        r"
        INSERT INTO execution (action, action_ref, config, env_vars, parent, enforcement, executor, permission_set_refs,
                               worker_selector, worker_tolerations, worker_affinity, artifact_retention_policy,
                               artifact_retention_limit)
        VALUES ($1, $2, $3::jsonb, $4::jsonb, $5, $6, $7, $8, $9::jsonb, $10::jsonb, $11::jsonb,
                CASE WHEN $12 THEN $13::artifact_retention_enum
                     ELSE (SELECT artifact_retention_policy FROM action WHERE id = $1) END,
                CASE WHEN $12 THEN $14 ELSE (SELECT artifact_retention_limit FROM action WHERE id = $1) END)
        RETURNING to_json(execution.*)
        ",
    )
    .bind(new.action.0)
    .bind(&new.action_ref)
    .bind(json(&new.config))
    .bind(new.env_vars.as_ref().map(json))
    .bind(new.parent.map(|id| id.0))
    .bind(enforcement.map(|id| id.0))
    .bind(new.executor.0)
    .bind(&new.permission_set_refs)
    .bind(new.placement.selector.as_ref().map(json))
    .bind(new.placement.tolerations.as_ref().map(json))
    .bind(new.placement.affinity.as_ref().map(json))
    .bind(new.artifact_retention.is_some())
    .bind(new.artifact_retention.and_then(|retention| retention.policy).map(RetentionPolicy::as_str))
    .bind(new.artifact_retention.and_then(|retention| retention.limit));
    let execution = unit.first(query, rows::execution, during).await?;
    let execution = execution.ok_or(sqlx::Error::RowNotFound).during(during)?;
    put_secrets(unit, "execution_config", execution.id.0, &new.secrets).await.during(during)?;
    Ok(execution)
}

/// Stores the encrypted values of `entity`, in place of older ones.
pub(super) async fn put_secrets(
    unit: &mut Unit,
    entity_type: &'static str,
    entity: i64,
    new: &[SecretValue],
) -> Result<(), sqlx::Error> {
    if new.is_empty() {
        return Ok(());
    }
    let query = sqlx::query(
        r"
        INSERT INTO execution_secret_value (entity_type, entity_id, json_path, source_kind, source_ref, encrypted_value,
                                            encryption_key_hash)
        SELECT $1, $2, json_path, source_kind, source_ref, encrypted_value, encryption_key_hash
        FROM jsonb_to_recordset($3::jsonb)
             AS new (json_path text, source_kind text, source_ref text, encrypted_value jsonb, encryption_key_hash text)
        ON CONFLICT (entity_type, entity_id, json_path) DO UPDATE SET
            source_kind = excluded.source_kind,
            source_ref = excluded.source_ref,
            encrypted_value = excluded.encrypted_value,
            encryption_key_hash = excluded.encryption_key_hash
        ",
    )
    .bind(entity_type)
    .bind(entity)
    .bind(secrets(new));
    unit.execute(query).await.map(drop)
}

/// What is said about a claim that comes second has no use for the caller, so the row need not be locked first.
pub(super) async fn claim_scheduling(
    store: &PostgresStore,
    id: ExecutionId,
    stale_after: Duration,
) -> Result<Option<Schedulable>, StoreError> {
    let operation = || format!("claim execution {id} for scheduling");
    let query = sqlx::query(
        r"
        WITH taken AS (
            UPDATE execution SET status = 'scheduling'
            WHERE id = $1 AND (status = 'requested'
                               OR (status = 'scheduling' AND updated <= now() - $2 * interval '1 microsecond'))
            RETURNING *
        )
        SELECT to_json(taken.*) AS execution, to_json(action.*) AS action,
               (SELECT to_json(runtime.*) FROM runtime WHERE runtime.id = action.runtime) AS runtime
        FROM taken
        LEFT JOIN LATERAL (
            SELECT * FROM action WHERE action.id = taken.action
            UNION ALL
            SELECT * FROM action WHERE taken.action IS NULL AND action.ref = taken.action_ref
        ) AS action ON true
        ",
    )
    .bind(id.0)
    .bind(micros(stale_after));
    let Some(row) = store.pool.optional(query).await.during(operation)? else { return Ok(None) };
    let part = |column| document::<JsonRow<'_>>(&row, column).during(operation);
    let execution = part("execution")?.ok_or(sqlx::Error::RowNotFound).during(operation)?;
    let mut of = Columns::new("execution", execution.clone());
    let placement = PlacementOverride {
        selector: of.get("worker_selector")?,
        tolerations: of.get("worker_tolerations")?,
        affinity: of.get("worker_affinity")?,
    };
    Ok(Some(Schedulable {
        execution: rows::execution(execution)?,
        placement,
        action: part("action")?.map(rows::action).transpose()?,
        runtime: part("runtime")?.map(rows::runtime).transpose()?,
    }))
}

pub(super) async fn assign_worker(
    store: &PostgresStore,
    guard: &ExecutionGuard,
    worker: WorkerId,
) -> Result<Option<Execution>, StoreError> {
    let query = guarded(
        r"
        UPDATE execution SET status = 'scheduled', worker = $4
        WHERE id = $1 AND status = $2::execution_status_enum AND updated = $3 AND status = 'scheduling'
        RETURNING to_json(execution.*)
        ",
        guard,
    )
    .bind(worker.0);
    store.first(query, rows::execution, || format!("give execution {} to worker {worker}", guard.execution)).await
}

pub(super) async fn give_back(store: &PostgresStore, guard: &ExecutionGuard) -> Result<bool, StoreError> {
    let query = guarded(
        r"
        UPDATE execution SET status = 'requested'
        WHERE id = $1 AND status = $2::execution_status_enum AND updated = $3 AND status = 'scheduling'
        ",
        guard,
    );
    let done = store.pool.execute(query).await.during(|| format!("give execution {} back", guard.execution))?;
    Ok(done == 1)
}

pub(super) async fn end(
    store: &PostgresStore,
    guard: &ExecutionGuard,
    status: ExecutionStatus,
    result: &Value,
) -> Result<Option<Execution>, StoreError> {
    let operation = || format!("end execution {} as {status}", guard.execution);
    if !status.is_terminal() {
        return Err(refused(operation(), "this status is not an end"));
    }
    let query = guarded(
        r"
        UPDATE execution SET status = $4::execution_status_enum, result = $5::jsonb
        WHERE id = $1 AND status = $2::execution_status_enum AND updated = $3 AND $6
        RETURNING to_json(execution.*)
        ",
        guard,
    )
    .bind(status.as_str())
    .bind(json(result))
    .bind(guard.status.may_become(status));
    store.first(query, rows::execution, operation).await
}

fn guarded(sql: &'static str, guard: &ExecutionGuard) -> Query<'static> {
    sqlx::query(sql).bind(guard.execution.0).bind(guard.status.as_str()).bind(guard.updated)
}

/// The row is locked first, so that `seen` is what the decision was made from.
pub(super) async fn cancel(store: &PostgresStore, id: ExecutionId, result: &Value) -> Result<Cancel, StoreError> {
    let operation = || format!("cancel execution {id}");
    let query = sqlx::query(
        r"
        WITH seen AS (
            SELECT * FROM execution WHERE id = $1 FOR NO KEY UPDATE
        ), written AS (
            UPDATE execution SET
                status = CASE seen.status WHEN 'running' THEN 'canceling' ELSE 'cancelled' END::execution_status_enum,
                result = CASE seen.status WHEN 'running' THEN execution.result ELSE $2::jsonb END
            FROM seen
            WHERE execution.id = seen.id AND seen.status IN ('requested', 'scheduling', 'scheduled', 'running')
            RETURNING execution.*
        )
        SELECT to_json(seen.*) AS before, to_json(written.*) AS after FROM seen LEFT JOIN written ON true
        ",
    )
    .bind(id.0)
    .bind(json(result));
    let Some(row) = store.pool.optional(query).await.during(operation)? else { return Ok(Cancel::Unknown) };
    let part = |column| document::<JsonRow<'_>>(&row, column).during(operation)?.map(rows::execution).transpose();
    let before = part("before")?.ok_or(sqlx::Error::RowNotFound).during(operation)?;
    let Some(execution) = part("after")?.map(Box::new) else {
        let execution = Box::new(before);
        let already = execution.status == ExecutionStatus::Canceling;
        return Ok(if already { Cancel::Already { execution } } else { Cancel::Ended { execution } });
    };
    Ok(if execution.status == ExecutionStatus::Cancelled {
        Cancel::Cancelled { before: before.status, execution }
    } else {
        Cancel::Canceling { execution }
    })
}
