//! Executions from the request to the worker. Every step says which state it comes from.

use std::time::Duration;

use attune_model::rows::Execution;
use attune_model::status::{ExecutionStatus, RetentionPolicy};
use attune_model::{EnforcementId, ExecutionId, WorkerId};
use attune_store::{Cancel, ExecutionGuard, NewExecution, PlacementOverride, Schedulable, StoreError};
use serde_json::Value;
use sqlx::SqlitePool;
use sqlx::sqlite::SqliteConnection;

use super::before;
use crate::columns::{Columns, json, list, micros};
use crate::error::{During, refused};
use crate::worker::{action_of, put_secret};
use crate::{now, rows, written};

/// Stores `new` as `requested`, with the secrets of its parameters.
pub(super) async fn insert(
    unit: &mut SqliteConnection,
    new: &NewExecution,
    enforcement: Option<EnforcementId>,
    operation: &str,
) -> Result<Execution, StoreError> {
    let during = || operation.to_owned();
    let row = sqlx::query(
        r"
        INSERT INTO execution (action, action_ref, config, env_vars, parent, enforcement, executor, permission_set_refs,
                               worker_selector, worker_tolerations, worker_affinity, artifact_retention_policy,
                               artifact_retention_limit, created, updated)
        VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11,
                iif(?12, ?13, (SELECT artifact_retention_policy FROM action WHERE id = ?1)),
                iif(?12, ?14, (SELECT artifact_retention_limit FROM action WHERE id = ?1)), ?15, ?15)
        RETURNING *
        ",
    )
    .bind(new.action.0)
    .bind(&new.action_ref)
    .bind(json(&new.config))
    .bind(new.env_vars.as_ref().map(json))
    .bind(new.parent.map(|id| id.0))
    .bind(enforcement.map(|id| id.0))
    .bind(new.executor.0)
    .bind(list(&new.permission_set_refs))
    .bind(new.placement.selector.as_ref().map(json))
    .bind(new.placement.tolerations.as_ref().map(json))
    .bind(new.placement.affinity.as_ref().map(json))
    .bind(new.artifact_retention.is_some())
    .bind(new.artifact_retention.and_then(|retention| retention.policy).map(RetentionPolicy::as_str))
    .bind(new.artifact_retention.and_then(|retention| retention.limit))
    .bind(micros(now()))
    .fetch_one(&mut *unit)
    .await
    .during(during)?;
    let execution = rows::execution(&row)?;
    for secret in &new.secrets {
        put_secret(unit, "execution_config", execution.id.0, secret).await.during(during)?;
    }
    Ok(execution)
}

pub(super) async fn claim_scheduling(
    unit: &mut SqliteConnection,
    id: ExecutionId,
    stale_after: Duration,
    operation: &str,
) -> Result<Option<Schedulable>, StoreError> {
    let during = || operation.to_owned();
    let row = sqlx::query(
        r"
        UPDATE execution SET status = 'scheduling', updated = max(?2, updated + 1)
        WHERE id = ?1 AND (status = 'requested' OR (status = 'scheduling' AND updated <= ?3))
        RETURNING *
        ",
    )
    .bind(id.0)
    .bind(micros(now()))
    .bind(before(stale_after))
    .fetch_optional(&mut *unit)
    .await
    .during(during)?;
    let Some(row) = row else { return Ok(None) };
    let execution = rows::execution(&row)?;
    let of = Columns::new("execution", &row);
    let placement = PlacementOverride {
        selector: of.optional_json("worker_selector")?,
        tolerations: of.optional_json("worker_tolerations")?,
        affinity: of.optional_json("worker_affinity")?,
    };
    let action = action_of(unit, &execution).await.during(during)?.map(|row| rows::action(&row)).transpose()?;
    let runtime = sqlx::query("SELECT * FROM runtime WHERE id = ?1")
        .bind(action.as_ref().and_then(|action| action.runtime).map(|id| id.0))
        .fetch_optional(unit)
        .await
        .during(during)?
        .map(|row| rows::runtime(&row))
        .transpose()?;
    Ok(Some(Schedulable { execution, placement, action, runtime }))
}

