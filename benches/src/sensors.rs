//! Five hundred idle sensors under one host, on the embedded store, with tokens from the hub: memory, idle time, start, stop, and
//! how long a changed rule takes to reach its sensor.
//!
//! Store, bus, hub and host run in this process: what the host costs is the difference to the same process before it started.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use attune_bus::{Bus as _, MemoryBus, Outgoing};
use attune_hub::{Hub, HubConfig};
use attune_lifecycle::{Stop, Tasks};
use attune_model::activity::NoObserver;
use attune_model::clock::SystemClock;
use attune_model::message::RuleEnabled;
use attune_model::{JsonMap, RuleId, Secret, WorkerId};
use attune_process::{GUARD_APPLET, Guard, Launcher};
use attune_runtime::advertise::Tier;
use attune_runtime::plan::Planner;
use attune_runtime::{Advertised, Host};
use attune_security::{SealingKey, TokenKey};
use attune_sensor::{LogLimits, SensorConfig, SensorHost, SensorPaths, SensorTiming};
use attune_store::{HubStore as _, NewAction, NewPack, NewRule, NewRuntime, NewSensor, NewTrigger, SensorStore as _};
use attune_store_sqlite::SqliteStore;
use serde_json::json;

use crate::figure::{Figure, Goal};
use crate::program;

const SENSORS: usize = 500;
/// How long nothing happens while the time on the processor is measured.
const IDLE: Duration = Duration::from_secs(20);
/// Until what is freed late is free, before memory is looked at.
const SETTLED: Duration = Duration::from_secs(2);
/// Patience with everything else.
const LIMIT: Duration = Duration::from_mins(3);

/// Measures one life of a host with all of them.
pub(crate) fn run() -> Result<Figure, String> {
    let folder = std::env::temp_dir().join(format!("attune-bench-sensors-{}", std::process::id()));
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().map_err(text)?;
    let measured = prepare(&folder).and_then(|()| {
        let floor = floor(&folder)?;
        runtime.block_on(life(&folder)).map(|found| found.figure(floor))
    });
    // What is left is in the folder for temporary files.
    drop(fs::remove_dir_all(&folder));
    measured
}

/// Everything that was found out.
struct Found {
    start: Duration,
    kib: u64,
    idle_percent: f64,
    reaction: Duration,
    stop: Duration,
}

impl Found {
    fn figure(&self, floor: Duration) -> Figure {
        let Self { start, kib, idle_percent, reaction, stop } = self;
        let kib_each = f64::from(u32::try_from(*kib).unwrap_or(u32::MAX)) / 500.0;
        Figure {
            name: "sensors",
            what: format!(
                "{SENSORS} sensors, {kib_each:.1} KiB each, idle {idle_percent:.3} % of a core, changed rule to changed sensor \
                 {} ms, stop of all {} ms; start of all",
                reaction.as_millis(),
                stop.as_millis()
            ),
            ours: *start,
            floor_is: "the same programs started one after another".to_owned(),
            floor,
            goal: Goal::Ratio(2.0),
            rounds: 1,
        }
    }
}

fn text(error: impl std::fmt::Display) -> String {
    error.to_string()
}

fn script(folder: &Path) -> PathBuf {
    folder.join("packs/bench/sensors/idle")
}

/// The sensors' program says that it lives, then sleeps.
fn prepare(folder: &Path) -> Result<(), String> {
    for part in ["packs/bench/sensors", "artifacts", "alive"] {
        fs::create_dir_all(folder.join(part)).map_err(text)?;
    }
    fs::write(script(folder), "#!/bin/sh\n: > \"$ALIVE/$$\"\nexec sleep 100000\n").map_err(text)?;
    fs::set_permissions(script(folder), fs::Permissions::from_mode(0o755)).map_err(text)
}

fn alive(folder: &Path) -> usize {
    fs::read_dir(folder.join("alive")).map_or(0, Iterator::count)
}

