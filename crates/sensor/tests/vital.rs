//! A panic in a task that the host cannot live without ends the host, and its sensors with it: the orchestrator starts another.
#![expect(clippy::unwrap_used, reason = "tests")]

mod support;

use std::sync::Arc;
use std::time::Duration;

use attune_lifecycle::{Stop, Tasks};
use attune_model::clock::SystemClock;
use attune_sensor::SensorHost;
use attune_store_sqlite::SqliteStore;

use support::panicking::Panicking;
use support::{World, is_alive};

const FAITHFUL: &str = r#"echo "$$" >> "$FACTS/$ATTUNE_SENSOR_REF"; exec sleep 1000"#;

/// Starts a host, has the call panic while a sensor runs, and wants the end of both. Something is told then that changes a row.
async fn ends_by(call: &'static str, lease_time: Option<Duration>) {
    let mut world = World::new().await;
    world.add_sensor("one", "shell", FAITHFUL);
    world.timing.lease_time = lease_time;
    world.load().await;
    let store = SqliteStore::open(&world.path("attune.db")).await.unwrap();
    let store = Arc::new(Panicking::new(store));
    let clock = Arc::new(SystemClock);
    let host = SensorHost::build(world.config(), store.clone(), world.bus.clone(), clock, world.seen.clone());
    let host = host.await.unwrap();
    let (stop, tasks, worker) = (Stop::new(), Tasks::default(), host.worker());
    host.spawn(&stop, &tasks);
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
