//! Packs that reach a sensor host through the API of a real hub, whatever becomes of the way there.

use std::fs;
use std::mem;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use attune_bus::{Bus as _, Outgoing};
use attune_hub::{Folders, Hub, HubConfig};
use attune_lifecycle::{Stop, Tasks};
use attune_model::clock::SystemClock;
use attune_model::condition::Condition;
use attune_model::message::{PackDeleted, PackRegistered, Payload};
use attune_model::status::SensorProcessStatus;
use attune_model::{PackId, Secret};
use attune_runtime::plan::Planner;
use attune_security::{SealingKey, TokenKey};
use attune_sensor::{
    CONTROL_SOCKET, ControlReply, ControlRequest, PackFetching, SensorConfig, SensorHost, Transport, ask_host,
};
use attune_store::{HubStore as _, NewPack};
use attune_testkit::{Proxy, eventually};
use chrono::Utc;
use serde_json::json;
use tokio::time::Instant;

use crate::support::{Running, World, advertised, is_alive};

const SHELL: &str = r#"echo "$$ one" >> "$FACTS/$ATTUNE_SENSOR_REF"; exec sleep 1000"#;
const PYTHON: &str = r#"
import os, time
with open(os.environ["FACTS"] + "/" + os.environ["ATTUNE_SENSOR_REF"], "a") as facts:
    facts.write(f"{os.getpid()} one\n")
time.sleep(1000)
"#;

/// A world whose packs only its hub has, and the way from the host to the hub.
struct Remote {
    world: World,
    way: Proxy,
    tokens: TokenKey,
    stop: Stop,
    tasks: Tasks,
}

