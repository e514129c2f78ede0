//! A sensor host that has nothing but its configuration: its packs come through the API.

use std::fs;
use std::time::{Duration, Instant};

use attune_testkit::{Proxy, eventually, eventually_blocking};
use serde_json::Value;

use crate::sensor_packs::Zoo;
use crate::support::{Installation, Program, processes_with};

const SHELL: &str = "#!/bin/sh\necho VERSION\nexec sleep 100000\n";
const PYTHON: &str = "import time\nprint('VERSION', flush=True)\ntime.sleep(100000)\n";
const SENSORS: [&str; 2] = ["shell", "python"];

fn write(zoo: &Zoo<'_>, version: &str) {
    zoo.sensor("shell", "shell", &SHELL.replace("VERSION", version));
    zoo.sensor("python", "python", &PYTHON.replace("VERSION", version));
}

/// A host in an empty folder.
fn far_host(installation: &Installation, way: &Proxy) -> Program {
    installation.host("far", |command| {
        for (name, folder) in
            [("PACKS_BASE_DIR", "packs"), ("RUNTIME_ENVS_DIR", "envs"), ("ARTIFACTS_DIR", "artifacts")]
        {
            command.env(format!("ATTUNE__{name}"), installation.path("far").join(folder));
        }
        command.env("ATTUNE__LOG__LEVEL", "debug");
        command.env("ATTUNE_API_URL", format!("http://{}", way.authority()));
    })
}

/// Waits until the platform has the first line of that many processes of each sensor.
async fn said(installation: &Installation, lines: &[&str]) {
    for sensor in SENSORS {
        let log = |version: usize| {
            let file = format!("artifacts/sensor/zoo/{sensor}/stdout/v{version}.txt");
            fs::read_to_string(installation.path(&file)).unwrap_or_default()
        };
        let said = || (1..=lines.len()).map(log).collect::<String>();
        let expected = lines.join("\n") + "\n";
        eventually("the lines of a sensor", async || (said() == expected).then_some(())).await;
        assert_eq!(log(lines.len() + 1), "", "it was not started once more");
    }
}

/// What `sensor ctl list` says about one of them.
fn view(installation: &Installation) -> Option<Value> {
    let socket = installation.path("run-far/control.sock");
    let (code, text) = installation.output(&["sensor", "ctl", "list", "--json", "--socket", socket.to_str().unwrap()]);
    let views: Value = (code == Some(0)).then(|| serde_json::from_str(&text).unwrap())?;
    views.as_array().unwrap().iter().find(|view| view["sensor"] == "zoo.shell").cloned()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn packs_of_a_host_without_a_shared_folder_come_through_the_api_change_as_a_whole_and_go() {
    let installation = Installation::bare().await;
    let zoo = Zoo::new(&installation);
    write(&zoo, "one");
    zoo.load();
    fs::create_dir(installation.path("far")).unwrap();
    let hub = installation.start("hub", &["hub"]);
    let way = Proxy::start(&installation.hub_address().to_string());
    // Nobody is there at first.
    way.refuse();
    let host = far_host(&installation, &way);
    eventually_blocking("the reason", || {
        let view = view(&installation)?;
        let waits = view["state"] == "backoff" && view["reason"].as_str()?.contains("its pack is not here");
        waits.then_some(())
    });
    let waits =
        "SELECT count(*) FROM sensor_process WHERE status = 'backoff' AND stderr_excerpt LIKE '%pack is not here%'";
    installation.wait_for("both rows say it", waits, |count| count == 2).await;
    way.resume();
    said(&installation, &["one"]).await;
    let mended = "SELECT count(*) FROM sensor_process WHERE status = 'running' AND consecutive_failures = 0";
    installation.wait_for("both run", mended, |count| count == 2).await;
    // A new version.
    write(&zoo, "two");
    zoo.write("pack.yaml", "ref: zoo\nlabel: Zoo\nversion: 1.1.0\n");
    zoo.reload();
    said(&installation, &["one", "two"]).await;
    let manifest = fs::read_to_string(installation.path("far/packs/zoo/pack.yaml")).unwrap();
    assert!(manifest.contains("1.1.0"), "{manifest}");
    // Nobody answers when the next one is fetched: what is here runs on, and the stop is not held up.
    let calls = |host: &Program| host.log().matches("fetching a pack").count();
    let before = calls(&host);
    way.black_hole_both();
    write(&zoo, "three");
    zoo.reload();
    eventually("a call", async || (calls(&host) > before).then_some(())).await;
    let begun = Instant::now();
    host.stop();
    assert!(begun.elapsed() < Duration::from_secs(10), "{:?}", begun.elapsed());
    way.resume();
    let host = far_host(&installation, &way);
    said(&installation, &["one", "two", "three"]).await;
    // Deleted, and nobody says so.
    installation.database.execute("DELETE FROM pack WHERE ref = 'zoo'").await;
    let folder = installation.path("far/packs/zoo");
    eventually("the folder to go", async || (!folder.exists()).then_some(())).await;
    host.stop();
    hub.stop();
    assert_eq!(processes_with(installation.folder.path().to_str().unwrap()), Vec::<u32>::new());
}
