//! Our bus against a bare loop over lapin, both on the same RabbitMQ and in alternating rounds.

use std::fmt::Display;
use std::time::{Duration, Instant};

use attune_bus::{Bus, Consumer, ConsumerEvent, Outgoing, QueueLifetime, QueueSpec};
use attune_bus_amqp::{AmqpBus, AmqpConfig};
use attune_model::message::{Exchange, PackDeleted};
use attune_model::{PackId, Secret};
use attune_testkit::TestBroker;
use chrono::Utc;
use futures_util::StreamExt;
use lapin::options::{
    BasicAckOptions, BasicConsumeOptions, BasicPublishOptions, BasicQosOptions, ConfirmSelectOptions, QueueBindOptions,
    QueueDeclareOptions,
};
use lapin::types::FieldTable;
use lapin::{BasicProperties, Channel, Connection, ConnectionProperties};

use crate::figure::{Figure, Goal, median};

const ROUNDS: usize = 7;
/// One at a time, for the latency.
const SINGLE: usize = 300;
/// In batches, for the throughput.
const BATCHES: usize = 200;
const BATCH: usize = 10;
const PREFETCH: u16 = 50;
/// What owning connection and consumers may cost on top of the bare library.
const GOAL: Goal = Goal::Ratio(1.3);

/// What one side reached.
#[derive(Debug, Default)]
struct Reached {
    latencies: Vec<Duration>,
    rates: Vec<f64>,
}

impl Reached {
    fn p99(&self) -> f64 {
        let mut sorted = self.latencies.clone();
        sorted.sort();
        sorted.get(sorted.len() * 99 / 100).map_or(0.0, |time| time.as_secs_f64() * 1e3)
    }

    fn words(&self, what: &str) -> String {
        let mut rates = self.rates.clone();
        rates.sort_by(f64::total_cmp);
        let rate = rates.get(rates.len() / 2).copied().unwrap_or_default();
        format!("{what} (p99 {:.2} ms, {rate:.0} confirmed, consumed and answered messages/s)", self.p99())
    }
}

/// Measures both sides.
pub(crate) fn run() -> Result<Figure, String> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .map_err(|error| failed("a runtime", &error))?;
    runtime.block_on(measure())
}

fn failed(what: &str, error: &dyn Display) -> String {
    format!("{what}: {error}")
}

async fn measure() -> Result<Figure, String> {
    let broker = TestBroker::new();
    let mut our_side = Ours::new(&broker).await?;
    let mut bare_side = Bare::new(&broker).await.map_err(|error| failed("lapin", &error))?;
    let (mut ours, mut bare) = (Reached::default(), Reached::default());
    for _ in 0..ROUNDS {
        bare_side.round(&mut bare).await.map_err(|error| failed("lapin", &error))?;
        our_side.round(&mut ours).await?;
    }
    our_side.bus.close().await;
    Ok(Figure {
        name: "bus",
        what: ours.words("publish to delivery through the bus"),
        floor_is: bare.words("through bare lapin"),
        ours: median(ours.latencies),
        floor: median(bare.latencies),
        goal: GOAL,
        rounds: ROUNDS * SINGLE,
    })
}

fn rate(count: usize, took: Duration) -> f64 {
    f64::from(u32::try_from(count).unwrap_or(u32::MAX)) / took.as_secs_f64()
}

fn message() -> Result<Outgoing, String> {
    Outgoing::new(&PackDeleted { pack_id: PackId(1), pack_ref: "demo".into() }, "bench", Utc::now())
        .map_err(|error| failed("a message", &error))
}

struct Ours {
    bus: AmqpBus,
    consumer: Box<dyn Consumer>,
}

impl Ours {
    async fn new(broker: &TestBroker) -> Result<Self, String> {
        let config = AmqpConfig::new(Secret::new(broker.url()), "bench");
        let bus = AmqpBus::connect(&config).await.map_err(|error| failed("the bus", &error))?;
        let queue = QueueSpec {
            name: "ours".to_owned(),
            bindings: vec![(Exchange::Events, "pack.deleted".to_owned())],
            message_ttl_ms: None,
            dead_letters: true,
            lifetime: QueueLifetime::Permanent,
        };
        bus.declare(&queue).await.map_err(|error| failed("our queue", &error))?;
        let consumer = bus.consume("ours", "bench", PREFETCH).await.map_err(|error| failed("our consumer", &error))?;
        Ok(Self { bus, consumer })
    }

