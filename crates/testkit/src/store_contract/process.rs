//! What became of one sensor on one host.

use attune_model::rows::SensorProcess;
use attune_model::status::{SensorProcessStatus as Status, WorkerRole};
use attune_model::{SensorId, WorkerId};
use attune_store::{HostProcess, ProcessChange, ProcessEnd, ProcessRecord};
use uuid::Uuid;

use super::Lab;
use super::seed::{World, empty, long_ago, sensor, worker};

struct Host {
    world: World,
    id: WorkerId,
}

impl Host {
    async fn new(lab: &dyn Lab) -> Self {
        let world = World::new(lab).await;
        let id = world.store.register_worker(&worker("host", WorkerRole::Sensor)).await.unwrap().id;
        Self { world, id }
    }

    fn process(&self) -> HostProcess<'_> {
        HostProcess { worker: self.id, worker_name: "host", id: Uuid::nil() }
    }

    async fn record(&self, rules: Option<i32>, change: ProcessChange) {
        let sensor = &self.world.sensor;
        self.world.store.record_process(sensor, self.process(), rules, &change).await.unwrap();
    }

    async fn row(&self) -> Option<SensorProcess> {
        self.world.store.process(self.world.sensor.id, self.id).await.unwrap()
    }
}

fn running(pid: i32) -> ProcessChange {
    ProcessChange::Running { pid, reset_failures: false }
}

fn failure(count: i32) -> ProcessChange {
    ProcessChange::Backoff(ProcessEnd {
        consecutive_failures: count,
        exit_code: Some(3),
        signal: None,
        stderr_excerpt: Some("no such host\nüber".to_owned()),
        next_restart_at: Some(long_ago()),
    })
}

/// Every column after every step.
pub async fn a_process_runs_fails_and_is_stopped(lab: &dyn Lab) {
    let host = Host::new(lab).await;
    assert_eq!(host.row().await, None);

    host.record(Some(2), ProcessChange::Starting).await;
    let row = host.row().await.unwrap();
    assert_eq!((row.status, row.pid, row.active_rule_count), (Status::Starting, None, 2));
    assert_eq!((row.sensor_ref.as_str(), row.worker_name.as_str()), ("demo.clock", "host"));
    assert_eq!(row.log_artifact_ref.as_deref(), Some("sensor.demo.clock.stderr"));

    host.record(Some(2), running(4242)).await;
    let row = host.row().await.unwrap();
    assert_eq!((row.status, row.pid), (Status::Running, Some(4242)));
    let started = row.last_started_at.unwrap();

    host.record(Some(2), failure(1)).await;
    let row = host.row().await.unwrap();
    assert_eq!((row.status, row.pid, row.consecutive_failures), (Status::Backoff, None, 1));
    assert_eq!((row.last_exit_code, row.last_signal), (Some(3), None));
    assert_eq!(row.stderr_excerpt.as_deref(), Some("no such host\nüber"));
    assert_eq!(row.next_restart_at, Some(long_ago()));
    assert!(row.last_stopped_at.unwrap() >= started);

    host.record(Some(3), running(4243)).await;
    let row = host.row().await.unwrap();
    assert_eq!((row.status, row.pid, row.active_rule_count), (Status::Running, Some(4243), 3));
    assert_eq!((row.last_exit_code, row.last_signal, row.stderr_excerpt), (None, None, None));
    assert_eq!((row.next_restart_at, row.last_stopped_at), (None, None));
    assert_eq!(row.consecutive_failures, 1, "it has not been healthy yet");

    host.record(Some(0), ProcessChange::Stopped).await;
    let row = host.row().await.unwrap();
    assert_eq!((row.status, row.pid, row.active_rule_count), (Status::Stopped, None, 0));
    assert!(row.last_stopped_at.is_some());
    assert_eq!(host.world.store.processes(host.id).await.unwrap(), [row]);
    assert_eq!(host.world.store.processes(WorkerId(4711)).await.unwrap(), []);
}

