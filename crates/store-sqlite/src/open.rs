//! Opening a file: which one it is, which schema it has, how the connections are set.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use sqlx::sqlite::{SqliteConnectOptions, SqliteConnection, SqlitePoolOptions, SqliteSynchronous};
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
const BUSY: i32 = 5;
const READ_ONLY: i32 = 8;
const CANNOT_OPEN: i32 = 14;
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
        /// What SQLite said.
        #[source]
        source: Box<sqlx::Error>,
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
    let failed = |error| describe(path, error);
    let options = SqliteConnectOptions::new()
        .filename(path)
        .create_if_missing(true)
        .busy_timeout(BUSY_TIMEOUT)
        .synchronous(SqliteSynchronous::Full)
        .foreign_keys(true)
        .pragma("journal_size_limit", LOG_LIMIT_BYTES);

    // Nothing of a file is changed before it is known to be ours.
    let mut connection = SqliteConnection::connect_with(&options).await.map_err(failed)?;
    if identify(&mut connection, path).await? == Found::Empty {
        keep_private(path)?;
    }
    wal(&mut connection).await.map_err(failed)?;
    migrate(&mut connection).await.map_err(failed)?;
    connection.close().await.map_err(failed)?;

    let writer = pool(1).connect_with(options.clone()).await.map_err(failed)?;
    let readers = options.pragma("query_only", "ON");
    let readers = pool(READERS).connect_with(readers).await.map_err(failed)?;
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
        .after_release(|connection, _| Box::pin(is_usable(connection)))
}

/// Whether the next one may use a connection.
///
/// After a full disk or a failed write SQLite rolls back by itself. The driver does not notice: it goes on to count a
/// transaction and would refuse every later one, for ever. Such a connection is replaced.
async fn is_usable(connection: &mut SqliteConnection) -> Result<bool, sqlx::Error> {
    if connection.is_in_transaction() {
        // The rollback of a dropped transaction may still be on its way.
        connection.ping().await?;
    }
    Ok(!connection.is_in_transaction())
}

/// Parameters of executions are inside. The log and its index get the mode of the file.
///
/// By name, never through a descriptor of our own: closing one would drop the locks that SQLite holds on that file
/// elsewhere in this process.
fn keep_private(path: &Path) -> Result<(), OpenError> {
    fs::set_permissions(path, Permissions::from_mode(0o600))
        .map_err(|error| OpenError::Unwritable { path: path.to_owned(), source: Box::new(error.into()) })
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
    // One statement, so that another process that makes the schema right now is seen before or after, not half-way.
    let (tables, application, version): (i64, i64, i64) = sqlx::query_as(
        r"
        SELECT (SELECT count(*) FROM sqlite_schema), application_id, user_version
        FROM pragma_application_id, pragma_user_version
        ",
    )
    .fetch_one(&mut *connection)
    .await
    .map_err(failed)?;
    if application == APPLICATION_ID {
        if version > known() {
            return Err(OpenError::Newer { path: path.to_owned(), found: version, known: known() });
        }
        return Ok(Found::Ours);
    }
    if tables > 0 || application != 0 || version != 0 {
        return Err(OpenError::Foreign { path: path.to_owned() });
    }
    Ok(Found::Empty)
}

/// Switches to the write-ahead log, once in the life of a file.
///
/// The switch needs the file for itself and is refused at once, without the usual waiting, while another process is just
/// opening it.
async fn wal(connection: &mut SqliteConnection) -> Result<(), sqlx::Error> {
    let begun = Instant::now();
    loop {
        let switched = sqlx::query("PRAGMA journal_mode = WAL").execute(&mut *connection).await;
        match switched {
            Err(error) if primary_code(&error) == Some(BUSY) && begun.elapsed() < BUSY_TIMEOUT => {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
            other => return other.map(drop),
        }
    }
}

/// Runs the missing steps in one transaction: after a crash the file has the old schema or the new one. The transaction
/// is begun in any case; a file that cannot be written shows itself here.
async fn migrate(connection: &mut SqliteConnection) -> Result<(), sqlx::Error> {
    let mut transaction = connection.begin_with("BEGIN IMMEDIATE").await?;
    // Read under the lock: another process may have done it in the meantime.
    let version = user_version(&mut transaction).await?;
    let done = usize::try_from(version).unwrap_or(0);
    if done < STEPS.len() {
        for step in STEPS.iter().skip(done) {
            sqlx::raw_sql(*step).execute(&mut *transaction).await?;
        }
        let marks = format!("PRAGMA application_id = {APPLICATION_ID}; PRAGMA user_version = {}", known());
        sqlx::raw_sql(AssertSqlSafe(marks)).execute(&mut *transaction).await?;
    }
    transaction.commit().await
}

async fn user_version(connection: &mut SqliteConnection) -> Result<i64, sqlx::Error> {
    sqlx::query_scalar("PRAGMA user_version").fetch_one(connection).await
}

fn known() -> i64 {
    i64::try_from(STEPS.len()).expect("a handful of steps")
}

fn describe(path: &Path, error: sqlx::Error) -> OpenError {
    let path = path.to_owned();
    match primary_code(&error) {
        Some(CANNOT_OPEN | READ_ONLY) => OpenError::Unwritable { path, source: Box::new(error) },
        Some(NOT_A_DATABASE) => OpenError::NotADatabase { path },
        Some(CORRUPT) => OpenError::Damaged { path, source: Box::new(error) },
        _ => OpenError::Failed { path, source: Box::new(error) },
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
