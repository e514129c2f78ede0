//! A sensor host that is asked to stop while the database is there and says nothing.

use std::process::Command;
use std::time::Instant;

use attune_testkit::Proxy;

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
    installation.wait_for("two sensors again", running, |count| count == 2).await;
    let again = installation.database.texts("SELECT pid FROM sensor_process").await.unwrap();
    assert!(again.iter().all(|pid| is_alive(pid.parse().unwrap())), "{again:?}");
    host.stop();
    let stopped = "SELECT count(*) FROM sensor_process WHERE status = 'stopped' AND pid IS NULL";
    assert_eq!(installation.database.number(stopped).await, 2);
    hub.stop();
}
