//! What can go wrong in storage, and whether trying again can help.

use thiserror::Error;

/// A failed storage operation.
#[derive(Debug, Error)]
pub enum StoreError {
    /// The store cannot be reached or is too busy. Nothing was written, or the answer was lost: then the guards of the next
    /// attempt find out.
    #[error("storage is unavailable while trying to {operation}")]
    Unavailable {
        /// What was attempted, as "claim execution 7".
        operation: String,
        /// The driver's error.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The store refused the statement: a constraint, a full disk, a bug.
    #[error("storage refused to {operation}")]
    Refused {
        /// What was attempted.
        operation: String,
        /// The driver's error.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// A row does not make sense.
    #[error("row {key} of table {table}: column {column}: {detail}")]
    Inconsistent {
        /// Table.
        table: &'static str,
        /// Column.
        column: &'static str,
        /// Key of the row.
        key: String,
        /// What is wrong with it.
        detail: String,
    },
    /// The name is taken by something of another kind.
    #[error("{0}")]
    Conflict(String),
}

/// Whether to try again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Decision {
    /// The same call may succeed later.
    Retry,
    /// It will not.
    Fail,
}

impl StoreError {
    /// The one place that says which errors are worth a retry.
    pub fn decision(&self) -> Decision {
        match self {
            Self::Unavailable { .. } => Decision::Retry,
            Self::Refused { .. } | Self::Inconsistent { .. } | Self::Conflict(_) => Decision::Fail,
        }
    }
}
