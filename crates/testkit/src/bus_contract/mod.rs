//! What every bus has to do, whatever carries its messages.
//!
//! Each contract is a function that takes a [`Lab`] with a fresh bus. A backend calls
//! [`bus_contract_tests!`](crate::bus_contract_tests) in its own tests, which makes one named test of each.

#![expect(
    clippy::unwrap_used,
    clippy::missing_panics_doc,
    reason = "a contract that is broken ends the test that runs it"
)]

pub mod consume;
pub mod route;

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use attune_bus::{Bus, Consumer, ConsumerEvent, Delivery, Outgoing, QueueLifetime, QueueSpec, decode};
use attune_model::PackId;
use attune_model::message::{Exchange, PackDeleted};
use chrono::Utc;
use tokio::time::timeout;

use crate::PATIENCE;

/// A fresh bus, and the way around it.
#[async_trait]
pub trait Lab: Send + Sync {
    /// The bus under test.
    fn bus(&self) -> Arc<dyn Bus>;

    /// How many messages wait in the queue, not delivered to anybody.
    async fn waiting(&self, queue: &str) -> usize;

    /// Returns when messages of the queue are older than `age` and those that outlived its limit are gone or dead.
    async fn age(&self, queue: &str, age: Duration);
}

/// A queue with the bindings `patterns` to the exchange of events.
pub fn queue(name: &str, patterns: &[&str]) -> QueueSpec {
    QueueSpec {
        name: name.to_owned(),
        bindings: patterns.iter().map(|pattern| (Exchange::Events, (*pattern).to_owned())).collect(),
        message_ttl_ms: None,
        dead_letters: true,
        lifetime: QueueLifetime::Permanent,
    }
}

/// A message with the key `pack.deleted`.
pub fn message(number: i64) -> Outgoing {
    Outgoing::new(&PackDeleted { pack_id: PackId(number), pack_ref: "demo".into() }, "test", Utc::now()).unwrap()
}

/// The numbers `range` as messages.
pub fn messages(range: std::ops::RangeInclusive<i64>) -> Vec<Outgoing> {
    range.map(message).collect()
}

/// The next delivery.
pub async fn delivery(consumer: &mut Box<dyn Consumer>) -> Delivery {
    match timeout(PATIENCE, consumer.next()).await {
        Ok(Some(ConsumerEvent::Delivery(delivery))) => delivery,
        other => panic!("expected a delivery, got {other:?}"),
    }
}

/// The number of a message.
pub fn number(delivery: &Delivery) -> i64 {
    decode::<PackDeleted>(&delivery.body).unwrap().1.pack_id.0
}

/// Takes and acknowledges messages until all of `wanted` were there; answers the order in which they came.
pub async fn drain(consumer: &mut Box<dyn Consumer>, count: usize) -> Vec<i64> {
    let mut numbers = Vec::new();
    while numbers.len() < count {
        let delivery = delivery(consumer).await;
        numbers.push(number(&delivery));
        delivery.ack().await.unwrap();
    }
    numbers
}

/// Makes a test of each contract. The argument is an async function that makes a [`Lab`] with an empty bus.
#[macro_export]
macro_rules! bus_contract_tests {
    ($lab:ident) => {
        $crate::bus_contract_tests! { $lab;
            route: a_message_reaches_every_queue_bound_to_it_and_no_other,
                a_message_that_nobody_wants_is_confirmed,
                a_batch_arrives_in_order,
                a_large_message_arrives_whole,
                publishers_at_once_lose_nothing,
                envelope_and_key_arrive_as_they_were_sent,
                a_queue_is_declared_again_only_as_it_is,
                a_declaration_tells_how_many_consume,
                what_waits_too_long_is_not_delivered,
                what_waits_too_long_becomes_a_dead_letter,
                a_queue_that_nobody_uses_goes_away;
            consume: prefetch_bounds_what_is_unanswered,
                a_rejected_message_comes_back_first_and_marked,
                a_refused_message_becomes_a_dead_letter,
                a_refused_message_without_dead_letters_is_gone,
                a_cancelled_consumer_gives_back_in_order,
                a_dropped_consumer_gives_back_what_it_had,
                a_consume_that_is_given_up_takes_nothing,
                an_answer_after_the_cancel_is_an_error,
                a_dropped_delivery_stays_unanswered,
                two_consumers_share_a_queue,
                a_consumer_waits_for_what_comes_later,
                a_queue_that_is_not_there_cannot_be_consumed,
                closing_ends_consumers_and_refuses_everything,
                closing_gives_back_what_was_not_answered,
                the_next_event_can_be_waited_for_in_pieces;
        }
    };
    ($lab:ident; $($part:ident: $($contract:ident),+;)+) => {
        $(mod $part {
            $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $contract() {
                let lab = super::$lab().await;
                $crate::bus_contract::$part::$contract(&lab).await;
            })+
        })+
    };
}

#[cfg(test)]
mod tests {
    /// A contract that nobody runs would be a promise that nothing keeps.
    #[test]
    fn every_contract_is_in_the_list() {
        let list = include_str!("mod.rs");
        for text in [include_str!("consume.rs"), include_str!("route.rs")] {
            for line in text.lines().filter(|line| line.starts_with("pub async fn ")) {
                let name = line.trim_start_matches("pub async fn ").split('<').next().unwrap();
                let name = name.split('(').next().unwrap();
                assert!(list.contains(&format!("{name},")) || list.contains(&format!("{name};")), "{name}");
            }
        }
    }
}
