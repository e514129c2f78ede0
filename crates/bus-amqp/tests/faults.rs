//! What happens to connection, channels and queues, and that nothing gets lost by it.

#![expect(clippy::unwrap_used, reason = "tests")]

mod support;

use std::time::Duration;

use attune_bus::{Bus, BusError, ConsumerEvent};
use attune_bus_amqp::{AmqpBus, AmqpState, Link};
use attune_testkit::bus_contract::{delivery, drain, message, messages, queue};
use attune_testkit::{Direction, PATIENCE, Proxy, TestBroker, eventually};
use support::{Rig, storm};
use tokio::time::timeout;

/// A broker behind a proxy.
async fn behind_proxy(parameters: &str) -> (Rig, Proxy) {
    let broker = TestBroker::new();
    let proxy = Proxy::start(broker.authority());
    let url = format!("{}{parameters}", broker.url_via(&proxy.authority()));
    (Rig::through(broker, &url).await, proxy)
}

async fn state(bus: &AmqpBus, what: &str, wanted: impl FnMut(&AmqpState) -> bool) {
    let mut state = bus.state();
    timeout(PATIENCE, state.wait_for(wanted))
        .await
        .unwrap_or_else(|_| panic!("{what}: {:?}", bus.state().borrow()))
        .unwrap();
}

async fn until_lost(bus: &AmqpBus, losses: u64) {
    state(bus, "lost", |state| state.losses >= losses).await;
}

