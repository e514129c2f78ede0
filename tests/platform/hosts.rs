//! Several sensor hosts on PostgreSQL and RabbitMQ: at no moment two runners of one sensor, whatever happens to the hosts and
//! to their way to the servers. The sensors are witnesses of their own lives.

use std::process::Command;

use attune_testkit::{Proxy, WITNESS, eventually};

use crate::sensor_packs::Zoo;
use crate::support::{Installation, Program, processes_with};

const SENSORS: [&str; 3] = ["a", "b", "c"];

/// An installation with a hub and three witnesses.
async fn installation() -> (Installation, Program) {
    let installation = Installation::bare().await;
    let zoo = Zoo::new(&installation);
    for name in SENSORS {
        zoo.sensor(name, "python", WITNESS);
    }
    zoo.load();
    let hub = installation.start("hub", &["hub"]);
    (installation, hub)
}

/// The host that runs a sensor, by its row.
async fn runner_of(installation: &Installation, sensor: &str) -> String {
    let sql =
        format!("SELECT worker_name FROM sensor_process WHERE sensor_ref = 'zoo.{sensor}' AND status = 'running'");
    installation.text("a host that runs the sensor", &sql, |_| true).await
}

/// Waits until every sensor has exactly one row that says that it runs, and has said so itself: a process that was started is
/// not yet a witness.
async fn all_run(installation: &Installation) {
    let running = "SELECT count(*) FROM sensor_process WHERE status = 'running' AND pid IS NOT NULL";
    let distinct = "SELECT count(DISTINCT sensor) FROM sensor_process WHERE status = 'running' AND pid IS NOT NULL";
    installation.wait_for("every sensor runs", distinct, |count| count == 3).await;
    installation.wait_for("and only once", running, |count| count == 3).await;
    let seen = installation.testimonies();
    for name in SENSORS {
        let pid = format!("SELECT pid FROM sensor_process WHERE sensor_ref = 'zoo.{name}' AND status = 'running'");
        eventually("the runner to testify", async || {
            let pids = installation.database.texts(&pid).await?;
            let last = seen.runners(&format!("zoo.{name}")).last()?.to_string();
            (pids == [last]).then_some(())
        })
        .await;
    }
}

/// Takes the host of that name out of `hosts`.
fn take(hosts: &mut Vec<(String, Program)>, name: &str) -> Program {
    let at = hosts.iter().position(|(known, _)| known == name).unwrap();
    hosts.remove(at).1
}

async fn three(installation: &Installation) -> Vec<(String, Program)> {
    let mut hosts = Vec::new();
    for name in ["one", "two", "three"] {
        hosts.push((name.to_owned(), installation.host(name, |_| {})));
        installation
            .wait_for(name, &format!("SELECT count(*) FROM worker WHERE name = '{name}'"), |count| count == 1)
            .await;
    }
    all_run(installation).await;
    hosts
}