pub(super) async fn assign_worker(
    writer: &SqlitePool,
    guard: &ExecutionGuard,
    worker: WorkerId,
) -> Result<Option<Execution>, StoreError> {
    let query = sqlx::query(
        r"
        UPDATE execution SET status = 'scheduled', worker = ?4, updated = max(?5, updated + 1)
        WHERE id = ?1 AND status = ?2 AND updated = ?3 AND status = 'scheduling'
        RETURNING *
        ",
    )
    .bind(guard.execution.0)
    .bind(guard.status.as_str())
    .bind(micros(guard.updated))
    .bind(worker.0)
    .bind(micros(now()));
    let row =
        written(query, writer).await.during(|| format!("give execution {} to worker {worker}", guard.execution))?;
    row.map(|row| rows::execution(&row)).transpose()
}

pub(super) async fn give_back(writer: &SqlitePool, guard: &ExecutionGuard) -> Result<bool, StoreError> {
    let done = sqlx::query(
        r"
        UPDATE execution SET status = 'requested', updated = max(?4, updated + 1)
        WHERE id = ?1 AND status = ?2 AND updated = ?3 AND status = 'scheduling'
        ",
    )
    .bind(guard.execution.0)
    .bind(guard.status.as_str())
    .bind(micros(guard.updated))
    .bind(micros(now()))
    .execute(writer)
    .await
    .during(|| format!("give execution {} back", guard.execution))?;
    Ok(done.rows_affected() == 1)
}

pub(super) async fn end(
    writer: &SqlitePool,
    guard: &ExecutionGuard,
    status: ExecutionStatus,
    result: &Value,
) -> Result<Option<Execution>, StoreError> {
    let operation = || format!("end execution {} as {status}", guard.execution);
    if !status.is_terminal() {
        return Err(refused(operation(), "this status is not an end"));
    }
    let query = sqlx::query(
        r"
        UPDATE execution SET status = ?4, result = ?5, updated = max(?6, updated + 1)
        WHERE id = ?1 AND status = ?2 AND updated = ?3 AND ?7
        RETURNING *
        ",
    )
    .bind(guard.execution.0)
    .bind(guard.status.as_str())
    .bind(micros(guard.updated))
    .bind(status.as_str())
    .bind(json(result))
    .bind(micros(now()))
    .bind(guard.status.may_become(status));
    let row = written(query, writer).await.during(operation)?;
    row.map(|row| rows::execution(&row)).transpose()
}

pub(super) async fn cancel(
    unit: &mut SqliteConnection,
    id: ExecutionId,
    result: &Value,
    operation: &str,
) -> Result<Cancel, StoreError> {
    let during = || operation.to_owned();
    // The unit of work holds the write lock: nobody changes the row between the look and the writing.
    let row = sqlx::query("SELECT * FROM execution WHERE id = ?1")
        .bind(id.0)
        .fetch_optional(&mut *unit)
        .await
        .during(during)?;
    let Some(row) = row else {
        return Ok(Cancel::Unknown);
    };
    let execution = Box::new(rows::execution(&row)?);
    let before = execution.status;
    let (next, result) = match before {
        ExecutionStatus::Requested | ExecutionStatus::Scheduling | ExecutionStatus::Scheduled => {
            (ExecutionStatus::Cancelled, Some(json(result)))
        }
        ExecutionStatus::Running => (ExecutionStatus::Canceling, None),
        ExecutionStatus::Canceling => return Ok(Cancel::Already { execution }),
        ExecutionStatus::Completed
        | ExecutionStatus::Failed
        | ExecutionStatus::Cancelled
        | ExecutionStatus::Timeout
        | ExecutionStatus::Abandoned => return Ok(Cancel::Ended { execution }),
    };
    let row = sqlx::query(
        r"
        UPDATE execution SET status = ?3, result = coalesce(?4, result), updated = max(?5, updated + 1)
        WHERE id = ?1 AND status = ?2
        RETURNING *
        ",
    )
    .bind(id.0)
    .bind(before.as_str())
    .bind(next.as_str())
    .bind(result)
    .bind(micros(now()))
    .fetch_one(unit)
    .await
    .during(during)?;
    let execution = Box::new(rows::execution(&row)?);
    Ok(if next == ExecutionStatus::Cancelled {
        Cancel::Cancelled { before, execution }
    } else {
        Cancel::Canceling { execution }
    })
}
