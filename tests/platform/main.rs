//! Hub, worker and sensor host as the programs that an operator starts, on PostgreSQL and RabbitMQ.
#![expect(clippy::unwrap_used, reason = "tests")]
#![expect(clippy::disallowed_methods, reason = "the program under test is started the way a user starts it")]

mod doctor;
mod drop_in;
mod drop_in_api;
mod drop_in_child;
mod drop_in_code;
mod drop_in_packs;
mod executor;
mod health;
mod hosts;
mod languages;
mod readiness;
mod remote_packs;
mod rows;
mod sensor_logs;
mod sensor_packs;
mod sensors;
mod stopping;
mod support;
mod takeover;
mod trace;
mod unruly;

use support::{Installation, processes_with};

const COMPLETED: &str = "SELECT count(*) FROM execution WHERE status = 'completed'";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn events_of_sensors_in_three_languages_end_in_completed_executions() {
    let installation = Installation::new().await;
    let hub = installation.start("hub", &["hub"]);
    let worker = installation.start("worker", &["worker", "--name", "worker-1"]);
    let sensor = installation.start("sensor", &["sensor", "--name", "sensor-1"]);
    let completed = |trigger: &str| {
        format!(
            "SELECT count(*) FROM execution JOIN enforcement ON enforcement.id = execution.enforcement
             WHERE execution.status = 'completed' AND enforcement.trigger_ref = '{trigger}'"
        )
    };
    // The timer is native, the file watcher Python, the webhook receiver Node.
    for trigger in ["core.intervaltimer", "demo.file_changed", "demo.webhook"] {
        installation.wait_for(trigger, &completed(trigger), |count| count > 0).await;
    }
    let running = "SELECT count(*) FROM sensor_process WHERE status = 'running' AND pid IS NOT NULL";
    installation.wait_for("every sensor runs", running, |count| count == 3).await;

    sensor.stop();
    let stopped = "SELECT count(*) FROM sensor_process WHERE status = 'stopped' AND pid IS NULL";
    assert_eq!(installation.database.number(stopped).await, 3);
    worker.stop();
    let inactive = "SELECT count(*) FROM worker WHERE status = 'inactive'";
    assert_eq!(installation.database.number(inactive).await, 2);
    let unfinished = "SELECT count(*) FROM execution WHERE status IN ('running', 'canceling')";
    assert_eq!(installation.database.number(unfinished).await, 0);
    hub.stop();
    let folder = installation.folder.path().to_str().unwrap();
    assert_eq!(processes_with(folder), Vec::<u32>::new());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_asked_for_without_a_worker_runs_when_one_comes() {
    let installation = Installation::new().await;
    let hub = installation.start("hub", &["hub"]);
    let worker = installation.start("worker", &["worker", "--name", "worker-1"]);
    let sensor = installation.start("sensor", &["sensor", "--name", "sensor-1"]);
    installation.wait_for("executions", COMPLETED, |count| count > 0).await;
    worker.stop();
    let waiting = "SELECT count(*) FROM execution WHERE status IN ('requested', 'scheduled')";
    let many = installation.wait_for("executions wait", waiting, |count| count > 2).await;
    let before = installation.database.number(COMPLETED).await;
    let worker = installation.start("worker", &["worker", "--name", "worker-1"]);
    installation.wait_for("they run", COMPLETED, |count| count >= before + many).await;
    let rows = "SELECT count(*) FROM worker WHERE worker_role = 'action'";
    assert_eq!(installation.database.number(rows).await, 1, "the row is taken over by its name");
    for program in [sensor, worker, hub] {
        program.stop();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stop_during_the_start_is_a_success() {
    let installation = Installation::bare().await;
    let unreachable = |command: &mut std::process::Command| {
        command.env("ATTUNE__DATABASE__URL", "postgresql://postgres@127.0.0.1:9/attune");
    };
    for role in ["worker", "sensor", "hub"] {
        let program = installation.start_with(role, &[role], unreachable);
        attune_testkit::eventually("it waits", async || {
            program.log().contains("waiting for the database").then_some(())
        })
        .await;
        program.stop();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pack_with_errors_does_not_keep_the_others_out() {
    let installation = Installation::new().await;
    let broken = installation.path("broken");
    std::fs::create_dir_all(broken.join("actions")).unwrap();
    std::fs::write(broken.join("pack.yaml"), "ref: broken\nlabel: Broken\nversion: one\n").unwrap();
    let packs = concat!(env!("CARGO_MANIFEST_DIR"), "/packs/demo");
    let (code, text) = installation.output(&["packs", "load", packs, broken.to_str().unwrap()]);
    assert_eq!(code, Some(1), "{text}");
    assert!(text.contains("demo ") && text.contains("loaded") && text.contains("broken/pack.yaml"), "{text}");
    // The runtimes that are built in do not replace the whole core pack.
    let actions = "SELECT count(*) FROM action WHERE pack_ref = 'core'";
    assert!(installation.database.number(actions).await > 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_schema_that_does_not_fit_is_78_and_names_the_difference() {
    let installation = Installation::bare().await;
    installation.database.execute("ALTER TABLE execution DROP COLUMN started_at").await;
    for role in ["worker", "hub"] {
        let (code, text) = installation.output(&[role]);
        assert_eq!(code, Some(78), "{text}");
        assert!(text.contains("started_at"), "{text}");
    }
}
