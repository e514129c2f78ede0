//! Sensors that do everything that sensors should not do, and the one host that lives with all of them.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::time::{Duration, Instant};

use attune_model::rows::SensorProcess;
use attune_model::status::SensorProcessStatus;
use attune_store::SensorStore as _;
use attune_testkit::eventually;

use crate::support::{World, is_alive};

fn failed(row: &SensorProcess) -> bool {
    row.status == SensorProcessStatus::Backoff && row.consecutive_failures >= 1
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_kind_of_failure_is_told_apart_in_the_row_and_harms_no_other() {
    let mut world = World::new().await;
    let cases: [(&str, &str, &str, &str); 8] = [
        ("at_once", "shell", "exit 3", ""),
        ("zero", "shell", "exit 0", "it ended by itself without an error"),
        ("module", "python", "import surely_not_installed", "missing dependency: Python module surely_not_installed"),
        ("program", "shell", "exec surely-not-a-program", "missing program"),
        ("settings", "shell", "exit 78", "bad configuration"),
        ("refused", "python", "raise SystemExit('HTTP Error 401: Unauthorized')", "not authorised"),
        ("memory", "python", "raise MemoryError", "out of memory"),
        ("killed", "shell", "kill -9 $$", "killed from outside"),
    ];
    for (name, runtime, script, _) in &cases {
        world.add_sensor(name, runtime, script);
    }
    world.add_sensor("odd", "missing", "exit 0");
    world.add_sensor("text", "native", "this is no program");
    world.add_sensor("sealed", "native", "#!/bin/sh\nexec sleep 1000");
    fs::set_permissions(world.path("packs/demo/sensors/sealed"), fs::Permissions::from_mode(0o644)).unwrap();
    world.add_sensor("good", "shell", "exec sleep 1000");
    let host = world.start().await;
    for (name, _, _, hint) in &cases {
        let row = world.eventually_row(host.worker, &format!("demo.{name}"), failed).await;
        let excerpt = row.stderr_excerpt.unwrap_or_default();
        assert!(excerpt.contains(hint), "{name}: {excerpt}");
        assert!(!hint.is_empty() || row.last_exit_code == Some(3), "{name}: {:?}", row.last_exit_code);
    }
    for (name, words) in [("odd", "no-such-interpreter"), ("text", "text"), ("sealed", "sealed")] {
        let row = world.eventually_row(host.worker, &format!("demo.{name}"), failed).await;
        let excerpt = row.stderr_excerpt.unwrap_or_default();
        assert!(excerpt.contains("start failed") && excerpt.contains(words), "{name}: {excerpt}");
    }
    let good = world.eventually_running(host.worker, "demo.good").await;
    assert!(is_alive(&good.pid.unwrap().to_string()));
    host.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_flood_of_a_hundred_megabytes_costs_neither_memory_nor_the_sensor() {
    let mut world = World::new().await;
    let script = r#"
import os, sys, time
block = b"x" * 999 + b"\n"
for _ in range(100_000):
    os.write(2, block)
os.write(2, b"the last line\n")
with open(os.environ["FACTS"] + "/flooded", "w") as file:
    file.write("done\n")
time.sleep(1000)
"#;
    world.add_sensor("flood", "python", script);
    let resident = || {
        let status = fs::read_to_string("/proc/self/status").unwrap();
        let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap().to_owned();
        line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap()
    };
    let host = world.start().await;
    let before = resident();
    world.eventually_facts("flooded", 1).await;
    let grown_kib = resident().saturating_sub(before);
    assert!(grown_kib < 32 * 1024, "{grown_kib} KiB more");
    world.eventually_running(host.worker, "demo.flood").await;
    host.stop().await;
    let folder = world.path("artifacts/sensor/demo/flood/stderr");
    let texts = fs::read_dir(folder).unwrap().map(|entry| fs::read_to_string(entry.unwrap().path()).unwrap());
    // Storage that was too slow for the flood is said in the log itself.
    let is_honest =
        |text: &String| text.ends_with("the last line\n") || text.contains("bytes of output were lost here]");
    assert!(texts.into_iter().any(|text| is_honest(&text)));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn three_hundred_sensors_that_ignore_the_end_are_gone_after_one_grace() {
    const SENSORS: usize = 300;
    let mut world = World::new().await;
    world.timing.stop_grace = Duration::from_secs(4);
    let stubborn = "trap '' TERM INT HUP\necho $$ >> \"$FACTS/pids\"\nwhile :; do sleep 1000; done";
    for number in 0..SENSORS {
        world.add_sensor(&format!("s{number}"), "shell", stubborn);
    }
    let host = world.start().await;
    let begun = Instant::now();
    let pids = loop {
        let pids = world.facts("pids");
        if pids.len() == SENSORS {
            break pids;
        }
        assert!(begun.elapsed() < Duration::from_mins(3), "{} started", pids.len());
        tokio::time::sleep(Duration::from_millis(50)).await;
    };
    let (worker, tasks) = (host.worker, host.tasks.clone());
    let begun = Instant::now();
    host.stop.soft().cancel();
    eventually("the end of all", async || tasks.is_empty().then_some(())).await;
    println!("{SENSORS} stubborn sensors were gone after {:?}", begun.elapsed());
    assert!(pids.iter().all(|pid| !is_alive(pid)));
    let rows = world.store.processes(worker).await.unwrap();
    assert_eq!(rows.len(), SENSORS);
    for row in rows {
        assert_eq!((row.status, row.pid), (SensorProcessStatus::Stopped, None), "{}", row.sensor_ref);
    }
}
