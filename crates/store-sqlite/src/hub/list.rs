//! Lists for the hub's HTTP API and its scheduler.

use attune_model::rows::{Rule, Worker};
use attune_model::{ExecutionId, TriggerId};
use attune_store::{Candidate, ExecutionFilter, ExecutionView, Page, PageRequest, StoreError};
use sqlx::SqlitePool;
use sqlx::sqlite::{SqliteConnection, SqliteRow};

use super::age;
use crate::columns::{Columns, bounds, list};
use crate::error::During;
use crate::{now, rows};

pub(super) async fn trigger_rules(
    unit: &mut SqliteConnection,
    trigger: TriggerId,
    page: PageRequest,
) -> Result<Page<Rule>, StoreError> {
    let operation = || format!("list the rules of trigger {trigger}");
    let (limit, offset) = bounds(page);
    let total: i64 = sqlx::query_scalar(r#"SELECT count(*) FROM rule WHERE "trigger" = ?1"#)
        .bind(trigger.0)
        .fetch_one(&mut *unit)
        .await
        .during(operation)?;
    let found = sqlx::query(r#"SELECT * FROM rule WHERE "trigger" = ?1 ORDER BY id LIMIT ?2 OFFSET ?3"#)
        .bind(trigger.0)
        .bind(limit)
        .bind(offset)
        .fetch_all(unit)
        .await
        .during(operation)?;
    Ok(Page { items: found.iter().map(rows::rule).collect::<Result<_, _>>()?, total: total.unsigned_abs() })
}

pub(super) async fn execution(readers: &SqlitePool, id: ExecutionId) -> Result<Option<ExecutionView>, StoreError> {
    let row = sqlx::query(
        r"
        SELECT execution.*, enforcement.rule_ref, enforcement.trigger_ref
        FROM execution LEFT JOIN enforcement ON enforcement.id = execution.enforcement
        WHERE execution.id = ?1
        ",
    )
    .bind(id.0)
    .fetch_optional(readers)
    .await
    .during(|| format!("read execution {id}"))?;
    row.map(|row| view(&row)).transpose()
}

pub(super) async fn executions(
    unit: &mut SqliteConnection,
    filter: &ExecutionFilter,
    page: PageRequest,
) -> Result<Page<ExecutionView>, StoreError> {
    let operation = || "list executions".to_owned();
    let (limit, offset) = bounds(page);
    let statuses: Vec<String> = filter.statuses.iter().map(ToString::to_string).collect();
    let statuses = (!statuses.is_empty()).then(|| list(&statuses));
    let total: i64 = sqlx::query_scalar(
        r"
        SELECT count(*) FROM execution
        WHERE (?1 IS NULL OR status IN (SELECT value FROM json_each(?1))) AND (?2 IS NULL OR action_ref = ?2)
        ",
    )
    .bind(&statuses)
    .bind(&filter.action_ref)
    .fetch_one(&mut *unit)
    .await
    .during(operation)?;
    let found = sqlx::query(
        r"
        SELECT execution.*, enforcement.rule_ref, enforcement.trigger_ref
        FROM execution LEFT JOIN enforcement ON enforcement.id = execution.enforcement
        WHERE (?1 IS NULL OR execution.status IN (SELECT value FROM json_each(?1)))
          AND (?2 IS NULL OR execution.action_ref = ?2)
        ORDER BY execution.id DESC LIMIT ?3 OFFSET ?4
        ",
    )
    .bind(&statuses)
    .bind(&filter.action_ref)
    .bind(limit)
    .bind(offset)
    .fetch_all(unit)
    .await
    .during(operation)?;
    Ok(Page { items: found.iter().map(view).collect::<Result<_, _>>()?, total: total.unsigned_abs() })
}

fn view(row: &SqliteRow) -> Result<ExecutionView, StoreError> {
    let of = Columns::new("execution", row);
    Ok(ExecutionView {
        execution: rows::execution(row)?,
        rule_ref: of.get("rule_ref")?,
        trigger_ref: of.get("trigger_ref")?,
    })
}

pub(super) async fn action_workers(readers: &SqlitePool) -> Result<Vec<Candidate>, StoreError> {
    let found = sqlx::query(
        r"
        SELECT *, (SELECT count(*) FROM execution
                   WHERE execution.worker = worker.id AND execution.status IN ('scheduled', 'running', 'canceling')) AS load
        FROM worker WHERE worker_role = 'action' ORDER BY name
        ",
    )
    .fetch_all(readers)
    .await
    .during(|| "list the action workers".to_owned())?;
    let now = now();
    found
        .iter()
        .map(|row| {
            let worker = rows::worker(row)?;
            Ok(Candidate {
                heartbeat_age: worker.last_heartbeat.map(|then| age(then, now)),
                load: Columns::new("worker", row).get::<i64>("load")?.unsigned_abs(),
                worker,
            })
        })
        .collect()
}

pub(super) async fn workers(unit: &mut SqliteConnection, page: PageRequest) -> Result<Page<Worker>, StoreError> {
    let operation = || "list workers".to_owned();
    let (limit, offset) = bounds(page);
    let total: i64 = sqlx::query_scalar("SELECT count(*) FROM worker").fetch_one(&mut *unit).await.during(operation)?;
    let found = sqlx::query("SELECT * FROM worker ORDER BY name LIMIT ?1 OFFSET ?2")
        .bind(limit)
        .bind(offset)
        .fetch_all(unit)
        .await
        .during(operation)?;
    Ok(Page { items: found.iter().map(rows::worker).collect::<Result<_, _>>()?, total: total.unsigned_abs() })
}
