//! From publisher to queue.

use std::time::Duration;

use attune_bus::{BusError, QueueLifetime, QueueSpec, decode};
use attune_model::message::{Exchange, PackDeleted, PackRegistered};
use attune_model::{PackId, message::Envelope};
use chrono::Utc;
use tokio::join;

use super::{Lab, delivery, drain, message, messages, number, queue};
use crate::eventually;

const TTL: Duration = Duration::from_millis(80);

pub async fn a_message_reaches_every_queue_bound_to_it_and_no_other(lab: &impl Lab) {
    let bus = lab.bus();
    for (name, pattern) in [("star", "pack.*"), ("hash", "#"), ("literal", "pack.deleted"), ("other", "rule.*")] {
        bus.declare(&queue(name, &[pattern])).await.unwrap();
    }
    bus.declare(&queue("twice", &["pack.*", "#"])).await.unwrap();
    let elsewhere = QueueSpec { bindings: vec![(Exchange::Executions, "#".into())], ..queue("elsewhere", &[]) };
    bus.declare(&elsewhere).await.unwrap();
    bus.publish(&[message(1)]).await.unwrap();
    for (name, expected) in [("star", 1), ("hash", 1), ("literal", 1), ("twice", 1), ("other", 0), ("elsewhere", 0)] {
        let arrived = async || (lab.waiting(name).await == expected).then_some(());
        eventually(&format!("{expected} messages in {name}"), arrived).await;
    }
}

pub async fn a_message_that_nobody_wants_is_confirmed(lab: &impl Lab) {
    lab.bus().publish(&[message(1)]).await.unwrap();
}

pub async fn a_batch_arrives_in_order(lab: &impl Lab) {
    let bus = lab.bus();
    bus.declare(&queue("q", &["#"])).await.unwrap();
    bus.publish(&messages(1..=200)).await.unwrap();
    bus.publish(&[]).await.unwrap();
    bus.publish(&messages(201..=220)).await.unwrap();
    let mut consumer = bus.consume("q", "t", 20).await.unwrap();
    assert_eq!(drain(&mut consumer, 220).await, (1..=220).collect::<Vec<_>>());
}

pub async fn a_large_message_arrives_whole(lab: &impl Lab) {
    let bus = lab.bus();
    bus.declare(&queue("q", &["#"])).await.unwrap();
    let pack_ref = "x".repeat(3 * 1024 * 1024 + 17);
    let payload = PackDeleted { pack_id: PackId(7), pack_ref };
    let large = attune_bus::Outgoing::new(&payload, "test", Utc::now()).unwrap();
    bus.publish(&[message(1), large, message(2)]).await.unwrap();
    let mut consumer = bus.consume("q", "t", 3).await.unwrap();
    assert_eq!(number(&delivery(&mut consumer).await), 1);
    let (_, arrived): (_, PackDeleted) = decode(&delivery(&mut consumer).await.body).unwrap();
    assert!(arrived == payload, "{} bytes arrived", arrived.pack_ref.len());
    assert_eq!(number(&delivery(&mut consumer).await), 2);
}

pub async fn publishers_at_once_lose_nothing(lab: &impl Lab) {
    let bus = lab.bus();
    bus.declare(&queue("q", &["#"])).await.unwrap();
    let (batches, others) = (messages(1..=50), messages(51..=100));
    let one_by_one = async {
        for single in messages(101..=150) {
            bus.publish(&[single]).await.unwrap();
        }
    };
    let (first, second, ()) = join!(bus.publish(&batches), bus.publish(&others), one_by_one);
    first.unwrap();
    second.unwrap();
    let mut consumer = bus.consume("q", "t", 50).await.unwrap();
    let mut arrived = drain(&mut consumer, 150).await;
    for part in [1..=50, 51..=100, 101..=150] {
        let order: Vec<i64> = arrived.iter().copied().filter(|number| part.contains(number)).collect();
        assert_eq!(order, part.collect::<Vec<_>>(), "each publisher's own order is kept");
    }
    arrived.sort_unstable();
    assert_eq!(arrived, (1..=150).collect::<Vec<_>>());
}

