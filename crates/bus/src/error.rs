//! What can go wrong on the bus.

use attune_model::message::MessageType;
use thiserror::Error;

/// A failed bus operation.
#[derive(Debug, Error)]
pub enum BusError {
    /// A payload could not be turned into JSON.
    #[error("failed to encode a {message_type:?} message")]
    Encode {
        /// Which.
        message_type: MessageType,
        /// Why.
        #[source]
        source: serde_json::Error,
    },
    /// A body is not an envelope.
    #[error("message is not a valid envelope")]
    Envelope {
        /// Why.
        #[source]
        source: serde_json::Error,
    },
    /// A payload has the wrong shape.
    #[error("payload of a {message_type:?} message is not valid")]
    Payload {
        /// Which.
        message_type: MessageType,
        /// Why.
        #[source]
        source: serde_json::Error,
    },
    /// A queue that nobody declared.
    #[error("queue {0} does not exist")]
    NoSuchQueue(String),
    /// The broker says no, and will say so again.
    #[error("the broker refuses {what}: {reason}")]
    Refused {
        /// What was asked for.
        what: String,
        /// The broker's words.
        reason: String,
    },
    /// Some of the messages may not have arrived. All of them are to be sent again: receivers bear repetitions.
    #[error("{unconfirmed} of {total} messages were not confirmed by the broker: {reason}")]
    NotConfirmed {
        /// How many may be missing.
        unconfirmed: usize,
        /// Of how many.
        total: usize,
        /// What happened first.
        reason: String,
    },
    /// This process has closed the bus; it does not come back.
    #[error("the bus was closed")]
    Closed,
    /// The broker cannot be reached.
    #[error("the bus is not available: {0}")]
    Unavailable(String),
}

/// A delivery that could not be answered: it will be delivered again.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("delivery of queue {queue} could not be answered: {reason}")]
pub struct AckError {
    /// Which queue.
    pub queue: String,
    /// Why.
    pub reason: String,
}
