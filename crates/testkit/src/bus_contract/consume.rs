//! From queue to consumer, and what becomes of a delivery.

use std::future::poll_fn;
use std::task::Poll;

use attune_bus::{BusError, ConsumerEvent, QueueSpec, Requeue};
use tokio::time::timeout;
use tokio::{join, select};

use super::route::dead_letters;
use super::{Lab, delivery, drain, message, messages, number, queue};
use crate::{PATIENCE, eventually};

pub async fn prefetch_bounds_what_is_unanswered(lab: &impl Lab) {
    let bus = lab.bus();
    bus.declare(&queue("q", &["#"])).await.unwrap();
    bus.publish(&messages(1..=5)).await.unwrap();
    let mut bounded = bus.consume("q", "bounded", 2).await.unwrap();
    let (first, second) = (delivery(&mut bounded).await, delivery(&mut bounded).await);
    assert_eq!((number(&first), number(&second)), (1, 2));
    // Another consumer gets all the rest: the first one holds no more than its share.
    let mut other = bus.consume("q", "other", 10).await.unwrap();
    let mut rest =
        [number(&delivery(&mut other).await), number(&delivery(&mut other).await), number(&delivery(&mut other).await)];
    rest.sort_unstable();
    assert_eq!(rest, [3, 4, 5]);
    bus.publish(&[message(6)]).await.unwrap();
    other.cancel().await.unwrap();
    first.ack().await.unwrap();
    assert!(number(&delivery(&mut bounded).await) > 2, "an answer makes room for one more");
}

pub async fn a_rejected_message_comes_back_first_and_marked(lab: &impl Lab) {
    let bus = lab.bus();
    bus.declare(&queue("q", &["#"])).await.unwrap();
    bus.publish(&messages(1..=3)).await.unwrap();
    let mut consumer = bus.consume("q", "t", 1).await.unwrap();
    let first = delivery(&mut consumer).await;
    assert!(!first.redelivered);
    first.reject(Requeue::Yes).await.unwrap();
    let again = delivery(&mut consumer).await;
    assert!(again.redelivered);
    assert_eq!(number(&again), 1);
    again.ack().await.unwrap();
    assert_eq!(drain(&mut consumer, 2).await, [2, 3]);
}

pub async fn a_refused_message_becomes_a_dead_letter(lab: &impl Lab) {
    let bus = lab.bus();
    bus.declare(&queue("q", &["#"])).await.unwrap();
    bus.declare(&dead_letters()).await.unwrap();
    bus.publish(&messages(1..=2)).await.unwrap();
    let mut consumer = bus.consume("q", "t", 1).await.unwrap();
    delivery(&mut consumer).await.reject(Requeue::No).await.unwrap();
    assert_eq!(drain(&mut consumer, 1).await, [2]);
    let mut dead = bus.consume("dead", "t", 1).await.unwrap();
    let buried = delivery(&mut dead).await;
    assert_eq!((number(&buried), buried.redelivered), (1, false));
}

pub async fn a_refused_message_without_dead_letters_is_gone(lab: &impl Lab) {
    let bus = lab.bus();
    bus.declare(&QueueSpec { dead_letters: false, ..queue("q", &["#"]) }).await.unwrap();
    bus.declare(&dead_letters()).await.unwrap();
    bus.publish(&messages(1..=2)).await.unwrap();
    let mut consumer = bus.consume("q", "t", 1).await.unwrap();
    delivery(&mut consumer).await.reject(Requeue::No).await.unwrap();
    assert_eq!(drain(&mut consumer, 1).await, [2]);
    consumer.cancel().await.unwrap();
    assert_eq!((lab.waiting("q").await, lab.waiting("dead").await), (0, 0));
}

pub async fn a_cancelled_consumer_gives_back_in_order(lab: &impl Lab) {
    let bus = lab.bus();
    bus.declare(&queue("q", &["#"])).await.unwrap();
    bus.publish(&messages(1..=4)).await.unwrap();
    let mut consumer = bus.consume("q", "t", 3).await.unwrap();
    let (answered, _left) = (delivery(&mut consumer).await, delivery(&mut consumer).await);
    answered.ack().await.unwrap();
    consumer.cancel().await.unwrap();
    assert!(consumer.next().await.is_none());
    eventually("three messages waiting", async || (lab.waiting("q").await == 3).then_some(())).await;
    let mut next = bus.consume("q", "t", 1).await.unwrap();
    let again = delivery(&mut next).await;
    assert!(again.redelivered);
    assert_eq!(number(&again), 2);
    again.ack().await.unwrap();
    assert_eq!(drain(&mut next, 2).await, [3, 4]);
}

pub async fn a_dropped_consumer_gives_back_what_it_had(lab: &impl Lab) {
    let bus = lab.bus();
    bus.declare(&queue("q", &["#"])).await.unwrap();
    bus.publish(&[message(1)]).await.unwrap();
    let mut consumer = bus.consume("q", "t", 1).await.unwrap();
    let _held = delivery(&mut consumer).await;
    drop(consumer);
    let mut next = bus.consume("q", "t", 1).await.unwrap();
    let again = delivery(&mut next).await;
    assert!(again.redelivered);
}

pub async fn a_consume_that_is_given_up_takes_nothing(lab: &impl Lab) {
    let bus = lab.bus();
    bus.declare(&queue("q", &["#"])).await.unwrap();
    // Given up after one step more each time, until one gets through.
    let mut steps = 0;
    let mut consumer = loop {
        let (mut left, mut consume) = (steps, bus.consume("q", "t", 1));
        let consumed = poll_fn(|context| match consume.as_mut().poll(context) {
            Poll::Pending if left == 0 => Poll::Ready(None),
            Poll::Pending => {
                left -= 1;
                Poll::Pending
            }
            Poll::Ready(consumed) => Poll::Ready(Some(consumed)),
        });
        if let Some(consumed) = consumed.await {
            break consumed.unwrap();
        }
        steps += 1;
    };
    bus.publish(&messages(1..=20)).await.unwrap();
    let mut seen = drain(&mut consumer, 20).await;
    seen.sort_unstable();
    assert_eq!(seen, (1..=20).collect::<Vec<_>>());
}

