//! What can go wrong with a call, and whether trying again can help.

use std::path::PathBuf;
use std::time::Duration;

use thiserror::Error;

use crate::Method;

/// A client that could not be made.
#[derive(Debug, Error)]
pub enum BuildError {
    /// The CA file cannot be used.
    #[error("failed to use the CA file {}: {detail}", path.display())]
    CaFile {
        /// Which file.
        path: PathBuf,
        /// Why.
        detail: String,
    },
    /// The TLS library refused its own defaults.
    #[error("failed to set TLS up")]
    Tls {
        /// Why.
        #[source]
        source: rustls::Error,
    },
    /// The client library refused the settings.
    #[error("failed to set the HTTP client up")]
    Client {
        /// Why.
        #[source]
        source: reqwest::Error,
    },
}

/// A failed call.
#[derive(Debug, Error)]
#[error("{method} {url}")]
pub struct HttpError {
    /// Of the request.
    pub method: Method,
    /// Of the request, without user information and query.
    pub url: String,
    /// What happened.
    #[source]
    pub problem: Problem,
}

/// What went wrong with a call.
#[derive(Debug, Error)]
pub enum Problem {
    /// The request itself is not possible.
    #[error("the request is not valid: {0}")]
    Invalid(String),
    /// Nobody answers there.
    #[error("failed to connect: {0}")]
    Connect(String),
    /// It took too long.
    #[error("no complete answer within {0:?}")]
    TimedOut(Duration),
    /// The connection broke, or what came was not HTTP.
    #[error("the connection failed: {0}")]
    Transport(String),
    /// The answer is longer than this caller takes.
    #[error("the answer is longer than {limit_bytes} bytes")]
    TooLong {
        /// The bound.
        limit_bytes: u64,
    },
    /// The answer cannot be kept.
    #[error("the answer cannot be written to a file: {0}")]
    Sink(String),
    /// The server said no.
    #[error("status {status}: {excerpt}")]
    Status {
        /// The code.
        status: u16,
        /// The beginning of the answer.
        excerpt: String,
    },
    /// The answer is not the JSON that was asked for.
    #[error("the answer has an unexpected shape: {0}")]
    Shape(serde_json::Error),
}

/// Whether to try again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Decision {
    /// The same call may succeed later.
    Retry,
    /// It will not.
    Fail,
}

impl HttpError {
    /// The one place that says which errors are worth a retry.
    pub fn decision(&self) -> Decision {
        match &self.problem {
            Problem::Connect(_) | Problem::TimedOut(_) | Problem::Transport(_) | Problem::Sink(_) => Decision::Retry,
            Problem::Status { status, .. } if *status >= 500 || *status == 429 || *status == 408 => Decision::Retry,
            Problem::Status { .. } | Problem::Invalid(_) | Problem::TooLong { .. } | Problem::Shape(_) => {
                Decision::Fail
            }
        }
    }

    /// Whether the server will never take this. Everything else may be over some time, a wrong token too.
    pub fn is_refusal(&self) -> bool {
        matches!(self.status(), Some(400 | 413 | 422))
    }

    /// The status, when the server gave one.
    pub fn status(&self) -> Option<u16> {
        match &self.problem {
            Problem::Status { status, .. } => Some(*status),
            _ => None,
        }
    }
}