pub async fn envelope_and_key_arrive_as_they_were_sent(lab: &impl Lab) {
    let bus = lab.bus();
    bus.declare(&queue("q", &["#"])).await.unwrap();
    let payload =
        PackRegistered { pack_id: PackId(3), pack_ref: "ünï".into(), version: "1".into(), runtime_names: vec![] };
    let sent = attune_bus::Outgoing::new(&payload, "test", Utc::now()).unwrap();
    bus.publish(std::slice::from_ref(&sent)).await.unwrap();
    let mut consumer = bus.consume("q", "t", 1).await.unwrap();
    let delivery = delivery(&mut consumer).await;
    assert_eq!(delivery.routing_key, "pack.registered");
    assert!(!delivery.redelivered);
    let (envelope, arrived): (Envelope, PackRegistered) = decode(&delivery.body).unwrap();
    assert_eq!((envelope, arrived), (sent.envelope, payload));
}

pub async fn a_queue_is_declared_again_only_as_it_is(lab: &impl Lab) {
    let bus = lab.bus();
    bus.declare(&queue("q", &["#"])).await.unwrap();
    bus.declare(&queue("q", &["#"])).await.unwrap();
    let otherwise = QueueSpec { message_ttl_ms: Some(1000), ..queue("q", &["#"]) };
    let refused = bus.declare(&otherwise).await.unwrap_err();
    assert!(matches!(&refused, BusError::Refused { what, .. } if what.contains('q')), "{refused}");
    // The refusal harms nothing else.
    bus.declare(&queue("r", &["#"])).await.unwrap();
    bus.publish(&[message(1)]).await.unwrap();
}

pub async fn a_declaration_tells_how_many_consume(lab: &impl Lab) {
    let bus = lab.bus();
    assert_eq!(bus.declare(&queue("q", &["#"])).await.unwrap(), 0);
    let mut first = bus.consume("q", "first", 1).await.unwrap();
    let second = bus.consume("q", "second", 1).await.unwrap();
    assert_eq!(bus.declare(&queue("q", &["#"])).await.unwrap(), 2);
    first.cancel().await.unwrap();
    drop(second);
    eventually("nobody consumes", async || (bus.declare(&queue("q", &["#"])).await.unwrap() == 0).then_some(())).await;
}

pub async fn what_waits_too_long_is_not_delivered(lab: &impl Lab) {
    let bus = lab.bus();
    let short = QueueSpec { message_ttl_ms: Some(80), dead_letters: false, ..queue("short", &["#"]) };
    bus.declare(&short).await.unwrap();
    bus.publish(&[message(1)]).await.unwrap();
    lab.age("short", TTL).await;
    let mut consumer = bus.consume("short", "t", 5).await.unwrap();
    bus.publish(&[message(2)]).await.unwrap();
    assert_eq!(drain(&mut consumer, 1).await, [2]);
}

pub async fn what_waits_too_long_becomes_a_dead_letter(lab: &impl Lab) {
    let bus = lab.bus();
    let short = QueueSpec { message_ttl_ms: Some(80), ..queue("short", &["#"]) };
    bus.declare(&short).await.unwrap();
    bus.declare(&dead_letters()).await.unwrap();
    bus.publish(&[message(1)]).await.unwrap();
    lab.age("short", TTL).await;
    let mut late = bus.consume("short", "t", 1).await.unwrap();
    let mut dead = bus.consume("dead", "t", 1).await.unwrap();
    let (buried, ()) = join!(delivery(&mut dead), async {
        // Some notice only when somebody asks.
        bus.publish(&[message(2)]).await.unwrap();
        assert_eq!(drain(&mut late, 1).await, [2]);
    });
    assert_eq!((number(&buried), buried.routing_key.as_str()), (1, "pack.deleted"));
}

pub async fn a_queue_that_nobody_uses_goes_away(lab: &impl Lab) {
    let bus = lab.bus();
    let fleeting = QueueSpec { lifetime: QueueLifetime::UntilUnused(TTL), ..queue("fleeting", &["#"]) };
    bus.declare(&fleeting).await.unwrap();
    let mut consumer = bus.consume("fleeting", "t", 1).await.unwrap();
    bus.publish(&[message(1)]).await.unwrap();
    // Used all the time, so it lives on.
    lab.age("fleeting", TTL * 3).await;
    assert_eq!(drain(&mut consumer, 1).await, [1]);
    consumer.cancel().await.unwrap();
    eventually("a queue that is gone", async || {
        lab.age("none", TTL).await;
        bus.declare(&queue("fleeting", &["#"])).await.is_ok().then_some(())
    })
    .await;
}

/// Catches the dead letters of [`message`].
pub(super) fn dead_letters() -> QueueSpec {
    QueueSpec {
        bindings: vec![(Exchange::DeadLetters, "pack.deleted".into())],
        dead_letters: false,
        ..queue("dead", &[])
    }
}
