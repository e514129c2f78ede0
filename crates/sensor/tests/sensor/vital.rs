//! A panic in a task that the host cannot live without ends the host, and its sensors with it: the orchestrator starts another.
//! One in what looks after a sensor is a failure of that sensor.

use std::fs;
use std::sync::Arc;
use std::time::Duration;

use attune_lifecycle::{Stop, Tasks};
use attune_model::WorkerId;
use attune_model::clock::SystemClock;
use attune_model::rows::SensorProcess;
use attune_model::status::SensorProcessStatus;
use attune_sensor::SensorHost;
use attune_store_sqlite::SqliteStore;

use crate::support::panicking::Panicking;
use crate::support::{World, is_alive};

const FAITHFUL: &str = r#"echo "$$" >> "$FACTS/$ATTUNE_SENSOR_REF"; exec sleep 1000"#;

/// A host with a store whose calls can be made to panic.
async fn start(world: &World) -> (Arc<Panicking>, Stop, Tasks, WorkerId) {
    world.load().await;
    let store = SqliteStore::open(&world.path("attune.db")).await.unwrap();
    let store = Arc::new(Panicking::new(store));
    let clock = Arc::new(SystemClock);
    let host = SensorHost::build(world.config(), store.clone(), world.bus.clone(), clock, world.seen.clone());
    let host = host.await.unwrap();
    let (stop, tasks, worker) = (Stop::new(), Tasks::default(), host.worker());
    host.spawn(&stop, &tasks);
    (store, stop, tasks, worker)
}

/// Starts a host, has the call panic while a sensor runs, and wants the end of both. Something is told then that changes a row.
async fn ends_by(call: &'static str, lease_time: Option<Duration>) {
    let mut world = World::new().await;
    world.add_sensor("one", "shell", FAITHFUL);
    world.timing.lease_time = lease_time;
    let (store, stop, tasks, worker) = start(&world).await;
    let pid = world.eventually_running(worker, "demo.one").await.pid.unwrap();
    store.panic_in(call);
    world.add_sensor("two", "shell", FAITHFUL);
    world.load().await;
    world.hint().await;
    stop.soft().cancelled().await;
    assert!(stop.is_failing());
    tasks.drained().await;
    assert!(!is_alive(&pid.to_string()));
}

#[tokio::test]
async fn a_panic_of_the_recorder_ends_the_host() {
    ends_by("record_processes", None).await;
}

#[tokio::test]
async fn a_panic_of_the_keeper_of_leases_ends_the_host() {
    ends_by("renew_session", Some(Duration::from_secs(30))).await;
}

#[tokio::test]
async fn a_panic_of_the_heartbeat_ends_the_host() {
    ends_by("heartbeat", None).await;
}

/// Says something as soon as there is the file for it.
const TALKER: &str = r#"echo "$$" >> "$FACTS/one"
until [ -e "$FACTS/say" ]; do sleep 0.01; done
echo said
exec sleep 1000"#;

#[tokio::test]
async fn a_panic_in_what_looks_after_a_sensor_is_a_failure_of_that_sensor() {
    let mut world = World::new().await;
    world.add_sensor("one", "shell", TALKER);
    world.add_sensor("two", "shell", FAITHFUL);
    let (store, stop, tasks, worker) = start(&world).await;
    let first = world.eventually_running(worker, "demo.one").await.pid.unwrap();
    let other = world.eventually_running(worker, "demo.two").await.pid.unwrap();
    store.panic_in("add_log_version");
    fs::write(world.path("facts/say"), "").unwrap();
    let alerted = |row: &SensorProcess| row.last_alerted_failure_count >= 3;
    let row = world.eventually_row(worker, "demo.one", alerted).await;
    assert_eq!(row.status, SensorProcessStatus::Backoff);
    assert!(row.stderr_excerpt.unwrap().contains("panicked"));
    assert!(!is_alive(&first.to_string()));
    store.panic_in("nothing");
    world.eventually_running(worker, "demo.one").await;
    assert_eq!(world.row(worker, "demo.two").await.unwrap().pid, Some(other));
    assert!(!stop.is_failing());
    stop.soft().cancel();
    tasks.drained().await;
}

#[tokio::test]
async fn a_panic_while_a_failure_is_told_delays_the_next_start_and_does_not_cost_it() {
    let mut world = World::new().await;
    world.add_sensor("one", "shell", r#"echo "$$" >> "$FACTS/one"; exit 4"#);
    let (store, stop, tasks, worker) = start(&world).await;
    store.panic_in("insert_alert");
    world.eventually_facts("one", 6).await;
    store.panic_in("nothing");
    world.eventually_row(worker, "demo.one", |row| row.last_alerted_failure_count >= 6).await;
    assert!(!stop.is_failing());
    stop.soft().cancel();
    tasks.drained().await;
}