/// Stops everything; nothing is left, and no sensor ever ran twice.
fn end(installation: &Installation, hosts: Vec<(String, Program)>, hub: Program) {
    for (_, host) in hosts {
        host.stop();
    }
    hub.stop();
    for name in SENSORS {
        let longest = installation.testimonies().assert_no_overlap(&format!("zoo.{name}"));
        #[expect(clippy::print_stdout, reason = "the time of a takeover is for people")]
        let () = println!("{name}: at most {longest:?} without a runner, with a lease of 3 s");
    }
    assert_eq!(processes_with(installation.folder.path().to_str().unwrap()), Vec::<u32>::new());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn three_hosts_take_over_from_one_another_and_never_run_a_sensor_twice() {
    let (installation, hub) = installation().await;
    let mut hosts = three(&installation).await;
    let seen = installation.testimonies();
    // Killed, with everything that it has started.
    let before = seen.runners("zoo.a").len();
    let name = runner_of(&installation, "a").await;
    take(&mut hosts, &name).kill();
    seen.another_runner("zoo.a", before).await;
    hosts.push((name.clone(), installation.host(&name, |_| {})));
    all_run(&installation).await;
    // Frozen for longer than its lease, and awake again.
    let before = seen.runners("zoo.a").len();
    let name = runner_of(&installation, "a").await;
    let frozen = take(&mut hosts, &name);
    frozen.signal("STOP");
    let after = seen.another_runner("zoo.a", before).await;
    frozen.signal("CONT");
    // Of this sensor: another one may have been free when it woke up.
    let stopped = format!(
        "SELECT count(*) FROM sensor_process
         WHERE worker_name = '{name}' AND sensor_ref = 'zoo.a' AND (status <> 'stopped' OR pid IS NOT NULL)"
    );
    installation.wait_for("the woken host says that it does not run it", &stopped, |count| count == 0).await;
    assert_eq!(seen.runners("zoo.a"), after, "nothing more has started");
    hosts.push((name, frozen));
    // One after another started anew: whoever is stopped hands over.
    for name in ["one", "two", "three"] {
        take(&mut hosts, name).stop();
        hosts.push((name.to_owned(), installation.host(name, |_| {})));
        let active = format!("SELECT count(*) FROM worker WHERE name = '{name}' AND status = 'active'");
        installation.wait_for("the new host", &active, |count| count == 1).await;
        all_run(&installation).await;
    }
    end(&installation, hosts, hub);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_a_broker_sensors_run_on_and_changes_arrive_all_the_same() {
    let (installation, hub) = installation().await;
    let broker = Proxy::start(installation.broker.authority());
    let through = |command: &mut Command| {
        command.env("ATTUNE__MESSAGE_QUEUE__URL", installation.broker.url_via(&broker.authority()));
    };
    let mut hosts = Vec::new();
    for name in ["one", "two", "three"] {
        hosts.push((name.to_owned(), installation.host(name, through)));
    }
    all_run(&installation).await;
    eventually("three connections", async || (broker.connections() >= 3).then_some(())).await;
    let seen = installation.testimonies();
    let before: Vec<_> = SENSORS.iter().map(|name| seen.runners(&format!("zoo.{name}"))).collect();
    broker.refuse();
    broker.cut();
    let change = r#"UPDATE rule SET trigger_params = '{"n": 2}' WHERE ref = 'zoo.a'"#;
    installation.database.execute(change).await;
    seen.another_runner("zoo.a", before[0].len()).await;
    broker.resume();
    // Heard of again: a message is as good as it was before.
    eventually("three connections", async || (broker.connections() >= 3).then_some(())).await;
    all_run(&installation).await;
    for (name, before) in SENSORS.iter().zip(&before).skip(1) {
        assert_eq!(seen.runners(&format!("zoo.{name}")), *before, "{name} was not touched");
    }
    end(&installation, hosts, hub);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_host_that_is_cut_off_from_postgresql_ends_its_sensors_before_another_starts_them() {
    let (installation, hub) = installation().await;
    let database = Proxy::start(installation.database.authority());
    let far = installation.host("far", |command| {
        command.env("ATTUNE__DATABASE__URL", installation.database.url_via(&database.authority()));
    });
    all_run(&installation).await;
    let seen = installation.testimonies();
    let before: Vec<_> = SENSORS.iter().map(|name| seen.runners(&format!("zoo.{name}")).len()).collect();
    let near = installation.host("near", |_| {});
    installation
        .wait_for("the other host", "SELECT count(*) FROM worker WHERE name = 'near'", |count| count == 1)
        .await;
    // Nothing is refused and nothing answered.
    database.black_hole_both();
    for (name, before) in SENSORS.iter().zip(before) {
        seen.another_runner(&format!("zoo.{name}"), before).await;
    }
    database.resume();
    all_run(&installation).await;
    let far_runs = "SELECT count(*) FROM sensor_process WHERE worker_name = 'far' AND status <> 'stopped'";
    installation.wait_for("the cut off host has nothing", far_runs, |count| count == 0).await;
    end(&installation, vec![("far".to_owned(), far), ("near".to_owned(), near)], hub);
}
