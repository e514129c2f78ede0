//! Desired sensors, the state of their processes, alerts.

use std::collections::HashMap;

use async_trait::async_trait;
use attune_model::message::EventCreated;
use attune_model::rows::{Rule, Runtime, RuntimeVersion, Sensor, SensorProcess, Trigger};
use attune_model::{JsonMap, RuntimeId, SensorId, WorkerId};
use attune_store::{DesiredSensor, ProcessChange, ProcessEnd, SensorStore, StoreError};
use serde_json::json;

use crate::columns::{object, text};
use crate::error::During as _;
use crate::pool::{Query, Unit};
use crate::{PostgresStore, rows};

/// The trigger of alerts and the source that they name (facts of the platform).
const ALERT_TRIGGER: &str = "core.alert";
const ALERT_SOURCE: &str = "attune.system";

#[async_trait]
impl SensorStore for PostgresStore {
    async fn desired_sensors(&self) -> Result<Vec<DesiredSensor>, StoreError> {
        let operation = || "read the desired sensors".to_owned();
        let mut unit = self.read(&operation()).await?;
        let read = read_desired(&mut unit, operation).await;
        let (sensors, runtimes, versions, triggers, rules) = unit.end(read, &operation()).await?;
        join(sensors, runtimes, &versions, (triggers, rules))
    }

