//! A host beside others that know no leases, and a host that an operator has cordoned.

use std::fs;
use std::os::unix::fs::symlink;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use attune_model::WorkerId;
use attune_model::clock::SystemClock;
use attune_model::status::{SensorProcessStatus, WorkerRole, WorkerStatus};
use attune_runtime::host::Host;
use attune_runtime::plan::Planner;
use attune_store::{
    AgentStore as _, HostProcess, HostSession, HubStore as _, LeaseStore as _, PageRequest, ProcessChange,
    SensorStore as _,
};
use attune_testkit::eventually;
use attune_testkit::store_contract::seed::worker;
use serde_json::json;
use uuid::Uuid;

use crate::support;
use crate::support::{World, is_alive};

const FAITHFUL: &str = r#"echo "$$" >> "$FACTS/$ATTUNE_SENSOR_REF"; exec sleep 1000"#;

/// A world that several hosts share.
async fn world() -> World {
    let mut world = World::new().await;
    world.timing.lease_time = Some(Duration::from_secs(2));
    world
}

async fn execute(world: &World, sql: &'static str) {
    let mut transaction = world.lock_store().await;
    sqlx::query(sql).execute(&mut *transaction).await.unwrap();
    transaction.commit().await.unwrap();
}

#[tokio::test]
async fn a_host_whose_row_is_gone_ends_and_says_so() {
    let mut world = world().await;
    world.add_sensor("one", "shell", FAITHFUL);
    let host = world.start().await;
    let pids = world.eventually_facts("demo.one", 1).await;
    execute(&world, "DELETE FROM worker").await;
    eventually("the end of the host", async || host.tasks.is_empty().then_some(())).await;
    assert!(host.stop.is_failing() && !is_alive(&pids[0]));
}

#[tokio::test]
async fn the_row_of_a_dead_host_is_corrected_although_nobody_wants_its_sensor() {
    let mut world = world().await;
    world.timing.reconcile_interval = Duration::from_millis(100);
    world.add_sensor("one", "shell", FAITHFUL);
    world.pack.sensors[0].enabled = false;
    world.load().await;
    let sensor = world.store.sensor("demo.one").await.unwrap().unwrap().0;
    let dead = world.store.register_worker(&worker("dead", WorkerRole::Sensor)).await.unwrap().id;
    let (process, id) = (Uuid::new_v4(), Uuid::new_v4());
    let life = Duration::from_secs(3);
    let session = HostSession { worker: dead, worker_name: "dead".to_owned(), process, id, life };
    world.store.begin_session(&session, None).await.unwrap();
    assert_eq!(world.store.take_sensors(&session, &[sensor.id]).await.unwrap(), [sensor.id]);
    let running = ProcessChange::Running { pid: 1, reset_failures: true };
    world.store.record_process(&sensor, session.process(), Some(1), &running).await.unwrap();
    let host = world.start_host().await;
    let row = world.eventually_row(dead, "demo.one", |row| row.status == SensorProcessStatus::Stopped).await;
    assert_eq!(row.pid, None);
    host.stop().await;
}

#[tokio::test]
async fn of_two_hosts_of_one_name_the_later_one_works_and_the_other_one_when_it_has_ended() {
    let mut world = world().await;
    world.add_sensor("one", "shell", FAITHFUL);
    let host = world.start().await;
    world.eventually_facts("demo.one", 1).await;
    let later = world.start_host().await;
    assert_eq!(later.worker, host.worker);
    let pids = world.eventually_facts("demo.one", 2).await;
    assert!(!is_alive(&pids[0]));
    // Time enough to take it back.
    for _ in 0..3 {
        renewals(&world, host.worker).await;
    }
    assert_eq!(world.facts("demo.one"), pids);
    later.stop().await;
    world.eventually_facts("demo.one", 3).await;
    host.stop().await;
}

#[tokio::test]
async fn of_two_hosts_of_one_name_the_earlier_one_leaves_without_a_word_about_what_the_later_one_runs() {
    let mut world = world().await;
    world.add_sensor("one", "shell", FAITHFUL);
    let host = world.start().await;
    world.eventually_facts("demo.one", 1).await;
    let later = world.start_host().await;
    let pids = world.eventually_facts("demo.one", 2).await;
    let row = world.eventually_running(later.worker, "demo.one").await;
    assert_eq!(row.pid.unwrap().to_string(), pids[1]);
    host.stop().await;
    for _ in 0..3 {
        renewals(&world, later.worker).await;
    }
    assert_eq!(world.row(later.worker, "demo.one").await, Some(row));
    let workers = world.store.workers(PageRequest { page: 1, page_size: 10 }).await.unwrap();
    assert_eq!(workers.items[0].status, WorkerStatus::Active);
    later.stop().await;
}

#[tokio::test]
async fn a_host_that_never_begins_leaves_the_rows_of_the_one_whose_name_it_has() {
    let mut world = world().await;
    world.add_sensor("one", "shell", FAITHFUL);
    let host = world.start().await;
    let row = world.eventually_running(host.worker, "demo.one").await;
    let newcomer = world.build_host(world.config(), Arc::new(SystemClock)).await;
    assert_eq!(newcomer.worker(), host.worker);
    drop(newcomer);
    assert_eq!(world.row(host.worker, "demo.one").await, Some(row));
    host.stop().await;
}

/// A service that knows no leases says that it runs `demo.one`.
async fn run_elsewhere(world: &World) -> WorkerId {
    let sensor = world.store.sensor("demo.one").await.unwrap().unwrap().0;
    let foreign = world.store.register_worker(&worker("foreign", WorkerRole::Sensor)).await.unwrap().id;
    let running = ProcessChange::Running { pid: 1, reset_failures: true };
    let service = HostProcess { worker: foreign, worker_name: "foreign", id: Uuid::nil() };
    world.store.record_process(&sensor, service, Some(1), &running).await.unwrap();
    foreign
}

