//! Hints from the platform: rules and packs changed somewhere.
//!
//! Each host has a queue of its own, so that every host hears everything. A message is answered at once and only marks
//! "look again"; what it says is read from the store. The messages may wait a few minutes only: a host that comes back
//! later looks at everything anyway.

use std::sync::Arc;
use std::time::Duration;

use attune_bus::{Bus, BusError, Consumer, ConsumerEvent, QueueLifetime, QueueSpec};
use attune_lifecycle::{Backoff, CancellationToken};
use attune_model::WorkerId;
use attune_model::message::Exchange;
use tokio::sync::Notify;
use tokio::time::sleep;
use uuid::Uuid;

use crate::context::Context;
use crate::vitals::Vitals;

/// Routing keys of the changes that concern sensors (facts of the platform).
const KEYS: [&str; 5] = ["rule.created", "rule.enabled", "rule.disabled", "pack.registered", "pack.deleted"];
const CONSUMER_TAG: &str = "sensor-rule-lifecycle";
const PREFETCH: u16 = 10;
const MESSAGE_LIFE_MS: u32 = 300_000;
/// The broker removes the queue of a host that is gone for so long.
const QUEUE_LIFE: Duration = Duration::from_mins(10);
const RETRY_MIN: Duration = Duration::from_millis(200);
const RETRY_MAX: Duration = Duration::from_secs(30);

/// The queue of one life of a host: two lives of one name, as in a rolling restart, must not share their hints.
pub(crate) fn queue(worker: WorkerId, life: Uuid) -> QueueSpec {
    QueueSpec {
        name: format!("sensor.host.{worker}.{life}.lifecycle", life = life.simple()),
        bindings: KEYS.into_iter().map(|key| (Exchange::Events, key.to_owned())).collect(),
        message_ttl_ms: Some(MESSAGE_LIFE_MS),
        dead_letters: false,
        lifetime: QueueLifetime::UntilUnused(QUEUE_LIFE),
    }
}

/// Listens until `stop`; begins again whenever the bus fails.
pub(crate) async fn listen(context: Arc<Context>, queue: QueueSpec, look_again: Arc<Notify>) {
    let (bus, vitals, stop) = (context.bus.as_ref(), &context.vitals, context.stop.soft());
    let mut backoff = Backoff::new(RETRY_MIN, RETRY_MAX);
    while !stop.is_cancelled() {
        let problem = match subscribe(bus, &queue).await {
            Ok(mut consumer) => {
                backoff.reset();
                // Something may have been missed before the subscription.
                look_again.notify_one();
                vitals.listening(true);
                let ended = consume(consumer.as_mut(), &look_again, vitals, stop).await;
                vitals.listening(false);
                if let Err(error) = consumer.cancel().await {
                    tracing::debug!(%error, "consumer not cancelled");
                }
                match ended {
                    Ended::Stopped => return,
                    Ended::Lost => "the consumer ended".to_owned(),
                }
            }
            Err(error) => crate::chain(&error),
        };
        let wait = backoff.next_delay();
        tracing::warn!(queue = queue.name, error = problem, "not listening for changes of rules; trying again");
        tokio::select! {
            () = stop.cancelled() => return,
            () = sleep(wait) => {}
        }
    }
}

enum Ended {
    Stopped,
    Lost,
}

async fn subscribe(bus: &dyn Bus, queue: &QueueSpec) -> Result<Box<dyn Consumer>, BusError> {
    bus.declare(queue).await?;
    bus.consume(&queue.name, CONSUMER_TAG, PREFETCH).await
}

async fn consume(consumer: &mut dyn Consumer, look_again: &Notify, vitals: &Vitals, stop: &CancellationToken) -> Ended {
    loop {
        let event = tokio::select! {
            () = stop.cancelled() => return Ended::Stopped,
            event = consumer.next() => event,
        };
        match event {
            Some(ConsumerEvent::Delivery(delivery)) => {
                tracing::debug!(routing_key = delivery.routing_key, "looking again");
                look_again.notify_one();
                if let Err(error) = delivery.ack().await {
                    // It comes again, which costs one more look.
                    tracing::debug!(%error, "message not acknowledged");
                }
            }
            Some(ConsumerEvent::Interrupted(reason)) => {
                vitals.listening(false);
                tracing::warn!(reason, "the broker is lost; it is tried again");
            }
            Some(ConsumerEvent::Resumed) => {
                vitals.listening(true);
                look_again.notify_one();
            }
            None => return Ended::Lost,
        }
    }
}
