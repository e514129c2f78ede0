//! Why there is no connection.

use std::io;
use std::path::PathBuf;
use std::time::Duration;

use attune_bus::BusError;
use lapin::ErrorKind;
use thiserror::Error;

/// A connection that was not made.
#[derive(Debug, Error)]
pub enum ConnectError {
    /// The URL cannot be used. What it says stays out of the message: it holds a password.
    #[error("the broker's URL cannot be used: {problem}")]
    Url {
        /// What is wrong.
        problem: &'static str,
    },
    /// A number in the URL is none.
    #[error("the broker's URL cannot be used: {name} is not a number of the right size")]
    UrlParameter {
        /// Which.
        name: &'static str,
    },
    /// The file of certificates cannot be used.
    #[error("failed to read certificates from {path}: {detail}")]
    CaFile {
        /// Which file.
        path: PathBuf,
        /// Why.
        detail: String,
    },
    /// TLS cannot be set up at all.
    #[error("failed to set up TLS")]
    Tls {
        /// Why.
        #[source]
        source: rustls::Error,
    },
    /// The name is no name.
    #[error("{host} is not a name that a certificate can have")]
    ServerName {
        /// Which.
        host: String,
    },
    /// The host has no address.
    #[error("failed to find the address of {host}")]
    Resolve {
        /// Which.
        host: String,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// None of the host's addresses answers.
    #[error("failed to connect to {address}")]
    Dial {
        /// The last one tried.
        address: String,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The broker's certificate is not good, or it speaks no TLS.
    #[error("failed to agree on TLS with {host}")]
    Handshake {
        /// Which broker.
        host: String,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The broker does not want us, or is no broker.
    #[error("the broker refused the connection: {reason}")]
    Refused {
        /// Its words.
        reason: String,
    },
    /// It took too long.
    #[error("no connection within {limit:?}")]
    TimedOut {
        /// The limit.
        limit: Duration,
    },
    /// The exchanges of the platform are not there, or the first channel was not opened.
    #[error("failed to prepare the connection")]
    Prepare {
        /// Why.
        #[source]
        source: BusError,
    },
}

impl ConnectError {
    /// Whether trying again cannot help.
    pub fn is_final(&self) -> bool {
        matches!(
            self,
            Self::Url { .. }
                | Self::UrlParameter { .. }
                | Self::CaFile { .. }
                | Self::Tls { .. }
                | Self::ServerName { .. }
        )
    }
}

/// What lapin says, without its own prefixes.
pub(crate) fn words(error: &lapin::Error) -> String {
    match error.kind() {
        ErrorKind::ProtocolError(error) => error.get_message().to_string(),
        ErrorKind::IOError(error) => error.to_string(),
        ErrorKind::MissingHeartbeatError => "it sends no heartbeats".to_owned(),
        _ => error.to_string(),
    }
}
