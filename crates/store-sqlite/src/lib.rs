//! Storage embedded in the process, on SQLite.
//!
//! One file with the platform's tables, as far as agents and hub use them. All writes go through one connection and every
//! unit of work is one transaction of its own, so writers never wait for each other inside this process; readers have
//! connections of their own and always see the last commit. Several processes may use one file.
//!
//! A write that was reported as done is on the disk: WAL with `synchronous = FULL` syncs the log at every commit. NORMAL
//! would save that, but loses the last commits when the machine goes down, and a claim that nobody remembers is an
//! execution that runs twice.

mod agent;
mod artifact;
mod columns;
mod environment;
mod error;
mod hub;
mod lease;
mod log;
mod open;
mod rows;
mod schema;
mod sensor;
mod worker;

use std::path::{Path, PathBuf};

use chrono::{DateTime, SubsecRound, Utc};
use sqlx::sqlite::{Sqlite, SqliteArguments, SqliteRow};
use sqlx::{SqlitePool, Transaction};

use attune_store::StoreError;

use error::During;
pub use open::OpenError;

/// Attune's storage in one SQLite file. Clones share their connections.
#[derive(Debug, Clone)]
pub struct SqliteStore {
    /// The file, for people.
    path: PathBuf,
    /// Exactly one connection.
    writer: SqlitePool,
    /// A few connections that cannot write.
    readers: SqlitePool,
}

impl SqliteStore {
    /// Opens the file at `path`; makes it, or brings its schema up to date, when that is needed. Its folder has to exist.
    pub async fn open(path: &Path) -> Result<Self, OpenError> {
        let (writer, readers) = open::open(path).await?;
        Ok(Self { path: path.to_owned(), writer, readers })
    }

    /// The file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Waits for running statements and closes the file. Dropping the store is safe too; closing folds the log into the file.
    pub async fn close(&self) {
        self.readers.close().await;
        self.writer.close().await;
    }

    /// Begins a unit of work that writes. It holds the write lock from the start, so what it reads cannot be overtaken.
    async fn write(&self, operation: &str) -> Result<Transaction<'static, Sqlite>, StoreError> {
        self.writer.begin_with("BEGIN IMMEDIATE").await.during(|| operation.to_owned())
    }

    /// Begins several reads of one state.
    async fn read(&self, operation: &str) -> Result<Transaction<'static, Sqlite>, StoreError> {
        self.readers.begin().await.during(|| operation.to_owned())
    }
}

/// The store's clock, in the resolution that it stores.
fn now() -> DateTime<Utc> {
    Utc::now().trunc_subsecs(6)
}

/// The row that a writing statement returns.
///
/// Not `fetch_optional`: it stops at the row, and an error of the commit that follows the row is lost.
async fn written(query: Query<'_>, writer: &SqlitePool) -> Result<Option<SqliteRow>, sqlx::Error> {
    Ok(query.fetch_all(writer).await?.pop())
}

type Query<'q> = sqlx::query::Query<'q, Sqlite, SqliteArguments>;

#[cfg(test)]
mod tests {
    use sqlx::Executor as _;

    use super::*;

    #[tokio::test]
    async fn a_returned_row_that_could_not_be_committed_is_an_error() {
        let options = sqlx::sqlite::SqlitePoolOptions::new().max_connections(1);
        let writer = options.connect("sqlite::memory:").await.unwrap();
        writer.execute("CREATE TABLE one (id INTEGER PRIMARY KEY) STRICT").await.unwrap();
        let many = "CREATE TABLE many (one INTEGER REFERENCES one DEFERRABLE INITIALLY DEFERRED) STRICT";
        writer.execute(many).await.unwrap();
        // The reference is checked by the commit, after the row was returned.
        let insert = "INSERT INTO many VALUES (1) RETURNING one";
        written(sqlx::query(insert), &writer).await.unwrap_err();
        writer.execute("INSERT INTO one VALUES (1)").await.unwrap();
        assert!(written(sqlx::query(insert), &writer).await.unwrap().is_some());
    }
    #[tokio::test]
    async fn a_disk_that_was_full_is_written_again() {
        let folder = tempfile::tempdir().unwrap();
        let store = SqliteStore::open(&folder.path().join("attune.db")).await.unwrap();
        // No more pages than there are: to SQLite the same as a full disk.
        sqlx::query("PRAGMA max_page_count = 1").execute(&store.writer).await.unwrap();
        let insert = "INSERT INTO identity (login) VALUES (hex(zeroblob(100000)))";
        let mut transaction = store.write("fill the disk").await.unwrap();
        let error = sqlx::query(insert).execute(&mut *transaction).await.unwrap_err();
        assert_eq!(error::primary_code(&error), Some(13), "{error}");
        let error = Err::<(), _>(error).during(|| "fill the disk".to_owned()).unwrap_err();
        assert!(matches!(error, StoreError::Unavailable { .. }), "whoever writes may try again: {error:?}");
        drop(transaction);

        let mut transaction = store.write("write again").await.unwrap();
        sqlx::query(insert).execute(&mut *transaction).await.unwrap();
        transaction.commit().await.unwrap();
    }
}