/// Starts all of them in the plainest way, and ends them.
#[expect(clippy::disallowed_methods, reason = "the start of processes is what is measured")]
fn floor(folder: &Path) -> Result<Duration, String> {
    let begun = Instant::now();
    let mut children = Vec::with_capacity(SENSORS);
    for _ in 0..SENSORS {
        let mut command = Command::new(script(folder));
        command.env("ALIVE", folder.join("alive")).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        children.push(command.spawn().map_err(text)?);
    }
    while alive(folder) < SENSORS && begun.elapsed() < LIMIT {
        std::thread::park_timeout(Duration::from_millis(2));
    }
    let took = begun.elapsed();
    for mut child in children {
        child.kill().and_then(|()| child.wait()).map_err(text)?;
    }
    fs::remove_dir_all(folder.join("alive")).and_then(|()| fs::create_dir(folder.join("alive"))).map_err(text)?;
    Ok(took)
}

fn pack() -> NewPack {
    let mut pack = NewPack {
        r#ref: "bench".to_owned(),
        label: "bench".to_owned(),
        version: "1.0.0".to_owned(),
        runtimes: vec![NewRuntime {
            r#ref: "core.native".to_owned(),
            name: "Native".to_owned(),
            aliases: vec!["native".to_owned()],
            execution_config: json!({}),
            ..NewRuntime::default()
        }],
        actions: vec![action()],
        ..NewPack::default()
    };
    for number in 0..SENSORS {
        let trigger = format!("bench.t{number}");
        pack.triggers.push(NewTrigger { r#ref: trigger.clone(), enabled: true, ..NewTrigger::default() });
        pack.sensors.push(NewSensor {
            r#ref: format!("bench.s{number}"),
            entrypoint: "idle".to_owned(),
            runtime_ref: "core.native".to_owned(),
            trigger_refs: vec![trigger.clone()],
            enabled: true,
            ..NewSensor::default()
        });
        pack.rules.push(NewRule {
            r#ref: format!("bench.r{number}"),
            action_ref: "bench.none".to_owned(),
            trigger_ref: trigger,
            trigger_params: json!({"n": 1}),
            enabled: true,
            ..NewRule::default()
        });
    }
    pack
}

fn action() -> NewAction {
    use attune_model::rows::{RawPlacement, Retention};
    use attune_model::status::{OutputFormat, ParameterDelivery, ParameterFormat};
    NewAction {
        r#ref: "bench.none".to_owned(),
        label: "none".to_owned(),
        description: None,
        entrypoint: "true".to_owned(),
        runtime_ref: Some("core.native".to_owned()),
        param_schema: None,
        out_schema: None,
        parameter_delivery: ParameterDelivery::Stdin,
        parameter_format: ParameterFormat::Json,
        output_format: OutputFormat::Text,
        timeout_seconds: None,
        runtime_version_constraint: None,
        required_worker_runtimes: json!({}),
        placement: RawPlacement::default(),
        accesses_mcp: false,
        default_execution_permission_set_refs: Vec::new(),
        log_retention: Retention::default(),
        artifact_retention: Retention::default(),
    }
}

fn config(folder: &Path, api_url: String, agents: PathBuf) -> Result<SensorConfig, String> {
    let base = vec![("PATH".into(), "/usr/bin:/bin".into()), ("ALIVE".into(), folder.join("alive").into_os_string())];
    let host = Arc::new(Host::new(base.clone()));
    let advertised = Advertised {
        tier: Tier::Detected,
        runtimes: vec!["native".to_owned()],
        runtime_versions: BTreeMap::new(),
        detected_interpreters: Vec::new(),
        handed_on: None,
        warnings: Vec::new(),
    };
    let mut capabilities = JsonMap::new();
    capabilities.insert("runtimes".to_owned(), json!(advertised.runtimes));
    let guard = Launcher { program: agents.clone(), args: vec![GUARD_APPLET.into()] };
    Ok(SensorConfig {
        name: "sensor-bench".to_owned(),
        host: None,
        capabilities,
        max_concurrent_sensors: 1000,
        paths: SensorPaths {
            packs: folder.join("packs"),
            artifacts: folder.join("artifacts"),
            agent_binary: agents,
            run: Some(folder.join("run")),
        },
        api_url,
        ca_file: None,
        token_key: None,
        mq_url: None,
        base_environment: base,
        planner: Planner::new(host.clone(), folder.join("packs"), folder.join("envs"), &advertised),
        build_host: host,
        policy: None,
        guard: Some(Guard::start(Some(guard)).map_err(text)?),
        timing: SensorTiming::default(),
        logs: LogLimits::default(),
    })
}

async fn life(folder: &Path) -> Result<Found, String> {
    let store = Arc::new(SqliteStore::open(&folder.join("attune.db")).await.map_err(text)?);
    let (bus, clock) = (Arc::new(MemoryBus::new()), Arc::new(SystemClock));
    let mut pack = pack();
    store.upsert_pack(&pack).await.map_err(text)?;
    let (stop, tasks) = (Stop::new(), Tasks::default());
    let key = Secret::new("a key for this benchmark and nothing else".to_owned());
    let keys = (TokenKey::new(&key).map_err(text)?, SealingKey::new(&key).map_err(text)?);
    let settings = HubConfig::new(([127, 0, 0, 1], 0).into(), keys.0, keys.1);
    let hub = Hub::build(settings, store.clone(), bus.clone(), clock.clone()).await.map_err(text)?;
    let config = config(folder, format!("http://{}", hub.local_addr()), program::path()?)?;
    hub.spawn(&stop, &tasks);
    let host =
        SensorHost::build(config, store.clone(), bus.clone(), clock, Arc::new(NoObserver)).await.map_err(text)?;
    let (worker, host_stop, host_tasks) = (host.worker(), Stop::new(), Tasks::default());

    let before = resident_kib();
    let begun = Instant::now();
    host.spawn(&host_stop, &host_tasks);
    until("all sensors", async || alive(folder) >= SENSORS).await?;
    let start = begun.elapsed();
    until("their rows", async || running(&store, worker).await == SENSORS).await?;
    tokio::time::sleep(SETTLED).await;
    let kib = resident_kib().saturating_sub(before);

    let (used, begun) = (processor_time(), Instant::now());
    tokio::time::sleep(IDLE).await;
    let idle_percent = 100.0 * processor_time().saturating_sub(used).as_secs_f64() / begun.elapsed().as_secs_f64();

    pack.rules[0].trigger_params = json!({"n": 2});
    store.upsert_pack(&pack).await.map_err(text)?;
    let begun = Instant::now();
    bus.publish(&[hint()?]).await.map_err(text)?;
    until("the changed sensor", async || alive(folder) > SENSORS).await?;
    let reaction = begun.elapsed();

    let begun = Instant::now();
    host_stop.soft().cancel();
    host_tasks.drained().await;
    let found = Found { start, kib, idle_percent, reaction, stop: begun.elapsed() };
    stop.soft().cancel();
    tasks.drained().await;
    Ok(found)
}

fn hint() -> Result<Outgoing, String> {
    let message = RuleEnabled {
        rule_id: RuleId(1),
        rule_ref: "bench.r0".to_owned(),
        trigger_ref: "bench.t0".to_owned(),
        trigger_params: None,
    };
    Outgoing::new(&message, "bench", chrono::Utc::now()).map_err(text)
}

async fn running(store: &SqliteStore, worker: WorkerId) -> usize {
    let rows = store.processes(worker).await.unwrap_or_default();
    rows.iter().filter(|row| row.pid.is_some()).count()
}

async fn until(what: &str, is_so: impl AsyncFn() -> bool) -> Result<(), String> {
    let begun = Instant::now();
    while !is_so().await {
        if begun.elapsed() > LIMIT {
            return Err(format!("waited {LIMIT:?} for {what}"));
        }
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    Ok(())
}

fn resident_kib() -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap_or_default();
    line.split_whitespace().nth(1).and_then(|number| number.parse().ok()).unwrap_or(0)
}

/// Of this process, without its children; a tick is a hundredth of a second on every Linux.
fn processor_time() -> Duration {
    let stat = fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let fields = stat.rsplit(") ").next().unwrap_or_default();
    let ticks: u64 = fields.split(' ').skip(11).take(2).filter_map(|number| number.parse::<u64>().ok()).sum();
    Duration::from_millis(ticks * 10)
}
