//! Whether the schema is what a role needs, before anything relies on it.
//!
//! Only what the role uses is looked at: a platform that is newer or older in other places is none of its business.

use std::collections::{BTreeMap, BTreeSet};

use attune_store::StoreError;
use sqlx::Row as _;
use sqlx::postgres::PgRow;
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
struct Column {
    kind: String,
    required: bool,
    filled: bool,
    generated: bool,
}

impl PostgresStore {
    /// Compares the tables that `role` uses with what it needs; the first difference is the error.
    pub async fn check(&self, role: Role) -> Result<(), CheckError> {
        let needed = tables(role);
        let found = self.columns(&needed).await?;
        let keys = self.unique_keys(&needed).await?;
        for need in &needed {
            let Some(columns) = found.get(need.table) else {
                return Err(CheckError::Differs(format!("table {} is missing", need.table)));
            };
            compare(need, columns).map_err(|what| CheckError::Differs(format!("table {}: {what}", need.table)))?;
            for key in need.keys {
                let columns: BTreeSet<&str> = key.split(", ").collect();
                let unique =
                    keys.get(need.table).is_some_and(|keys| keys.iter().any(|found| found.iter().eq(&columns)));
                if !unique {
                    let what = format!("table {}: ({key}) is not unique", need.table);
                    return Err(CheckError::Differs(what));
                }
            }
        }
        self.check_enums(&needed).await
    }

    async fn columns(&self, needed: &[Need]) -> Result<BTreeMap<String, BTreeMap<String, Column>>, StoreError> {
        let operation = || "read the columns of the schema".to_owned();
        let query = sqlx::query(
            r"
            SELECT name, attname::text AS attname, format_type(atttypid, NULL) AS kind, attnotnull AS required,
                   atthasdef OR attidentity <> '' AS filled, attgenerated <> '' AS generated
            FROM unnest($1::text[]) AS names (name)
            JOIN pg_attribute ON attrelid = to_regclass(quote_ident(name))
            WHERE attnum > 0 AND NOT attisdropped
            ",
        )
        .bind(names(needed));
        let mut found: BTreeMap<String, BTreeMap<String, Column>> = BTreeMap::new();
        for row in self.pool.all(query).await.during(operation)? {
            let (table, name, column) = column(&row).during(operation)?;
            found.entry(table).or_default().insert(name, column);
        }
        Ok(found)
    }

    /// The columns of every unique index that holds for all rows.
    async fn unique_keys(&self, needed: &[Need]) -> Result<BTreeMap<String, Vec<BTreeSet<String>>>, StoreError> {
        let operation = || "read the unique keys of the schema".to_owned();
        let query = sqlx::query(
            r"
            SELECT name, array_agg(attname::text) AS columns
            FROM unnest($1::text[]) AS names (name)
            JOIN pg_index ON indrelid = to_regclass(quote_ident(name))
            JOIN pg_attribute ON attrelid = indrelid AND attnum = ANY (indkey)
            WHERE indisunique AND indisvalid AND indpred IS NULL AND indexprs IS NULL
            GROUP BY name, indexrelid
            ",
        )
        .bind(names(needed));
        let mut found: BTreeMap<String, Vec<BTreeSet<String>>> = BTreeMap::new();
        for row in self.pool.all(query).await.during(operation)? {
            let table = row.try_get("name").during(operation)?;
            let columns: Vec<String> = row.try_get("columns").during(operation)?;
            found.entry(table).or_default().push(columns.into_iter().collect());
        }
        Ok(found)
    }

    async fn check_enums(&self, needed: &[Need]) -> Result<(), CheckError> {
        let operation = || "read the enums of the schema".to_owned();
        for (name, labels) in enums(needed) {
            let query =
                sqlx::query("SELECT enumlabel::text FROM pg_enum WHERE enumtypid = to_regtype(quote_ident($1))::oid");
            let found = self.pool.all(query.bind(name)).await.during(operation)?;
            let found: BTreeSet<String> =
                found.iter().map(|row| row.try_get(0)).collect::<Result<_, _>>().during(operation)?;
            if let Some(missing) = labels.iter().find(|label| !found.contains(**label)) {
                return Err(CheckError::Differs(format!("type {name}: value {missing} is missing")));
            }
        }
        Ok(())
    }
}

fn names(needed: &[Need]) -> Vec<&'static str> {
    needed.iter().map(|need| need.table).collect()
}

fn column(row: &PgRow) -> Result<(String, String, Column), sqlx::Error> {
    let column = Column {
        kind: row.try_get("kind")?,
        required: row.try_get("required")?,
        filled: row.try_get("filled")?,
        generated: row.try_get("generated")?,
    };
    Ok((row.try_get("name")?, row.try_get("attname")?, column))
}

fn compare(need: &Need, columns: &BTreeMap<String, Column>) -> Result<(), String> {
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
        .find(|(name, column)| need.inserts && !known.contains(name.as_str()) && column.required && !column.filled);
    unknown.map_or(Ok(()), |(name, _)| Err(format!("column {name} is required and not known to this version")))
}
