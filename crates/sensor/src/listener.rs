//! Hints from the platform: rules and packs changed somewhere.
//!
//! Each host has a queue of its own, so that every host hears everything. A message is answered at once and only marks
//! "look again"; what it says is read from the store. The messages may wait a few minutes only: a host that comes back
//! later looks at everything anyway.

use std::sync::Arc;
use std::time::Duration;

use attune_bus::{Delivery, Event, QueueLifetime, QueueSpec, Source, Subscription, ack};
use attune_model::WorkerId;
use attune_model::message::{Envelope, Exchange, MessageType, PackRegistered};
use serde::Deserialize as _;
use uuid::Uuid;

use crate::context::{BUS_LIMIT, Context};

/// Routing keys of the changes that concern sensors (facts of the platform).
const KEYS: [&str; 5] = ["rule.created", "rule.enabled", "rule.disabled", "pack.registered", "pack.deleted"];
const CONSUMER_TAG: &str = "sensor-rule-lifecycle";
const PREFETCH: u16 = 10;
const MESSAGE_LIFE_MS: u32 = 300_000;
/// The broker removes the queue of a host that is gone for so long.
const QUEUE_LIFE: Duration = Duration::from_mins(10);

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

/// How that queue is consumed.
pub(crate) fn source(queue: QueueSpec) -> Source {
    Source { queue, tag: CONSUMER_TAG.to_owned(), prefetch: PREFETCH }
}

/// Listens until `stop`.
pub(crate) async fn listen(context: Arc<Context>, mut changes: Subscription) {
    let (vitals, stop, look_again) = (&context.vitals, context.stop.soft(), &context.look_again);
    loop {
        let event = tokio::select! {
            () = stop.cancelled() => break,
            event = changes.next() => event,
        };
        match event {
            Event::Delivery(delivery) => {
                tracing::debug!(routing_key = delivery.routing_key, "looking again");
                if let Some(pack_ref) = registered(&delivery) {
                    tell(&context, &pack_ref);
                }
                look_again.notify_one();
                // One that comes again costs one more look.
                drop(context.deadline.within(BUS_LIMIT, ack(delivery)).await);
            }
            Event::Up => {
                vitals.listening(true);
                // Something may have been missed before.
                look_again.notify_one();
            }
            Event::Down => vitals.listening(false),
            Event::Closed => break,
        }
    }
    vitals.listening(false);
    // What cannot be said now the broker sees when the connection ends.
    drop(context.deadline.within(BUS_LIMIT, changes.end()).await);
}

fn tell(context: &Context, pack_ref: &str) {
    if let Some(packs) = &context.packs {
        packs.tell(pack_ref);
    }
    if let Some(registered) = &context.registered {
        registered.tell(pack_ref);
    }
}

/// The pack that a message says is registered: its files may be others although its row is the same.
fn registered(delivery: &Delivery) -> Option<String> {
    let envelope: Envelope = serde_json::from_slice(&delivery.body).ok()?;
    let is_registered = envelope.message_type == MessageType::PackRegistered;
    is_registered.then(|| PackRegistered::deserialize(&envelope.payload)).and_then(Result::ok).map(|pack| pack.pack_ref)
}
