//! One `attune-sensor-agent` and sensors that end by chance, leave daemons behind, or do not end at all: what rows, processes and
//! alerts say of them on PostgreSQL and RabbitMQ.

use std::fs;
use std::time::Instant;

use attune_testkit::{PATIENCE, eventually, eventually_blocking};
use serde_json::{Value, json};

use crate::sensor_packs::Zoo;
use crate::sensors::{FAITHFUL, fails_with, hub_and_host, runs, view};
use crate::support::{Installation, is_alive, processes_of};

/// What sensors wrote into a file of that name: whole lines only.
fn facts(installation: &Installation, name: &str) -> Vec<String> {
    let text = fs::read_to_string(installation.path("facts").join(name)).unwrap_or_default();
    text.split_inclusive('\n').filter_map(|line| line.strip_suffix('\n')).map(str::to_owned).collect()
}

/// Draws how it ends, writes that down, and ends so after some milliseconds.
const GAMBLER: &str = r#"
import json, os, random, signal, sys, time
place = os.path.join(os.path.dirname(os.environ["ATTUNE_ARTIFACTS_DIR"]), "facts", "gambler")
code = random.choice([0, random.randint(1, 255)])
end = random.choice([[code, None], [None, random.choice([signal.SIGKILL, signal.SIGSEGV, signal.SIGABRT, signal.SIGTERM])]])
with open(place, "a") as file:
    file.write(json.dumps(end) + "\n")
time.sleep(random.random() / 5)
if end[1] is None:
    os._exit(end[0])
os.kill(os.getpid(), end[1])
"#;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_sensor_that_crashes_at_random_is_started_again_each_time_and_every_end_is_recorded() {
    const LIVES: usize = 5;
    let installation = Installation::bare().await;
    let zoo = Zoo::new(&installation);
    zoo.sensor("gambler", "python", GAMBLER);
    zoo.sensor("faithful", "shell", FAITHFUL);
    zoo.load();
    let hub = installation.start("hub", &["hub"]);
    let host = installation.host("one", |command| {
        command.env("ATTUNE__SENSOR__BACKOFF_MAX", "1");
    });
    let pid = runs(&installation, "zoo.faithful").await;
    let failures = "SELECT max(consecutive_failures) FROM sensor_process WHERE sensor_ref = 'zoo.gambler'";
    let lives = i64::try_from(LIVES).unwrap();
    installation.wait_for("its lives", failures, |count| count >= lives).await;
    // An alert is raised from the third failure in a row on, and tells of that end.
    let alerts = "SELECT payload FROM event WHERE trigger_ref = 'core.alert' ORDER BY id";
    let alerts = eventually("an alert of each failure", async || {
        let alerts = installation.database.texts(alerts).await?;
        (alerts.len() >= LIVES - 2).then_some(alerts)
    })
    .await;
    let ends = facts(&installation, "gambler");
    for (alert, number) in alerts.iter().zip(3..) {
        let alert: Value = serde_json::from_str(alert).unwrap();
        let details = &alert["details"];
        assert_eq!(
            (&alert["component_ref"], &details["consecutive_failures"]),
            (&json!("zoo.gambler"), &json!(number))
        );
        let recorded = json!([details["last_exit_code"], details["last_signal"]]);
        assert_eq!(recorded, serde_json::from_str::<Value>(&ends[number - 1]).unwrap(), "failure {number}: {alert}");
    }
    assert_eq!(runs(&installation, "zoo.faithful").await, pid, "it was left alone");
    host.stop();
    let stopped =
        "SELECT count(*) FROM sensor_process WHERE status = 'stopped' AND pid IS NULL AND next_restart_at IS NULL";
    assert_eq!(installation.database.number(stopped).await, 2);
    hub.stop();
    assert_eq!(processes_of(&installation), Vec::<u32>::new());
}

/// Starts two daemons as daemon(3) does, which heed no polite signal, and goes on when they run. The environment of the second
/// is `second`.
const DAEMON: &str = r#"
import os, signal, sys, time
place = os.path.join(os.path.dirname(os.environ["ATTUNE_ARTIFACTS_DIR"]), "facts", os.environ["ATTUNE_SENSOR_REF"])
code = f"""
import os, signal, time
for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGINT):
    signal.signal(number, signal.SIG_IGN)
with open({place!r}, "a") as file:
    file.write(str(os.getpid()) + chr(10))
while True:
    time.sleep(1000)
"""
def daemon(environment):
    first = os.fork()
    if first:
        os.waitpid(first, 0)
        return
    os.setsid()
    if os.fork():
        os._exit(0)
    os.execve(sys.executable, [sys.executable, "-c", code], environment)
