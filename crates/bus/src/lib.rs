//! Publish and consume, as traits, and the in-process bus.
//!
//! The traits follow what RabbitMQ offers, because that is what the platform speaks: durable queues bound to topic
//! exchanges, a bounded number of unacknowledged deliveries, an answer for each delivery. Reconnection is the
//! implementation's business; consumers see it as [`ConsumerEvent::Interrupted`] and [`ConsumerEvent::Resumed`].

mod delivery;
mod error;
mod memory;
mod subscription;
mod topic;

use std::time::Duration;

use async_trait::async_trait;
use attune_model::message::{Envelope, Exchange, Payload};
use bytes::Bytes;
use chrono::{DateTime, Utc};

pub use delivery::{Acker, Delivery, Requeue};
pub use error::{AckError, BusError};
pub use memory::MemoryBus;
pub use subscription::{Event, Source, Subscription, ack, reject};
pub use topic::matches as topic_matches;

/// A durable queue and what flows into it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct QueueSpec {
    /// Its name.
    pub name: String,
    /// Exchange and pattern (`*` one word, `#` any number of words) of each binding.
    pub bindings: Vec<(Exchange, String)>,
    /// How long a message may wait, in milliseconds; none for ever.
    pub message_ttl_ms: Option<u32>,
    /// Whether dead letters go to [`Exchange::DeadLetters`].
    pub dead_letters: bool,
    /// How long the queue itself is there.
    pub lifetime: QueueLifetime,
}

/// How long a queue outlives its consumers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum QueueLifetime {
    /// For ever: nobody deletes it.
    #[default]
    Permanent,
    /// Until nobody has consumed it for so long. What arrives in a shorter gap, while its consumer reconnects, is kept.
    UntilUnused(Duration),
}

/// What a consumer sees.
#[derive(Debug)]
pub enum ConsumerEvent {
    /// A message, to be acknowledged or rejected.
    Delivery(Delivery),
    /// The broker is lost; unanswered deliveries will come again.
    Interrupted(String),
    /// The consumer is confirmed by the broker again.
    Resumed,
}

/// Messages of one queue.
#[async_trait]
pub trait Consumer: Send + std::fmt::Debug {
    /// The next event; none when the consumer was cancelled or the bus was closed. Cancel-safe.
    async fn next(&mut self) -> Option<ConsumerEvent>;

    /// Takes nothing more; what was delivered but not answered goes back to the queue.
    async fn cancel(&mut self) -> Result<(), BusError>;
}

/// A message ready to be published.
#[derive(Debug, Clone, PartialEq)]
pub struct Outgoing {
    /// Where to.
    pub exchange: Exchange,
    /// By which key.
    pub routing_key: String,
    /// What.
    pub envelope: Envelope,
}

impl Outgoing {
    /// Wraps `payload`, sent by `source_service` at `now`.
    pub fn new<P: Payload>(payload: &P, source_service: &str, now: DateTime<Utc>) -> Result<Self, BusError> {
        let envelope = payload
            .envelope(source_service, now)
            .map_err(|source| BusError::Encode { message_type: P::TYPE, source })?;
        Ok(Self { exchange: P::EXCHANGE, routing_key: payload.routing_key(), envelope })
    }
}

/// Publishing and consuming.
#[async_trait]
pub trait Bus: Send + Sync + std::fmt::Debug {
    /// Makes the queue and its bindings, if they are not there. Answers how many consume it.
    async fn declare(&self, queue: &QueueSpec) -> Result<u32, BusError>;

    /// Consumes a declared queue with at most `prefetch` unanswered deliveries.
    async fn consume(&self, queue: &str, consumer_tag: &str, prefetch: u16) -> Result<Box<dyn Consumer>, BusError>;

    /// Publishes all messages in order and returns when the broker has confirmed every one.
    async fn publish(&self, messages: &[Outgoing]) -> Result<(), BusError>;

    /// Ends all consumers and the connection, within a few seconds.
    async fn close(&self);
}

/// Reads the envelope of a delivery and its payload.
pub fn decode<P: serde::de::DeserializeOwned>(body: &Bytes) -> Result<(Envelope, P), BusError> {
    let envelope: Envelope = serde_json::from_slice(body).map_err(|source| BusError::Envelope { source })?;
    let payload = P::deserialize(&envelope.payload)
        .map_err(|source| BusError::Payload { message_type: envelope.message_type, source })?;
    Ok((envelope, payload))
}
