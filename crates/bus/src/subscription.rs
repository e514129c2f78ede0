//! A queue that is consumed for as long as a service wants it, however often broker or queue go away.

use std::fmt;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use attune_lifecycle::Backoff;
use tokio::time::{Instant, sleep_until};

use crate::{Bus, BusError, Consumer, ConsumerEvent, Delivery, QueueSpec, Requeue};

/// A queue and how it is consumed.
#[derive(Debug, Clone)]
pub struct Source {
    /// The queue.
    pub queue: QueueSpec,
    /// Name of the consumer.
    pub tag: String,
    /// Most unanswered deliveries.
    pub prefetch: u16,
}

/// What happens on a subscription.
#[derive(Debug)]
pub enum Event {
    /// A message to be answered.
    Delivery(Delivery),
    /// The broker has confirmed the consumer, at first or again.
    Up,
    /// Nothing comes for now.
    Down,
    /// Nothing comes any more: this process has closed the bus. Said once.
    Closed,
}

/// On its way to a consumer.
struct Consuming(Pin<Box<dyn Future<Output = Consumed> + Send>>);

type Consumed = Result<Box<dyn Consumer>, BusError>;

impl fmt::Debug for Consuming {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Consuming")
    }
}

/// A source that is consumed.
#[derive(Debug)]
pub struct Subscription {
    bus: Arc<dyn Bus>,
    source: Source,
    consumer: Option<Box<dyn Consumer>>,
    /// A consumer that is being made, kept here so that nobody who stops waiting for it makes it begin again.
    consuming: Option<Consuming>,
    /// Whether the queue was made a moment ago.
    declared: bool,
    others: u32,
    backoff: Backoff,
    not_before: Instant,
    closed: bool,
}

impl Subscription {
    /// Declares the queue. An error here is for the start of the worker to handle.
    pub async fn declare(bus: Arc<dyn Bus>, source: Source) -> Result<Self, BusError> {
        let others = bus.declare(&source.queue).await?;
        let backoff = Backoff::new(Duration::from_millis(100), Duration::from_secs(10));
        Ok(Self {
            bus,
            source,
            consumer: None,
            consuming: None,
            declared: true,
            others,
            backoff,
            not_before: Instant::now(),
            closed: false,
        })
    }

    /// How many consumed the queue when it was declared.
    pub fn others(&self) -> u32 {
        self.others
    }

    /// The next event. Cancel-safe: what it has reached is kept. After [`Event::Closed`] it waits for ever.
    pub async fn next(&mut self) -> Event {
        if self.closed {
            return std::future::pending().await;
        }
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
        let consuming = self.consuming.get_or_insert_with(|| {
            // After the first time it declares too: somebody may have deleted the queue.
            let declares = !std::mem::take(&mut self.declared);
            Consuming(Box::pin(consume(self.bus.clone(), self.source.clone(), declares)))
        });
        let made = consuming.0.as_mut().await;
        self.consuming = None;
        match made {
            Ok(consumer) => {
                self.consumer = Some(consumer);
                Event::Up
            }
            Err(BusError::Closed) => {
                self.closed = true;
                Event::Closed
            }
            Err(error) => {
                let queue = &self.source.queue.name;
                tracing::warn!(
                    queue,
                    error = &error as &dyn std::error::Error,
                    "queue cannot be consumed; trying again"
                );
                self.not_before = Instant::now() + self.backoff.next_delay();
                // Also after a pause, of which nobody was told.
                Event::Down
            }
        }
    }

    /// Gives back what was delivered and not answered, and takes nothing until [`Self::next`] is called again.
    pub async fn pause(&mut self) {
        self.release().await;
        self.not_before = Instant::now();
    }

    /// Takes nothing more; what was not answered goes back to the queue.
    pub async fn end(mut self) {
        self.release().await;
    }

    async fn release(&mut self) {
        self.consuming = None;
        if let Some(mut consumer) = self.consumer.take()
            && let Err(error) = consumer.cancel().await
        {
            tracing::debug!(
                queue = self.source.queue.name,
                error = &error as &dyn std::error::Error,
                "consumer could not be cancelled"
            );
        }
    }
}

async fn consume(bus: Arc<dyn Bus>, source: Source, declares: bool) -> Consumed {
    let Source { queue, tag, prefetch } = &source;
    if declares {
        bus.declare(queue).await?;
    }
    bus.consume(&queue.name, tag, *prefetch).await
}

/// Answers a message that is dealt with.
pub async fn ack(delivery: Delivery) {
    if let Err(error) = delivery.ack().await {
        tracing::debug!(%error, "message will come again");
    }
}

/// Answers a message that nobody can deal with.
pub async fn reject(delivery: Delivery) {
    if let Err(error) = delivery.reject(Requeue::No).await {
        tracing::debug!(%error, "message will come again");
    }
}
