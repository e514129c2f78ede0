//! Desired sensors, the state of their processes, alerts.

use std::collections::BTreeMap;

use async_trait::async_trait;
use attune_model::message::EventCreated;
use attune_model::rows::{Sensor, SensorProcess};
use attune_model::{JsonMap, SensorId, WorkerId};
use attune_store::{DesiredSensor, HostProcess, ProcessChange, ProcessEnd, ProcessRecord, SensorStore, StoreError};
use serde_json::json;
use sqlx::sqlite::{SqliteConnection, SqliteRow};

use crate::columns::{micros, object};
use crate::error::During;
use crate::lease::has_other_process;
use crate::{Query, SqliteStore, now, rows, written};

/// The trigger of alerts and the source that they name (facts of the platform).
const ALERT_TRIGGER: &str = "core.alert";
const ALERT_SOURCE: &str = "attune.system";

#[async_trait]
impl SensorStore for SqliteStore {
    async fn desired_sensors(&self) -> Result<Vec<DesiredSensor>, StoreError> {
        let mut unit = self.read("read the desired sensors").await?;
        let sensors = read_all(&mut unit, "SELECT * FROM sensor WHERE enabled ORDER BY ref", rows::sensor).await?;
        let runtimes = read_all(&mut unit, "SELECT * FROM runtime", rows::runtime).await?;
        let versions =
            read_all(&mut unit, "SELECT * FROM runtime_version ORDER BY runtime, id", rows::runtime_version).await?;
        let triggers =
            read_all(&mut unit, r#"SELECT * FROM "trigger" WHERE sensor IS NOT NULL ORDER BY ref"#, rows::trigger)
                .await?;
        let rules = read_all(
            &mut unit,
            r#"SELECT * FROM rule WHERE enabled AND "trigger" IS NOT NULL ORDER BY id"#,
            rows::rule,
        )
        .await?;
        unit.commit().await.during(|| "read the desired sensors".to_owned())?;

        DesiredSensor::join(sensors, runtimes, versions, (triggers, rules))
    }

    async fn pack_stamps(&self) -> Result<BTreeMap<String, String>, StoreError> {
        let stamps = sqlx::query_as("SELECT ref, id || ' ' || version || ' ' || updated FROM pack")
            .fetch_all(&self.readers)
            .await;
        let stamps: Vec<(String, String)> = stamps.during(|| "read which packs have changed".to_owned())?;
        Ok(stamps.into_iter().collect())
    }

    async fn record_processes(&self, host: HostProcess<'_>, records: &[ProcessRecord<'_>]) -> Result<(), StoreError> {
        let operation = || format!("record changes of sensors on worker {}", host.worker_name);
        let mut unit = self.write(&operation()).await?;
        if !has_other_process(&mut unit, host).await.during(operation)? {
            for record in records {
                write_record(&mut unit, host, record).await.during(operation)?;
            }
        }
        unit.commit().await.during(operation)
    }

    async fn known_hosts(&self, hosts: &[WorkerId]) -> Result<Vec<WorkerId>, StoreError> {
        let found: Vec<i64> =
            sqlx::query_scalar("SELECT id FROM worker WHERE id IN (SELECT value FROM json_each(?1)) ORDER BY id")
                .bind(serde_json::json!(hosts).to_string())
                .fetch_all(&self.readers)
                .await
                .during(|| "look for the rows of hosts".to_owned())?;
        Ok(found.into_iter().map(WorkerId).collect())
    }

    async fn clear_stale_processes(&self, worker: WorkerId) -> Result<u64, StoreError> {
        sqlx::query(
            r"
            UPDATE sensor_process SET status = 'stopped', pid = NULL, last_stopped_at = ?2, next_restart_at = NULL,
                                      updated = ?2
            WHERE worker = ?1 AND (status IN ('starting', 'running', 'backoff') OR pid IS NOT NULL)
            ",
        )
        .bind(worker.0)
        .bind(micros(now()))
        .execute(&self.writer)
        .await
        .during(|| format!("clear the sensor processes of an earlier life of worker {worker}"))
        .map(|done| done.rows_affected())
    }

