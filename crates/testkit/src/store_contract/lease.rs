//! Which host runs which sensor.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use attune_model::status::{SensorProcessStatus as Status, WorkerRole, WorkerStatus};
use attune_model::{SensorId, WorkerId};
use attune_store::{Beginning, HostProcess, HostSession, ProcessChange, ProcessEnd, ProcessRecord, Renewal, Runner};
use futures_util::future::join_all;
use uuid::Uuid;

use super::seed::{LONG, World, worker};
use super::{Lab, Store};
use crate::eventually;

/// Over when the next statement begins.
const INSTANT: Duration = Duration::from_micros(1);
const BEGUN: Beginning = Beginning::Begun { cordoned: false };
const RENEWED: Renewal = Renewal::Renewed { cordoned: false };

async fn register(store: &Arc<dyn Store>, name: &str) -> WorkerId {
    store.register_worker(&worker(name, WorkerRole::Sensor)).await.unwrap().id
}

/// A session that has not begun.
fn life_of(worker: WorkerId, name: &str, life: Duration) -> HostSession {
    HostSession { worker, worker_name: name.to_owned(), process: Uuid::new_v4(), id: Uuid::new_v4(), life }
}

/// A host that knows no leases.
fn unleased(worker: WorkerId) -> HostProcess<'static> {
    HostProcess { worker, worker_name: "foreign", id: Uuid::nil() }
}

/// A host with a session that has begun.
async fn host(world: &World, name: &str, life: Duration) -> HostSession {
    let session = life_of(register(&world.store, name).await, name, life);
    assert_eq!(world.store.begin_session(&session, None).await.unwrap(), BEGUN);
    session
}

/// A host whose lease is soon over, and that has the sensor: with a slow store that may take more than one life.
async fn brief_holder(world: &World) -> HostSession {
    eventually("a short lease", async || {
        let one = host(world, "one", Duration::from_millis(300)).await;
        take(world, &one).await.then_some(one)
    })
    .await
}

async fn take(world: &World, session: &HostSession) -> bool {
    let sensor = world.sensor.id;
    let taken = world.store.take_sensors(session, &[sensor]).await.unwrap();
    assert!(taken.is_empty() || taken == [sensor]);
    !taken.is_empty()
}

async fn elsewhere(world: &World, session: &HostSession) -> Vec<Runner> {
    world.store.runners_elsewhere(session).await.unwrap()
}

fn runner(sensor: SensorId, name: &str, leased: bool) -> Runner {
    Runner { sensor, worker_name: name.to_owned(), leased }
}

/// Until it is given back.
pub async fn a_sensor_is_held_by_one_host(lab: &dyn Lab) {
    let world = World::new(lab).await;
    let (one, other) = (host(&world, "one", LONG).await, host(&world, "other", LONG).await);
    assert!(take(&world, &one).await);
    assert!(take(&world, &one).await, "its own it may take again");
    assert!(!take(&world, &other).await);
    assert_eq!(elsewhere(&world, &other).await, [runner(world.sensor.id, "one", true)]);
    assert_eq!(elsewhere(&world, &one).await, []);
    world.store.give_back_sensors(&other, &[world.sensor.id]).await.unwrap();
    assert!(!take(&world, &other).await, "only the holder gives back");
    world.store.give_back_sensors(&one, &[world.sensor.id]).await.unwrap();
    assert_eq!(elsewhere(&world, &other).await, []);
    assert!(take(&world, &other).await);
    assert!(!take(&world, &one).await);
}

/// A host that stops says so for all its sensors at once.
pub async fn what_is_given_back_does_not_run(lab: &dyn Lab) {
    let world = World::new(lab).await;
    let one = host(&world, "one", LONG).await;
    let record = async |change: ProcessChange| {
        assert!(take(&world, &one).await);
        world.store.record_process(&world.sensor, one.process(), Some(2), &change).await.unwrap();
        world.store.give_back_sensors(&one, &[world.sensor.id]).await.unwrap();
        world.store.process(world.sensor.id, one.worker).await.unwrap().unwrap()
    };
    let row = record(ProcessChange::Running { pid: 4242, reset_failures: false }).await;
    assert_eq!((row.status, row.pid, row.active_rule_count), (Status::Stopped, None, 2));
    assert!(row.last_stopped_at.unwrap() >= row.last_started_at.unwrap());
    assert_eq!(record(ProcessChange::Starting).await.status, Status::Stopped);
    let end = ProcessEnd { consecutive_failures: 4, ..ProcessEnd::default() };
    let row = record(ProcessChange::Backoff(end)).await;
    assert_eq!((row.status, row.consecutive_failures), (Status::Backoff, 4), "it waits for its next start here");
}

