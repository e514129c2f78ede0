//! Errors of the driver as errors of the store: which of them a retry can mend.

use attune_store::StoreError;

/// Primary result codes of SQLite: another process holds the lock, or the file cannot be reached or grow now.
const TRANSIENT: [i32; 6] = [BUSY, LOCKED, INTERRUPT, IO_ERROR, FULL, CANNOT_OPEN];
const BUSY: i32 = 5;
const LOCKED: i32 = 6;
const INTERRUPT: i32 = 9;
const IO_ERROR: i32 = 10;
const FULL: i32 = 13;
const CANNOT_OPEN: i32 = 14;

/// Adds what was being done to an error of the driver.
pub(crate) trait During<T> {
    /// `operation` completes "while trying to …".
    fn during(self, operation: impl FnOnce() -> String) -> Result<T, StoreError>;
}

impl<T> During<T> for Result<T, sqlx::Error> {
    fn during(self, operation: impl FnOnce() -> String) -> Result<T, StoreError> {
        self.map_err(|error| {
            let operation = operation();
            let source = Box::new(error);
            if is_transient(&source) {
                StoreError::Unavailable { operation, source }
            } else {
                StoreError::Refused { operation, source }
            }
        })
    }
}

fn is_transient(error: &sqlx::Error) -> bool {
    match error {
        sqlx::Error::Io(_) | sqlx::Error::PoolTimedOut | sqlx::Error::PoolClosed | sqlx::Error::WorkerCrashed => true,
        sqlx::Error::Database(_) => primary_code(error).is_some_and(|code| TRANSIENT.contains(&code)),
        _ => false,
    }
}

/// SQLite's result code without the extension in its upper bytes.
pub(crate) fn primary_code(error: &sqlx::Error) -> Option<i32> {
    let code = error.as_database_error()?.code()?;
    code.parse::<i32>().ok().map(|code| code & 0xff)
}

/// A call that makes no sense, such as ending a run with a status that is not an end.
pub(crate) fn refused(operation: String, reason: &str) -> StoreError {
    StoreError::Refused { operation, source: reason.into() }
}
