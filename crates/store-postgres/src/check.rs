//! Whether the schema is what a role needs, before anything relies on it.
//!
//! Only what the role uses is looked at: a platform that is newer or older in other places is none of its business.

use std::collections::{BTreeMap, BTreeSet};

use attune_model::order;
use attune_store::StoreError;
use chrono::{DateTime, Utc};
use serde::Deserialize;
use sqlx::Row as _;
use sqlx::types::Json;
use thiserror::Error;

use crate::PostgresStore;
use crate::error::During as _;
use crate::needs::{Need, enums, tables};

/// Whose tables are looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// The action worker.
    Worker,
    /// The sensor host.
    Sensor,
    /// The hub.
    Hub,
}

/// What is wrong with the schema.
#[derive(Debug, Error)]
pub enum CheckError {
    /// It could not be read.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The first difference, by name.
    #[error("the database does not fit this version: {0}")]
    Differs(String),
}

/// What the server knows of a column.
#[derive(Debug, Deserialize)]
struct Column {
    table: String,
    name: String,
    kind: String,
    required: bool,
    filled: bool,
    generated: bool,
}

/// Everything that is looked at, as it is.
#[derive(Debug, Deserialize)]
struct Found {
    columns: Vec<Column>,
    keys: Vec<Key>,
    enums: BTreeMap<String, BTreeSet<String>>,
}

/// The columns of a unique index that holds for all rows.
#[derive(Debug, Deserialize)]
struct Key {
    table: String,
    columns: BTreeSet<String>,
}

/// One statement: an agent starts in the time of one round trip.
const FIND: &str = r"
    WITH tables AS MATERIALIZED (
        SELECT name, to_regclass(quote_ident(name)) AS relation FROM unnest($1::text[]) AS names (name)
    )
    SELECT json_build_object(
        'columns', (
            SELECT coalesce(json_agg(json_build_object(
                'table', tables.name, 'name', attname, 'kind', format_type(atttypid, NULL), 'required', attnotnull,
                'filled', atthasdef OR attidentity <> '', 'generated', attgenerated <> ''
            )), '[]')
            FROM tables JOIN pg_attribute ON attrelid = relation
            WHERE attnum > 0 AND NOT attisdropped
        ),
        'keys', (
            SELECT coalesce(json_agg(found), '[]') FROM (
                SELECT tables.name AS table, json_agg(attname) AS columns
                FROM tables
                JOIN pg_index ON indrelid = relation
                JOIN pg_attribute ON attrelid = indrelid AND attnum = ANY (indkey)
                WHERE indisunique AND indisvalid AND indpred IS NULL AND indexprs IS NULL
                GROUP BY tables.name, indexrelid
            ) AS found
        ),
        'enums', (
            SELECT coalesce(json_object_agg(name, labels), '{}') FROM (
                SELECT name, json_agg(enumlabel) AS labels
                FROM unnest($2::text[]) AS names (name)
                JOIN pg_enum ON enumtypid = to_regtype(quote_ident(name))::oid
                GROUP BY name
            ) AS found
        )
    )
";

impl PostgresStore {
    /// What the server's clock says, on the way back from there.
    pub async fn clock(&self) -> Result<DateTime<Utc>, StoreError> {
        let operation = || "read the clock".to_owned();
        let row = self.pool.one(sqlx::query("SELECT clock_timestamp()")).await.during(operation)?;
        row.try_get(0).during(operation)
    }

    /// Compares the tables that `role` uses with what it needs; the first difference is the error.
    pub async fn check(&self, role: Role) -> Result<(), CheckError> {
        let operation = || "read the schema".to_owned();
        let needed = tables(role);
        let enums = enums(&needed);
        let names: Vec<&str> = needed.iter().map(|need| need.table).collect();
        let types: Vec<&str> = enums.iter().map(|(name, _)| *name).collect();
        let row = self.pool.one(sqlx::query(FIND).bind(names).bind(types)).await.during(operation)?;
        let Json(found): Json<Found> = row.try_get(0).during(operation)?;
        first_difference(&needed, &enums, &found).map_or(Ok(()), |what| Err(CheckError::Differs(what)))
    }
}

fn first_difference(needed: &[Need], enums: &[(&str, Vec<&str>)], found: &Found) -> Option<String> {
    for need in needed {
        let columns: BTreeMap<&str, &Column> =
            order::map(found.columns.iter().filter(|it| it.table == need.table).map(|it| (it.name.as_str(), it)));
        if columns.is_empty() {
            return Some(format!("table {} is missing", need.table));
        }
        if let Err(what) = compare(need, &columns) {
            return Some(format!("table {}: {what}", need.table));
        }
        for key in need.keys {
            let columns: BTreeSet<&str> = key.split(", ").collect();
            let is_it = |found: &Key| found.table == need.table && found.columns.iter().eq(&columns);
            if !found.keys.iter().any(is_it) {
                return Some(format!("table {}: ({key}) is not unique", need.table));
            }
        }
    }
    enums.iter().find_map(|(name, labels)| {
        let known = found.enums.get(*name);
        let missing = labels.iter().find(|label| !known.is_some_and(|known| known.contains(**label)))?;
        Some(format!("type {name}: value {missing} is missing"))
    })
}

fn compare(need: &Need, columns: &BTreeMap<&str, &Column>) -> Result<(), String> {
    let mut known = BTreeSet::new();
    for (name, kind, mark) in need.columns() {
        known.insert(name);
        let Some(column) = columns.get(name) else {
            return Err(format!("column {name} is missing"));
        };
        if column.kind != kind {
            return Err(format!("column {name} is {} instead of {kind}", column.kind));
        }
        match mark {
            Some('=') if !column.filled => return Err(format!("column {name} has no default")),
            Some('!') if !column.generated => return Err(format!("column {name} is not generated")),
            _ => {}
        }
    }
    // A column that nobody here knows must fill itself when a row is made.
    let unknown = columns
        .iter()
        .find(|(name, column)| need.inserts && !known.contains(*name) && column.required && !column.filled);
    unknown.map_or(Ok(()), |(name, _)| Err(format!("column {name} is required and not known to this version")))
}
