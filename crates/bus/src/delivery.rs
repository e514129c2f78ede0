//! A message that waits for its answer.

use async_trait::async_trait;
use bytes::Bytes;

use crate::AckError;

/// What happens to a rejected message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Requeue {
    /// Delivered again.
    Yes,
    /// Dropped, or dead-lettered where the queue says so.
    No,
}

/// Answers one delivery. An acker travels with its delivery: its tag is good on one channel only.
#[async_trait]
pub trait Acker: Send + Sync + std::fmt::Debug {
    /// Done with it.
    async fn ack(self: Box<Self>) -> Result<(), AckError>;
    /// Not done with it.
    async fn reject(self: Box<Self>, requeue: Requeue) -> Result<(), AckError>;
}

/// A delivered message. Dropping it unanswered leaves it to be delivered again when the consumer ends.
#[derive(Debug)]
pub struct Delivery {
    /// The JSON of an envelope, unless somebody sent something else.
    pub body: Bytes,
    /// As published.
    pub routing_key: String,
    /// Whether it was delivered before.
    pub redelivered: bool,
    acker: Box<dyn Acker>,
}

impl Delivery {
    /// A delivery that `acker` answers.
    pub fn new(body: Bytes, routing_key: String, redelivered: bool, acker: Box<dyn Acker>) -> Self {
        Self { body, routing_key, redelivered, acker }
    }

    /// Tells the broker that it is done.
    pub async fn ack(self) -> Result<(), AckError> {
        self.acker.ack().await
    }

    /// Tells the broker that it is not.
    pub async fn reject(self, requeue: Requeue) -> Result<(), AckError> {
        self.acker.reject(requeue).await
    }
}
