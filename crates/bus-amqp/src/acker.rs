//! Answers to deliveries.

use async_trait::async_trait;
use attune_bus::{AckError, Acker, Requeue};
use attune_lifecycle::CancellationToken;
use lapin::Channel;
use lapin::options::{BasicAckOptions, BasicRejectOptions};
use tokio::time::timeout;

use crate::error::words;
use crate::limits;

/// Answers one delivery on the channel that brought it, and on no other.
#[derive(Debug)]
pub(crate) struct AmqpAcker {
    pub(crate) channel: Channel,
    pub(crate) tag: u64,
    pub(crate) queue: String,
    /// Cancelled when the channel is no longer consumed from.
    pub(crate) over: CancellationToken,
}

impl AmqpAcker {
    async fn answered(&self, answer: impl Future<Output = lapin::Result<()>>) -> Result<(), AckError> {
        let failed = |reason: String| AckError { queue: self.queue.clone(), reason };
        if self.over.is_cancelled() {
            return Err(failed("its channel is gone, and the broker has taken it back".to_owned()));
        }
        let answered = tokio::select! {
            biased;
            answered = timeout(limits::ANSWER, answer) => answered,
            () = self.over.cancelled() => return Err(failed("its channel was lost".to_owned())),
        };
        match answered {
            Ok(Ok(())) => Ok(()),
            Ok(Err(error)) => Err(failed(words(&error))),
            Err(_elapsed) => Err(failed(format!("the broker took nothing for {:?}", limits::ANSWER))),
        }
    }
}

#[async_trait]
impl Acker for AmqpAcker {
    async fn ack(self: Box<Self>) -> Result<(), AckError> {
        self.answered(self.channel.basic_ack(self.tag, BasicAckOptions::default())).await
    }

    async fn reject(self: Box<Self>, requeue: Requeue) -> Result<(), AckError> {
        let options = BasicRejectOptions { requeue: requeue == Requeue::Yes };
        self.answered(self.channel.basic_reject(self.tag, options)).await
    }
}
