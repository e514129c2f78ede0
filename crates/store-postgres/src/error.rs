//! Errors of the server and of the way to it as errors of the store: which of them a retry can mend.

use std::error::Error;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use attune_store::StoreError;
use sqlx::error::DatabaseError;
use sqlx::postgres::{PgDatabaseError, PgSeverity};

/// Classes of SQLSTATE that pass: connection, transaction rollback, resources, operator intervention, system.
/// Resources include the full disk (53100): whoever has a result to write keeps it until there is room.
const PASSING_CLASSES: [&str; 5] = ["08", "40", "53", "57", "58"];

/// The rest that passes, each of its own class: a standby or a database set to read-only, a lock that could not be had,
/// a session that sat in a transaction for too long.
const PASSING_CODES: [&str; 4] = [READ_ONLY, "55P03", "25P03", "25P02"];

/// A write where only reading is possible.
pub(crate) const READ_ONLY: &str = "25006";

/// Adds what was being done to an error of the driver.
pub(crate) trait During<T> {
    /// `operation` completes "while trying to …".
    fn during(self, operation: impl FnOnce() -> String) -> Result<T, StoreError>;
}

impl<T> During<T> for Result<T, sqlx::Error> {
    fn during(self, operation: impl FnOnce() -> String) -> Result<T, StoreError> {
        self.map_err(|error| failed(is_passing(&error), operation(), Box::new(error)))
    }
}

/// One error of several calls, as that of one of them.
pub(crate) fn shared(error: &Arc<sqlx::Error>, operation: String) -> StoreError {
    failed(is_passing(error), operation, Box::new(Arc::clone(error)))
}

fn failed(may_pass: bool, operation: String, source: Box<dyn Error + Send + Sync>) -> StoreError {
    if may_pass { StoreError::Unavailable { operation, source } } else { StoreError::Refused { operation, source } }
}

pub(crate) fn is_passing(error: &sqlx::Error) -> bool {
    match error {
        sqlx::Error::Database(error) => error.code().is_some_and(|code| {
            PASSING_CLASSES.iter().any(|class| code.starts_with(class)) || PASSING_CODES.contains(&&*code)
        }),
        // What comes from the way to the server: it may be another server, or the same in better health, next time.
        sqlx::Error::Io(_)
        | sqlx::Error::Tls(_)
        | sqlx::Error::Protocol(_)
        | sqlx::Error::PoolTimedOut
        | sqlx::Error::PoolClosed
        | sqlx::Error::WorkerCrashed => true,
        _ => false,
    }
}

/// Whether the connection can go on after this error: only when the server said what was wrong and stays.
pub(crate) fn leaves_connection_usable(error: &sqlx::Error) -> bool {
    match error {
        // A read-only server is a standby: the next connection may lead to the one that took over.
        sqlx::Error::Database(error) => error.try_downcast_ref::<PgDatabaseError>().is_some_and(|error| {
            !matches!(error.severity(), PgSeverity::Fatal | PgSeverity::Panic) && error.code() != READ_ONLY
        }),
        // These are about rows that were read completely.
        sqlx::Error::RowNotFound
        | sqlx::Error::ColumnDecode { .. }
        | sqlx::Error::ColumnNotFound(_)
        | sqlx::Error::ColumnIndexOutOfBounds { .. } => true,
        _ => false,
    }
}

/// The server did not answer in time.
pub(crate) fn silent(limit: Duration) -> sqlx::Error {
    let text = format!("no answer within {} s", limit.as_secs());
    sqlx::Error::Io(io::Error::new(io::ErrorKind::TimedOut, text))
}

/// A call that makes no sense, such as ending a run with a status that is not an end.
pub(crate) fn refused(operation: String, reason: &str) -> StoreError {
    StoreError::Refused { operation, source: reason.into() }
}

/// Whether the error is the server's and has this SQLSTATE.
pub(crate) fn has_code(error: &sqlx::Error, code: &str) -> bool {
    error.as_database_error().and_then(DatabaseError::code).is_some_and(|found| found == code)
}
