//! What fell behind: executions nobody schedules, starts or runs, and workers that fell silent. Ages are the server's.

use std::time::Duration;

use attune_model::ExecutionId;
use attune_model::order;
use attune_model::rows::{Action, Execution, Worker};
use attune_store::{Orphan, Overdue, StoreError};
use sqlx::Row as _;

use crate::columns::{JsonRow, age, document, micros};
use crate::error::During as _;
use crate::{PostgresStore, rows};

pub(super) async fn unscheduled(
    store: &PostgresStore,
    stale_after: Duration,
    limit: u32,
) -> Result<Vec<ExecutionId>, StoreError> {
    let operation = || "look for unscheduled executions".to_owned();
    let query = sqlx::query(
        r"
        SELECT id FROM execution
        WHERE status = 'requested' OR (status = 'scheduling' AND updated <= now() - $1 * interval '1 microsecond')
        ORDER BY updated, id LIMIT $2
        ",
    )
    .bind(micros(stale_after))
    .bind(i64::from(limit));
    let found = store.pool.all(query).await.during(operation)?;
    found.iter().map(|row| row.try_get(0).map(ExecutionId).during(operation)).collect()
}

pub(super) async fn scheduled(
    store: &PostgresStore,
    after: Option<ExecutionId>,
    limit: u32,
) -> Result<Vec<(Execution, Option<Action>)>, StoreError> {
    let operation = || "read scheduled executions".to_owned();
    let query = sqlx::query(
        r"
        SELECT to_json(execution.*) AS execution, to_json(action.*) AS action
        FROM execution
        LEFT JOIN LATERAL (
            SELECT * FROM action WHERE action.id = execution.action
            UNION ALL
            SELECT * FROM action WHERE execution.action IS NULL AND action.ref = execution.action_ref
        ) AS action ON true
        WHERE execution.status = 'scheduled' AND execution.id > $1
        ORDER BY execution.id LIMIT $2
        ",
    )
    .bind(after.map_or(0, |id| id.0))
    .bind(i64::from(limit));
    let found = store.pool.all(query).await.during(operation)?;
    let pairs = found.iter().map(|row| {
        let execution = document::<JsonRow<'_>>(row, "execution").and_then(|row| row.ok_or(sqlx::Error::RowNotFound));
        let action = document::<JsonRow<'_>>(row, "action").during(operation)?;
        Ok((rows::execution(execution.during(operation)?)?, action.map(rows::action).transpose()?))
    });
    pairs.collect()
}

pub(super) async fn overdue(
    store: &PostgresStore,
    limit_age: Duration,
    limit: u32,
) -> Result<Vec<Overdue>, StoreError> {
    let operation = || "look for overdue executions".to_owned();
    let query = sqlx::query(
        r"
        SELECT to_json(execution.*) AS execution, (extract(epoch FROM now() - updated) * 1000000)::bigint AS age
        FROM execution WHERE status = 'scheduled' AND updated <= now() - $1 * interval '1 microsecond'
        ORDER BY updated, id LIMIT $2
        ",
    )
    .bind(micros(limit_age))
    .bind(i64::from(limit));
    let found = store.pool.all(query).await.during(operation)?;
    let late = found.iter().map(|row| {
        let execution = document::<JsonRow<'_>>(row, "execution").and_then(|row| row.ok_or(sqlx::Error::RowNotFound));
        let execution = rows::execution(execution.during(operation)?)?;
        Ok(Overdue { execution, age: age(row.try_get("age").during(operation)?) })
    });
    late.collect()
}

pub(super) async fn orphans(store: &PostgresStore, silence: Duration, limit: u32) -> Result<Vec<Orphan>, StoreError> {
    let operation = || "look for orphaned executions".to_owned();
    let query = sqlx::query(
        r"
        SELECT to_json(execution.*) AS execution, to_json(worker.*) AS worker,
               (extract(epoch FROM now() - worker.last_heartbeat) * 1000000)::bigint AS age
        FROM execution LEFT JOIN worker ON worker.id = execution.worker
        WHERE execution.status IN ('running', 'canceling')
          AND (worker.id IS NULL OR worker.status IN ('inactive', 'error') OR worker.last_heartbeat IS NULL
               OR worker.last_heartbeat <= now() - $1 * interval '1 microsecond')
        ORDER BY execution.id LIMIT $2
        ",
    )
    .bind(micros(silence))
    .bind(i64::from(limit));
    let found = store.pool.all(query).await.during(operation)?;
    let orphans = found.iter().map(|row| {
        let execution = document::<JsonRow<'_>>(row, "execution").and_then(|row| row.ok_or(sqlx::Error::RowNotFound));
        let worker = document::<JsonRow<'_>>(row, "worker").during(operation)?;
        Ok(Orphan {
            execution: rows::execution(execution.during(operation)?)?,
            worker: worker.map(rows::worker).transpose()?,
            heartbeat_age: row.try_get::<Option<i64>, _>("age").during(operation)?.map(age),
        })
    });
    orphans.collect()
}

pub(super) async fn retire_silent_workers(store: &PostgresStore, silence: Duration) -> Result<Vec<Worker>, StoreError> {
    let query = sqlx::query(
        r"
        UPDATE worker SET status = 'inactive'
        WHERE status <> 'inactive'
          AND (last_heartbeat IS NULL OR last_heartbeat <= now() - $1 * interval '1 microsecond')
        RETURNING to_json(worker.*)
        ",
    )
    .bind(micros(silence));
    let mut retired = store.rows(query, rows::worker, || "set silent workers to inactive".to_owned()).await?;
    order::sort_by(&mut retired, |one, other| one.name.cmp(&other.name));
    Ok(retired)
}