daemon(os.environ)
daemon(second)
while not os.path.exists(place) or len(open(place).readlines()) < 2:
    time.sleep(0.01)
"#;

/// The two daemons that a sensor has started.
fn daemons(installation: &Installation, sensor: &str) -> [u32; 2] {
    let pids: Vec<u32> = eventually_blocking("two daemons", || {
        let lines = facts(installation, sensor);
        (lines.len() >= 2).then(|| lines.iter().map(|line| line.parse().unwrap()).collect())
    });
    pids.try_into().unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn daemons_of_sensors_end_with_the_sensor_with_the_host_and_with_the_host_that_is_killed() {
    let installation = Installation::bare().await;
    let zoo = Zoo::new(&installation);
    let marked = format!("import os\nsecond = os.environ{DAEMON}");
    zoo.sensor("leaver", "python", &marked);
    // Nothing in its second daemon tells where that comes from.
    zoo.sensor("stayer", "python", &format!("second = {{}}{DAEMON}time.sleep(100000)\n"));
    zoo.load();
    let (hub, host) = hub_and_host(&installation);
    fails_with(&installation, "zoo.leaver", "it ended by itself without an error").await;
    let left = daemons(&installation, "zoo.leaver");
    let reason = view(&installation, "zoo.leaver").unwrap()["reason"].as_str().unwrap().to_owned();
    for pid in left {
        assert!(!is_alive(pid), "{pid} lives: {reason}");
        assert!(reason.contains("it left") && reason.contains(&pid.to_string()), "{pid}: {reason}");
    }
    runs(&installation, "zoo.stayer").await;
    let first = daemons(&installation, "zoo.stayer");
    assert!(first.into_iter().all(is_alive), "what a running sensor has started is its own affair");
    let log = host.stop();
    assert!(!first.into_iter().any(is_alive), "the host has ended");
    let stopped = "SELECT count(*) FROM sensor_process WHERE status = 'stopped' AND pid IS NULL";
    assert_eq!(installation.database.number(stopped).await, 2);

    if !log.contains("control groups for children: yes") {
        // Whom nobody is left to adopt is then known by its environment alone.
        zoo.sensor("stayer", "python", &format!("{marked}time.sleep(100000)\n"));
        zoo.reload();
    }
    installation.database.execute("UPDATE rule SET enabled = false WHERE ref = 'zoo.leaver'").await;
    fs::remove_file(installation.path("facts/zoo.stayer")).unwrap();
    let host = installation.host("one", crate::sensors::never_again);
    let second = daemons(&installation, "zoo.stayer");
    host.kill();
    let gone = async || (!second.into_iter().any(is_alive)).then_some(());
    eventually("the end of what a killed host had started", gone).await;
    hub.stop();
    eventually("no process", async || processes_of(&installation).is_empty().then_some(())).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_host_of_three_hundred_sensors_that_ignore_the_end_stops_and_leaves_neither_process_nor_row() {
    const SENSORS: i64 = 300;
    let installation = Installation::bare().await;
    let zoo = Zoo::new(&installation);
    for number in 0..SENSORS {
        zoo.sensor(&format!("s{number}"), "shell", "trap '' TERM INT HUP\nwhile :; do sleep 1000; done\n");
    }
    zoo.load();
    let hub = installation.start("hub", &["hub"]);
    let host = installation.host("one", |command| {
        // None of them is to be started anew while the machine is busy with the others.
        command.env("ATTUNE__SENSOR__LEASE_TIME", "60");
    });
    let running = "SELECT count(*) FROM sensor_process WHERE status = 'running' AND pid IS NOT NULL";
    for part in 1..=10 {
        let wanted = SENSORS / 10 * part;
        installation.wait_for(&format!("{wanted} sensors"), running, |count| count >= wanted).await;
    }
    let pids = installation.database.texts("SELECT pid FROM sensor_process").await.unwrap();
    assert!(pids.iter().all(|pid| is_alive(pid.parse().unwrap())));
    let begun = Instant::now();
    host.stop();
    let () =
        println!("the host of {SENSORS} stubborn sensors was gone after {:?}, limit {PATIENCE:?}", begun.elapsed());
    let stopped = "SELECT count(*) FROM sensor_process WHERE status = 'stopped' AND pid IS NULL";
    assert_eq!(installation.database.number(stopped).await, SENSORS);
    let inactive = "SELECT count(*) FROM worker WHERE status = 'inactive'";
    assert_eq!(installation.database.number(inactive).await, 1);
    hub.stop();
    assert_eq!(processes_of(&installation), Vec::<u32>::new());
}
