//! Storage on the platform's own PostgreSQL schema.
//!
//! The same tables that the platform's own services use, PostgreSQL 14 and later; nothing here needs a change of that
//! schema. [`migrate`](migration::migrate) makes it for installations that have nothing else.
//!
//! Every method is one statement or one short transaction. Clocks are the server's, so hosts need not agree on the time.
//! A statement that gets no answer in time ends as [`StoreError::Unavailable`] and
//! closes its connection; whether it was carried out is then not known, and every writer's guard makes that harmless.

mod agent;
mod artifact;
mod check;
mod columns;
mod connect;
mod environment;
mod error;
mod hub;
mod lease;
mod log;
mod log_batch;
pub mod migration;
mod needs;
mod pool;
mod rows;
mod sensor;
mod together;
mod worker;

use attune_config::DatabaseConfig;
use attune_store::StoreError;
use sqlx::Row as _;
use sqlx::postgres::PgRow;

pub use check::{CheckError, Role};
use columns::{JsonRow, whole};
use connect::Place;
pub use connect::{ConnectError, RETRY_PAUSE, system_roots};
use error::During as _;
use hub::TokenSubjects;
use pool::{Limits, Pool, Query, Unit};
use worker::{Claims, Finishes};

/// Attune's storage in a PostgreSQL schema. Clones share their connections.
#[derive(Debug, Clone)]
pub struct PostgresStore {
    pool: Pool,
    place: String,
    claims: Claims,
    finishes: Finishes,
    token_subjects: TokenSubjects,
}

impl PostgresStore {
    /// Connects once, to say at once what is wrong; waiting for a server that is not there yet is the caller's business
    /// ([`ConnectError::may_pass`]). Further connections are opened as they are needed.
    pub async fn connect(config: &DatabaseConfig) -> Result<Self, ConnectError> {
        let place = Place::of(config)?;
        let mut connection = place.connect().await?;
        place.require_schema(&mut connection).await?;
        let limits = Limits {
            most: config.max_connections,
            kept: config.min_connections,
            wait: config.connect_timeout,
            idle: config.idle_timeout,
        };
        Ok(Self {
            place: place.name(),
            pool: Pool::new(place.options, limits, connection),
            claims: worker::claims(),
            finishes: worker::finishes(),
            token_subjects: hub::token_subjects(),
        })
    }

    /// Where the server is, for people.
    pub fn place(&self) -> &str {
        &self.place
    }

    /// Ends the connections. Dropping the store is safe too; this says goodbye.
    pub async fn close(&self) {
        self.pool.close().await;
    }

    /// Begins a unit of work that writes.
    async fn write(&self, operation: &str) -> Result<Unit, StoreError> {
        self.pool.begin().await.during(|| operation.to_owned())
    }

    /// Begins several reads of one state.
    async fn read(&self, operation: &str) -> Result<Unit, StoreError> {
        self.pool.begin_reading().await.during(|| operation.to_owned())
    }

    /// Rows of one table, as the only column of `query`.
    async fn rows<T>(
        &self,
        query: Query<'_>,
        row: fn(JsonRow<'_>) -> Result<T, StoreError>,
        operation: impl Fn() -> String,
    ) -> Result<Vec<T>, StoreError> {
        each(&self.pool.all(query).await.during(&operation)?, row, operation)
    }

    /// The first row of one table, as the only column of `query`.
    async fn first<T>(
        &self,
        query: Query<'_>,
        row: fn(JsonRow<'_>) -> Result<T, StoreError>,
        operation: impl Fn() -> String,
    ) -> Result<Option<T>, StoreError> {
        Ok(self.rows(query, row, operation).await?.into_iter().next())
    }
}

impl Unit {
    /// The number that `query` yields.
    async fn count(&mut self, query: Query<'_>, operation: impl Fn() -> String) -> Result<u64, StoreError> {
        let row = self.one(query).await;
        row.and_then(|row| row.try_get::<i64, _>(0)).during(operation).map(i64::unsigned_abs)
    }

    /// Rows of one table, as the only column of `query`.
    async fn rows<T>(
        &mut self,
        query: Query<'_>,
        row: fn(JsonRow<'_>) -> Result<T, StoreError>,
        operation: impl Fn() -> String,
    ) -> Result<Vec<T>, StoreError> {
        each(&self.all(query).await.during(&operation)?, row, operation)
    }

    /// The first row of one table, as the only column of `query`.
    async fn first<T>(
        &mut self,
        query: Query<'_>,
        row: fn(JsonRow<'_>) -> Result<T, StoreError>,
        operation: impl Fn() -> String,
    ) -> Result<Option<T>, StoreError> {
        Ok(self.rows(query, row, operation).await?.into_iter().next())
    }
}

fn each<T>(
    found: &[PgRow],
    row: fn(JsonRow<'_>) -> Result<T, StoreError>,
    operation: impl Fn() -> String,
) -> Result<Vec<T>, StoreError> {
    found.iter().map(|found| whole(found).during(&operation).and_then(row)).collect()
}