pub async fn an_answer_after_the_cancel_is_an_error(lab: &impl Lab) {
    let bus = lab.bus();
    bus.declare(&queue("q", &["#"])).await.unwrap();
    bus.publish(&messages(1..=2)).await.unwrap();
    let mut consumer = bus.consume("q", "t", 2).await.unwrap();
    let (first, second) = (delivery(&mut consumer).await, delivery(&mut consumer).await);
    consumer.cancel().await.unwrap();
    assert!(first.ack().await.is_err(), "it must not be taken for success");
    assert!(second.reject(Requeue::No).await.is_err());
    let mut next = bus.consume("q", "t", 2).await.unwrap();
    assert_eq!(drain(&mut next, 2).await, [1, 2]);
}

pub async fn a_dropped_delivery_stays_unanswered(lab: &impl Lab) {
    let bus = lab.bus();
    bus.declare(&queue("q", &["#"])).await.unwrap();
    bus.publish(&messages(1..=2)).await.unwrap();
    let mut consumer = bus.consume("q", "t", 2).await.unwrap();
    drop(delivery(&mut consumer).await);
    assert_eq!(drain(&mut consumer, 1).await, [2], "it does not come again while its consumer lives");
    consumer.cancel().await.unwrap();
    let mut next = bus.consume("q", "t", 1).await.unwrap();
    assert_eq!(drain(&mut next, 1).await, [1]);
}

pub async fn two_consumers_share_a_queue(lab: &impl Lab) {
    let bus = lab.bus();
    bus.declare(&queue("q", &["#"])).await.unwrap();
    let mut first = bus.consume("q", "1", 1).await.unwrap();
    let mut second = bus.consume("q", "2", 1).await.unwrap();
    let published = async { bus.publish(&messages(1..=2)).await.unwrap() };
    let (one, two, ()) = join!(delivery(&mut first), delivery(&mut second), published);
    let mut numbers = [number(&one), number(&two)];
    numbers.sort_unstable();
    assert_eq!(numbers, [1, 2]);
}

pub async fn a_consumer_waits_for_what_comes_later(lab: &impl Lab) {
    let bus = lab.bus();
    bus.declare(&queue("q", &["#"])).await.unwrap();
    let mut consumer = bus.consume("q", "t", 1).await.unwrap();
    let (arrived, ()) = join!(delivery(&mut consumer), async { bus.publish(&[message(1)]).await.unwrap() });
    assert_eq!(number(&arrived), 1);
}

pub async fn a_queue_that_is_not_there_cannot_be_consumed(lab: &impl Lab) {
    let bus = lab.bus();
    let refused = bus.consume("none", "t", 1).await.unwrap_err();
    assert!(matches!(&refused, BusError::NoSuchQueue(name) if name == "none"), "{refused}");
    bus.declare(&queue("q", &["#"])).await.unwrap();
    bus.consume("q", "t", 1).await.unwrap();
}

pub async fn closing_ends_consumers_and_refuses_everything(lab: &impl Lab) {
    let bus = lab.bus();
    bus.declare(&queue("q", &["#"])).await.unwrap();
    let mut consumer = bus.consume("q", "t", 1).await.unwrap();
    let closing = timeout(PATIENCE, async { join!(consumer.next(), bus.close()) });
    let (ended, ()) = closing.await.expect("close has a limit");
    assert!(ended.is_none());
    assert!(matches!(bus.publish(&[message(1)]).await, Err(BusError::Closed)));
    assert!(matches!(bus.consume("q", "t", 1).await, Err(BusError::Closed)));
    assert!(matches!(bus.declare(&queue("r", &["#"])).await, Err(BusError::Closed)));
    bus.close().await;
}

pub async fn closing_gives_back_what_was_not_answered(lab: &impl Lab) {
    let bus = lab.bus();
    bus.declare(&queue("q", &["#"])).await.unwrap();
    bus.publish(&messages(1..=3)).await.unwrap();
    let mut consumer = bus.consume("q", "t", 3).await.unwrap();
    let (first, second) = (delivery(&mut consumer).await, delivery(&mut consumer).await);
    first.ack().await.unwrap();
    bus.close().await;
    assert!(second.ack().await.is_err(), "the broker has taken it back");
    // What was delivered but not looked at is not given out any more.
    assert!(consumer.next().await.is_none());
}

pub async fn the_next_event_can_be_waited_for_in_pieces(lab: &impl Lab) {
    let bus = lab.bus();
    bus.declare(&queue("q", &["#"])).await.unwrap();
    let mut consumer = bus.consume("q", "t", 10).await.unwrap();
    let publishing = async { bus.publish(&messages(1..=20)).await.unwrap() };
    let consuming = async {
        let mut numbers = Vec::new();
        while numbers.len() < 20 {
            // Given up again and again: nothing may get lost in between.
            select! {
                biased;
                event = consumer.next() => match event {
                    Some(ConsumerEvent::Delivery(delivery)) => {
                        numbers.push(number(&delivery));
                        delivery.ack().await.unwrap();
                    }
                    other => panic!("expected a delivery, got {other:?}"),
                },
                () = tokio::task::yield_now() => {}
            }
        }
        numbers
    };
    let ((), numbers) = join!(publishing, consuming);
    assert_eq!(numbers, (1..=20).collect::<Vec<_>>());
}
