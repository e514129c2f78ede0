//! The in-process bus keeps the promises that agents build on.

#![expect(clippy::unwrap_used, reason = "tests")]

use std::sync::Arc;

use attune_bus::{
    Bus, BusError, Consumer, ConsumerEvent, Delivery, Event, MemoryBus, Outgoing, QueueLifetime, QueueSpec, Requeue,
    Source, Subscription, decode,
};
use attune_model::PackId;
use attune_model::message::{Exchange, PackDeleted};
use chrono::Utc;
use tokio::time::{Duration, timeout};

fn queue(name: &str, pattern: &str) -> QueueSpec {
    QueueSpec {
        name: name.to_owned(),
        bindings: vec![(Exchange::Events, pattern.to_owned())],
        message_ttl_ms: None,
        dead_letters: true,
        lifetime: QueueLifetime::Permanent,
    }
}

fn message(id: i64) -> Outgoing {
    Outgoing::new(&PackDeleted { pack_id: PackId(id), pack_ref: "demo".into() }, "test", Utc::now()).unwrap()
}

async fn delivery(consumer: &mut Box<dyn Consumer>) -> Delivery {
    match timeout(Duration::from_secs(5), consumer.next()).await {
        Ok(Some(ConsumerEvent::Delivery(delivery))) => delivery,
        other => panic!("expected a delivery, got {other:?}"),
    }
}

fn id(delivery: &Delivery) -> i64 {
    decode::<PackDeleted>(&delivery.body).unwrap().1.pack_id.0
}

/// Whether the consumer has nothing to give, decided by the scheduler and not by a clock.
async fn is_idle(consumer: &mut Box<dyn Consumer>) -> bool {
    tokio::select! {
        biased;
        event = consumer.next() => { assert!(event.is_some()); false }
        () = tokio::task::yield_now() => true,
    }
}

#[tokio::test]
async fn a_message_reaches_every_bound_queue_and_no_other() {
    let bus = MemoryBus::new();
    for (name, pattern) in [("a", "pack.*"), ("b", "#"), ("c", "rule.*")] {
        bus.declare(&queue(name, pattern)).await.unwrap();
    }
    bus.publish(&[message(1)]).await.unwrap();
    for (name, expected) in [("a", true), ("b", true), ("c", false)] {
        let mut consumer = bus.consume(name, "t", 1).await.unwrap();
        assert_eq!(!is_idle(&mut consumer).await, expected, "queue {name}");
    }
}

#[tokio::test]
async fn prefetch_bounds_unanswered_deliveries_and_an_ack_frees_one() {
    let bus = MemoryBus::new();
    bus.declare(&queue("q", "#")).await.unwrap();
    bus.publish(&[message(1), message(2), message(3)]).await.unwrap();
    let mut consumer = bus.consume("q", "t", 2).await.unwrap();
    let first = delivery(&mut consumer).await;
    let second = delivery(&mut consumer).await;
    assert_eq!((id(&first), id(&second)), (1, 2));
    assert!(is_idle(&mut consumer).await);
    first.ack().await.unwrap();
    assert_eq!(id(&delivery(&mut consumer).await), 3);
}

#[tokio::test]
async fn what_a_cancelled_consumer_did_not_answer_is_delivered_again_in_order() {
    let bus = MemoryBus::new();
    bus.declare(&queue("q", "#")).await.unwrap();
    bus.publish(&[message(1), message(2), message(3)]).await.unwrap();
    let mut consumer = bus.consume("q", "t", 3).await.unwrap();
    let answered = delivery(&mut consumer).await;
    let left = delivery(&mut consumer).await;
    answered.ack().await.unwrap();
    consumer.cancel().await.unwrap();
    assert!(consumer.next().await.is_none());
    assert!(left.ack().await.is_err(), "an answer after the cancel must not be taken for success");
    let mut next = bus.consume("q", "t", 3).await.unwrap();
    let again = delivery(&mut next).await;
    assert!(again.redelivered);
    assert_eq!(id(&again), 2);
    assert_eq!(id(&delivery(&mut next).await), 3);
}

#[tokio::test]
async fn a_rejected_message_comes_back_or_is_gone() {
    let bus = MemoryBus::new();
    bus.declare(&queue("q", "#")).await.unwrap();
    bus.publish(&[message(1)]).await.unwrap();
    let mut consumer = bus.consume("q", "t", 1).await.unwrap();
    delivery(&mut consumer).await.reject(Requeue::Yes).await.unwrap();
    let again = delivery(&mut consumer).await;
    assert!(again.redelivered);
    again.reject(Requeue::No).await.unwrap();
    assert!(is_idle(&mut consumer).await);
}