/// Alert marks go back together with the failures.
pub async fn failures_are_counted_by_the_caller_and_reset_on_request(lab: &dyn Lab) {
    let host = Host::new(lab).await;
    let marks = |row: SensorProcess| (row.consecutive_failures, row.last_alerted_failure_count);
    host.record(Some(1), failure(3)).await;
    host.record(None, ProcessChange::Alerted { failures: 3 }).await;
    assert_eq!(marks(host.row().await.unwrap()), (3, 3));
    host.record(None, failure(4)).await;
    assert_eq!(marks(host.row().await.unwrap()), (4, 3));
    host.record(None, ProcessChange::Running { pid: 1, reset_failures: true }).await;
    assert_eq!(marks(host.row().await.unwrap()), (0, 0));

    host.record(None, failure(5)).await;
    host.record(None, ProcessChange::Alerted { failures: 5 }).await;
    host.record(None, ProcessChange::Backoff(ProcessEnd::default())).await;
    let row = host.row().await.unwrap();
    assert_eq!((row.last_exit_code, row.stderr_excerpt.as_ref()), (None, None));
    assert_eq!(marks(row), (0, 0), "a planned restart is no failure");
}

/// Whoever stops a process need not have counted its rules.
pub async fn the_rule_count_stays_when_it_is_unknown(lab: &dyn Lab) {
    let host = Host::new(lab).await;
    host.record(Some(7), running(1)).await;
    for change in [
        ProcessChange::Stopped,
        ProcessChange::Starting,
        running(2),
        failure(1),
        ProcessChange::Alerted { failures: 1 },
        ProcessChange::Rules,
    ] {
        host.record(None, change).await;
        assert_eq!(host.row().await.unwrap().active_rule_count, 7);
    }
    host.record(Some(0), ProcessChange::Stopped).await;
    assert_eq!(host.row().await.unwrap().active_rule_count, 0);
}

/// A process that learns of its rules by itself goes on.
pub async fn another_number_of_rules_changes_nothing_else(lab: &dyn Lab) {
    let host = Host::new(lab).await;
    host.record(Some(7), ProcessChange::Rules).await;
    assert!(host.row().await.is_none(), "nothing has run");
    host.record(Some(7), failure(2)).await;
    host.record(Some(7), running(1)).await;
    let before = host.row().await.unwrap();
    host.record(Some(8), ProcessChange::Rules).await;
    let row = host.row().await.unwrap();
    assert_eq!(row.active_rule_count, 8);
    assert_eq!(SensorProcess { active_rule_count: 7, ..row }, before);
}

/// Its pack was removed while its process was stopped.
pub async fn a_sensor_that_is_gone_is_no_error(lab: &dyn Lab) {
    let host = Host::new(lab).await;
    host.record(Some(1), running(1)).await;
    host.world.store.delete_pack("demo").await.unwrap().unwrap();
    assert_eq!(host.row().await, None, "the row goes with its sensor");
    for change in [
        ProcessChange::Starting,
        running(2),
        failure(1),
        ProcessChange::Alerted { failures: 1 },
        ProcessChange::Stopped,
    ] {
        host.record(Some(1), change).await;
    }
    assert_eq!(host.row().await, None);
    assert_eq!(host.world.store.process(SensorId(4711), host.id).await.unwrap(), None);
}

