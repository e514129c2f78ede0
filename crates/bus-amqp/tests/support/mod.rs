//! A bus on a virtual host of its own, the broker seen from beside it, and a storm of messages.

#![expect(clippy::unwrap_used, reason = "tests")]
#![allow(dead_code, clippy::allow_attributes, reason = "each test file uses its part of this")]

use std::collections::BTreeMap;
use std::fs;
use std::sync::Arc;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use attune_bus::{Bus, ConsumerEvent};
use attune_bus_amqp::{AmqpBus, AmqpConfig, AmqpState};
use attune_lifecycle::CancellationToken;
use attune_model::Secret;
use attune_testkit::bus_contract::{Lab, message, number, queue};
use attune_testkit::{PATIENCE, TestBroker};
use lapin::options::QueueDeclareOptions;
use lapin::types::FieldTable;
use lapin::{Connection, ConnectionProperties};
use tokio::time::timeout;

/// The bus uses the first channel for topology and the next for the first consumer.
pub(crate) const FIRST_CONSUMER_CHANNEL: u16 = 2;

/// How long a storm may last: a broker may have to start in the middle of it.
const STORM: Duration = Duration::from_mins(5);

pub(crate) struct Rig {
    pub(crate) bus: Arc<AmqpBus>,
    pub(crate) broker: TestBroker,
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
        Self { bus, broker }
    }

    /// Messages that wait in the queue, seen by another connection; none when there is no queue.
    pub(crate) async fn messages(&self, queue: &str) -> Option<usize> {
        let connection = Connection::connect(&self.broker.url(), ConnectionProperties::default()).await.unwrap();
        let channel = connection.create_channel().await.unwrap();
        let options = QueueDeclareOptions { passive: true, ..QueueDeclareOptions::default() };
        let declared = channel.queue_declare(queue.into(), options, FieldTable::default()).await;
        let count = declared.ok().map(|queue| usize::try_from(queue.message_count()).unwrap());
        connection.close(200, "OK".into()).await.unwrap();
        count
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

/// How often each message was seen.
#[derive(Debug, Default, Clone, Copy)]
struct Seen {
    fresh: usize,
    again: usize,
    published: usize,
}

/// Publishes `count` messages one after another, each until it is confirmed, and consumes them at the same time, while
/// `fault` happens in the middle. Afterwards every message was there, and none was there without cause.
pub(crate) async fn storm(rig: &Rig, count: i64, fault: impl AsyncFnOnce()) {
    let bus = &rig.bus;
    bus.declare(&queue("storm", &["#"])).await.unwrap();
    let mut consumer = bus.consume("storm", "storm", 10).await.unwrap();
    let over = CancellationToken::new();
    let confirmed = tokio::sync::watch::Sender::new(0);
    let publishing = async {
        let mut published = BTreeMap::new();
        for number in 1..=count {
            // The last quarter shows whether everything works again.
            if number == count * 3 / 4 {
                over.cancelled().await;
            }
            loop {
                *published.entry(number).or_insert(0_usize) += 1;
                if bus.publish(&[message(number)]).await.is_ok() {
                    break;
                }
            }
            confirmed.send_replace(number);
        }
        published
    };
    let mut halfway = confirmed.subscribe();
    let failing = async {
        halfway.wait_for(|number| *number >= count / 4).await.unwrap();
        fault().await;
        over.cancel();
    };
    let consuming = async {
        let mut seen = BTreeMap::<i64, Seen>::new();
        while seen.len() < usize::try_from(count).unwrap() {
            match consumer.next().await.expect("the consumer does not end") {
                ConsumerEvent::Delivery(delivery) => {
                    let number = number(&delivery);
                    let seen = seen.entry(number).or_default();
                    if delivery.redelivered {
                        seen.again += 1
                    } else {
                        seen.fresh += 1
                    }
                    if let Err(error) = delivery.ack().await {
                        assert!(error.reason.len() > 3, "{error}");
                    }
                }
                ConsumerEvent::Interrupted(_) | ConsumerEvent::Resumed => {}
            }
        }
        seen
    };
    let (published, (), mut seen) =
        timeout(STORM, async { tokio::join!(publishing, failing, consuming) }).await.expect("the storm ends");
    for (number, published) in published {
        let seen = seen.get_mut(&number).unwrap();
        seen.published = published;
        assert!(seen.fresh <= published, "message {number} came more often than it was sent: {seen:?}");
    }
    timeout(PATIENCE, bus.state().wait_for(AmqpState::is_ready)).await.unwrap().unwrap();
    consumer.cancel().await.unwrap();
}

/// Threads of lapin in this process.
pub(crate) fn io_threads() -> usize {
    fs::read_dir("/proc/self/task")
        .unwrap()
        .filter_map(|task| fs::read_to_string(task.ok()?.path().join("comm")).ok())
        .filter(|name| name.trim_end() == "lapin-io-loop")
        .count()
}

/// `basic.ack` of one delivery, as bytes.
pub(crate) fn ack_frame(channel: u16, delivery_tag: u64) -> Vec<u8> {
    const METHOD: u8 = 1;
    const END: u8 = 0xCE;
    let mut payload = vec![0, 60, 0, 80];
    payload.extend(delivery_tag.to_be_bytes());
    payload.push(0);
    let mut frame = vec![METHOD];
    frame.extend(channel.to_be_bytes());
    frame.extend(u32::try_from(payload.len()).unwrap().to_be_bytes());
    frame.extend(payload);
    frame.push(END);
    frame
}

/// Takes one message out of a queue on another connection.
pub(crate) async fn get(broker: &TestBroker, queue: &str) -> lapin::message::BasicGetMessage {
    let connection = Connection::connect(&broker.url(), ConnectionProperties::default()).await.unwrap();
    let channel = connection.create_channel().await.unwrap();
    let options = lapin::options::BasicGetOptions { no_ack: true };
    let got = channel.basic_get(queue.into(), options).await.unwrap().unwrap();
    connection.close(200, "OK".into()).await.unwrap();
    got
}
