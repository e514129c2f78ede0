//! A queue that is consumed for as long as the worker wants it, however often broker or queue go away.

use std::sync::Arc;
use std::time::Duration;

use attune_bus::{Bus, BusError, Consumer, ConsumerEvent, Delivery, QueueSpec, Requeue};
use attune_lifecycle::Backoff;
use attune_model::WorkerId;
use attune_model::message::Exchange;
use tokio::time::{Instant, sleep_until};

use crate::logs::chain;

/// How long a dispatch may wait in the queue. A fact of the platform: another value is refused by the broker.
const DISPATCH_TTL_MS: u32 = 300_000;

/// One of the three queues of a worker. Names, arguments and bindings are facts of the platform.
#[derive(Debug, Clone)]
pub(crate) struct Source {
    /// The queue.
    pub(crate) queue: QueueSpec,
    /// Name of the consumer.
    pub(crate) tag: String,
    /// Most unanswered deliveries.
    pub(crate) prefetch: u16,
}

impl Source {
    /// Dispatched executions.
    pub(crate) fn executions(worker: WorkerId, slots: u16) -> Self {
        Self {
            queue: QueueSpec {
                name: format!("worker.{worker}.executions"),
                bindings: vec![(Exchange::Executions, format!("execution.dispatch.worker.{worker}"))],
                message_ttl_ms: Some(DISPATCH_TTL_MS),
                dead_letters: true,
            },
            tag: format!("worker-{worker}"),
            prefetch: slots,
        }
    }

    /// Packs that come and go.
    pub(crate) fn packs(worker: WorkerId) -> Self {
        Self {
            queue: QueueSpec {
                name: format!("worker.{worker}.packs"),
                bindings: vec![
                    (Exchange::Events, "pack.registered".to_owned()),
                    (Exchange::Events, "pack.deleted".to_owned()),
                ],
                message_ttl_ms: None,
                dead_letters: true,
            },
            tag: format!("worker-{worker}-packs"),
            prefetch: 5,
        }
    }

    /// Executions to be cancelled.
    pub(crate) fn cancels(worker: WorkerId) -> Self {
        Self {
            queue: QueueSpec {
                name: format!("worker.{worker}.cancel"),
                bindings: vec![(Exchange::Executions, format!("execution.cancel.worker.{worker}"))],
                message_ttl_ms: None,
                dead_letters: true,
            },
            tag: format!("worker-{worker}-cancel"),
            prefetch: 10,
        }
    }
}

/// What happens on a subscription.
#[derive(Debug)]
pub(crate) enum Event {
    /// A message to be answered.
    Delivery(Delivery),
    /// The broker has confirmed the consumer, at first or again.
    Up,
    /// Nothing comes for now.
    Down,
}

/// A source that is consumed.
#[derive(Debug)]
pub(crate) struct Subscription {
    bus: Arc<dyn Bus>,
    source: Source,
    consumer: Option<Box<dyn Consumer>>,
    backoff: Backoff,
    not_before: Instant,
}

impl Subscription {
    /// Declares the queue. An error here is for the start of the worker to handle.
    pub(crate) async fn declare(bus: Arc<dyn Bus>, source: Source) -> Result<Self, BusError> {
        bus.declare(&source.queue).await?;
        let backoff = Backoff::new(Duration::from_millis(100), Duration::from_secs(10));
        Ok(Self { bus, source, consumer: None, backoff, not_before: Instant::now() })
    }

    /// The next event. Cancel-safe: what it has reached is kept.
    pub(crate) async fn next(&mut self) -> Event {
        loop {
            if let Some(consumer) = &mut self.consumer {
                match consumer.next().await {
                    Some(ConsumerEvent::Delivery(delivery)) => {
                        self.backoff.reset();
                        return Event::Delivery(delivery);
                    }
                    Some(ConsumerEvent::Resumed) => return Event::Up,
                    Some(ConsumerEvent::Interrupted(reason)) => {
                        tracing::warn!(queue = self.source.queue.name, reason, "broker lost; waiting for it");
                        return Event::Down;
                    }
                    None => {
                        tracing::warn!(queue = self.source.queue.name, "consumer ended; consuming again");
                        self.consumer = None;
                        self.not_before = Instant::now() + self.backoff.next_delay();
                        return Event::Down;
                    }
                }
            }
            sleep_until(self.not_before).await;
            match consume(&self.bus, &self.source).await {
                Ok(consumer) => {
                    self.consumer = Some(consumer);
                    return Event::Up;
                }
                Err(error) => {
                    let queue = &self.source.queue.name;
                    tracing::warn!(queue, error = chain(&error), "queue cannot be consumed; trying again");
                    self.not_before = Instant::now() + self.backoff.next_delay();
                }
            }
        }
    }

    /// Takes nothing more; what was not answered goes back to the queue.
    pub(crate) async fn end(mut self) {
        if let Some(mut consumer) = self.consumer.take()
            && let Err(error) = consumer.cancel().await
        {
            tracing::debug!(queue = self.source.queue.name, error = chain(&error), "consumer could not be cancelled");
        }
    }
}

/// Declares too: somebody may have deleted the queue.
async fn consume(bus: &Arc<dyn Bus>, source: &Source) -> Result<Box<dyn Consumer>, BusError> {
    bus.declare(&source.queue).await?;
    bus.consume(&source.queue.name, &source.tag, source.prefetch).await
}

/// Answers a message that is dealt with.
pub(crate) async fn ack(delivery: Delivery) {
    if let Err(error) = delivery.ack().await {
        tracing::debug!(%error, "message will come again");
    }
}

/// Answers a message that nobody can deal with.
pub(crate) async fn reject(delivery: Delivery) {
    if let Err(error) = delivery.reject(Requeue::No).await {
        tracing::debug!(%error, "message will come again");
    }
}
