//! A whole broker that dies, comes back, and runs short of memory. It is a private one.

#![expect(clippy::unwrap_used, reason = "tests")]

mod support;

use std::time::Duration;

use attune_bus::{Bus, BusError};
use attune_bus_amqp::{AmqpBus, AmqpConfig, AmqpState, ConnectError};
use attune_model::Secret;
use attune_testkit::bus_contract::{drain, message, messages, queue};
use attune_testkit::{PATIENCE, PrivateBroker, eventually};
use support::{Rig, config, storm};
use tokio::time::timeout;

/// Erlang starts slowly where everything else is busy.
const RESTART: Duration = Duration::from_mins(3);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_broker_that_dies_stops_or_starves_loses_nothing() {
    let server = PrivateBroker::start();
    tls(&server).await;
    let broker = server.vhost();
    let url = broker.url();
    let rig = Rig::through(broker, &url).await;

    // Killed under load, and started again while publishers and consumers go on.
    let mut server = Some(server);
    storm(&rig, 200, async || {
        let mut dying = server.take().unwrap();
        dying.kill();
        timeout(PATIENCE, rig.bus.state().wait_for(|state| state.losses == 1)).await.unwrap().unwrap();
        let started = move || {
            dying.run();
            dying
        };
        server = Some(tokio::task::spawn_blocking(started).await.unwrap());
        timeout(RESTART, rig.bus.state().wait_for(AmqpState::is_ready)).await.unwrap().unwrap();
    })
    .await;
    let mut server = server.unwrap();

    // Short of memory: publishing says so and puts nothing in line; then it works again.
    rig.bus.declare(&queue("blocked", &["#"])).await.unwrap();
    server.starve(true);
    let refused = eventually("a publish that is refused", async || rig.bus.publish(&[message(1)]).await.err()).await;
    assert!(matches!(refused, BusError::Unavailable(_) | BusError::NotConfirmed { .. }), "{refused}");
    timeout(PATIENCE, rig.bus.state().wait_for(|state| state.blocked.is_some())).await.unwrap().unwrap();
    let refused = rig.bus.publish(&[message(2)]).await.unwrap_err();
    assert!(matches!(&refused, BusError::Unavailable(reason) if reason.contains("memory")), "{refused}");
    server.starve(false);
    timeout(PATIENCE, rig.bus.state().wait_for(|state| state.blocked.is_none())).await.unwrap().unwrap();
    rig.bus.publish(&[message(3)]).await.unwrap();
    let mut consumer = rig.bus.consume("blocked", "t", 1).await.unwrap();
    let mut arrived = Vec::new();
    while !arrived.contains(&3) {
        arrived.extend(drain(&mut consumer, 1).await);
    }
    assert!(!arrived.contains(&2), "what was refused was not sent: {arrived:?}");

    // Closing while blocked.
    server.starve(true);
    eventually("a publish that is refused", async || rig.bus.publish(&[message(4)]).await.err()).await;
    timeout(Duration::from_secs(10), rig.bus.close()).await.expect("close has a limit");
    assert!(consumer.next().await.is_none());
    drop(rig);
    server.stop();
}

async fn tls(server: &PrivateBroker) {
    let broker = server.vhost();
    let url = broker.tls_url_via(&server.tls_authority());
    let trusting = AmqpConfig { ca_file: Some(server.ca_file()), ..config(&url) };
    let bus = AmqpBus::connect(&trusting).await.unwrap();
    bus.declare(&queue("q", &["#"])).await.unwrap();
    bus.publish(&messages(1..=20)).await.unwrap();
    let mut consumer = bus.consume("q", "t", 5).await.unwrap();
    assert_eq!(drain(&mut consumer, 20).await, (1..=20).collect::<Vec<_>>());
    bus.close().await;

    let once = |config: AmqpConfig| AmqpConfig { start_limit: Duration::ZERO, ..config };
    let distrusting = AmqpBus::connect(&once(config(&url))).await.unwrap_err();
    assert!(matches!(distrusting, ConnectError::Handshake { .. }), "nobody vouches for it: {distrusting:?}");
    let elsewhere = broker.tls_url_via(&server.tls_authority().replace("localhost", "127.0.0.1"));
    let wrong_name = AmqpConfig { url: Secret::new(elsewhere), ..trusting.clone() };
    let wrong_name = AmqpBus::connect(&once(wrong_name)).await.unwrap_err();
    assert!(matches!(wrong_name, ConnectError::Handshake { .. }), "it is not who it should be: {wrong_name:?}");
    let plain = broker.url_via(&server.tls_authority());
    let no_tls = AmqpBus::connect(&once(config(&plain))).await.unwrap_err();
    assert!(!no_tls.to_string().contains("guest"), "{no_tls}");
}