/// Rows of other hosts stay. Nobody waits out the failures of an earlier life, but they still count.
pub async fn nothing_of_an_earlier_life_is_alive(lab: &dyn Lab) {
    let host = Host::new(lab).await;
    let other = host.world.store.register_worker(&worker("other", WorkerRole::Sensor)).await.unwrap().id;
    let sensor = &host.world.sensor;
    let known = host.world.store.known_hosts(&[other, WorkerId(4711), host.id]).await.unwrap();
    assert_eq!(known, [host.id, other], "and those without a row are not");
    host.world
        .store
        .record_process(
            sensor,
            HostProcess { worker: other, worker_name: "other", id: Uuid::nil() },
            Some(1),
            &running(9),
        )
        .await
        .unwrap();
    for change in [ProcessChange::Starting, running(5)] {
        host.record(Some(2), change).await;
        assert_eq!(host.world.store.clear_stale_processes(host.id).await.unwrap(), 1);
        let row = host.row().await.unwrap();
        assert_eq!((row.status, row.pid, row.active_rule_count), (Status::Stopped, None, 2));
        assert!(row.last_stopped_at.is_some());
        assert_eq!(host.world.store.clear_stale_processes(host.id).await.unwrap(), 0);
    }
    host.record(Some(2), failure(2)).await;
    assert_eq!(host.world.store.clear_stale_processes(host.id).await.unwrap(), 1);
    let row = host.row().await.unwrap();
    assert_eq!((row.status, row.next_restart_at), (Status::Stopped, None));
    assert_eq!(row.consecutive_failures, 2);
    assert_eq!(host.world.store.processes(other).await.unwrap()[0].status, Status::Running);
}

/// As many as are there after a start of the host, and several of one sensor, whose order counts.
pub async fn many_changes_are_written_together_and_in_order(lab: &dyn Lab) {
    let host = Host::new(lab).await;
    let mut pack = empty("many");
    pack.sensors = (0..20).map(|number| sensor(&format!("many.s{number}"), "demo.python", &[])).collect();
    host.world.store.upsert_pack(&pack).await.unwrap();
    let desired = host.world.store.desired_sensors().await.unwrap();
    let sensors: Vec<_> = desired.into_iter().map(|desired| desired.sensor).collect();
    let write = async |changes: &[(usize, Option<i32>, ProcessChange)]| {
        let record =
            |(at, rules, change): &(usize, Option<i32>, ProcessChange)| (&sensors[*at], *rules, change.clone());
        let owned: Vec<_> = changes.iter().map(record).collect();
        let records: Vec<_> = owned
            .iter()
            .map(|(sensor, active_rules, change)| ProcessRecord { sensor, active_rules: *active_rules, change })
            .collect();
        host.world.store.record_processes(host.process(), &records).await.unwrap();
    };
    let all_failed: Vec<_> = (0..sensors.len()).map(|at| (at, Some(3), failure(2))).collect();
    write(&all_failed).await;
    let pid = |at: usize| 1000 + i32::try_from(at).unwrap();
    let all_run =
        (0..sensors.len()).map(|at| (at, None, ProcessChange::Running { pid: pid(at), reset_failures: at % 2 == 0 }));
    write(&all_run.collect::<Vec<_>>()).await;
    let rows = host.world.store.processes(host.id).await.unwrap();
    assert_eq!(rows.len(), sensors.len());
    for (at, row) in rows.iter().enumerate() {
        let failures = if at % 2 == 0 { 0 } else { 2 };
        assert_eq!((row.sensor, row.status, row.pid), (sensors[at].id, Status::Running, Some(pid(at))));
        assert_eq!((row.active_rule_count, row.consecutive_failures), (3, failures), "{}", row.sensor_ref);
    }
    // The last word about each counts, whatever is said about the others.
    write(&[
        (0, Some(1), ProcessChange::Stopped),
        (1, Some(1), running(7)),
        (0, Some(1), running(8)),
        (2, Some(1), failure(1)),
        (2, Some(1), ProcessChange::Alerted { failures: 1 }),
        (1, Some(1), ProcessChange::Stopped),
    ])
    .await;
    let rows = host.world.store.processes(host.id).await.unwrap();
    let said: Vec<_> = rows.iter().take(3).map(|row| (row.status, row.pid, row.last_alerted_failure_count)).collect();
    assert_eq!(said, [(Status::Running, Some(8), 0), (Status::Stopped, None, 0), (Status::Backoff, None, 1)]);
    write(&[]).await;
}