/// However many ask at once.
pub async fn of_twenty_hosts_at_once_one_gets_the_sensor(lab: &dyn Lab) {
    let world = World::new(lab).await;
    let mut hosts = Vec::new();
    for number in 0..20 {
        hosts.push(host(&world, &format!("host-{number}"), LONG).await);
    }
    let taken = join_all(hosts.iter().map(|session| take(&world, session))).await;
    assert_eq!(taken.into_iter().filter(|taken| *taken).count(), 1);
}

/// A dead host says nothing any more.
pub async fn a_session_that_is_not_renewed_ends_and_its_sensors_are_free(lab: &dyn Lab) {
    let world = World::new(lab).await;
    let (one, other) = (host(&world, "one", LONG).await, host(&world, "other", LONG).await);
    assert!(take(&world, &one).await);
    let running = ProcessChange::Running { pid: 4242, reset_failures: false };
    world.store.record_process(&world.sensor, one.process(), Some(2), &running).await.unwrap();
    assert!(!take(&world, &other).await, "what the process does changes nothing about the lease");
    // As if its last renewal had been long ago: the same life of the host with a life that is over.
    let dead = HostSession { life: INSTANT, ..one.clone() };
    world.store.begin_session(&dead, None).await.unwrap();
    eventually("the end of the lease", async || {
        lab.execute("UPDATE worker SET last_heartbeat = created WHERE name = 'one'").await;
        take(&world, &other).await.then_some(())
    })
    .await;
    assert_eq!(world.store.renew_session(&dead).await.unwrap(), Renewal::Lost);
    assert!(!take(&world, &dead).await, "a session that is over takes nothing");
    let nobody = life_of(WorkerId(i64::MAX), "nobody", LONG);
    for before in [None, Some(&nobody)] {
        assert_eq!(world.store.begin_session(&nobody, before).await.unwrap(), Beginning::Gone);
    }
    let row = world.store.process(world.sensor.id, one.worker).await.unwrap().unwrap();
    assert_eq!((row.status, row.pid), (Status::Stopped, None), "the row of the dead host is corrected");
}

/// A host that was frozen for longer than its lease, and finds another one of its name.
pub async fn rows_that_a_later_process_has_taken_over_are_not_those_of_the_earlier_one(lab: &dyn Lab) {
    let world = World::new(lab).await;
    let one = host(&world, "one", LONG).await;
    assert!(take(&world, &one).await);
    let row = async || world.store.process(world.sensor.id, one.worker).await.unwrap().unwrap();
    let record = async |session: &HostSession, change: &ProcessChange| {
        world.store.record_process(&world.sensor, session.process(), Some(2), change).await.unwrap();
    };
    let running = |pid| ProcessChange::Running { pid, reset_failures: true };
    record(&one, &running(1)).await;
    let later = life_of(one.worker, "one", LONG);
    assert!(world.store.is_replaced(later.process()).await.unwrap(), "it has not begun");
    assert_eq!(world.store.begin_session(&later, None).await.unwrap(), BEGUN);
    assert!(world.store.is_replaced(one.process()).await.unwrap());
    assert!(!world.store.is_replaced(later.process()).await.unwrap());
    record(&later, &running(2)).await;
    let before = row().await;
    assert_eq!(before.pid, Some(2));
    let failed = ProcessChange::Backoff(ProcessEnd { consecutive_failures: 3, ..ProcessEnd::default() });
    for change in [
        ProcessChange::Starting,
        running(3),
        failed,
        ProcessChange::Alerted { failures: 3 },
        ProcessChange::Rules,
        ProcessChange::Stopped,
    ] {
        let record = ProcessRecord { sensor: &world.sensor, active_rules: Some(9), change: &change };
        for records in [&[record][..], &[record, record]] {
            world.store.record_processes(one.process(), records).await.unwrap();
            assert_eq!(row().await, before, "{change:?}");
        }
    }
    // One that was cut off from the store lives on under another session.
    let again = HostSession { id: Uuid::new_v4(), life: INSTANT, ..later.clone() };
    assert_eq!(world.store.begin_session(&again, Some(&later)).await.unwrap(), BEGUN);
    record(&later, &running(4)).await;
    assert_eq!(row().await.pid, Some(4));
    lab.execute("UPDATE worker SET last_heartbeat = created WHERE name = 'one'").await;
    assert!(!world.store.is_replaced(one.process()).await.unwrap(), "the later one has died");
    record(&one, &ProcessChange::Stopped).await;
    assert_eq!(row().await.status, Status::Stopped);
}