    async fn take(consumer: &mut Box<dyn Consumer>) -> Result<Instant, String> {
        match consumer.next().await {
            Some(ConsumerEvent::Delivery(delivery)) => {
                let arrived = Instant::now();
                delivery.ack().await.map_err(|error| failed("our acknowledgement", &error))?;
                Ok(arrived)
            }
            other => Err(format!("no delivery but {other:?}")),
        }
    }

    async fn round(&mut self, reached: &mut Reached) -> Result<(), String> {
        let Self { bus, consumer } = self;
        let one = [message()?];
        for _ in 0..SINGLE {
            let begun = Instant::now();
            let (published, arrived) = tokio::join!(bus.publish(&one), Self::take(consumer));
            published.map_err(|error| failed("our publish", &error))?;
            reached.latencies.push(arrived?.saturating_duration_since(begun));
        }
        let batch = vec![message()?; BATCH];
        let begun = Instant::now();
        let publishing = async {
            for _ in 0..BATCHES {
                bus.publish(&batch).await.map_err(|error| failed("our publish", &error))?;
            }
            Ok::<_, String>(())
        };
        let consuming = async {
            for _ in 0..BATCHES * BATCH {
                Self::take(consumer).await?;
            }
            Ok::<_, String>(())
        };
        tokio::try_join!(publishing, consuming)?;
        reached.rates.push(rate(BATCHES * BATCH, begun.elapsed()));
        Ok(())
    }
}

struct Bare {
    _connection: Connection,
    publisher: Channel,
    channel: Channel,
    consumer: lapin::Consumer,
}

impl Bare {
    async fn new(broker: &TestBroker) -> lapin::Result<Self> {
        let connection = Connection::connect(&broker.url(), ConnectionProperties::default()).await?;
        let publisher = connection.create_channel().await?;
        publisher.confirm_select(ConfirmSelectOptions::default()).await?;
        let channel = connection.create_channel().await?;
        let durable = QueueDeclareOptions { durable: true, ..QueueDeclareOptions::default() };
        let table = FieldTable::default;
        channel.queue_declare("bare".into(), durable, table()).await?;
        let (queue, exchange) = ("bare".into(), Exchange::Events.name().into());
        channel.queue_bind(queue, exchange, "bare".into(), QueueBindOptions::default(), table()).await?;
        channel.basic_qos(PREFETCH, BasicQosOptions::default()).await?;
        let options = BasicConsumeOptions::default();
        let consumer = channel.basic_consume("bare".into(), "bare".into(), options, table()).await?;
        Ok(Self { _connection: connection, publisher, channel, consumer })
    }

    async fn send(publisher: &Channel, count: usize) -> lapin::Result<()> {
        let mut confirms = Vec::with_capacity(count);
        for _ in 0..count {
            let message = message().map_err(|error| lapin::Error::from(std::io::Error::other(error)))?;
            let body = serde_json::to_vec(&message.envelope)
                .map_err(|error| lapin::Error::from(std::io::Error::other(error)))?;
            let properties = BasicProperties::default().with_delivery_mode(2);
            let (exchange, options) = (Exchange::Events.name().into(), BasicPublishOptions::default());
            confirms.push(publisher.basic_publish(exchange, "bare".into(), options, &body, properties).await?);
        }
        for confirm in confirms {
            confirm.await?;
        }
        Ok(())
    }

    async fn take(consumer: &mut lapin::Consumer, channel: &Channel) -> lapin::Result<Instant> {
        let delivery = consumer
            .next()
            .await
            .unwrap_or_else(|| Err(std::io::Error::from(std::io::ErrorKind::UnexpectedEof).into()))?;
        let arrived = Instant::now();
        channel.basic_ack(delivery.delivery_tag, BasicAckOptions::default()).await?;
        Ok(arrived)
    }

    async fn round(&mut self, reached: &mut Reached) -> lapin::Result<()> {
        let Self { publisher, channel, consumer, .. } = self;
        for _ in 0..SINGLE {
            let begun = Instant::now();
            let (sent, arrived) = tokio::join!(Self::send(publisher, 1), Self::take(consumer, channel));
            sent?;
            reached.latencies.push(arrived?.saturating_duration_since(begun));
        }
        let begun = Instant::now();
        let publishing = async {
            for _ in 0..BATCHES {
                Self::send(publisher, BATCH).await?;
            }
            Ok::<_, lapin::Error>(())
        };
        let consuming = async {
            for _ in 0..BATCHES * BATCH {
                Self::take(consumer, channel).await?;
            }
            Ok::<_, lapin::Error>(())
        };
        tokio::try_join!(publishing, consuming)?;
        reached.rates.push(rate(BATCHES * BATCH, begun.elapsed()));
        Ok(())
    }
}
