//! One component of a pack: insert it, or change its row where it differs.
//!
//! The seven tables of a pack's components are written the same way; only their columns differ. The statement is put
//! together from the names of tables and columns in this crate; every value is bound.

use attune_model::rows::{RawPlacement, Retention};
use attune_store::StoreError;
use serde_json::Value;
use sqlx::AssertSqlSafe;
use sqlx::sqlite::SqliteConnection;

use crate::columns::{json, list, micros};
use crate::error::During;

/// A value as it is stored.
#[derive(Debug, Clone)]
pub(super) enum Cell {
    Integer(Option<i64>),
    Text(Option<String>),
}

impl Cell {
    /// A document in a column that cannot be NULL; null is the column's default.
    pub(super) fn document(value: &Value, default: &str) -> Self {
        Self::Text(Some(if value.is_null() { default.to_owned() } else { json(value) }))
    }
}

impl From<i64> for Cell {
    fn from(value: i64) -> Self {
        Self::Integer(Some(value))
    }
}

impl From<Option<i64>> for Cell {
    fn from(value: Option<i64>) -> Self {
        Self::Integer(value)
    }
}

impl From<bool> for Cell {
    fn from(value: bool) -> Self {
        Self::Integer(Some(value.into()))
    }
}

impl From<&str> for Cell {
    fn from(value: &str) -> Self {
        Self::Text(Some(value.to_owned()))
    }
}

impl From<&String> for Cell {
    fn from(value: &String) -> Self {
        Self::Text(Some(value.clone()))
    }
}

impl From<&Option<String>> for Cell {
    fn from(value: &Option<String>) -> Self {
        Self::Text(value.clone())
    }
}

impl From<&Option<Value>> for Cell {
    fn from(value: &Option<Value>) -> Self {
        Self::Text(value.as_ref().map(json))
    }
}

impl From<&Vec<String>> for Cell {
    fn from(value: &Vec<String>) -> Self {
        Self::Text(Some(list(value)))
    }
}

/// A column with its value.
pub(super) type Column = (&'static str, Cell);

pub(super) fn placement(raw: &RawPlacement) -> [Column; 3] {
    [
        ("worker_selector", Cell::document(&raw.selector, "{}")),
        ("worker_tolerations", Cell::document(&raw.tolerations, "[]")),
        ("worker_affinity", Cell::document(&raw.affinity, "{}")),
    ]
}

pub(super) fn retention(log: Retention, artifact: Retention) -> [Column; 4] {
    let policy = |of: Retention| Cell::Text(of.policy.map(|policy| policy.to_string()));
    let limit = |of: Retention| Cell::Integer(of.limit.map(i64::from));
    [
        ("log_retention_policy", policy(log)),
        ("log_retention_limit", limit(log)),
        ("artifact_retention_policy", policy(artifact)),
        ("artifact_retention_limit", limit(artifact)),
    ]
}

/// Inserts a row, or writes the columns of the one with the same `key` where any of them differs. Returns its id.
pub(super) async fn upsert(
    unit: &mut SqliteConnection,
    table: &'static str,
    key: &'static str,
    columns: &[Column],
    operation: &str,
) -> Result<i64, StoreError> {
    let during = || operation.to_owned();
    let names: Vec<&str> = columns.iter().map(|(name, _)| *name).collect();
    let places: Vec<String> = (1..=columns.len()).map(|place| format!("?{place}")).collect();
    let now = columns.len() + 1;
    let set: Vec<String> = names.iter().map(|name| format!("{name} = excluded.{name}")).collect();
    let differs: Vec<String> = names.iter().map(|name| format!("{table}.{name} IS NOT excluded.{name}")).collect();
    let sql = format!(
        "INSERT INTO {table} ({}, created, updated) VALUES ({}, ?{now}, ?{now})
         ON CONFLICT ({key}) DO UPDATE SET {}, updated = excluded.updated WHERE {}",
        names.join(", "),
        places.join(", "),
        set.join(", "),
        differs.join(" OR "),
    );
    bind(sqlx::query(AssertSqlSafe(sql)), columns)
        .bind(micros(crate::now()))
        .execute(&mut *unit)
        .await
        .during(during)?;
    let keys: Vec<Column> =
        columns.iter().filter(|(name, _)| key.split(", ").any(|part| part == *name)).cloned().collect();
    let same: Vec<String> = keys.iter().enumerate().map(|(at, (name, _))| format!("{name} = ?{}", at + 1)).collect();
    let sql = format!("SELECT id FROM {table} WHERE {}", same.join(" AND "));
    let row = bind(sqlx::query(AssertSqlSafe(sql)), &keys).fetch_one(unit).await.during(during)?;
    sqlx::Row::try_get(&row, "id").during(during)
}

type Query = sqlx::query::Query<'static, sqlx::Sqlite, sqlx::sqlite::SqliteArguments>;

fn bind(query: Query, columns: &[Column]) -> Query {
    columns.iter().fold(query, |query, (_, cell)| match cell.clone() {
        Cell::Integer(value) => query.bind(value),
        Cell::Text(value) => query.bind(value),
    })
}
