//! A bus on a virtual host of its own, and the broker seen from beside it.

#![expect(clippy::unwrap_used, reason = "tests")]
#![allow(dead_code, clippy::allow_attributes, reason = "each test file uses its part of this")]

use std::sync::Arc;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use attune_bus::Bus;
use attune_bus_amqp::{AmqpBus, AmqpConfig};
use attune_model::Secret;
use attune_testkit::bus_contract::Lab;
use attune_testkit::{PATIENCE, TestBroker};
use lapin::options::QueueDeclareOptions;
use lapin::types::FieldTable;
use lapin::{Connection, ConnectionProperties};

pub(crate) struct Rig {
    pub(crate) bus: Arc<AmqpBus>,
    pub(crate) broker: TestBroker,
    /// Looks at queues without touching the bus.
    observer: Connection,
}

impl Rig {
    pub(crate) async fn new() -> Self {
        let broker = TestBroker::new();
        let url = broker.url();
        Self::through(broker, &url).await
    }

    /// A bus that reaches the broker by `url`.
    pub(crate) async fn through(broker: TestBroker, url: &str) -> Self {
        let bus = Arc::new(AmqpBus::connect(&config(url)).await.unwrap());
        let observer = Connection::connect(&broker.url(), ConnectionProperties::default()).await.unwrap();
        Self { bus, broker, observer }
    }

    /// Messages that wait in the queue; none when there is no queue.
    pub(crate) async fn messages(&self, queue: &str) -> Option<usize> {
        let channel = self.observer.create_channel().await.unwrap();
        let options = QueueDeclareOptions { passive: true, ..QueueDeclareOptions::default() };
        let declared = channel.queue_declare(queue.into(), options, FieldTable::default()).await.ok()?;
        Some(usize::try_from(declared.message_count()).unwrap())
    }
}

pub(crate) fn config(url: &str) -> AmqpConfig {
    AmqpConfig { start_limit: Duration::from_secs(5), ..AmqpConfig::new(Secret::new(url.to_owned()), "test") }
}

#[async_trait]
impl Lab for Rig {
    fn bus(&self) -> Arc<dyn Bus> {
        self.bus.clone()
    }

    async fn waiting(&self, queue: &str) -> usize {
        self.messages(queue).await.unwrap_or(0)
    }

    async fn age(&self, queue: &str, age: Duration) {
        let begun = Instant::now();
        while begun.elapsed() <= age || self.waiting(queue).await > 0 {
            assert!(begun.elapsed() < PATIENCE, "messages of {queue} do not expire");
        }
    }
}
