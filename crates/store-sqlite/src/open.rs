//! Opening a file: which one it is, which schema it has, how the connections are set.

use std::fs::OpenOptions;
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use sqlx::sqlite::{
    SqliteConnectOptions, SqliteConnection, SqliteJournalMode, SqlitePoolOptions, SqliteSynchronous,
};
use sqlx::{AssertSqlSafe, Connection, SqlitePool};
use thiserror::Error;

use crate::error::primary_code;
use crate::schema::{APPLICATION_ID, STEPS};

/// How long a statement waits for the lock of another process.
const BUSY_TIMEOUT: Duration = Duration::from_secs(10);
/// How long a caller waits for a connection of this process.
const ACQUIRE_TIMEOUT: Duration = Duration::from_secs(30);
/// Reads are short; more connections than this would only hold memory.
const READERS: u32 = 4;
/// What remains of the log after a burst of writes.
const LOG_LIMIT_BYTES: &str = "16777216";
/// Result codes of SQLite.
const CORRUPT: i32 = 11;
const NOT_A_DATABASE: i32 = 26;

/// Why a file could not be opened.
#[derive(Debug, Error)]
pub enum OpenError {
    /// The file or its folder is not usable for this user.
    #[error("cannot write the database {}: make its folder, or choose one that this user may write", path.display())]
    Unwritable {
        /// The file.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// The content is not SQLite's.
    #[error("{} is not a database; move it away or choose another data folder", path.display())]
    NotADatabase {
        /// The file.
        path: PathBuf,
    },
    /// It belongs to another program.
    #[error("{} is a database of another program; move it away or choose another data folder", path.display())]
    Foreign {
        /// The file.
        path: PathBuf,
    },
    /// It was written by a later version of this program.
    #[error(
        "the database {} has schema version {found}, this program knows up to {known}; use the program that wrote it",
        path.display()
    )]
    Newer {
        /// The file.
        path: PathBuf,
        /// Its version.
        found: i64,
        /// Ours.
        known: i64,
    },
    /// Parts of it are gone.
    #[error("the database {} is damaged; restore it from a copy or move it away", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What SQLite said.
        #[source]
        source: Box<sqlx::Error>,
    },
    /// Something else, such as a lock that another process does not give back.
    #[error("failed to open the database {}", path.display())]
    Failed {
        /// The file.
        path: PathBuf,
        /// What SQLite said.
        #[source]
        source: Box<sqlx::Error>,
    },
}

/// Opens or makes the file; returns the writer and the readers.
pub(crate) async fn open(path: &Path) -> Result<(SqlitePool, SqlitePool), OpenError> {
    make_file(path)?;
    let failed = |error| describe(path, error);
    let plain = SqliteConnectOptions::new()
        .filename(path)
        .busy_timeout(BUSY_TIMEOUT);

    // Nothing of a file is changed before it is known to be ours.
    let mut connection = SqliteConnection::connect_with(&plain)
        .await
        .map_err(failed)?;
    let found = identify(&mut connection, path).await?;
    if found == Found::Empty {
        // Before the first table, because the switch needs the file for itself and is then over in no time.
        wal(&mut connection).await.map_err(failed)?;
    }
    migrate(&mut connection, path).await?;
    connection.close().await.map_err(failed)?;

    let options = plain
        .journal_mode(SqliteJournalMode::Wal)
        .synchronous(SqliteSynchronous::Full)
        .foreign_keys(true)
        .pragma("journal_size_limit", LOG_LIMIT_BYTES);
    let writer = pool(1)
        .connect_with(options.clone())
        .await
        .map_err(failed)?;
    let readers = pool(READERS)
        .connect_with(options.pragma("query_only", "ON"))
        .await
        .map_err(failed)?;
    Ok((writer, readers))
}

fn pool(connections: u32) -> SqlitePoolOptions {
    SqlitePoolOptions::new()
        .max_connections(connections)
        .min_connections(1)
        .acquire_timeout(ACQUIRE_TIMEOUT)
        // The other end of the connection is this process: it does not go away.
        .idle_timeout(None)
        .max_lifetime(None)
        .test_before_acquire(false)
}