async fn closes_in_time(bus: &AmqpBus) {
    timeout(Duration::from_secs(10), bus.close()).await.expect("close has a limit");
    assert_eq!(bus.state().borrow().link, Link::Closed);
    eventually("no thread of lapin left", async || (support::io_threads() == 0).then_some(())).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_connection_that_is_cut_again_and_again_loses_nothing() {
    let (rig, proxy) = behind_proxy("").await;
    storm(&rig, 300, async || {
        for losses in 1..=3 {
            proxy.cut();
            until_lost(&rig.bus, losses).await;
            state(&rig.bus, "back", AmqpState::is_ready).await;
        }
        proxy.hang_up();
        until_lost(&rig.bus, 4).await;
    })
    .await;
    closes_in_time(&rig.bus).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_connection_closed_by_the_operator_loses_nothing() {
    let rig = Rig::new().await;
    storm(&rig, 300, async || {
        eventually("a connection to kill", async || (rig.broker.kill_connections() > 0).then_some(())).await;
        until_lost(&rig.bus, 1).await;
    })
    .await;
    closes_in_time(&rig.bus).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_connection_into_a_black_hole_is_given_up() {
    let (rig, proxy) = behind_proxy("?heartbeat=1").await;
    storm(&rig, 100, async || {
        proxy.black_hole_both();
        until_lost(&rig.bus, 1).await;
        assert!(!rig.bus.state().borrow().is_fresh());
        proxy.resume();
    })
    .await;
    closes_in_time(&rig.bus).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_broker_that_cannot_be_heard_is_given_up() {
    let (rig, proxy) = behind_proxy("?heartbeat=1").await;
    storm(&rig, 100, async || {
        proxy.black_hole(Direction::ToClient);
        until_lost(&rig.bus, 1).await;
        proxy.resume();
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_broker_that_does_not_hear_us_gives_us_up() {
    let (rig, proxy) = behind_proxy("?heartbeat=1").await;
    storm(&rig, 100, async || {
        proxy.black_hole(Direction::ToServer);
        until_lost(&rig.bus, 1).await;
        proxy.resume();
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_quiet_connection_is_not_given_up() {
    let (rig, _proxy) = behind_proxy("?heartbeat=1").await;
    let begun = std::time::Instant::now();
    let quiet = async || (begun.elapsed() > Duration::from_secs(5)).then_some(());
    eventually("five heartbeats", quiet).await;
    let state = rig.bus.state().borrow().clone();
    assert!(state.is_ready() && state.losses == 0, "{state:?}");
    assert_eq!(state.heartbeat, Some(Duration::from_secs(1)));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_consumer_whose_channel_the_broker_closes_comes_back_alone() {
    let (rig, proxy) = behind_proxy("").await;
    for name in ["first", "second"] {
        rig.bus.declare(&queue(name, &["#"])).await.unwrap();
    }
    let mut first = rig.bus.consume("first", "1", 1).await.unwrap();
    let mut second = rig.bus.consume("second", "2", 1).await.unwrap();
    rig.bus.publish(&[message(1)]).await.unwrap();
    let held = delivery(&mut first).await;
    // An acknowledgement that nobody owes, on the channel of the first consumer: the broker answers with 406.
    proxy.inject(Direction::ToServer, &support::ack_frame(support::FIRST_CONSUMER_CHANNEL, 4711));
    match timeout(PATIENCE, first.next()).await.unwrap() {
        Some(ConsumerEvent::Interrupted(cause)) => assert!(cause.contains("unknown delivery tag 4711"), "{cause}"),
        other => panic!("expected an interruption, got {other:?}"),
    }
    assert!(held.ack().await.is_err(), "an answer for the old channel must not reach the new one");
    assert!(matches!(timeout(PATIENCE, first.next()).await.unwrap(), Some(ConsumerEvent::Resumed)));
    let again = delivery(&mut first).await;
    assert!(again.redelivered);
    again.ack().await.unwrap();
    assert_eq!(drain(&mut second, 1).await, [1], "the other consumer has seen nothing but its message");
    let state = rig.bus.state().borrow().clone();
    assert!(state.is_ready() && state.losses == 0, "{state:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_deleted_queue_is_made_and_consumed_again() {
    let rig = Rig::new().await;
    for name in ["first", "second"] {
        rig.bus.declare(&queue(name, &["#"])).await.unwrap();
    }
    let mut first = rig.bus.consume("first", "1", 1).await.unwrap();
    let mut second = rig.bus.consume("second", "2", 1).await.unwrap();
    rig.broker.delete_queue("first");
    let interrupted = timeout(PATIENCE, first.next()).await.unwrap();
    assert!(matches!(interrupted, Some(ConsumerEvent::Interrupted(_))), "{interrupted:?}");
    assert!(matches!(timeout(PATIENCE, first.next()).await.unwrap(), Some(ConsumerEvent::Resumed)));
    rig.bus.publish(&messages(1..=3)).await.unwrap();
    assert_eq!(drain(&mut first, 3).await, [1, 2, 3]);
    assert_eq!(drain(&mut second, 3).await, [1, 2, 3]);
    assert_eq!(rig.broker.bindings("first"), [("attune.events".to_owned(), "#".to_owned())]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_publisher_whose_channel_the_broker_closes_comes_back() {
    let rig = Rig::new().await;
    rig.bus.publish(&[message(1)]).await.unwrap();
    rig.broker.management().delete(&format!("/api/exchanges/{}/attune.events", rig.broker.vhost()));
    let refused = rig.bus.publish(&messages(1..=2)).await.unwrap_err();
    match &refused {
        BusError::NotConfirmed { total: 2, reason, .. } => assert!(reason.contains("attune.events"), "{reason}"),
        other => panic!("{other}"),
    }
    let exchange = serde_json::json!({ "type": "topic", "durable": true });
    rig.broker.management().put(&format!("/api/exchanges/{}/attune.events", rig.broker.vhost()), &exchange);
    eventually("publishing again", async || rig.bus.publish(&[message(3)]).await.ok()).await;
    assert_eq!(rig.bus.state().borrow().losses, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_a_connection_publishing_fails_in_time_and_closing_too() {
    let (rig, proxy) = behind_proxy("").await;
    proxy.refuse();
    proxy.cut();
    until_lost(&rig.bus, 1).await;
    let refused = rig.bus.publish(&[message(1)]).await.unwrap_err();
    assert!(matches!(&refused, BusError::Unavailable(reason) if reason.contains("no connection")), "{refused}");
    state(&rig.bus, "a reason", |state| matches!(&state.link, Link::Lost { cause, .. } if cause.contains("refused")))
        .await;
    closes_in_time(&rig.bus).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn closing_in_a_black_hole_has_a_limit() {
    let (rig, proxy) = behind_proxy("").await;
    rig.bus.declare(&queue("q", &["#"])).await.unwrap();
    let mut consumer = rig.bus.consume("q", "t", 1).await.unwrap();
    proxy.black_hole_both();
    closes_in_time(&rig.bus).await;
    assert!(consumer.next().await.is_none());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn dropping_the_bus_leaves_nothing_behind() {
    let Rig { bus, broker } = Rig::new().await;
    bus.declare(&queue("q", &["#"])).await.unwrap();
    let consumer = bus.consume("q", "t", 1).await.unwrap();
    drop(bus);
    drop(consumer);
    eventually("no thread of lapin left", async || (support::io_threads() == 0).then_some(())).await;
    drop(broker);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn answers_that_were_given_before_the_close_count() {
    let rig = Rig::new().await;
    rig.bus.declare(&queue("q", &["#"])).await.unwrap();
    rig.bus.publish(&messages(1..=100)).await.unwrap();
    let mut consumer = rig.bus.consume("q", "t", 100).await.unwrap();
    drain(&mut consumer, 70).await;
    closes_in_time(&rig.bus).await;
    eventually("thirty left", async || (rig.messages("q").await == Some(30)).then_some(())).await;
}
