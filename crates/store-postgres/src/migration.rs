//! The schema of a self-contained installation: made in steps, each of them once.
//!
//! Agents never do this. Where the platform's own migrations made the schema nothing is touched.

use std::time::Duration;

use attune_config::DatabaseConfig;
use sqlx::postgres::PgConnection;
use sqlx::{AssertSqlSafe, Connection as _, Row as _};
use thiserror::Error;
use tokio::time::timeout;

use crate::connect::{ConnectError, Place, checked_schema, search_path};
use crate::error::{has_code, silent};

/// The steps, oldest first. A step that was released is never changed, and may run again on what it made.
const STEPS: [&str; 1] = [include_str!("schema/1.sql")];

/// How long the whole may take, with waiting for another one that is at it.
const LIMIT: Duration = Duration::from_mins(5);

/// What the guard of [`prologue`] raises.
const FOREIGN: &str = "ATT01";

/// What became of the schema.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Migration {
    /// It is at `version` now.
    Done {
        /// Steps that it had before.
        before: i32,
        /// Steps that it has.
        version: i32,
    },
    /// Its tables were made by somebody else, so nothing was touched.
    Foreign,
}

/// Why the schema could not be made.
#[derive(Debug, Error)]
pub enum MigrateError {
    /// No way to the database.
    #[error(transparent)]
    Connect(#[from] ConnectError),
    /// It was made by a later version of this program.
    #[error("schema {schema} has version {found}, this program knows up to {known}; use the program that made it")]
    Newer {
        /// The schema.
        schema: String,
        /// Its version.
        found: i32,
        /// Ours.
        known: i32,
    },
    /// A statement failed; everything was taken back.
    #[error("failed to make version {version} of schema {schema}")]
    Failed {
        /// The schema.
        schema: String,
        /// The step; 0 is the preparation.
        version: i32,
        /// What the server said.
        #[source]
        source: sqlx::Error,
    },
}

impl MigrateError {
    /// Whether the same attempt may succeed later.
    pub fn may_pass(&self) -> bool {
        match self {
            Self::Connect(error) => error.may_pass(),
            Self::Newer { .. } => false,
            Self::Failed { source, .. } => crate::error::is_passing(source),
        }
    }
}

/// The version that [`migrate`] leads to.
pub fn version() -> i32 {
    i32::try_from(STEPS.len()).unwrap_or(i32::MAX)
}

/// Makes the schema, or brings it up to date. Several at once wait for each other; a failure leaves nothing behind.
pub async fn migrate(config: &DatabaseConfig) -> Result<Migration, MigrateError> {
    let place = Place::of(config)?;
    let mut connection = place.connect().await?;
    let done = timeout(LIMIT, run(&mut connection, &place.schema)).await;
    let done = done.unwrap_or_else(|_| {
        Err(MigrateError::Failed { schema: place.schema.clone(), version: 0, source: silent(LIMIT) })
    });
    // What follows needs no answer.
    drop(connection.close());
    done
}

/// What [`migrate`] runs, as one script for any client of the server.
pub fn script(schema: &str) -> Result<String, ConnectError> {
    let schema = checked_schema(schema)?;
    let mut parts = vec![prologue(&schema)];
    for (version, step) in (1..).zip(STEPS) {
        parts.extend([step.to_owned(), applied(version)]);
    }
    parts.push("COMMIT;\n".to_owned());
    Ok(parts.join("\n"))
}

async fn run(connection: &mut PgConnection, schema: &str) -> Result<Migration, MigrateError> {
    let failed = |version| move |source| MigrateError::Failed { schema: schema.to_owned(), version, source };
    if let Err(error) = sqlx::raw_sql(AssertSqlSafe(prologue(schema))).execute(&mut *connection).await {
        return if has_code(&error, FOREIGN) { Ok(Migration::Foreign) } else { Err(failed(0)(error)) };
    }
    let row = sqlx::raw_sql("SELECT coalesce(max(version), 0)::text FROM attune_agents_schema")
        .fetch_one(&mut *connection)
        .await
        .map_err(failed(0))?;
    let before = row.try_get::<&str, _>(0).map_err(failed(0))?.parse().unwrap_or_default();
    if before > version() {
        return Err(MigrateError::Newer { schema: schema.to_owned(), found: before, known: version() });
    }
    for (version, step) in (1..).zip(STEPS).filter(|(version, _)| *version > before) {
        sqlx::raw_sql(step).execute(&mut *connection).await.map_err(failed(version))?;
        let applied = sqlx::raw_sql(AssertSqlSafe(applied(version)));
        applied.execute(&mut *connection).await.map_err(failed(version))?;
    }
    sqlx::raw_sql("COMMIT").execute(&mut *connection).await.map_err(failed(version()))?;
    Ok(Migration::Done { before, version: version() })
}

/// Opens the transaction, lets one in at a time, and refuses tables of other origin.
fn prologue(schema: &str) -> String {
    format!(
        r"BEGIN;
SET LOCAL statement_timeout = '{limit}s';
SET LOCAL client_min_messages = warning;
SET LOCAL search_path TO {path};
SELECT pg_advisory_xact_lock(hashtextextended('attune schema {schema}', 0));
DO $do$
BEGIN
    IF to_regnamespace('{schema}') IS NULL THEN
        CREATE SCHEMA {schema};
    END IF;
    IF to_regclass('{schema}.attune_agents_schema') IS NULL
       AND EXISTS (SELECT FROM pg_class WHERE relnamespace = to_regnamespace('{schema}')
                   AND relname IN ('identity', 'pack', 'worker', 'execution', 'sensor')) THEN
        RAISE EXCEPTION 'schema {schema} has tables of another origin; nothing was changed' USING ERRCODE = '{FOREIGN}';
    END IF;
END
$do$;
CREATE TABLE IF NOT EXISTS {schema}.attune_agents_schema (
    version integer PRIMARY KEY,
    applied timestamptz NOT NULL DEFAULT now()
);
",
        limit = LIMIT.as_secs(),
        path = search_path(schema),
    )
}

fn applied(version: i32) -> String {
    format!("INSERT INTO attune_agents_schema (version) VALUES ({version}) ON CONFLICT DO NOTHING;")
}
