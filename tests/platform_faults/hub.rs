//! Faults of the hub and of its ways to both servers.

use attune_testkit::{Proxy, eventually};

use crate::rig::Rig;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_killed_hub_goes_on_where_it_was() {
    let rig = Rig::new().await;
    let hub = rig.hub().await;
    // Nobody is there yet, so they wait in the database.
    let waiting = rig.ask(3);
    hub.kill();
    let hub = rig.hub().await;
    let worker = rig.worker().await;
    rig.completed(&waiting).await;
    let running = rig.ask_gated(3);
    rig.begun(&running).await;
    hub.kill();
    rig.open();
    // The worker needs no hub for what it has.
    rig.completed(&running).await;
    let hub = rig.hub().await;
    rig.completed(&rig.ask(3)).await;
    worker.stop();
    hub.stop();
}

/// Another hub could still be at it, so it takes as long as the platform gives it: 30 s.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_killed_hub_was_scheduling_is_taken_over() {
    let rig = Rig::new().await;
    let hub = rig.hub().await;
    let worker = rig.worker().await;
    worker.stop();
    let waiting = rig.ask(2);
    rig.until(&waiting, "requested").await;
    hub.kill();
    let claim = format!("UPDATE execution SET status = 'scheduling' WHERE id = {}", waiting[0]);
    rig.installation.database.execute(&claim).await;
    let hub = rig.hub().await;
    let worker = rig.worker().await;
    rig.completed(&waiting).await;
    worker.stop();
    hub.stop();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hub_whose_connections_are_cut_or_refused_loses_no_execution() {
    let rig = Rig::new().await;
    let (broker, database) = (&rig.installation.broker, &rig.installation.database);
    let proxies = [Proxy::start(broker.authority()), Proxy::start(database.authority())];
    let [amqp_url, database_url] = [broker.url_via(&proxies[0].authority()), database.url_via(&proxies[1].authority())];
    let settings = [("ATTUNE__MESSAGE_QUEUE__URL", amqp_url.as_str()), ("ATTUNE__DATABASE__URL", &database_url)];
    let hub = rig.hub_with(&settings).await;
    let worker = rig.worker().await;
    let mut asked = rig.ask(2);
    for proxy in &proxies {
        proxy.cut();
        asked.push(eventually("the hub to take an execution", async || rig.try_ask()).await);
    }
    // The broker stays away: what is taken meanwhile waits in the database.
    proxies[0].refuse();
    proxies[0].cut();
    asked.push(eventually("the hub to take an execution", async || rig.try_ask()).await);
    proxies[0].resume();
    // The database stays away: the hub says that it cannot, and can when it is back.
    proxies[1].refuse();
    proxies[1].cut();
    assert_eq!(rig.try_ask(), None);
    proxies[1].resume();
    asked.push(eventually("the hub to take an execution", async || rig.try_ask()).await);
    rig.completed(&asked).await;
    worker.stop();
    hub.stop();
}
