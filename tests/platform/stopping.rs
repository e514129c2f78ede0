//! A sensor host that is asked to stop while the servers are there and say nothing.

use std::fs;
use std::os::unix::net::UnixStream;
use std::process::Command;
use std::time::{Duration, Instant};

use attune_testkit::{Proxy, eventually};
use tokio::time::timeout;

use crate::sensor_packs::Zoo;
use crate::sensors::FAITHFUL;
use crate::support::{Installation, is_alive};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_host_whose_database_is_in_a_black_hole_stops_all_the_same_and_leaves_no_process() {
    let installation = Installation::bare().await;
    let zoo = Zoo::new(&installation);
    zoo.sensor("faithful", "shell", FAITHFUL);
    zoo.sensor("stubborn", "shell", "trap '' TERM INT HUP\nwhile :; do sleep 1000; done\n");
    zoo.load();
    let hub = installation.start("hub", &["hub"]);
    let database = Proxy::start(installation.database.authority());
    let far = |command: &mut Command| {
        // The stop is to end the sensors, before the end of the lease does.
        command.env("ATTUNE__SENSOR__LEASE_TIME", "20");
        command.env("ATTUNE__DATABASE__URL", installation.database.url_via(&database.authority()));
    };
    let mut host = installation.host("one", far);
    let running = "SELECT count(*) FROM sensor_process WHERE status = 'running' AND pid IS NOT NULL";
    installation.wait_for("two sensors", running, |count| count == 2).await;
    let pids = installation.database.texts("SELECT pid FROM sensor_process").await.unwrap();
    let pids: Vec<u32> = pids.iter().map(|pid| pid.parse().unwrap()).collect();

    database.black_hole_both();
    let begun = Instant::now();
    host.signal("TERM");
    let status = host.wait();
    println!("the host was gone after {:?}: {status}", begun.elapsed());
    assert!(!pids.iter().any(|pid| is_alive(*pid)), "{pids:?}: {}", host.log());
    // What it could not write is put right by its next life, which waits for the lease that was not given back.
    database.resume();
    let host = installation.host("one", far);
    let [first, second] = pids[..] else { panic!("{pids:?}") };
    let anew = format!("{running} AND pid NOT IN ({first}, {second})");
    installation.wait_for("two sensors again", &anew, |count| count == 2).await;
    let again = installation.database.texts("SELECT pid FROM sensor_process").await.unwrap();
    assert!(again.iter().all(|pid| is_alive(pid.parse().unwrap())), "{again:?}");
    host.stop();
    let stopped = "SELECT count(*) FROM sensor_process WHERE status = 'stopped' AND pid IS NULL";
    assert_eq!(installation.database.number(stopped).await, 2);
    hub.stop();
}

/// The grace of a second and all that may follow are five; the servers' own limits, one after another, are many more.
const HANG_LIMIT: Duration = Duration::from_secs(15);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_host_whose_servers_are_all_in_a_black_hole_has_one_limit_for_its_end() {
    let installation = Installation::bare().await;
    let zoo = Zoo::new(&installation);
    zoo.sensor("stubborn", "shell", "trap '' TERM INT HUP\nwhile :; do sleep 1000; done\n");
    zoo.sensor("loud", "shell", "while echo text; do sleep 0.1; done\n");
    // Alerts are raised about this one.
    zoo.sensor("failing", "shell", "exit 1\n");
    zoo.load();
    fs::create_dir(installation.path("far")).unwrap();
    let hub = installation.start("hub", &["hub"]);
    let database = Proxy::start(installation.database.authority());
    let broker = Proxy::start(installation.broker.authority());
    let api = Proxy::start(&installation.hub_address().to_string());
    let mut host = installation.host("one", |command| {
        command.env("ATTUNE__SENSOR__LEASE_TIME", "30").env("ATTUNE__SENSOR__STOP_GRACE", "1");
        command.env("ATTUNE__SENSOR__BACKOFF_MAX", "1");
        command.env("ATTUNE__DATABASE__URL", installation.database.url_via(&database.authority()));
        command.env("ATTUNE__MESSAGE_QUEUE__URL", installation.broker.url_via(&broker.authority()));
        command.env("ATTUNE_API_URL", format!("http://{}", api.authority()));
        command.env("ATTUNE__ARTIFACTS_DIR", installation.path("far"));
    });
    let alerted = "SELECT count(*) FROM sensor_process WHERE last_alerted_failure_count > 0";
    installation.wait_for("an alert", alerted, |count| count == 1).await;
    let running = "SELECT count(*) FROM sensor_process WHERE status = 'running' AND sensor_ref <> 'zoo.failing'";
    installation.wait_for("two sensors", running, |count| count == 2).await;
    let pids = installation.database.texts("SELECT pid FROM sensor_process WHERE pid IS NOT NULL").await.unwrap();
    for proxy in [&database, &broker, &api] {
        proxy.black_hole_both();
    }
    eventually("calls that wait in vain", async || host.log().contains("no answer within").then_some(())).await;
    // Somebody who says nothing, either.
    let _silent = UnixStream::connect(installation.path("run-one/control.sock")).unwrap();
    host.signal("TERM");
    let gone = eventually("the end of the host", async || (!is_alive(host.pid())).then_some(()));
    assert!(timeout(HANG_LIMIT, gone).await.is_ok(), "{}", host.log());
    assert_eq!(host.wait().code(), Some(0), "{}", host.log());
    assert!(!pids.iter().any(|pid| is_alive(pid.parse().unwrap())), "{pids:?}: {}", host.log());
    hub.stop();
}