/// Waits for several of them.
async fn renewals(world: &World, host: WorkerId) {
    let before = world.heartbeat_of(host).await;
    eventually("renewals", async || {
        let passed = world.heartbeat_of(host).await - before;
        (passed >= chrono::TimeDelta::milliseconds(400)).then_some(())
    })
    .await;
}

#[tokio::test]
async fn a_sensor_service_without_leases_is_given_way_to_and_replaced_when_it_has_gone() {
    let mut world = world().await;
    world.add_sensor("one", "shell", FAITHFUL);
    let host = world.start().await;
    let pids = world.eventually_facts("demo.one", 1).await;
    let foreign = run_elsewhere(&world).await;
    eventually("our end", async || (!is_alive(&pids[0])).then_some(())).await;
    world.eventually_row(host.worker, "demo.one", |row| row.status == SensorProcessStatus::Stopped).await;
    assert_eq!(world.facts("demo.one").len(), 1);
    world.store.set_worker_status(foreign, WorkerStatus::Inactive).await.unwrap();
    world.eventually_facts("demo.one", 2).await;
    world.eventually_running(host.worker, "demo.one").await;
    host.stop().await;
}

#[tokio::test]
async fn what_was_prepared_before_a_sensor_was_lost_is_not_what_starts_afterwards() {
    let mut world = world().await;
    world.timing.stop_grace = Duration::from_secs(3);
    world.add_sensor("one", "shell", r#"trap '' TERM; echo "$$" >> "$FACTS/first"; while :; do sleep 1000; done"#);
    world.write_script("changed", r#"echo "$$" >> "$FACTS/second"; exec sleep 1000"#);
    let host = world.start().await;
    let pids = world.eventually_facts("first", 1).await;
    world.add_rule("more", "one", &json!({"n": 2}));
    world.load().await;
    world.hint().await;
    eventually("its successor is prepared", async || (world.api.tokens.load(Ordering::SeqCst) == 2).then_some(()))
        .await;
    // It takes its time to end, and meanwhile somebody else runs it.
    let foreign = run_elsewhere(&world).await;
    eventually("our end", async || (!is_alive(&pids[0])).then_some(())).await;
    "changed".clone_into(&mut world.pack.sensors[0].entrypoint);
    world.add_sensor("other", "shell", FAITHFUL);
    world.load().await;
    world.hint().await;
    world.eventually_facts("demo.other", 1).await;
    world.store.set_worker_status(foreign, WorkerStatus::Inactive).await.unwrap();
    world.eventually_facts("second", 1).await;
    assert_eq!(world.facts("first").len(), 1);
    host.stop().await;
}

#[tokio::test]
async fn a_cordoned_host_keeps_what_it_runs_and_takes_nothing_new() {
    let mut world = world().await;
    world.add_sensor("old", "shell", FAITHFUL);
    let host = world.start().await;
    let old = world.eventually_facts("demo.old", 1).await;
    execute(&world, "UPDATE worker SET cordoned = TRUE").await;
    // A renewal tells the host; each is a heartbeat.
    renewals(&world, host.worker).await;
    world.add_sensor("new", "shell", FAITHFUL);
    world.load().await;
    world.hint().await;
    // Time enough to start it: the host looks, asks and is refused meanwhile.
    renewals(&world, host.worker).await;
    assert!(world.facts("demo.new").is_empty() && is_alive(&old[0]));
    execute(&world, "UPDATE worker SET cordoned = FALSE").await;
    world.eventually_facts("demo.new", 1).await;
    assert_eq!(world.facts("demo.old").len(), 1);
    host.stop().await;
}

#[tokio::test]
async fn a_host_that_is_cordoned_when_it_begins_takes_nothing() {
    let mut world = world().await;
    world.add_sensor("old", "shell", FAITHFUL);
    let host = world.start().await;
    world.eventually_facts("demo.old", 1).await;
    host.stop().await;
    execute(&world, "UPDATE worker SET cordoned = TRUE").await;
    let host = world.start_host().await;
    renewals(&world, host.worker).await;
    assert_eq!(world.facts("demo.old").len(), 1);
    execute(&world, "UPDATE worker SET cordoned = FALSE").await;
    world.eventually_facts("demo.old", 2).await;
    host.stop().await;
}

#[tokio::test]
async fn the_row_of_a_host_that_leaves_a_sensor_to_another_one_says_stopped() {
    let mut world = world().await;
    world.add_sensor("one", "missing", FAITHFUL);
    let host = world.start().await;
    world.eventually_row(host.worker, "demo.one", |row| row.status == SensorProcessStatus::Backoff).await;
    // The other one has what is missing here.
    fs::create_dir(world.path("bin")).unwrap();
    symlink("/bin/sh", world.path("bin/no-such-interpreter")).unwrap();
    let mut config = world.config();
    config.name = "other".to_owned();
    config.base_environment.retain(|(name, _)| name != "PATH");
    config.base_environment.push(("PATH".into(), format!("{}:/usr/bin:/bin", world.path("bin").display()).into()));
    config.build_host = Arc::new(Host::new(config.base_environment.clone()));
    let folders = (world.path("packs"), world.path("envs"));
    config.planner = Planner::new(config.build_host.clone(), folders.0, folders.1, &support::advertised());
    let other = world.start_host_with(config, Arc::new(SystemClock)).await;
    world.eventually_running(other.worker, "demo.one").await;
    let row = world.eventually_row(host.worker, "demo.one", |row| row.status == SensorProcessStatus::Stopped).await;
    assert!(row.next_restart_at.is_none() && row.consecutive_failures > 0, "{row:?}");
    host.stop().await;
    other.stop().await;
}
