//! Two sensor hosts, of which one is lost: what the other one does, by what the rows and the sensor itself have recorded.

use serde_json::Value;

use crate::sensor_packs::Zoo;
use crate::support::{Installation, Program, processes_of};

/// In seconds. The other host looks each second, and a machine that is busy with other tests is slow.
const LEASE: &str = "6";

/// Writes that it lives, as any witness, and has each event that it emits say who it is.
const TELLER: &str = r#"
import json, os, signal, time, urllib.request
signal.signal(signal.SIGTERM, lambda *_: os._exit(0))
facts = os.path.join(os.path.dirname(os.environ["ATTUNE_ARTIFACTS_DIR"]), "facts")
out = os.open(os.path.join(facts, os.environ["ATTUNE_SENSOR_REF"]), os.O_WRONLY | os.O_CREAT | os.O_APPEND)
rule = json.loads(os.environ["ATTUNE_SENSOR_TRIGGERS"])[0]
def live():
    os.write(out, b"%d %d\n" % (os.getpid(), time.clock_gettime_ns(time.CLOCK_BOOTTIME) // 1000))
def emit():
    body = {"trigger_ref": "zoo.teller", "payload": {"pid": os.getpid()}, "trigger_instance_id": f"rule_{rule['id']}"}
    headers = {"Authorization": "Bearer " + os.environ["ATTUNE_API_TOKEN"], "Content-Type": "application/json"}
    request = urllib.request.Request(os.environ["ATTUNE_API_URL"] + "/api/v1/events", json.dumps(body).encode(), headers)
    urllib.request.urlopen(request, timeout=30).read()
while True:
    live()
    emit()
    for _ in range(50):
        live()
        time.sleep(0.004)
"#;

/// Times in microseconds of the database's clock: the last renewal of the host that was lost, its lease, when another host took
/// that and when it said that the sensor runs.
const RECORDED: &str = "
    SELECT json_build_object(
        'renewed', extract(epoch FROM w.last_heartbeat) * 1000000,
        'lease', (w.meta #>> '{attune_session,life_us}')::bigint,
        'taken', extract(epoch FROM lost.last_stopped_at) * 1000000,
        'running', extract(epoch FROM now.last_started_at) * 1000000)
    FROM sensor_process AS lost JOIN worker AS w ON w.id = lost.worker
    JOIN sensor_process AS now ON now.sensor = lost.sensor AND now.worker <> lost.worker
    WHERE w.name = 'one' AND lost.sensor_ref = 'zoo.teller' AND lost.status = 'stopped' AND lost.pid IS NULL
      AND now.worker_name = 'two' AND now.status = 'running' AND now.pid IS NOT NULL";

/// The sensor runs on host `one`, has emitted, and host `two` is ready to take over.
async fn two_hosts(installation: &Installation) -> (Program, Program, Program) {
    let zoo = Zoo::new(installation);
    zoo.sensor("teller", "python", TELLER);
    zoo.load();
    let hub = installation.start("hub", &["hub"]);
    let host = |name| {
        installation.host(name, |command| {
            command.env("ATTUNE__SENSOR__LEASE_TIME", LEASE);
        })
    };
    let one = host("one");
    let emitted = "SELECT count(*) FROM event WHERE trigger_ref = 'zoo.teller'";
    installation.wait_for("the sensor to emit", emitted, |count| count > 0).await;
    let two = host("two");
    let active = "SELECT count(*) FROM worker WHERE name = 'two' AND status = 'active'";
    installation.wait_for("the other host", active, |count| count == 1).await;
    (hub, one, two)
}

/// Waits for the takeover and checks it by the database's clock: not before the lease was over, and within twice its time.
async fn taken_over(installation: &Installation) {
    let recorded = installation.text("the takeover", RECORDED, |_| true).await;
    let recorded: Value = serde_json::from_str(&recorded).unwrap();
    let [renewed, lease, taken, running] =
        ["renewed", "lease", "taken", "running"].map(|name| recorded[name].as_f64().unwrap());
    assert!(taken <= renewed + 2.0 * lease, "{recorded}");
    assert!(running >= renewed + lease, "{recorded}");
    installation.testimonies().another_runner("zoo.teller", 1).await;
}

/// Who emitted, in the order in which the events were stored, without repetitions.
async fn emitters(installation: &Installation) -> Vec<u32> {
    let sql = "SELECT payload ->> 'pid' FROM event WHERE trigger_ref = 'zoo.teller' ORDER BY id";
    let mut pids: Vec<u32> =
        installation.database.texts(sql).await.unwrap().iter().map(|pid| pid.parse().unwrap()).collect();
    pids.dedup();
    pids
}

/// Stops the rest. One process after the other lived, and emitted.
async fn end(installation: &Installation, programs: Vec<Program>) {
    let before = installation.testimonies().runners("zoo.teller");
    let pid = before.last().unwrap();
    let emitted = format!("SELECT count(*) FROM event WHERE payload ->> 'pid' = '{pid}'");
    installation.wait_for("the new runner to emit", &emitted, |count| count > 0).await;
    for program in programs {
        program.stop();
    }
    let runners = installation.testimonies().runners("zoo.teller");
    assert_eq!(runners.len(), 2, "one takeover: {runners:?}");
    installation.testimonies().assert_no_overlap("zoo.teller");
    assert_eq!(emitters(installation).await, runners);
    assert_eq!(processes_of(installation), Vec::<u32>::new());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_sensor_of_a_killed_host_is_taken_over_within_twice_the_lease_time() {
    let installation = Installation::bare().await;
    let (hub, one, two) = two_hosts(&installation).await;
    one.kill();
    taken_over(&installation).await;
    end(&installation, vec![two, hub]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_sensor_of_a_frozen_host_is_taken_over_within_twice_the_lease_time_and_stays_there() {
    let installation = Installation::bare().await;
    let (hub, one, two) = two_hosts(&installation).await;
    one.signal("STOP");
    taken_over(&installation).await;
    let lost =
        installation.database.texts("SELECT meta #>> '{attune_session,id}' FROM worker WHERE name = 'one'").await;
    one.signal("CONT");
    let renewed = format!(
        "SELECT count(*) FROM worker WHERE name = 'one' AND status = 'active' AND meta #>> '{{attune_session,id}}' <> '{}'",
        lost.unwrap()[0]
    );
    installation.wait_for("the woken host to begin anew", &renewed, |count| count == 1).await;
    end(&installation, vec![one, two, hub]).await;
}
