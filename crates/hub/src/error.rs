//! Why a hub cannot be built or cannot do what it was asked.

use std::io;
use std::net::SocketAddr;

use attune_bus::BusError;
use attune_security::TokenError;
use attune_store::StoreError;
use thiserror::Error;

/// A failed operation of the hub.
#[derive(Debug, Error)]
pub enum HubError {
    /// The address is taken by another process.
    #[error("address {0} is already in use: stop the program that listens there, or listen on another port")]
    AddressInUse(SocketAddr),
    /// The address cannot be listened on.
    #[error("failed to listen on {address}")]
    Bind {
        /// Which.
        address: SocketAddr,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// Storage failed.
    #[error("failed to {operation}")]
    Store {
        /// What was attempted.
        operation: String,
        /// Why.
        #[source]
        source: StoreError,
    },
    /// The bus failed.
    #[error("failed to consume queue {queue}")]
    Bus {
        /// Which queue.
        queue: &'static str,
        /// Why.
        #[source]
        source: BusError,
    },
    /// A token could not be signed.
    #[error(transparent)]
    Token(#[from] TokenError),
}

impl HubError {
    pub(crate) fn store(operation: impl Into<String>) -> impl FnOnce(StoreError) -> Self {
        let operation = operation.into();
        move |source| Self::Store { operation, source }
    }
}
