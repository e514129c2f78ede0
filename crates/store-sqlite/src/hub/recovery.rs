//! What fell behind: executions nobody schedules, starts or runs, and workers that fell silent.

use std::time::Duration;

use attune_model::ExecutionId;
use attune_model::order;
use attune_model::rows::{Action, Execution, Worker};
use attune_store::{Orphan, Overdue, StoreError};
use sqlx::SqlitePool;
use sqlx::sqlite::SqliteConnection;

use super::{age, before};
use crate::columns::micros;
use crate::error::During;
use crate::worker::action_of;
use crate::{now, rows};

pub(super) async fn unscheduled(
    readers: &SqlitePool,
    stale_after: Duration,
    limit: u32,
) -> Result<Vec<ExecutionId>, StoreError> {
    let found: Vec<i64> = sqlx::query_scalar(
        r"
        SELECT id FROM execution
        WHERE status = 'requested' OR (status = 'scheduling' AND updated <= ?1)
        ORDER BY updated, id LIMIT ?2
        ",
    )
    .bind(before(stale_after))
    .bind(limit)
    .fetch_all(readers)
    .await
    .during(|| "look for unscheduled executions".to_owned())?;
    Ok(found.into_iter().map(ExecutionId).collect())
}

pub(super) async fn scheduled(
    unit: &mut SqliteConnection,
    after: Option<ExecutionId>,
    limit: u32,
) -> Result<Vec<(Execution, Option<Action>)>, StoreError> {
    let operation = || "read scheduled executions".to_owned();
    let found = sqlx::query("SELECT * FROM execution WHERE status = 'scheduled' AND id > ?1 ORDER BY id LIMIT ?2")
        .bind(after.map_or(0, |id| id.0))
        .bind(limit)
        .fetch_all(&mut *unit)
        .await
        .during(operation)?;
    let mut executions = Vec::with_capacity(found.len());
    for row in &found {
        let execution = rows::execution(row)?;
        let action = action_of(unit, &execution).await.during(operation)?;
        let action = action.map(|row| rows::action(&row)).transpose()?;
        executions.push((execution, action));
    }
    Ok(executions)
}

pub(super) async fn overdue(readers: &SqlitePool, limit_age: Duration, limit: u32) -> Result<Vec<Overdue>, StoreError> {
    let found = sqlx::query(
        "SELECT * FROM execution WHERE status = 'scheduled' AND updated <= ?1 ORDER BY updated, id LIMIT ?2",
    )
    .bind(before(limit_age))
    .bind(limit)
    .fetch_all(readers)
    .await
    .during(|| "look for overdue executions".to_owned())?;
    let now = now();
    found
        .iter()
        .map(|row| {
            let execution = rows::execution(row)?;
            Ok(Overdue { age: age(execution.updated, now), execution })
        })
        .collect()
}

pub(super) async fn orphans(
    unit: &mut SqliteConnection,
    silence: Duration,
    limit: u32,
) -> Result<Vec<Orphan>, StoreError> {
    let operation = || "look for orphaned executions".to_owned();
    let found = sqlx::query(
        r"
        SELECT execution.* FROM execution LEFT JOIN worker ON worker.id = execution.worker
        WHERE execution.status IN ('running', 'canceling')
          AND (worker.id IS NULL OR worker.status IN ('inactive', 'error')
               OR worker.last_heartbeat IS NULL OR worker.last_heartbeat <= ?1)
        ORDER BY execution.id LIMIT ?2
        ",
    )
    .bind(before(silence))
    .bind(limit)
    .fetch_all(&mut *unit)
    .await
    .during(operation)?;
    let now = now();
    let mut orphans = Vec::with_capacity(found.len());
    for row in &found {
        let execution = rows::execution(row)?;
        let worker = sqlx::query("SELECT * FROM worker WHERE id = ?1")
            .bind(execution.worker.map(|id| id.0))
            .fetch_optional(&mut *unit)
            .await
            .during(operation)?
            .map(|row| rows::worker(&row))
            .transpose()?;
        let heartbeat = worker.as_ref().and_then(|worker| worker.last_heartbeat);
        orphans.push(Orphan { execution, heartbeat_age: heartbeat.map(|then| age(then, now)), worker });
    }
    Ok(orphans)
}

pub(super) async fn retire_silent_workers(writer: &SqlitePool, silence: Duration) -> Result<Vec<Worker>, StoreError> {
    let found = sqlx::query(
        r"
        UPDATE worker SET status = 'inactive', updated = ?2
        WHERE status <> 'inactive' AND (last_heartbeat IS NULL OR last_heartbeat <= ?1)
        RETURNING *
        ",
    )
    .bind(before(silence))
    .bind(micros(now()))
    .fetch_all(writer)
    .await
    .during(|| "set silent workers to inactive".to_owned())?;
    let mut retired = found.iter().map(rows::worker).collect::<Result<Vec<_>, _>>()?;
    order::sort_by(&mut retired, |one, other| one.name.cmp(&other.name));
    Ok(retired)
}