    async fn processes(&self, worker: WorkerId) -> Result<Vec<SensorProcess>, StoreError> {
        let found = sqlx::query("SELECT * FROM sensor_process WHERE worker = ?1 ORDER BY sensor_ref")
            .bind(worker.0)
            .fetch_all(&self.readers)
            .await
            .during(|| format!("read the sensor processes of worker {worker}"))?;
        found.iter().map(rows::sensor_process).collect()
    }

    async fn insert_alert(&self, payload: &JsonMap) -> Result<Option<EventCreated>, StoreError> {
        let query = sqlx::query(
            r#"
            INSERT INTO event ("trigger", trigger_ref, payload, source_ref, created)
            SELECT id, ref, ?2, ?3, ?4 FROM "trigger" WHERE ref = ?1
            RETURNING *
            "#,
        )
        .bind(ALERT_TRIGGER)
        .bind(object(payload))
        .bind(ALERT_SOURCE)
        .bind(micros(now()));
        let row = written(query, &self.writer).await.during(|| "store an alert".to_owned())?;
        let Some(event) = row.map(|row| rows::event(&row)).transpose()? else {
            return Ok(None);
        };
        Ok(Some(EventCreated {
            event_id: event.id,
            trigger_id: event.trigger,
            trigger_ref: event.trigger_ref,
            sensor_id: event.source,
            sensor_ref: event.source_ref,
            payload: event.payload,
            config: event.config,
        }))
    }

    async fn process(&self, sensor: SensorId, worker: WorkerId) -> Result<Option<SensorProcess>, StoreError> {
        let row = sqlx::query("SELECT * FROM sensor_process WHERE sensor = ?1 AND worker = ?2")
            .bind(sensor.0)
            .bind(worker.0)
            .fetch_optional(&self.readers)
            .await
            .during(|| format!("read the process of sensor {sensor} on worker {worker}"))?;
        row.map(|row| rows::sensor_process(&row)).transpose()
    }
}

async fn write_record(
    unit: &mut SqliteConnection,
    host: HostProcess<'_>,
    record: &ProcessRecord<'_>,
) -> Result<(), sqlx::Error> {
    let ProcessRecord { sensor, active_rules, change } = record;
    insert_missing(unit, sensor, host, change).await?;
    let process =
        Process { sensor: sensor.id, worker: host.worker, active_rules: active_rules.map(|count| count.max(0)) };
    let update = match change {
        ProcessChange::Starting => process.starting(),
        ProcessChange::Running { pid, reset_failures } => process.running(*pid, *reset_failures),
        ProcessChange::Stopped => process.stopped(),
        ProcessChange::Backoff(end) => process.backoff(end),
        ProcessChange::Alerted { failures } => process.alerted(*failures),
        ProcessChange::Rules => process.rules(),
    };
    update.execute(unit).await.map(drop)
}

async fn read_all<T>(
    unit: &mut SqliteConnection,
    sql: &'static str,
    row: fn(&SqliteRow) -> Result<T, StoreError>,
) -> Result<Vec<T>, StoreError> {
    let found = sqlx::query(sql).fetch_all(unit).await.during(|| "read the desired sensors".to_owned())?;
    found.iter().map(row).collect()
}

/// The row must exist for the update that follows, unless the sensor itself is gone or the change is about an end of
/// something that was never recorded.
async fn insert_missing(
    unit: &mut SqliteConnection,
    sensor: &Sensor,
    host: HostProcess<'_>,
    change: &ProcessChange,
) -> Result<(), sqlx::Error> {
    if matches!(change, ProcessChange::Stopped | ProcessChange::Alerted { .. } | ProcessChange::Rules) {
        return Ok(());
    }
    sqlx::query(
        r"
        INSERT INTO sensor_process (sensor, sensor_ref, worker, worker_name, log_artifact_ref, created, updated)
        SELECT id, ref, ?2, ?3, 'sensor.' || ref || '.stderr', ?4, ?4 FROM sensor WHERE id = ?1
        ON CONFLICT (sensor, worker) DO UPDATE SET
            sensor_ref = excluded.sensor_ref,
            worker_name = excluded.worker_name,
            log_artifact_ref = excluded.log_artifact_ref
        ",
    )
    .bind(sensor.id.0)
    .bind(host.worker.0)
    .bind(host.worker_name)
    .bind(micros(now()))
    .execute(unit)
    .await
    .map(drop)
}

