//! Environments that are not made: because the sensor is not wanted any more, or because they cannot be.

use attune_model::status::SensorProcessStatus;
use attune_store::NewRuntime;
use attune_testkit::eventually;
use serde_json::json;

use crate::support::{World, is_alive};

const FAITHFUL: &str = r#"echo "$$" >> "$FACTS/$ATTUNE_SENSOR_REF"; exec sleep 1000"#;

/// A world with a runtime whose environment is never ready.
async fn world() -> World {
    let mut world = World::new().await;
    world.pack.runtimes.push(NewRuntime {
        r#ref: "core.slow".to_owned(),
        name: "Slow".to_owned(),
        aliases: vec!["slow".to_owned()],
        execution_config: json!({
            "interpreter": {"binary": "/bin/sh"},
            "environment": {
                "env_type": "slow",
                "create_command": ["/bin/sh", "-c", "echo $$ >> \"$FACTS/builds\"; exec sleep 1000"],
                "interpreter_path": "{env_dir}/bin/run",
            },
        }),
        ..NewRuntime::default()
    });
    world
}

/// The running sensor gets another environment; returns who builds it.
async fn build_another(world: &mut World) -> String {
    "core.slow".clone_into(&mut world.pack.sensors[0].runtime_ref);
    world.load().await;
    world.hint().await;
    world.eventually_facts("builds", 1).await.remove(0)
}

async fn eventually_gone(pid: &str) {
    eventually("the end of a process", async || (!is_alive(pid)).then_some(())).await;
}

#[tokio::test]
async fn a_sensor_that_is_disabled_while_its_environment_is_built_stops_the_build() {
    let mut world = world().await;
    world.add_sensor("one", "slow", FAITHFUL);
    let host = world.start().await;
    for builds in 1..3 {
        let build = world.eventually_facts("builds", builds).await.pop().unwrap();
        world.eventually_row(host.worker, "demo.one", |row| row.status == SensorProcessStatus::Starting).await;
        world.pack.rules[0].enabled = false;
        world.load().await;
        world.hint().await;
        eventually_gone(&build).await;
        let row = world.eventually_row(host.worker, "demo.one", |row| row.status == SensorProcessStatus::Stopped).await;
        assert_eq!(row.consecutive_failures, 0, "that is no failure");
        world.pack.rules[0].enabled = true;
        world.load().await;
        world.hint().await;
    }
    // It is wanted again, and what it had claimed is free for that.
    world.eventually_facts("builds", 3).await;
    host.stop().await;
}

#[tokio::test]
async fn a_sensor_that_is_disabled_while_its_next_environment_is_built_ends() {
    let mut world = world().await;
    world.add_sensor("one", "shell", FAITHFUL);
    let host = world.start().await;
    let process = world.eventually_facts("demo.one", 1).await.remove(0);
    world.eventually_running(host.worker, "demo.one").await;
    let build = build_another(&mut world).await;
    assert!(is_alive(&process), "until its successor is ready");
    world.pack.sensors[0].enabled = false;
    world.load().await;
    world.hint().await;
    eventually_gone(&process).await;
    eventually_gone(&build).await;
    world.eventually_row(host.worker, "demo.one", |row| row.status == SensorProcessStatus::Stopped).await;
    host.stop().await;
}

#[tokio::test]
async fn a_sensor_that_dies_while_its_next_environment_is_built_is_not_said_to_run() {
    let mut world = world().await;
    world.add_sensor("one", "shell", FAITHFUL);
    let host = world.start().await;
    let process = world.eventually_facts("demo.one", 1).await.remove(0);
    world.eventually_running(host.worker, "demo.one").await;
    let build = build_another(&mut world).await;
    let pid = attune_sys::Pid::new(process.parse().unwrap()).unwrap();
    attune_sys::kill(pid, attune_sys::SIGKILL).unwrap();
    let row = world.eventually_row(host.worker, "demo.one", |row| row.status == SensorProcessStatus::Starting).await;
    assert_eq!(row.pid, None);
    assert!(is_alive(&build), "its successor comes all the same");
    host.stop().await;
}

/// One that speaks through a socket that waits would stand still when a dozen of its messages are not read.
#[tokio::test]
async fn a_sensor_is_heard_while_its_next_environment_is_built() {
    let mut world = world().await;
    world.run = Some(world.path("run"));
    let script = r#"
import os, socket, time
host = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
while True:
    host.sendto(b"WATCHDOG=1", os.environ["NOTIFY_SOCKET"])
    with open(os.environ["FACTS"] + "/said", "a") as file:
        file.write("something\n")
    time.sleep(0.005)
"#;
    world.add_sensor("one", "python", script);
    let host = world.start().await;
    world.eventually_facts("said", 1).await;
    build_another(&mut world).await;
    let said = world.facts("said").len();
    world.eventually_facts("said", said + 100).await;
    host.stop().await;
}

/// As the platform's own host does: an image with Python but without `venv`, a pack of Node without `package.json`.
#[tokio::test]
async fn an_environment_that_cannot_be_made_is_missed_only_where_something_is_to_be_installed() {
    let mut world = World::new().await;
    world.pack.runtimes.push(NewRuntime {
        r#ref: "core.luckless".to_owned(),
        name: "Luckless".to_owned(),
        execution_config: json!({
            "interpreter": {"binary": "/bin/sh"},
            "environment": {
                "env_type": "luckless",
                "create_command": ["/bin/sh", "-c", "echo no luck >&2; exit 1"],
                "interpreter_path": "{env_dir}/bin/sh",
            },
            "dependencies": {"manifest_file": "needs.txt", "install_command": ["/bin/true"]},
        }),
        ..NewRuntime::default()
    });
    world.add_sensor("one", "luckless", FAITHFUL);
    let host = world.start().await;
    world.eventually_running(host.worker, "demo.one").await;
    std::fs::write(world.path("packs/demo/needs.txt"), "one\n").unwrap();
    world.hint().await;
    let row = world.eventually_row(host.worker, "demo.one", |row| row.status == SensorProcessStatus::Backoff).await;
    assert!(row.stderr_excerpt.unwrap().contains("environment creation failed (exit 1): no luck"));
    host.stop().await;
}
