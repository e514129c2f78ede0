//! A store with a call that panics from some moment on; all others do their work.

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::time::Duration;

use async_trait::async_trait;
use attune_model::message::EventCreated;
use attune_model::rows::{Runtime, RuntimeVersion, SensorProcess, Worker};
use attune_model::status::WorkerStatus;
use attune_model::{ExecutionId, JsonMap, PackEnvironmentId, RuntimeVersionId, SensorId, WorkerId};
use attune_store::{
    AgentStore, Beginning, DesiredSensor, DetectedRuntime, EndedLog, EnvironmentOutcome, EnvironmentRow,
    EnvironmentStore, EnvironmentTarget, FiledLogs, HostProcess, HostSession, LeaseStore, LogArtifact, LogStore,
    LogVersion, ProcessRecord, Renewal, Runner, SensorFile, SensorStore, StoreError, WorkerRegistration,
};
use attune_store_sqlite::SqliteStore;
use chrono::{DateTime, Utc};

#[derive(Debug)]
pub(crate) struct Panicking {
    store: SqliteStore,
    call: Mutex<Option<&'static str>>,
}

impl Panicking {
    pub(crate) fn new(store: SqliteStore) -> Self {
        Self { store, call: Mutex::default() }
    }

    /// From now on this call panics.
    pub(crate) fn panic_in(&self, call: &'static str) {
        *self.call.lock().unwrap() = Some(call);
    }

    fn meet(&self, call: &str) {
        let is_doomed = *self.call.lock().unwrap() == Some(call);
        assert!(!is_doomed, "{call}, on purpose");
    }
}

macro_rules! hand_on {
    ($($role:ident { $($name:ident($($arg:ident: $type:ty),*) -> $answer:ty;)* })*) => {
        $(#[async_trait]
        impl $role for Panicking {
            $(async fn $name(&self, $($arg: $type),*) -> Result<$answer, StoreError> {
                self.meet(stringify!($name));
                self.store.$name($($arg),*).await
            })*
        })*
    };
}

hand_on! {
    AgentStore {
        now() -> DateTime<Utc>;
        register_worker(registration: &WorkerRegistration) -> Worker;
        heartbeat(worker: WorkerId, status: WorkerStatus) -> bool;
        set_worker_status(worker: WorkerId, status: WorkerStatus) -> ();
        set_capabilities(worker: WorkerId, capabilities: &JsonMap) -> ();
        runtimes() -> Vec<Runtime>;
        runtime_versions() -> Vec<RuntimeVersion>;
        add_detected_runtime(runtime: &DetectedRuntime) -> bool;
        set_verified_versions(versions: &[(RuntimeVersionId, bool)]) -> ();
    }
    EnvironmentStore {
        upsert_environment(target: &EnvironmentTarget) -> EnvironmentRow;
        environment(id: PackEnvironmentId) -> Option<EnvironmentRow>;
        claim_environment(id: PackEnvironmentId, worker: WorkerId, lifetime: Duration) -> bool;
        renew_environment_claim(id: PackEnvironmentId, worker: WorkerId, lifetime: Duration) -> bool;
        mark_environment_outdated(id: PackEnvironmentId) -> ();
        finish_environment(id: PackEnvironmentId, worker: WorkerId, outcome: &EnvironmentOutcome) -> bool;
    }
    LogStore {
        add_log_version(artifact: &LogArtifact) -> LogVersion;
        file_logs(logs: &[EndedLog], executions: &[ExecutionId]) -> FiledLogs;
        log_versions(execution: ExecutionId) -> Vec<(String, LogVersion)>;
        sensor_files(sensor_refs: &[String]) -> Vec<SensorFile>;
        set_log_sizes(sizes: &[(i64, u64)]) -> ();
    }
    LeaseStore {
        begin_session(session: &HostSession, before: Option<&HostSession>) -> Beginning;
        renew_session(session: &HostSession) -> Renewal;
        take_sensors(session: &HostSession, sensors: &[SensorId]) -> Vec<SensorId>;
        give_back_sensors(session: &HostSession, sensors: &[SensorId]) -> ();
        correct_rows(session: &HostSession) -> u64;
        is_replaced(process: HostProcess<'_>) -> bool;
        runners_elsewhere(session: &HostSession) -> Vec<Runner>;
    }
    SensorStore {
        desired_sensors() -> Vec<DesiredSensor>;
        pack_stamps() -> BTreeMap<String, String>;
        record_processes(host: HostProcess<'_>, records: &[ProcessRecord<'_>]) -> ();
        known_hosts(hosts: &[WorkerId]) -> Vec<WorkerId>;
        clear_stale_processes(worker: WorkerId) -> u64;
        processes(worker: WorkerId) -> Vec<SensorProcess>;
        insert_alert(payload: &JsonMap) -> Option<EventCreated>;
        process(sensor: SensorId, worker: WorkerId) -> Option<SensorProcess>;
    }
}