/// Makes an empty file that only its owner can read (parameters of executions are inside), or checks that an existing one
/// can be written. SQLite would say no more than "unable to open".
fn make_file(path: &Path) -> Result<(), OpenError> {
    OpenOptions::new()
        .read(true)
        .append(true)
        .create(true)
        .mode(0o600)
        .open(path)
        .map(drop)
        .map_err(|source| OpenError::Unwritable {
            path: path.to_owned(),
            source,
        })
}

#[derive(Debug, PartialEq, Eq)]
enum Found {
    /// No table yet.
    Empty,
    /// One of ours that this program can use.
    Ours,
}

async fn identify(connection: &mut SqliteConnection, path: &Path) -> Result<Found, OpenError> {
    let failed = |error| describe(path, error);
    let tables: i64 = sqlx::query_scalar("SELECT count(*) FROM sqlite_schema")
        .fetch_one(&mut *connection)
        .await
        .map_err(failed)?;
    let application: i64 = sqlx::query_scalar("PRAGMA application_id")
        .fetch_one(&mut *connection)
        .await
        .map_err(failed)?;
    let version = user_version(connection).await.map_err(failed)?;
    if application == APPLICATION_ID {
        if version > known() {
            return Err(OpenError::Newer {
                path: path.to_owned(),
                found: version,
                known: known(),
            });
        }
        return Ok(Found::Ours);
    }
    if tables > 0 || application != 0 || version != 0 {
        return Err(OpenError::Foreign {
            path: path.to_owned(),
        });
    }
    Ok(Found::Empty)
}

async fn wal(connection: &mut SqliteConnection) -> Result<(), sqlx::Error> {
    sqlx::query("PRAGMA journal_mode = WAL")
        .execute(connection)
        .await
        .map(drop)
}

/// Runs the missing steps in one transaction: after a crash the file has the old schema or the new one.
async fn migrate(connection: &mut SqliteConnection, path: &Path) -> Result<(), OpenError> {
    let failed = |error| describe(path, error);
    if user_version(connection).await.map_err(failed)? == known() {
        return Ok(());
    }
    let mut transaction = connection
        .begin_with("BEGIN IMMEDIATE")
        .await
        .map_err(failed)?;
    // Another process may have done it while this one waited for the lock.
    let version = user_version(&mut transaction).await.map_err(failed)?;
    let done = usize::try_from(version).unwrap_or(0);
    for step in STEPS.iter().skip(done) {
        sqlx::raw_sql(*step)
            .execute(&mut *transaction)
            .await
            .map_err(failed)?;
    }
    let marks = format!(
        "PRAGMA application_id = {APPLICATION_ID}; PRAGMA user_version = {}",
        known()
    );
    sqlx::raw_sql(AssertSqlSafe(marks))
        .execute(&mut *transaction)
        .await
        .map_err(failed)?;
    transaction.commit().await.map_err(failed)
}

async fn user_version(connection: &mut SqliteConnection) -> Result<i64, sqlx::Error> {
    sqlx::query_scalar("PRAGMA user_version")
        .fetch_one(connection)
        .await
}

fn known() -> i64 {
    i64::try_from(STEPS.len()).expect("a handful of steps")
}

fn describe(path: &Path, error: sqlx::Error) -> OpenError {
    let path = path.to_owned();
    match primary_code(&error) {
        Some(NOT_A_DATABASE) => OpenError::NotADatabase { path },
        Some(CORRUPT) => OpenError::Damaged {
            path,
            source: Box::new(error),
        },
        _ => OpenError::Failed {
            path,
            source: Box::new(error),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn every_commit_is_synced_and_foreign_keys_are_kept() {
        let folder = tempfile::tempdir().unwrap();
        let (writer, readers) = open(&folder.path().join("attune.db")).await.unwrap();
        for (sql, wanted) in [
            ("SELECT synchronous FROM pragma_synchronous", 2),
            ("SELECT foreign_keys FROM pragma_foreign_keys", 1),
            ("SELECT journal_mode = 'wal' FROM pragma_journal_mode", 1),
        ] {
            let value: i64 = sqlx::query_scalar(sql).fetch_one(&writer).await.unwrap();
            assert_eq!(value, wanted, "{sql}");
        }
        let written = sqlx::query("DELETE FROM worker").execute(&readers).await;
        assert!(written.is_err(), "readers cannot write");
    }
}
