//! One sensor host on PostgreSQL and RabbitMQ: what fails is told apart where operators look for it and harms nobody else, and
//! what sensors emit is run exactly once.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use attune_testkit::{eventually_blocking, lacking};
use serde_json::Value;

use crate::sensor_packs::Zoo;
use crate::support::{Installation, Program, processes_with};

pub(crate) const FAITHFUL: &str = "#!/bin/sh\nexec sleep 100000\n";

/// Emits ten numbered events, one at a time, and stays. It goes on where an earlier process stopped.
const COUNTER: &str = r#"
import json, os, time, urllib.request
place = os.path.join(os.path.dirname(os.environ["ATTUNE_ARTIFACTS_DIR"]), "facts", os.environ["ATTUNE_SENSOR_REF"])
rule = json.loads(os.environ["ATTUNE_SENSOR_TRIGGERS"])[0]
def emit(number):
    body = {"trigger_ref": os.environ["ATTUNE_SENSOR_REF"], "payload": {"number": number}, "trigger_instance_id": f"rule_{rule['id']}"}
    headers = {"Authorization": "Bearer " + os.environ["ATTUNE_API_TOKEN"], "Content-Type": "application/json"}
    request = urllib.request.Request(os.environ["ATTUNE_API_URL"].rstrip("/") + "/api/v1/events", json.dumps(body).encode(), headers)
    urllib.request.urlopen(request, timeout=10).read()
while True:
    done = len(open(place).read().split()) if os.path.exists(place) else 0
    if done < 10:
        emit(done)
        with open(place, "a") as file:
            file.write(f"{done}\n")
    time.sleep(0.1)
"#;

/// The state of a sensor as the control socket of host `one` tells it.
pub(crate) fn view(installation: &Installation, sensor: &str) -> Option<Value> {
    let socket = installation.path("run-one/control.sock");
    let (code, text) = installation.output(&["sensor", "ctl", "list", "--json", "--socket", socket.to_str().unwrap()]);
    if code != Some(0) {
        return None;
    }
    let views: Value = serde_json::from_str(&text).unwrap();
    views.as_array().unwrap().iter().find(|view| view["sensor"] == sensor).cloned()
}

/// Waits until row and control socket both say that a sensor failed and why.
pub(crate) async fn fails_with(installation: &Installation, sensor: &str, cause: &str) {
    let sql = format!(
        "SELECT stderr_excerpt FROM sensor_process WHERE sensor_ref = '{sensor}' AND status = 'backoff' AND pid IS NULL
         AND consecutive_failures > 0 AND next_restart_at IS NOT NULL"
    );
    installation.text(cause, &sql, |excerpt| excerpt.contains(cause)).await;
    eventually_blocking(cause, || {
        let view = view(installation, sensor)?;
        let tells = view["state"] == "backoff" && view["reason"].as_str()?.contains(cause);
        tells.then_some(())
    });
}

pub(crate) async fn runs(installation: &Installation, sensor: &str) -> i64 {
    let pid = format!(
        "SELECT coalesce(max(pid), 0) FROM sensor_process
         WHERE sensor_ref = '{sensor}' AND status = 'running' AND consecutive_failures = 0"
    );
    let pid = installation.wait_for("the sensor runs", &pid, |pid| pid > 0).await;
    assert_eq!(view(installation, sensor).unwrap()["pid"], pid);
    pid
}

pub(crate) fn hub_and_host(installation: &Installation) -> (Program, Program) {
    (installation.start("hub", &["hub"]), installation.host("one", never_again))
}