    async fn record_process(
        &self,
        sensor: &Sensor,
        worker: (WorkerId, &str),
        active_rules: Option<i32>,
        change: &ProcessChange,
    ) -> Result<(), StoreError> {
        let process = Process { sensor, worker, active_rules: active_rules.map(|count| count.max(0)) };
        let query = match change {
            ProcessChange::Starting => process.starting(),
            ProcessChange::Running { pid, reset_failures } => process.running(*pid, *reset_failures),
            ProcessChange::Stopped => process.stopped(),
            ProcessChange::Backoff(end) => process.backoff(end),
            ProcessChange::Alerted { failures } => process.alerted(*failures),
        };
        let done = self.pool.execute(query).await;
        done.during(|| format!("record a change of sensor {} on worker {}", sensor.r#ref, worker.1)).map(drop)
    }

    async fn clear_stale_processes(&self, worker: WorkerId) -> Result<u64, StoreError> {
        let query = sqlx::query(
            r"
            UPDATE sensor_process SET status = 'stopped', pid = NULL, last_stopped_at = now(), next_restart_at = NULL
            WHERE worker = $1 AND (status IN ('starting', 'running', 'backoff') OR pid IS NOT NULL)
            ",
        )
        .bind(worker.0);
        let done = self.pool.execute(query).await;
        done.during(|| format!("clear the sensor processes of an earlier life of worker {worker}"))
    }

    async fn processes(&self, worker: WorkerId) -> Result<Vec<SensorProcess>, StoreError> {
        let query = sqlx::query(
            "SELECT to_json(sensor_process.*) FROM sensor_process WHERE worker = $1 ORDER BY sensor_ref COLLATE \"C\"",
        )
        .bind(worker.0);
        self.rows(query, rows::sensor_process, || format!("read the sensor processes of worker {worker}")).await
    }

    async fn insert_alert(&self, payload: &JsonMap) -> Result<Option<EventCreated>, StoreError> {
        let query = sqlx::query(
            r#"
            INSERT INTO event ("trigger", trigger_ref, payload, source_ref)
            SELECT id, ref, $2::jsonb, $3 FROM "trigger" WHERE ref = $1
            RETURNING to_json(event.*)
            "#,
        )
        .bind(ALERT_TRIGGER)
        .bind(object(payload))
        .bind(ALERT_SOURCE);
        let event = self.first(query, rows::event, || "store an alert".to_owned()).await?;
        Ok(event.map(|event| EventCreated {
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
        let query =
            sqlx::query("SELECT to_json(sensor_process.*) FROM sensor_process WHERE sensor = $1 AND worker = $2")
                .bind(sensor.0)
                .bind(worker.0);
        let operation = || format!("read the process of sensor {sensor} on worker {worker}");
        self.first(query, rows::sensor_process, operation).await
    }
}

type Desired = (Vec<Sensor>, Vec<Runtime>, Vec<RuntimeVersion>, Vec<Trigger>, Vec<Rule>);

/// Sorted by bytes, as the other backend sorts, and not by the language of the database.
async fn read_desired(unit: &mut Unit, operation: fn() -> String) -> Result<Desired, StoreError> {
    let sensors = sqlx::query(r#"SELECT to_json(sensor.*) FROM sensor WHERE enabled ORDER BY ref COLLATE "C""#);
    let runtimes = sqlx::query("SELECT to_json(runtime.*) FROM runtime");
    let versions = sqlx::query("SELECT to_json(runtime_version.*) FROM runtime_version ORDER BY runtime, id");
    let triggers =
        sqlx::query(r#"SELECT to_json("trigger".*) FROM "trigger" WHERE sensor IS NOT NULL ORDER BY ref COLLATE "C""#);
    let rules = sqlx::query(r#"SELECT to_json(rule.*) FROM rule WHERE enabled AND "trigger" IS NOT NULL ORDER BY id"#);
    Ok((
        unit.rows(sensors, rows::sensor, operation).await?,
        unit.rows(runtimes, rows::runtime, operation).await?,
        unit.rows(versions, rows::runtime_version, operation).await?,
        unit.rows(triggers, rows::trigger, operation).await?,
        unit.rows(rules, rows::rule, operation).await?,
    ))
}

/// Puts every sensor together with what belongs to it, in the order of the given lists.
fn join(
    sensors: Vec<Sensor>,
    runtimes: Vec<Runtime>,
    versions: &[RuntimeVersion],
    (triggers, rules): (Vec<Trigger>, Vec<Rule>),
) -> Result<Vec<DesiredSensor>, StoreError> {
    let runtimes: HashMap<RuntimeId, Runtime> = runtimes.into_iter().map(|runtime| (runtime.id, runtime)).collect();
    let mut rules_of = group(rules, |rule: &Rule| rule.trigger);
    let mut triggers_of = group(triggers, |trigger: &Trigger| trigger.sensor);
    sensors
        .into_iter()
        .map(|sensor| {
            // A foreign key holds the two together, so this cannot be.
            let runtime = runtimes.get(&sensor.runtime).cloned().ok_or_else(|| StoreError::Inconsistent {
                table: "sensor",
                column: "runtime",
                key: sensor.id.to_string(),
                detail: format!("there is no runtime {}", sensor.runtime),
            })?;
            let triggers: Vec<Trigger> = triggers_of.remove(&sensor.id).unwrap_or_default();
            let rules = triggers.iter().flat_map(|trigger| rules_of.remove(&trigger.id).unwrap_or_default()).collect();
            let runtime_versions =
                versions.iter().filter(|version| version.runtime == sensor.runtime).cloned().collect();
            Ok(DesiredSensor { sensor, runtime, runtime_versions, triggers, rules })
        })
        .collect()
}

/// Keeps the order inside each group.
fn group<K: std::hash::Hash + Eq, T>(items: Vec<T>, key: impl Fn(&T) -> Option<K>) -> HashMap<K, Vec<T>> {
    let mut groups: HashMap<K, Vec<T>> = HashMap::new();
    for item in items {
        if let Some(key) = key(&item) {
            groups.entry(key).or_default().push(item);
        }
    }
    groups
}

/// The row to change, and the rule count to write along.
struct Process<'a> {
    sensor: &'a Sensor,
    worker: (WorkerId, &'a str),
    active_rules: Option<i32>,
}

/// Makes the row where there is none, unless the sensor itself is gone. `set` is what the change writes.
macro_rules! upsert_process {
    ($columns:literal, $values:literal, $set:literal) => {
        concat!(
            "INSERT INTO sensor_process (sensor, sensor_ref, worker, worker_name, log_artifact_ref, active_rule_count, ",
            $columns,
            ") SELECT id, ref, $2, $3, 'sensor.' || ref || '.stderr', coalesce($4, 0), ",
            $values,
            " FROM sensor WHERE id = $1
              ON CONFLICT (sensor, worker) DO UPDATE SET
                  sensor_ref = excluded.sensor_ref,
                  worker_name = excluded.worker_name,
                  log_artifact_ref = excluded.log_artifact_ref,
                  active_rule_count = coalesce($4, sensor_process.active_rule_count), ",
            $set
        )
    };
}

impl<'a> Process<'a> {
    fn query(&self, sql: &'static str) -> Query<'a> {
        sqlx::query(sql).bind(self.sensor.id.0).bind(self.worker.0.0).bind(self.worker.1).bind(self.active_rules)
    }

    fn starting(&self) -> Query<'a> {
        self.query(upsert_process!(
            "status",
            "'starting'::sensor_process_status_enum",
            "status = excluded.status, pid = NULL, next_restart_at = NULL"
        ))
    }

    fn running(&self, pid: i32, reset: bool) -> Query<'a> {
        self.query(upsert_process!(
            "status, pid, last_started_at, meta",
            "'running'::sensor_process_status_enum, $5, now(), $7::jsonb",
            "status = excluded.status, pid = excluded.pid, last_started_at = excluded.last_started_at,
             last_stopped_at = NULL, next_restart_at = NULL, last_exit_code = NULL, last_signal = NULL,
             stderr_excerpt = NULL, meta = sensor_process.meta || excluded.meta,
             consecutive_failures = CASE WHEN $6 THEN 0 ELSE sensor_process.consecutive_failures END,
             last_alerted_failure_count = CASE WHEN $6 THEN 0 ELSE sensor_process.last_alerted_failure_count END,
             last_alerted_at = CASE WHEN $6 THEN NULL ELSE sensor_process.last_alerted_at END"
        ))
        .bind(pid)
        .bind(reset)
        .bind(json!({"manager": "attune-sensor", "reset_failure_count": reset}).to_string())
    }

    /// Alert marks go back to 0 together with the failures.
    fn backoff(&self, end: &ProcessEnd) -> Query<'a> {
        self.query(upsert_process!(
            "status, last_stopped_at, consecutive_failures, last_exit_code, last_signal, stderr_excerpt, next_restart_at",
            "'backoff'::sensor_process_status_enum, now(), $5, $6, $7, $8, $9",
            "status = excluded.status, pid = NULL, last_stopped_at = excluded.last_stopped_at,
             consecutive_failures = excluded.consecutive_failures, last_exit_code = excluded.last_exit_code,
             last_signal = excluded.last_signal, stderr_excerpt = excluded.stderr_excerpt,
             next_restart_at = excluded.next_restart_at,
             last_alerted_failure_count =
                 CASE $5 WHEN 0 THEN 0 ELSE sensor_process.last_alerted_failure_count END,
             last_alerted_at = CASE $5 WHEN 0 THEN NULL ELSE sensor_process.last_alerted_at END"
        ))
        .bind(end.consecutive_failures)
        .bind(end.exit_code)
        .bind(end.signal)
        .bind(end.stderr_excerpt.as_deref().map(text))
        .bind(end.next_restart_at)
    }

    /// The end of something that was never recorded is not recorded either.
    fn stopped(&self) -> Query<'a> {
        sqlx::query(
            r"
            UPDATE sensor_process SET status = 'stopped', pid = NULL, last_stopped_at = now(), next_restart_at = NULL,
                active_rule_count = coalesce($3, active_rule_count)
            WHERE sensor = $1 AND worker = $2
            ",
        )
        .bind(self.sensor.id.0)
        .bind(self.worker.0.0)
        .bind(self.active_rules)
    }

    fn alerted(&self, failures: i32) -> Query<'a> {
        sqlx::query(
            r"
            UPDATE sensor_process SET last_alerted_failure_count = $4, last_alerted_at = now(),
                active_rule_count = coalesce($3, active_rule_count)
            WHERE sensor = $1 AND worker = $2
            ",
        )
        .bind(self.sensor.id.0)
        .bind(self.worker.0.0)
        .bind(self.active_rules)
        .bind(failures)
    }
}
