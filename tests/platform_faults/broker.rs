//! Faults of RabbitMQ and of the way to it.

use attune_testkit::database::TestDatabase;
use attune_testkit::{Direction, PrivateBroker, Proxy, TestBroker, eventually};

use crate::rig::Rig;
use crate::support::Program;

/// A worker that reaches the broker through a proxy, with short heartbeats.
async fn behind_proxy(rig: &Rig) -> (Program, Proxy) {
    let broker = &rig.installation.broker;
    let proxy = Proxy::start(broker.authority());
    let url = format!("{}?heartbeat=1", broker.url_via(&proxy.authority()));
    let worker = rig.worker_with(&[("ATTUNE__MESSAGE_QUEUE__URL", &url)]).await;
    (worker, proxy)
}

async fn said(program: &Program, text: &str, times: usize) {
    let what = format!("{text:?} in the log, {times} times");
    eventually(&what, async || (program.log().matches(text).count() >= times).then_some(())).await;
}

const LOST: &str = "the connection to the broker is lost";
const BACK: &str = "the connection to the broker is back";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_broker_that_restarts_loses_no_execution() {
    let mut server = tokio::task::spawn_blocking(PrivateBroker::start).await.unwrap();
    let rig = Rig::on(TestDatabase::new().await, server.vhost()).await;
    let hub = rig.hub().await;
    let worker = rig.worker().await;
    let running = rig.ask_gated(5);
    rig.begun(&running).await;
    server.kill();
    // They end while nobody can be told, and more are asked for.
    rig.open();
    rig.until(&running, "completed").await;
    let asked = rig.ask(5);
    let server = tokio::task::spawn_blocking(move || {
        server.run();
        server
    });
    let server = server.await.unwrap();
    rig.completed(&running).await;
    rig.completed(&asked).await;
    rig.completed(&rig.ask(3)).await;
    worker.stop();
    hub.stop();
    drop(rig);
    drop(server);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_connection_to_the_broker_that_is_cut_loses_no_execution() {
    let rig = Rig::new().await;
    let hub = rig.hub().await;
    let (worker, proxy) = behind_proxy(&rig).await;
    let mut asked = rig.ask_gated(4);
    rig.begun(&asked).await;
    for times in 1..=3 {
        asked.extend(rig.ask(6));
        proxy.cut();
        said(&worker, LOST, times).await;
        said(&worker, BACK, times).await;
    }
    rig.open();
    rig.completed(&asked).await;
    worker.stop();
    hub.stop();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_broker_in_a_black_hole_loses_no_execution() {
    let rig = Rig::new().await;
    let hub = rig.hub().await;
    let (worker, proxy) = behind_proxy(&rig).await;
    let mut asked = rig.ask_gated(4);
    rig.begun(&asked).await;
    for (times, direction) in [(1, Direction::ToServer), (2, Direction::ToClient)] {
        proxy.black_hole(direction);
        asked.extend(rig.ask(3));
        said(&worker, LOST, times).await;
        rig.open();
        proxy.resume();
        said(&worker, BACK, times).await;
    }
    rig.completed(&asked).await;
    worker.stop();
    hub.stop();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_end_that_a_killed_worker_did_not_announce_is_announced_by_its_next_life() {
    let rig = Rig::new().await;
    let hub = rig.hub().await;
    let (worker, proxy) = behind_proxy(&rig).await;
    let told = rig.ask(2);
    rig.completed(&told).await;
    let asked = rig.ask_gated(3);
    rig.begun(&asked).await;
    // Nobody else is to announce anything.
    hub.stop();
    proxy.black_hole(Direction::ToServer);
    rig.open();
    rig.until(&asked, "completed").await;
    worker.kill();
    assert!(asked.iter().all(|id| rig.spy.ends_of(*id).is_empty()));
    drop(proxy);

    let worker = rig.worker().await;
    rig.completed(&asked).await;
    assert!(told.iter().chain(&asked).all(|id| rig.spy.ends_of(*id).len() == 1), "once each");
    worker.stop();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn queues_that_somebody_deletes_are_made_again() {
    let rig = Rig::new().await;
    let hub = rig.hub().await;
    let worker = rig.worker_with(&[("ATTUNE__WORKER__MAX_CONCURRENT_TASKS", "1")]).await;
    let id = rig.worker_id().await;
    let running = rig.ask_gated(1);
    rig.begun(&running).await;
    // These wait in the queue, and go with it.
    let queued = rig.ask(3);
    rig.until(&queued, "scheduled").await;
    for queue in ["executions", "cancel", "packs"] {
        let name = format!("worker.{id}.{queue}");
        rig.installation.broker.delete_queue(&name);
        eventually("the queue to be made again", async || rig.installation.broker.queue(&name)).await;
    }
    assert_eq!(rig.cancel(running[0]), 200);
    rig.ended(&running).await;
    rig.until(&running, "cancelled").await;
    rig.completed(&queued).await;
    rig.completed(&rig.ask(2)).await;
    worker.stop();
    hub.stop();
}

/// `basic.ack` of a delivery that never was, as bytes: the broker closes the channel.
fn wrong_ack(channel: u16) -> Vec<u8> {
    let mut frame = vec![1];
    frame.extend(channel.to_be_bytes());
    frame.extend(13_u32.to_be_bytes());
    frame.extend([0, 60, 0, 80]);
    frame.extend(4711_u64.to_be_bytes());
    frame.extend([0, 0xCE]);
    frame
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn channels_that_the_broker_closes_lose_no_execution() {
    let rig = Rig::new().await;
    let hub = rig.hub().await;
    let (worker, proxy) = behind_proxy(&rig).await;
    let running = rig.ask_gated(2);
    rig.begun(&running).await;
    let mut asked = Vec::new();
    // Whatever channels there are: those of the consumers, of publishing, of topology.
    for channel in 1..=5 {
        proxy.inject(Direction::ToServer, &wrong_ack(channel));
        asked.extend(rig.ask(2));
        rig.completed(&asked).await;
    }
    rig.open();
    rig.completed(&running).await;
    let cancelled = rig.ask_with(&serde_json::json!({ "GATE": "/nowhere" }));
    rig.begun(&[cancelled]).await;
    assert_eq!(rig.cancel(cancelled), 200);
    rig.ended(&[cancelled]).await;
    worker.stop();
    hub.stop();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_connection_that_an_operator_closes_is_made_again() {
    let rig = Rig::on(TestDatabase::new().await, TestBroker::new()).await;
    let hub = rig.hub().await;
    let worker = rig.worker().await;
    let running = rig.ask_gated(3);
    rig.begun(&running).await;
    // Of worker, hub and spy.
    eventually("connections to kill", async || (rig.installation.broker.kill_connections() >= 3).then_some(())).await;
    said(&worker, BACK, 1).await;
    said(&hub, BACK, 1).await;
    rig.open();
    rig.completed(&running).await;
    rig.completed(&rig.ask(3)).await;
    worker.stop();
    hub.stop();
}