/// The row to change, and the rule count to write along.
struct Process {
    sensor: SensorId,
    worker: WorkerId,
    active_rules: Option<i32>,
}

impl Process {
    fn update<'q>(&self, sql: &'static str) -> Query<'q> {
        sqlx::query(sql).bind(self.sensor.0).bind(self.worker.0).bind(self.active_rules).bind(micros(now()))
    }

    fn starting<'q>(&self) -> Query<'q> {
        self.update(
            r"
            UPDATE sensor_process SET status = 'starting', pid = NULL, next_restart_at = NULL,
                active_rule_count = coalesce(?3, active_rule_count), updated = ?4
            WHERE sensor = ?1 AND worker = ?2
            ",
        )
    }

    fn running<'q>(&self, pid: i32, reset: bool) -> Query<'q> {
        self.update(
            r"
            UPDATE sensor_process SET status = 'running', pid = ?5, last_started_at = ?4, last_stopped_at = NULL,
                next_restart_at = NULL, last_exit_code = NULL, last_signal = NULL, stderr_excerpt = NULL,
                consecutive_failures = CASE WHEN ?6 THEN 0 ELSE consecutive_failures END,
                last_alerted_failure_count = CASE WHEN ?6 THEN 0 ELSE last_alerted_failure_count END,
                last_alerted_at = CASE WHEN ?6 THEN NULL ELSE last_alerted_at END,
                meta = json_patch(meta, ?7), active_rule_count = coalesce(?3, active_rule_count), updated = ?4
            WHERE sensor = ?1 AND worker = ?2
            ",
        )
        .bind(pid)
        .bind(reset)
        .bind(json!({"manager": "attune-sensor", "reset_failure_count": reset}).to_string())
    }

    fn stopped<'q>(&self) -> Query<'q> {
        self.update(
            r"
            UPDATE sensor_process SET status = 'stopped', pid = NULL, last_stopped_at = ?4, next_restart_at = NULL,
                active_rule_count = coalesce(?3, active_rule_count), updated = ?4
            WHERE sensor = ?1 AND worker = ?2
            ",
        )
    }

    /// Alert marks go back to 0 together with the failures.
    fn backoff<'q>(&self, end: &'q ProcessEnd) -> Query<'q> {
        self.update(
            r"
            UPDATE sensor_process SET status = 'backoff', pid = NULL, last_stopped_at = ?4, consecutive_failures = ?5,
                last_exit_code = ?6, last_signal = ?7, stderr_excerpt = ?8, next_restart_at = ?9,
                last_alerted_failure_count = CASE ?5 WHEN 0 THEN 0 ELSE last_alerted_failure_count END,
                last_alerted_at = CASE ?5 WHEN 0 THEN NULL ELSE last_alerted_at END,
                active_rule_count = coalesce(?3, active_rule_count), updated = ?4
            WHERE sensor = ?1 AND worker = ?2
            ",
        )
        .bind(end.consecutive_failures)
        .bind(end.exit_code)
        .bind(end.signal)
        .bind(&end.stderr_excerpt)
        .bind(end.next_restart_at.map(micros))
    }

    fn rules<'q>(&self) -> Query<'q> {
        self.update(
            r"
            UPDATE sensor_process SET active_rule_count = coalesce(?3, active_rule_count), updated = ?4
            WHERE sensor = ?1 AND worker = ?2
            ",
        )
    }

    fn alerted<'q>(&self, failures: i32) -> Query<'q> {
        self.update(
            r"
            UPDATE sensor_process SET last_alerted_failure_count = ?5, last_alerted_at = ?4,
                active_rule_count = coalesce(?3, active_rule_count), updated = ?4
            WHERE sensor = ?1 AND worker = ?2
            ",
        )
        .bind(failures)
    }
}
