//! One component of a pack: insert it, or change its row where it differs.
//!
//! The seven tables of a pack's components are written the same way; only their columns differ. The statement is put
//! together from the names of tables and columns in this crate; every value is bound.

use attune_model::rows::{RawPlacement, Retention};
use attune_model::status::RetentionPolicy;
use attune_store::StoreError;
use serde_json::Value;
use sqlx::{AssertSqlSafe, Row as _};

use crate::columns::json;
use crate::error::During as _;
use crate::pool::{Query, Unit};

/// A value as it is stored.
#[derive(Debug, Clone)]
pub(super) enum Cell {
    Integer(Option<i64>),
    Truth(bool),
    Text(Option<String>),
    Document(Option<String>),
    List(Option<Vec<String>>),
    Policy(Option<&'static str>),
}

impl Cell {
    /// A document in a column that cannot be NULL; null is the column's default.
    pub(super) fn document(value: &Value, default: &str) -> Self {
        Self::Document(Some(if value.is_null() { default.to_owned() } else { json(value) }))
    }
}

impl Cell {
    /// What the parameter is cast to: the driver sends these as text.
    fn cast(&self) -> &'static str {
        match self {
            Self::Document(_) => "::jsonb",
            Self::Policy(_) => "::artifact_retention_enum",
            Self::Integer(_) | Self::Truth(_) | Self::Text(_) | Self::List(_) => "",
        }
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
        Self::Truth(value)
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
        Self::Document(value.as_ref().map(json))
    }
}

impl From<&Vec<String>> for Cell {
    fn from(value: &Vec<String>) -> Self {
        Self::List(Some(value.clone()))
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
    let policy = |of: Retention| Cell::Policy(of.policy.map(RetentionPolicy::as_str));
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
    unit: &mut Unit,
    table: &'static str,
    key: &'static str,
    columns: &[Column],
    operation: &str,
) -> Result<i64, StoreError> {
    let during = || operation.to_owned();
    let names: Vec<&str> = columns.iter().map(|(name, _)| *name).collect();
    let places: Vec<String> =
        columns.iter().enumerate().map(|(at, (_, cell))| format!("${}{}", at + 1, cell.cast())).collect();
    let set: Vec<String> = names.iter().map(|name| format!("{name} = excluded.{name}")).collect();
    let differs: Vec<String> =
        names.iter().map(|name| format!("{table}.{name} IS DISTINCT FROM excluded.{name}")).collect();
    let sql = format!(
        "INSERT INTO {table} ({}) VALUES ({}) ON CONFLICT ({key}) DO UPDATE SET {} WHERE {}",
        names.join(", "),
        places.join(", "),
        set.join(", "),
        differs.join(" OR "),
    );
    unit.execute(bind(sqlx::query(AssertSqlSafe(sql)), columns)).await.during(during)?;
    let keys: Vec<Column> =
        columns.iter().filter(|(name, _)| key.split(", ").any(|part| part == *name)).cloned().collect();
    let same: Vec<String> = keys.iter().enumerate().map(|(at, (name, _))| format!("{name} = ${}", at + 1)).collect();
    let sql = format!("SELECT id FROM {table} WHERE {}", same.join(" AND "));
    let row = unit.one(bind(sqlx::query(AssertSqlSafe(sql)), &keys)).await;
    row.and_then(|row| row.try_get("id")).during(during)
}

fn bind(query: Query<'static>, columns: &[Column]) -> Query<'static> {
    columns.iter().fold(query, |query, (_, cell)| match cell.clone() {
        Cell::Integer(value) => query.bind(value),
        Cell::Truth(value) => query.bind(value),
        Cell::Text(value) | Cell::Document(value) => query.bind(value),
        Cell::List(value) => query.bind(value),
        Cell::Policy(value) => query.bind(value),
    })
}