/// One statement for all that a host holds; it is the heartbeat.
pub async fn a_renewal_is_a_heartbeat_and_says_when_the_host_is_cordoned(lab: &dyn Lab) {
    let world = World::new(lab).await;
    let one = host(&world, "one", LONG).await;
    world.store.set_worker_status(one.worker, WorkerStatus::Inactive).await.unwrap();
    let before = world.store.now().await.unwrap();
    assert_eq!(world.store.renew_session(&one).await.unwrap(), RENEWED);
    let row = world.store.register_worker(&worker("one", WorkerRole::Sensor)).await.unwrap();
    assert!(row.last_heartbeat.unwrap() >= before);
    assert_eq!(
        lab.number("SELECT count(*) FROM worker WHERE name = 'one' AND status = 'active'").await,
        1,
        "it works, so it is active"
    );
    lab.execute("UPDATE worker SET cordoned = true WHERE name = 'one'").await;
    assert_eq!(world.store.renew_session(&one).await.unwrap(), Renewal::Renewed { cordoned: true });
    let again = life_of(one.worker, "one", LONG);
    assert_eq!(world.store.begin_session(&again, None).await.unwrap(), Beginning::Begun { cordoned: true });
}

/// It had left the sensor to whoever can start it, and then died.
pub async fn the_row_of_a_host_that_died_while_it_waited_is_corrected_with_the_next_take(lab: &dyn Lab) {
    let world = World::new(lab).await;
    let (one, other) = (host(&world, "one", LONG).await, host(&world, "other", LONG).await);
    assert!(take(&world, &one).await);
    world.store.give_back_sensors(&one, &[world.sensor.id]).await.unwrap();
    let failed = ProcessChange::Backoff(ProcessEnd { consecutive_failures: 3, ..ProcessEnd::default() });
    world.store.record_process(&world.sensor, one.process(), Some(2), &failed).await.unwrap();
    let status = async || world.store.process(world.sensor.id, one.worker).await.unwrap().unwrap().status;
    assert!(take(&world, &other).await);
    assert_eq!(status().await, Status::Backoff, "it lives, and says itself what it does");
    world.store.begin_session(&HostSession { life: INSTANT, ..one.clone() }, None).await.unwrap();
    lab.execute("UPDATE worker SET last_heartbeat = created WHERE name = 'one'").await;
    assert!(take(&world, &other).await);
    assert_eq!(status().await, Status::Stopped);
}

/// Its sensor was disabled before another host could take it.
pub async fn rows_of_dead_hosts_are_corrected_also_when_nobody_takes_anything(lab: &dyn Lab) {
    let world = World::new(lab).await;
    let (one, other) = (host(&world, "one", LONG).await, host(&world, "other", LONG).await);
    let foreign = register(&world.store, "foreign").await;
    let row = async |worker| world.store.process(world.sensor.id, worker).await.unwrap().unwrap();
    let end = ProcessEnd { consecutive_failures: 3, ..ProcessEnd::default() };
    for (change, holds) in [
        (ProcessChange::Running { pid: 4242, reset_failures: false }, true),
        (ProcessChange::Backoff(end.clone()), true),
        (ProcessChange::Backoff(end), false),
    ] {
        world.store.begin_session(&one, None).await.unwrap();
        assert!(take(&world, &one).await);
        world.store.record_process(&world.sensor, one.process(), Some(2), &change).await.unwrap();
        if !holds {
            world.store.give_back_sensors(&one, &[world.sensor.id]).await.unwrap();
        }
        let before = row(one.worker).await;
        assert_eq!(world.store.correct_rows(&other).await.unwrap(), 0);
        assert_eq!(row(one.worker).await, before, "it lives, and says itself what it does");
        let dead = HostSession { life: INSTANT, ..one.clone() };
        world.store.begin_session(&dead, None).await.unwrap();
        lab.execute("UPDATE worker SET last_heartbeat = created WHERE name = 'one'").await;
        let running = ProcessChange::Running { pid: 1, reset_failures: false };
        world.store.record_process(&world.sensor, unleased(foreign), Some(2), &running).await.unwrap();
        assert_eq!(world.store.correct_rows(&dead).await.unwrap(), 0, "its own rows it writes itself");
        assert_eq!(world.store.correct_rows(&other).await.unwrap(), 1);
        let after = row(one.worker).await;
        assert_eq!((after.status, after.pid, after.next_restart_at), (Status::Stopped, None, None));
        assert_eq!(row(foreign).await.status, Status::Running, "that one knows no leases, and may live");
        world.store.record_process(&world.sensor, unleased(foreign), Some(2), &ProcessChange::Stopped).await.unwrap();
    }
}

