//! Lists for the hub's HTTP API and its scheduler. Sorted by bytes, as the other backend sorts, not by a language.

use attune_model::rows::{Rule, Sensor, Trigger, Worker};
use attune_model::{ExecutionId, TriggerId};
use attune_store::{Candidate, ExecutionFilter, ExecutionView, Page, PageRequest, StoreError};
use sqlx::Row as _;
use sqlx::types::Json;

use crate::columns::{Columns, JsonRow, age, bounds, document, whole};
use crate::error::During as _;
use crate::pool::Unit;
use crate::{PostgresStore, rows};

/// In one statement: no transaction holds the two together.
pub(super) async fn sensor(
    store: &PostgresStore,
    sensor_ref: &str,
) -> Result<Option<(Sensor, Vec<Trigger>)>, StoreError> {
    let operation = || format!("read sensor {sensor_ref}");
    let query = sqlx::query(
        r#"
        SELECT to_json(sensor.*), to_json("trigger".*)
        FROM sensor LEFT JOIN "trigger" ON "trigger".sensor = sensor.id
        WHERE sensor.ref = $1
        ORDER BY "trigger".ref COLLATE "C"
        "#,
    );
    let found = store.pool.all(query.bind(sensor_ref)).await.during(operation)?;
    let Some(first) = found.first() else { return Ok(None) };
    let sensor = rows::sensor(whole(first).during(operation)?)?;
    let triggers = found.iter().map(|row| row.try_get::<Option<Json<JsonRow<'_>>>, _>(1).during(operation));
    let triggers = triggers.filter_map(Result::transpose);
    let triggers = triggers.map(|row| row.and_then(|Json(row)| rows::trigger(row)));
    Ok(Some((sensor, triggers.collect::<Result<_, _>>()?)))
}

pub(super) async fn trigger_rules(
    unit: &mut Unit,
    trigger: TriggerId,
    page: PageRequest,
) -> Result<Page<Rule>, StoreError> {
    let operation = || format!("list the rules of trigger {trigger}");
    let (limit, offset) = bounds(page);
    let query = sqlx::query(r#"SELECT count(*) FROM rule WHERE "trigger" = $1"#).bind(trigger.0);
    let total = unit.count(query, operation).await?;
    let query = sqlx::query(r#"SELECT to_json(rule.*) FROM rule WHERE "trigger" = $1 ORDER BY id LIMIT $2 OFFSET $3"#)
        .bind(trigger.0)
        .bind(limit)
        .bind(offset);
    Ok(Page { items: unit.rows(query, rows::rule, operation).await?, total })
}

pub(super) async fn execution(store: &PostgresStore, id: ExecutionId) -> Result<Option<ExecutionView>, StoreError> {
    let query = sqlx::query(
        r"
        SELECT to_json(found.*) FROM (
            SELECT execution.*, enforcement.rule_ref, enforcement.trigger_ref
            FROM execution LEFT JOIN enforcement ON enforcement.id = execution.enforcement
            WHERE execution.id = $1
        ) AS found
        ",
    )
    .bind(id.0);
    store.first(query, view, || format!("read execution {id}")).await
}

pub(super) async fn executions(
    unit: &mut Unit,
    filter: &ExecutionFilter,
    page: PageRequest,
) -> Result<Page<ExecutionView>, StoreError> {
    let operation = || "list executions".to_owned();
    let (limit, offset) = bounds(page);
    let statuses: Vec<&str> = filter.statuses.iter().map(|status| status.as_str()).collect();
    let statuses = (!statuses.is_empty()).then_some(statuses);
    let query = sqlx::query(
        r"
        SELECT count(*) FROM execution
        WHERE ($1 IS NULL OR status = ANY ($1::execution_status_enum[])) AND ($2 IS NULL OR action_ref = $2)
        ",
    )
    .bind(&statuses)
    .bind(&filter.action_ref);
    let total = unit.count(query, operation).await?;
    let query = sqlx::query(
        r"
        SELECT to_json(found.*) FROM (
            SELECT execution.*, enforcement.rule_ref, enforcement.trigger_ref
            FROM execution LEFT JOIN enforcement ON enforcement.id = execution.enforcement
            WHERE ($1 IS NULL OR execution.status = ANY ($1::execution_status_enum[]))
              AND ($2 IS NULL OR execution.action_ref = $2)
            ORDER BY execution.id DESC LIMIT $3 OFFSET $4
        ) AS found
        ",
    )
    .bind(&statuses)
    .bind(&filter.action_ref)
    .bind(limit)
    .bind(offset);
    Ok(Page { items: unit.rows(query, view, operation).await?, total })
}

fn view(row: JsonRow<'_>) -> Result<ExecutionView, StoreError> {
    let mut of = Columns::new("execution", row.clone());
    Ok(ExecutionView {
        rule_ref: of.get("rule_ref")?,
        trigger_ref: of.get("trigger_ref")?,
        execution: rows::execution(row)?,
    })
}

pub(super) async fn action_workers(store: &PostgresStore) -> Result<Vec<Candidate>, StoreError> {
    let operation = || "list the action workers".to_owned();
    let query = sqlx::query(
        r#"
        SELECT to_json(worker.*) AS worker,
               (extract(epoch FROM now() - last_heartbeat) * 1000000)::bigint AS age,
               (SELECT count(*) FROM execution
                WHERE execution.worker = worker.id AND execution.status IN ('scheduled', 'running', 'canceling')) AS load
        FROM worker WHERE worker_role = 'action' ORDER BY name COLLATE "C"
        "#,
    );
    let found = store.pool.all(query).await.during(operation)?;
    let candidates = found.iter().map(|row| {
        let worker = document::<JsonRow<'_>>(row, "worker").and_then(|row| row.ok_or(sqlx::Error::RowNotFound));
        Ok(Candidate {
            worker: rows::worker(worker.during(operation)?)?,
            heartbeat_age: row.try_get::<Option<i64>, _>("age").during(operation)?.map(age),
            load: row.try_get::<i64, _>("load").during(operation)?.unsigned_abs(),
        })
    });
    candidates.collect()
}

pub(super) async fn workers(unit: &mut Unit, page: PageRequest) -> Result<Page<Worker>, StoreError> {
    let operation = || "list workers".to_owned();
    let (limit, offset) = bounds(page);
    let total = unit.count(sqlx::query("SELECT count(*) FROM worker"), operation).await?;
    let query = sqlx::query(r#"SELECT to_json(worker.*) FROM worker ORDER BY name COLLATE "C" LIMIT $1 OFFSET $2"#)
        .bind(limit)
        .bind(offset);
    Ok(Page { items: unit.rows(query, rows::worker, operation).await?, total })
}
