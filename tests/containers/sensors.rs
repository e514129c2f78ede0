//! Sensor hosts in stock images, through the whole chain, when they are stopped and killed, and when their volume is upgraded.

use crate::site::{AGENT, Role, Site, is_an_earlier_file};

const HOSTS: [&str; 3] = ["sensor-python", "sensor-node", "sensor-scratch"];

/// Where the sensors of the demo pack run when each image can run only one of them.
const PLACES: &str = "('demo.file_watcher', 'sensor-python'), ('demo.webhook_receiver', 'sensor-node'),
                      ('core.timer_sensor', 'sensor-scratch')";

fn completed(trigger: &str) -> String {
    format!(
        "SELECT count(*) FROM execution JOIN enforcement ON enforcement.id = execution.enforcement
         WHERE execution.status = 'completed' AND enforcement.trigger_ref = '{trigger}'"
    )
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sensors_of_three_stock_images_lead_to_completed_executions() {
    let images = ["busybox", "python", "node", "scratch"];
    let Some(site) = Site::new(&images, &["packs/core", "packs/demo"]).await else { return };
    let worker = |image: &str, options: &[&str]| {
        site.agent(Role::Worker, image, &format!("worker-{image}"), &[&["--user=1000:1000"], options].concat())
    };
    let workers = [
        worker("python", &[]),
        worker("node", &[]),
        // Scripts with a first line count as native; a shell is there for them.
        worker("busybox", &["--env=ATTUNE_WORKER_RUNTIMES=shell,native"]),
    ];
    let receiver = ["--env=ATTUNE__SENSOR__PASS_ENV=DEMO_WEBHOOK_HOST", "--env=DEMO_WEBHOOK_HOST=sensor-node"];
    let sensors = [
        // These two share folders with the workers, as one user.
        site.agent(Role::Sensor, "python", HOSTS[0], &["--user=1000:1000"]),
        site.agent(Role::Sensor, "node", HOSTS[1], &[&["--user=1000:1000"][..], &receiver].concat()),
        site.agent(Role::Sensor, "scratch", HOSTS[2], &["--user=0:0", "--env=ATTUNE_SENSOR_RUNTIMES=native"]),
    ];
    for (container, name) in sensors.iter().zip(HOSTS) {
        site.ready(container, Role::Sensor, name).await;
        site.heartbeat(name).await;
    }
    for trigger in ["core.intervaltimer", "demo.file_changed", "demo.webhook"] {
        site.wait_for(trigger, &completed(trigger), |count| count > 0).await;
    }
    let places = format!(
        "SELECT count(*) FROM sensor_process
         WHERE status = 'running' AND pid IS NOT NULL AND (sensor_ref, worker_name) IN ({PLACES})"
    );
    site.wait_for("each sensor where its image is", &places, |count| count == 3).await;

    for (container, name) in sensors.iter().zip(HOSTS) {
        assert_eq!(container.stop(), 0, "{name}: {:?}", container.logs());
        assert_eq!(site.status(name).await, "inactive");
    }
    let stopped = "SELECT count(*) FROM sensor_process WHERE status = 'stopped' AND pid IS NULL";
    assert_eq!(site.database.number(stopped).await, 3);
    for container in &workers {
        assert_eq!(container.stop(), 0, "{:?}", container.logs());
    }
    let unfinished = "SELECT count(*) FROM execution WHERE status IN ('running', 'canceling')";
    assert_eq!(site.database.number(unfinished).await, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sensors_of_a_host_that_docker_kills_run_again_after_its_next_start() {
    let Some(site) = Site::new(&["busybox", "scratch"], &["packs/core", "packs/demo"]).await else { return };
    let options = ["--user=65534:65534", "--env=ATTUNE_SENSOR_RUNTIMES=native", "--env=ATTUNE__SENSOR__LEASE_TIME=5"];
    let sensor = site.agent(Role::Sensor, "scratch", "sensor-1", &options);
    let running = "SELECT count(*) FROM sensor_process WHERE status = 'running' AND pid IS NOT NULL";
    site.wait_for("the sensor runs", running, |count| count == 1).await;
    let events = "SELECT count(*) FROM event";
    site.wait_for("events", events, |count| count > 0).await;
    sensor.kill("KILL");
    assert_eq!(sensor.wait(), 137);
    let before = site.database.number(events).await;
    sensor.start();
    site.ready(&sensor, Role::Sensor, "sensor-1").await;
    site.wait_for("events again", events, |count| count > before).await;
    let hosts = "SELECT count(*) FROM worker WHERE worker_role = 'sensor'";
    assert_eq!(site.database.number(hosts).await, 1, "the row is taken over by its name");
    assert_eq!(sensor.stop(), 0, "{:?}", sensor.logs());
    assert_eq!(site.status("sensor-1").await, "inactive");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_sensor_host_goes_on_while_its_volume_is_upgraded_and_starts_as_the_new_file() {
    let Some(site) = Site::new(&["busybox", "scratch"], &["packs/core", "packs/demo"]).await else { return };
    let options = ["--user=1000:1000", "--env=ATTUNE_SENSOR_RUNTIMES=native"];
    let sensor = site.agent(Role::Sensor, "scratch", "sensor-1", &options);
    let running = "SELECT count(*) FROM sensor_process WHERE status = 'running' AND pid IS NOT NULL";
    site.wait_for("the sensor runs", running, |count| count == 1).await;
    let events = "SELECT count(*) FROM event";
    site.wait_for("events", events, |count| count > 0).await;
    let pid = "SELECT coalesce(max(pid), 0)::bigint FROM sensor_process WHERE status = 'running'";
    let (before, first) = (site.database.number(events).await, site.database.number(pid).await);
    site.upgrade();

    // Host and sensor keep their file.
    assert!(is_an_earlier_file(&sensor));
    site.wait_for("events beside the new file", events, |count| count > before).await;
    assert_eq!(site.database.number(pid).await, first);
    // The host starts sensors as before.
    let program = format!("{AGENT}/attune-agents");
    let restarted = sensor.exec(&[], &[&program, "sensor", "ctl", "restart", "core.timer_sensor"]);
    assert!(restarted.status.success(), "{restarted:?} {:?}", sensor.logs());
    site.wait_for("another process of the sensor", pid, |pid| pid != 0 && pid != first).await;
    let before = site.database.number(events).await;
    site.wait_for("events of a new process", events, |count| count > before).await;
    site.ready(&sensor, Role::Sensor, "sensor-1").await;

    assert_eq!(sensor.stop(), 0, "{:?}", sensor.logs());
    let before = site.database.number(events).await;
    sensor.start();
    site.ready(&sensor, Role::Sensor, "sensor-1").await;
    assert!(!is_an_earlier_file(&sensor));
    site.wait_for("events of the new file", events, |count| count > before).await;
    assert_eq!(sensor.stop(), 0, "{:?}", sensor.logs());
    assert_eq!(site.status("sensor-1").await, "inactive");
}