/// Two hosts of one name, as in a rolling restart.
pub async fn a_later_life_ends_the_session_and_waits_for_its_time(lab: &dyn Lab) {
    let world = World::new(lab).await;
    let earlier = host(&world, "one", LONG).await;
    assert!(take(&world, &earlier).await);
    let later = host(&world, "one", LONG).await;
    assert_eq!(later.worker, earlier.worker);
    assert_eq!(world.store.renew_session(&earlier).await.unwrap(), Renewal::Lost);
    assert!(!take(&world, &later).await, "the earlier life may still run it");
    assert_eq!(elsewhere(&world, &later).await, [runner(world.sensor.id, "one", true)]);
    assert_eq!(world.store.renew_session(&later).await.unwrap(), RENEWED);
    // The earlier one ends its sensor and says so.
    world.store.give_back_sensors(&earlier, &[world.sensor.id]).await.unwrap();
    assert!(take(&world, &later).await);
    assert!(!take(&world, &earlier).await);
    // Which it does not end in its turn.
    let again = life_of(earlier.worker, "one", LONG);
    assert_eq!(world.store.begin_session(&again, Some(&earlier)).await.unwrap(), Beginning::Taken);
    assert_eq!(world.store.renew_session(&later).await.unwrap(), RENEWED);
    // A process goes on after itself, and after a beginning of which it has heard nothing.
    for before in [&later, &earlier] {
        assert_eq!(world.store.begin_session(&again, Some(before)).await.unwrap(), BEGUN);
    }
    let over = life_of(earlier.worker, "one", INSTANT);
    world.store.begin_session(&over, None).await.unwrap();
    assert_eq!(world.store.begin_session(&earlier, Some(&earlier)).await.unwrap(), BEGUN);
}

/// A crash and a quick restart: nobody gives anything back.
pub async fn a_later_life_takes_what_an_earlier_one_left_when_its_time_is_over(lab: &dyn Lab) {
    let world = World::new(lab).await;
    brief_holder(&world).await;
    let later = host(&world, "one", LONG).await;
    assert_eq!(world.store.renew_session(&later).await.unwrap(), RENEWED);
    eventually("the end of the earlier life", async || take(&world, &later).await.then_some(())).await;
}

/// One that ends before it has begun a session, because something else is away.
pub async fn a_host_that_registers_again_and_again_keeps_no_sensor_from_others(lab: &dyn Lab) {
    let world = World::new(lab).await;
    let other = host(&world, "other", LONG).await;
    let one = brief_holder(&world).await;
    eventually("the end of the lease", async || {
        register(&world.store, "one").await;
        take(&world, &other).await.then_some(())
    })
    .await;
    assert_eq!(world.store.renew_session(&one).await.unwrap(), Renewal::Lost);
}

/// One that crashes soon after each start, and never comes to run the sensor.
pub async fn a_host_that_begins_again_and_again_keeps_no_sensor_from_others(lab: &dyn Lab) {
    let world = World::new(lab).await;
    let other = host(&world, "other", LONG).await;
    brief_holder(&world).await;
    eventually("the end of the first lease", async || {
        host(&world, "one", Duration::from_millis(300)).await;
        take(&world, &other).await.then_some(())
    })
    .await;
}