/// Whoever fails is not to be started again while the test looks.
pub(crate) fn never_again(command: &mut Command) {
    command.env("ATTUNE__SENSOR__BACKOFF_MIN", "3600").env("ATTUNE__SENSOR__BACKOFF_MAX", "3600");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_missing_package_and_a_broken_environment_are_told_in_row_and_control_and_harm_no_other() {
    let installation = Installation::bare().await;
    let zoo = Zoo::new(&installation);
    zoo.sensor("import", "python", "import attune_surely_not_installed\n");
    zoo.sensor("faithful", "shell", FAITHFUL);
    zoo.load();
    // A pack of its own, whose environment cannot be made: pip has nowhere to get the package from.
    let broken = installation.path("source-broken/broken");
    for (name, text) in [
        ("pack.yaml", "ref: broken\nlabel: Broken\nversion: 1.0.0\n"),
        ("requirements.txt", "--no-index\nattune-surely-no-such-package==1.0\n"),
        ("sensors/needy", "import attune_surely_no_such_package\n"),
        (
            "sensors/needy.yaml",
            "ref: broken.needy\nlabel: Needy\nenabled: true\nrunner_type: python\nentry_point: needy\ntrigger_types:\n  - broken.needy\n",
        ),
        ("triggers/needy.yaml", "ref: broken.needy\nlabel: Needy\nenabled: true\n"),
        (
            "rules/needy.yaml",
            "ref: broken.needy\nlabel: Needy\nenabled: true\ntrigger_ref: broken.needy\naction_ref: zoo.note\n",
        ),
    ] {
        let path = broken.join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }
    installation.load(broken.to_str().unwrap());
    let (hub, host) = hub_and_host(&installation);
    fails_with(&installation, "zoo.import", "missing dependency: Python module attune_surely_not_installed").await;
    fails_with(&installation, "broken.needy", "attune-surely-no-such-package").await;
    let pid = runs(&installation, "zoo.faithful").await;
    // Mended on the shared volume: found without a message, and started without waiting for the back-off.
    fs::write(installation.path("packs/broken/requirements.txt"), "--no-index\n").unwrap();
    fs::write(installation.path("packs/broken/sensors/needy"), "import time\ntime.sleep(100000)\n").unwrap();
    runs(&installation, "broken.needy").await;
    assert_eq!(runs(&installation, "zoo.faithful").await, pid, "it was left alone");
    host.stop();
    hub.stop();
    assert_eq!(processes_with(installation.folder.path().to_str().unwrap()), Vec::<u32>::new());
}

/// A control group with a limit of memory. Removed with all that runs in it when dropped.
struct Limited {
    folder: PathBuf,
}

impl Limited {
    /// None where this may not be done.
    fn new(bytes: u64) -> Option<Self> {
        let name = format!("attune-test-{}", std::process::id());
        let (older, newer) = (PathBuf::from("/sys/fs/cgroup/memory"), PathBuf::from("/sys/fs/cgroup"));
        let (root, limit, swap) = if older.is_dir() {
            (older, "memory.limit_in_bytes", "memory.memsw.limit_in_bytes")
        } else {
            (newer, "memory.max", "memory.swap.max")
        };
        let folder = root.join(name);
        fs::create_dir(&folder).ok()?;
        let made = Self { folder };
        fs::write(made.folder.join(limit), bytes.to_string()).ok()?;
        // Where there is swap it is limited too; elsewhere the file is missing.
        drop(fs::write(made.folder.join(swap), if swap.starts_with("memory.memsw") { bytes } else { 0 }.to_string()));
        Some(made)
    }

    fn members(&self) -> PathBuf {
        self.folder.join("cgroup.procs")
    }
}

impl Drop for Limited {
    fn drop(&mut self) {
        // The host has ended by now, and what is left goes with the machine.
        drop(fs::remove_dir(&self.folder));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_sensor_that_the_kernel_kills_for_lack_of_memory_is_told_from_one_that_is_killed() {
    let Some(limited) = Limited::new(256 * 1024 * 1024) else {
        return lacking("memory control groups", "run the tests as root with a writable /sys/fs/cgroup");
    };
    let installation = Installation::bare().await;
    let zoo = Zoo::new(&installation);
    zoo.sensor("greedy", "python", "held = []\nwhile True:\n    held.append(bytearray(b'x') * (8 << 20))\n");
    zoo.sensor("killed", "shell", "#!/bin/sh\nkill -9 $$\n");
    zoo.sensor("faithful", "shell", FAITHFUL);
    zoo.load();
    // Not while the other one is being killed: the kernel counts for all of them together.
    installation.database.execute("UPDATE rule SET enabled = false WHERE ref = 'zoo.killed'").await;
    let hub = installation.start("hub", &["hub"]);
    let host = installation.host("one", |command| {
        never_again(command);
        let enter = format!("echo $$ > '{}' && exec \"$@\"", limited.members().display());
        let mut inside = Command::new("/bin/sh");
        inside.args(["-c", &enter, "sh"]).arg(command.get_program()).args(command.get_args());
        inside.env_clear().envs(command.get_envs().filter_map(|(name, value)| Some((name, value?))));
        inside.current_dir(installation.folder.path());
        *command = inside;
    });
    fails_with(&installation, "zoo.greedy", "out of memory: the kernel killed it").await;
    installation.database.execute("UPDATE rule SET enabled = true WHERE ref = 'zoo.killed'").await;
    fails_with(&installation, "zoo.killed", "killed from outside, and not for lack of memory").await;
    runs(&installation, "zoo.faithful").await;
    host.stop();
    hub.stop();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_sensor_leads_a_session_of_its_own_where_that_is_configured_and_not_elsewhere() {
    let installation = Installation::bare().await;
    let zoo = Zoo::new(&installation);
    zoo.sensor("faithful", "shell", FAITHFUL);
    zoo.load();
    let hub = installation.start("hub", &["hub"]);
    for (setting, leads) in [("false", false), ("true", true)] {
        let host = installation.host("one", |command| {
            command.env("ATTUNE__SENSOR__NEW_SESSION", setting);
        });
        let pid = runs(&installation, "zoo.faithful").await;
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
        // After the name: state, parent, group, session.
        let fields: Vec<&str> = stat.rsplit(") ").next().unwrap().split(' ').collect();
        assert_eq!(fields[2], pid.to_string(), "it leads its group in any case");
        assert_eq!(fields[3] == pid.to_string(), leads, "{setting}: {stat}");
        host.stop();
        assert!(!Path::new(&format!("/proc/{pid}")).exists(), "it has ended with its host");
    }
    hub.stop();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn events_of_sensors_on_several_hosts_are_executed_once_each() {
    let installation = Installation::bare().await;
    let zoo = Zoo::new(&installation);
    let names = ["a", "b", "c", "d"];
    for name in names {
        zoo.sensor(name, "python", COUNTER);
    }
    zoo.load();
    let hub = installation.start("hub", &["hub"]);
    let worker = installation.start("worker", &["worker", "--name", "worker-1"]);
    let one = installation.host("one", |_| {});
    let first = "SELECT count(*) FROM event WHERE trigger_ref LIKE 'zoo.%'";
    installation.wait_for("first events", first, |count| count > 0).await;
    let two = installation.host("two", |_| {});
    installation.wait_for("the other host", "SELECT count(*) FROM worker WHERE name = 'two'", |count| count == 1).await;
    // Everything moves to the other host in the middle.
    one.stop();
    let third = installation.host("three", |_| {});
    let each = "SELECT count(*) FROM (
        SELECT event.trigger_ref, event.payload ->> 'number' FROM event
        JOIN enforcement ON enforcement.event = event.id
        JOIN execution ON execution.enforcement = enforcement.id
        WHERE execution.status = 'completed' AND event.trigger_ref LIKE 'zoo.%'
        GROUP BY 1, 2) AS of";
    installation.wait_for("an execution for each event", each, |count| count == 40).await;
    for table in ["event", "enforcement"] {
        let hosts = format!("SELECT count(*) FROM {table} WHERE trigger_ref LIKE 'zoo.%'");
        let emitted = installation.database.number(first).await;
        assert_eq!(installation.database.number(&hosts).await, emitted, "{table}");
    }
    let twice = "SELECT count(*) FROM (SELECT enforcement FROM execution GROUP BY 1 HAVING count(*) > 1) AS of";
    assert_eq!(installation.database.number(twice).await, 0);
    let all = "SELECT count(*) FROM execution WHERE action_ref = 'zoo.note' AND status = 'completed'";
    let emitted = installation.database.number(first).await;
    installation.wait_for("all are completed", all, |count| count == emitted).await;
    for program in [two, third, worker, hub] {
        program.stop();
    }
}

/// Reads its token and says so through its socket.
const TALKER: &str = r#"#!/bin/sh
exec perl -MSocket -e '
open my $file, "<", $ENV{ATTUNE_API_TOKEN_FILE} or die "token: $!";
die "another token" if <$file> ne $ENV{ATTUNE_API_TOKEN};
socket my $socket, AF_UNIX, SOCK_DGRAM, 0 or die "socket: $!";
send $socket, "READY=1\nSTATUS=user $<", 0, sockaddr_un($ENV{NOTIFY_SOCKET}) or die "notify: $!";
sleep 100000'
"#;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_sensor_that_runs_as_another_user_reads_its_token_and_speaks_through_its_socket() {
    if attune_process::effective_user() != 0 {
        return lacking("root", "run the tests as root");
    }
    let installation = Installation::bare().await;
    fs::set_permissions(installation.folder.path(), fs::Permissions::from_mode(0o755)).unwrap();
    let zoo = Zoo::new(&installation);
    zoo.sensor("talker", "shell", TALKER);
    zoo.load();
    let hub = installation.start("hub", &["hub"]);
    let host = installation.host("one", |command| {
        never_again(command);
        command.env("ATTUNE__SENSOR__RUN_AS", "65534:65534");
    });
    runs(&installation, "zoo.talker").await;
    eventually_blocking("what it says", || {
        let view = view(&installation, "zoo.talker")?;
        (view["ready"] == true && view["status"] == "user 65534").then_some(())
    });
    let run = installation.path("run-one");
    for entry in fs::read_dir(&run).unwrap().map(|entry| entry.unwrap().path()).chain([run]) {
        let mode = fs::metadata(&entry).unwrap().permissions().mode() & 0o777;
        assert!(mode & !0o711 == 0, "{} has {mode:o}", entry.display());
    }
    host.stop();
    hub.stop();
}
