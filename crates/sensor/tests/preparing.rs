//! A sensor that is not wanted any more while its environment is being built.
#![expect(clippy::unwrap_used, reason = "tests")]

mod support;

use attune_model::status::SensorProcessStatus;
use attune_store::NewRuntime;
use attune_testkit::eventually;
use serde_json::json;

use support::{World, is_alive};

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
    world.pack.sensors[0].runtime_ref = "core.slow".to_owned();
    world.load().await;
    world.hint().await;
    let build = world.eventually_facts("builds", 1).await.remove(0);
    assert!(is_alive(&process), "until its successor is ready");
    world.pack.sensors[0].enabled = false;
    world.load().await;
    world.hint().await;
    eventually_gone(&process).await;
    eventually_gone(&build).await;
    world.eventually_row(host.worker, "demo.one", |row| row.status == SensorProcessStatus::Stopped).await;
    host.stop().await;
}