/// A life that goes on while the next one registers, as in a rolling restart.
pub async fn who_renews_after_another_life_has_registered_holds_on(lab: &dyn Lab) {
    let world = World::new(lab).await;
    let (one, other) = (host(&world, "one", LONG).await, host(&world, "other", LONG).await);
    assert!(take(&world, &one).await);
    register(&world.store, "one").await;
    assert!(!take(&world, &other).await, "its time is not over");
    assert_eq!(world.store.renew_session(&one).await.unwrap(), RENEWED);
    assert!(take(&world, &one).await);
    // What was said at the registration does not count any more, and what comes after it does.
    register(&world.store, "one").await;
    let shorter = HostSession { life: Duration::from_millis(300), ..one.clone() };
    assert_eq!(world.store.begin_session(&shorter, Some(&one)).await.unwrap(), BEGUN);
    assert_eq!(world.store.renew_session(&shorter).await.unwrap(), RENEWED);
    eventually("the end of the lease", async || take(&world, &other).await.then_some(())).await;
}

/// A sensor service of the platform that knows no leases.
pub async fn a_living_host_without_leases_counts_as_holding(lab: &dyn Lab) {
    let world = World::new(lab).await;
    let foreign = register(&world.store, "foreign").await;
    let running = ProcessChange::Running { pid: 77, reset_failures: true };
    world.store.record_process(&world.sensor, unleased(foreign), Some(1), &running).await.unwrap();
    let one = host(&world, "one", LONG).await;
    assert!(!take(&world, &one).await);
    assert_eq!(elsewhere(&world, &one).await, [runner(world.sensor.id, "foreign", false)]);

    world.store.record_process(&world.sensor, unleased(foreign), Some(1), &ProcessChange::Stopped).await.unwrap();
    assert!(take(&world, &one).await);
    // It starts again, whatever we hold.
    world.store.record_process(&world.sensor, unleased(foreign), Some(1), &running).await.unwrap();
    assert_eq!(elsewhere(&world, &one).await, [runner(world.sensor.id, "foreign", false)]);
    world.store.give_back_sensors(&one, &[world.sensor.id]).await.unwrap();
    assert!(!take(&world, &one).await);

    world.store.set_worker_status(foreign, WorkerStatus::Inactive).await.unwrap();
    assert!(take(&world, &one).await, "a host that has gone runs nothing");
}

/// Whatever is written about the process.
pub async fn a_lease_survives_every_change_of_the_process(lab: &dyn Lab) {
    let world = World::new(lab).await;
    let (one, other) = (host(&world, "one", LONG).await, host(&world, "other", LONG).await);
    assert!(take(&world, &one).await);
    for change in [
        ProcessChange::Starting,
        ProcessChange::Running { pid: 1, reset_failures: true },
        ProcessChange::Backoff(ProcessEnd::default()),
        ProcessChange::Alerted { failures: 3 },
        ProcessChange::Rules,
        ProcessChange::Stopped,
    ] {
        world.store.record_process(&world.sensor, one.process(), None, &change).await.unwrap();
        assert!(!take(&world, &other).await, "{change:?}");
    }
}

/// A sensor that was deleted is nobody's.
pub async fn many_sensors_are_taken_and_given_back_at_once(lab: &dyn Lab) {
    let world = World::new(lab).await;
    let mut pack = super::seed::demo();
    for number in 0..30 {
        pack.sensors.push(super::seed::sensor(&format!("demo.s{number}"), "demo.python", &[]));
    }
    world.store.upsert_pack(&pack).await.unwrap();
    let desired = world.store.desired_sensors().await.unwrap();
    let mut sensors: Vec<SensorId> = desired.iter().map(|desired| desired.sensor.id).collect();
    assert_eq!(sensors.len(), 31);
    sensors.push(SensorId(999_999));
    let (one, other) = (host(&world, "one", LONG).await, host(&world, "other", LONG).await);
    let (first, second) =
        tokio::join!(world.store.take_sensors(&one, &sensors[..20]), world.store.take_sensors(&other, &sensors[10..]),);
    let (first, second) = (first.unwrap(), second.unwrap());
    let all: BTreeSet<SensorId> = first.iter().chain(&second).copied().collect();
    assert_eq!((first.len() + second.len(), all.len()), (31, 31), "each has one holder");
    world.store.give_back_sensors(&one, &first).await.unwrap();
    assert_eq!(world.store.take_sensors(&other, &first).await.unwrap().len(), first.len());
}