impl Remote {
    /// With sensors `demo.shell` and `demo.python`.
    async fn new() -> Self {
        let mut world = World::new().await;
        world.run = Some(world.path("run"));
        // Not of a pack that is deleted.
        let runtimes = mem::take(&mut world.pack.runtimes);
        let core = NewPack { r#ref: "core".to_owned(), version: "1.0.0".to_owned(), runtimes, ..NewPack::default() };
        world.store.upsert_pack(&core).await.unwrap();
        world.add_sensor("shell", "shell", SHELL);
        world.add_sensor("python", "python", PYTHON);
        let tokens = TokenKey::new(&Secret::new("signing secret of the tests".to_owned())).unwrap();
        let sealing = SealingKey::new(&Secret::new("sealing secret of the tests, long".to_owned())).unwrap();
        let mut config = HubConfig::new("127.0.0.1:0".parse().unwrap(), tokens.clone(), sealing);
        let (packs_dir, artifacts_dir) = (world.path("packs"), world.path("api/artifacts"));
        config.folders = Some(Folders { packs_dir, artifacts_dir, upload_limit_bytes: 1 });
        let hub = Hub::build(config, world.store.clone(), world.bus.clone(), Arc::new(SystemClock)).await.unwrap();
        let way = Proxy::start(&hub.local_addr().to_string());
        let (stop, tasks) = (Stop::new(), Tasks::default());
        hub.spawn(&stop, &tasks);
        world.load().await;
        Self { world, way, tokens, stop, tasks }
    }

    /// Adds pack `other` with a sensor, a trigger and a rule; its folder is the caller's.
    async fn add_other(&self) -> NewPack {
        let demo = &self.world.pack;
        let mut other = NewPack {
            r#ref: "other".to_owned(),
            sensors: demo.sensors[..1].to_vec(),
            triggers: demo.triggers[1..2].to_vec(),
            rules: demo.rules[..1].to_vec(),
            actions: Vec::new(),
            ..demo.clone()
        };
        "other.shell".clone_into(&mut other.sensors[0].r#ref);
        other.sensors[0].trigger_refs = vec!["other.shell".to_owned()];
        "other.shell".clone_into(&mut other.triggers[0].r#ref);
        "other.shell".clone_into(&mut other.rules[0].r#ref);
        "other.shell".clone_into(&mut other.rules[0].trigger_ref);
        let changes = self.world.store.upsert_pack(&other).await.unwrap();
        assert!(changes.skipped.is_empty(), "{:?}", changes.skipped);
        other
    }

    fn config(&self) -> SensorConfig {
        let mut config = self.world.config();
        config.api_url = format!("http://{}", self.way.authority());
        config.token_key = Some(self.tokens.clone());
        far(&self.world, config)
    }

    async fn start(&self) -> Running {
        self.world.start_host_with(self.config(), Arc::new(SystemClock)).await
    }

    async fn publish(&self, message: &(impl Payload + Sync)) {
        let message = Outgoing::new(message, "test", Utc::now()).unwrap();
        self.world.bus.publish(&[message]).await.unwrap();
    }

    async fn register(&self, pack_ref: &str) {
        self.publish(&PackRegistered {
            pack_id: PackId(1),
            pack_ref: pack_ref.to_owned(),
            version: "1.0.0".to_owned(),
            runtime_names: Vec::new(),
        })
        .await;
    }

    async fn end(self) {
        self.stop.soft().cancel();
        self.tasks.drained().await;
    }
}

/// A host that shares no folder of packs, and soon loses its patience.
fn far(world: &World, mut config: SensorConfig) -> SensorConfig {
    config.paths.packs = world.path("far/packs");
    config.planner =
        Planner::new(config.build_host.clone(), &config.paths.packs, world.path("far/envs"), &advertised());
    config.packs = Transport::Auto;
    config.timing.fetching = PackFetching {
        backoff: (Duration::from_millis(20), Duration::from_millis(200)),
        patience: Duration::from_millis(500),
        call_limit: Duration::from_mins(5),
    };
    config
}

fn copy_pack(world: &World, pack_ref: &str) -> PathBuf {
    let target = world.path("far/packs").join(pack_ref);
    fs::create_dir_all(target.join("sensors")).unwrap();
    for name in ["shell", "python"] {
        fs::copy(world.path("packs/demo/sensors").join(name), target.join("sensors").join(name)).unwrap();
    }
    target
}

/// What `sensor ctl list` says.
async fn reason(world: &World, sensor: &str) -> Option<(String, String)> {
    let reply = ask_host(&world.path("run").join(CONTROL_SOCKET), &ControlRequest::List).await.ok()?;
    let ControlReply::Sensors(views) = reply else { return None };
    let view = views.into_iter().find(|view| view.sensor == sensor)?;
    Some((view.state, view.reason?))
}

/// The row and the control socket both say that it waits, and why.
async fn waits(world: &World, host: &Running, sensor: &str, why: &str) {
    let says = |row: &attune_model::rows::SensorProcess| {
        row.status == SensorProcessStatus::Backoff
            && row.stderr_excerpt.as_ref().is_some_and(|excerpt| excerpt.contains(why))
    };
    world.eventually_row(host.worker, sensor, says).await;
    eventually("the reason", async || {
        reason(world, sensor).await.filter(|(state, text)| state == "backoff" && text.contains(why)).map(drop)
    })
    .await;
}

fn versions(facts: &[String]) -> Vec<&str> {
    facts.iter().map(|line| line.split_once(' ').unwrap().1).collect()
}

#[tokio::test]
async fn a_host_with_nothing_but_its_configuration_runs_sensors_whose_packs_come_through_the_api() {
    let remote = Remote::new().await;
    let mut host = remote.start().await;
    assert!(host.started.wait().await);
    for sensor in ["demo.shell", "demo.python"] {
        remote.world.eventually_facts(sensor, 1).await;
        let row = remote.world.eventually_running(host.worker, sensor).await;
        assert_eq!(row.consecutive_failures, 0);
    }
    let folder = remote.world.path("far/packs/demo");
    assert_eq!(fs::read_to_string(folder.join("sensors/shell")).unwrap(), SHELL);
    let entries: Vec<_> = fs::read_dir(remote.world.path("far/packs")).unwrap().collect();
    assert_eq!(entries.len(), 1, "nothing is left of the way there: {entries:?}");
    host.stop().await;
    // Another life looks at it again and finds nothing new.
    let written = fs::metadata(folder.join("sensors/shell")).unwrap().modified().unwrap();
    let host = remote.start().await;
    for sensor in ["demo.shell", "demo.python"] {
        assert_eq!(remote.world.eventually_facts(sensor, 2).await.len(), 2);
    }
    assert_eq!(fs::metadata(folder.join("sensors/shell")).unwrap().modified().unwrap(), written);
    host.stop().await;
    for sensor in ["demo.shell", "demo.python"] {
        assert_eq!(remote.world.facts(sensor).len(), 2, "each life starts it once");
    }
    remote.end().await;
}

#[tokio::test]
async fn a_new_version_of_a_pack_comes_as_a_whole_restarts_its_sensors_once_and_goes_with_the_pack() {
    let mut remote = Remote::new().await;
    remote.add_other().await;
    fs::create_dir_all(remote.world.path("packs/other/sensors")).unwrap();
    fs::write(remote.world.path("packs/other/sensors/shell"), SHELL).unwrap();
    remote.world.write_script("vanishing", "");
    let host = remote.start().await;
    let first = [
        remote.world.eventually_facts("demo.shell", 1).await,
        remote.world.eventually_facts("demo.python", 1).await,
        remote.world.eventually_facts("other.shell", 1).await,
    ];
    let here = remote.world.path("far/packs/demo/sensors");
    assert!(here.join("vanishing").exists());
    // Registered as it is: nothing happens.
    remote.register("demo").await;
    // Rows, files and messages of a new version.
    fs::remove_file(remote.world.path("packs/demo/sensors/vanishing")).unwrap();
    remote.world.write_script("shell", &SHELL.replace("one", "two"));
    remote.world.write_script("python", &PYTHON.replace("one", "two"));
    remote.world.pack.version = "1.1.0".to_owned();
    for sensor in &mut remote.world.pack.sensors {
        sensor.config = Some(json!({"path": "/y"}));
    }
    remote.world.load().await;
    remote.world.hint().await;
    remote.register("demo").await;
    for sensor in ["demo.shell", "demo.python"] {
        let facts = remote.world.eventually_facts(sensor, 2).await;
        assert_eq!(versions(&facts), ["one", "two"]);
        remote.world.eventually_running(host.worker, sensor).await;
    }
    assert!(!here.join("vanishing").exists());
    // Without a message, and without another row: what is lost here comes again.
    fs::remove_dir_all(remote.world.path("far/packs/demo")).unwrap();
    remote.world.hint().await;
    for sensor in ["demo.shell", "demo.python"] {
        let facts = remote.world.eventually_facts(sensor, 3).await;
        assert_eq!(versions(&facts), ["one", "two", "two"]);
        remote.world.eventually_running(host.worker, sensor).await;
    }
    // Deleted.
    remote.world.store.delete_pack("demo").await.unwrap().unwrap();
    remote.publish(&PackDeleted { pack_id: PackId(1), pack_ref: "demo".to_owned() }).await;
    eventually("the folder to go", async || (!remote.world.path("far/packs/demo").exists()).then_some(())).await;
    for sensor in ["demo.shell", "demo.python"] {
        let facts = remote.world.facts(sensor);
        assert_eq!(versions(&facts), ["one", "two", "two"], "once for each");
        assert!(facts.iter().all(|line| !is_alive(line.split_once(' ').unwrap().0)));
    }
    let facts = remote.world.facts("other.shell");
    assert_eq!(facts, first[2], "the other pack was left alone");
    assert!(is_alive(facts[0].split_once(' ').unwrap().0));
    host.stop().await;
    remote.end().await;
}

#[tokio::test]
async fn a_host_whose_api_is_away_at_the_start_is_ready_and_starts_its_sensors_when_it_is_back() {
    let remote = Remote::new().await;
    remote.way.refuse();
    let config = remote.config();
    let (stop, tasks) = (Stop::new(), Tasks::default());
    let (store, bus) = (remote.world.store.clone(), remote.world.bus.clone());
    let host = SensorHost::build(config, store, bus, Arc::new(SystemClock), remote.world.seen.clone()).await.unwrap();
    let (worker, overview) = (host.worker(), host.overview());
    let started = host.spawn(&stop, &tasks);
    let host = Running { stop, tasks, worker, started };
    waits(&remote.world, &host, "demo.shell", "its pack is not here").await;
    waits(&remote.world, &host, "demo.python", "pack could not be fetched").await;
    let is_ready = || {
        let mut conditions = Vec::new();
        overview.conditions(&mut conditions);
        conditions.iter().all(Condition::is_well)
    };
    eventually("the host to be ready", async || is_ready().then_some(())).await;
    remote.way.resume();
    for sensor in ["demo.shell", "demo.python"] {
        remote.world.eventually_running(host.worker, sensor).await;
        assert_eq!(remote.world.eventually_facts(sensor, 1).await.len(), 1);
    }
    host.stop().await;
    remote.end().await;
}

#[tokio::test]
async fn a_pack_that_the_api_does_not_have_delays_its_own_sensors_only() {
    let remote = Remote::new().await;
    remote.add_other().await;
    let host = remote.start().await;
    for sensor in ["demo.shell", "demo.python"] {
        remote.world.eventually_facts(sensor, 1).await;
    }
    waits(&remote.world, &host, "other.shell", "the API has no pack other").await;
    fs::create_dir_all(remote.world.path("packs/other/sensors")).unwrap();
    fs::write(remote.world.path("packs/other/sensors/shell"), SHELL).unwrap();
    remote.world.eventually_running(host.worker, "other.shell").await;
    host.stop().await;
    for sensor in ["demo.shell", "demo.python"] {
        assert_eq!(remote.world.facts(sensor).len(), 1);
    }
    remote.end().await;
}

#[tokio::test]
async fn a_download_that_hangs_delays_neither_what_is_here_nor_the_stop() {
    let mut world = World::new().await;
    world.run = Some(world.path("run"));
    world.add_sensor("shell", "shell", SHELL);
    world.add_sensor("python", "python", PYTHON);
    world.load().await;
    copy_pack(&world, "demo");
    let remote = Remote::new().await;
    let other = remote.add_other().await;
    world.store.upsert_pack(&other).await.unwrap();
    remote.end().await;
    // Its API gives tokens and no archives.
    let host = world.start_host_with(far(&world, world.config()), Arc::new(SystemClock)).await;
    for sensor in ["demo.shell", "demo.python"] {
        world.eventually_running(host.worker, sensor).await;
    }
    waits(&world, &host, "other.shell", "it is still being fetched").await;
    assert_eq!(world.api.archives.load(Ordering::SeqCst), 2, "one call for each pack, which goes on");
    let begun = Instant::now();
    host.stop().await;
    assert!(begun.elapsed() < Duration::from_secs(5), "{:?}", begun.elapsed());
}

#[tokio::test]
async fn the_mark_of_the_api_makes_the_folder_of_packs_shared_also_later() {
    let remote = Remote::new().await;
    let here = copy_pack(&remote.world, "demo");
    let mark = here.with_file_name(".attune-packs-sentinel");
    fs::write(here.join("sensors/shell"), SHELL.replace("one", "mine")).unwrap();
    fs::write(&mark, "whatever").unwrap();
    let host = remote.start().await;
    assert_eq!(versions(&remote.world.eventually_facts("demo.shell", 1).await), ["mine"]);
    host.stop().await;
    // A host that began without it replaces nothing once it is there.
    fs::remove_file(&mark).unwrap();
    remote.way.refuse();
    let host = remote.start().await;
    waits(&remote.world, &host, "demo.shell", "failed to get a token").await;
    fs::write(&mark, "whatever").unwrap();
    remote.way.resume();
    let facts = remote.world.eventually_facts("demo.shell", 2).await;
    assert_eq!(versions(&facts), ["mine", "mine"]);
    remote.register("demo").await;
    remote.world.store.delete_pack("demo").await.unwrap().unwrap();
    remote.publish(&PackDeleted { pack_id: PackId(1), pack_ref: "demo".to_owned() }).await;
    let pid = facts[1].split_once(' ').unwrap().0;
    eventually("its sensor to end", async || (!is_alive(pid)).then_some(())).await;
    host.stop().await;
    assert!(here.join("sensors/shell").exists(), "it is the API's");
    remote.end().await;
}