#[tokio::test]
async fn a_waiting_consumer_is_woken_and_two_share_a_queue() {
    let bus = MemoryBus::new();
    bus.declare(&queue("q", "#")).await.unwrap();
    let mut first = bus.consume("q", "1", 1).await.unwrap();
    let mut second = bus.consume("q", "2", 1).await.unwrap();
    let (one, two, ()) = tokio::join!(delivery(&mut first), delivery(&mut second), async {
        bus.publish(&[message(1), message(2)]).await.unwrap();
    });
    let mut ids = [id(&one), id(&two)];
    ids.sort_unstable();
    assert_eq!(ids, [1, 2]);
}

#[tokio::test]
async fn closing_ends_consumers_and_refuses_publishers() {
    let bus = MemoryBus::new();
    bus.declare(&queue("q", "#")).await.unwrap();
    let mut consumer = bus.consume("q", "t", 1).await.unwrap();
    let (ended, ()) = tokio::join!(consumer.next(), bus.close());
    assert!(ended.is_none());
    assert!(matches!(bus.publish(&[message(1)]).await, Err(BusError::Closed)));
    assert!(matches!(bus.consume("q", "t", 1).await, Err(BusError::Closed)));
}

#[tokio::test(start_paused = true)]
async fn a_subscription_says_once_that_the_bus_is_closed() {
    let bus = Arc::new(MemoryBus::new());
    let source = Source { queue: queue("q", "#"), tag: "t".to_owned(), prefetch: 1 };
    let mut subscription = Subscription::declare(bus.clone(), source).await.unwrap();
    assert!(matches!(subscription.next().await, Event::Up));
    bus.close().await;
    assert!(matches!(subscription.next().await, Event::Down));
    assert!(matches!(subscription.next().await, Event::Closed));
    let more = timeout(Duration::from_hours(1), subscription.next()).await;
    assert!(more.is_err(), "{more:?}");
}

#[tokio::test(start_paused = true)]
async fn a_subscription_that_cannot_consume_after_a_pause_says_that_nothing_comes() {
    const UNUSED: Duration = Duration::from_mins(1);
    let bus = Arc::new(MemoryBus::new());
    let queue = |pattern| QueueSpec { lifetime: QueueLifetime::UntilUnused(UNUSED), ..queue("q", pattern) };
    let source = Source { queue: queue("#"), tag: "t".to_owned(), prefetch: 1 };
    let mut subscription = Subscription::declare(bus.clone(), source).await.unwrap();
    assert!(matches!(subscription.next().await, Event::Up));
    subscription.pause().await;
    tokio::time::advance(UNUSED).await;
    // Meanwhile somebody has made it in another way.
    bus.declare(&queue("pack.*")).await.unwrap();
    let event = timeout(UNUSED / 2, subscription.next()).await.unwrap();
    assert!(matches!(event, Event::Down), "{event:?}");
    tokio::time::advance(UNUSED).await;
    while !matches!(timeout(UNUSED, subscription.next()).await.unwrap(), Event::Up) {}
}

#[tokio::test]
async fn a_queue_that_nobody_declared_or_declared_otherwise_is_refused() {
    let bus = MemoryBus::new();
    assert!(matches!(bus.consume("none", "t", 1).await, Err(BusError::NoSuchQueue(name)) if name == "none"));
    bus.declare(&queue("q", "#")).await.unwrap();
    bus.declare(&queue("q", "#")).await.unwrap();
    assert!(bus.declare(&queue("q", "pack.*")).await.is_err());
}

#[tokio::test(start_paused = true)]
async fn a_message_that_waited_too_long_is_not_delivered() {
    let bus = MemoryBus::new();
    bus.declare(&QueueSpec { message_ttl_ms: Some(300_000), ..queue("q", "#") }).await.unwrap();
    bus.publish(&[message(1)]).await.unwrap();
    tokio::time::advance(Duration::from_mins(5)).await;
    bus.publish(&[message(2)]).await.unwrap();
    let mut consumer = bus.consume("q", "t", 5).await.unwrap();
    assert_eq!(id(&delivery(&mut consumer).await), 2);
}
