//! Desired sensors, the state of their processes, alerts.

use std::collections::BTreeMap;

use async_trait::async_trait;
use attune_model::message::EventCreated;
use attune_model::rows::{Rule, Runtime, RuntimeVersion, Sensor, SensorProcess, Trigger};
use attune_model::{JsonMap, SensorId, WorkerId};
use attune_store::{DesiredSensor, HostProcess, ProcessChange, ProcessEnd, ProcessRecord, SensorStore, StoreError};
use sqlx::Row as _;

use crate::columns::{object, text};
use crate::error::During as _;
use crate::lease::has_rows;
use crate::pool::{Query, Unit};
use crate::{PostgresStore, rows};

/// The trigger of alerts and the source that they name (facts of the platform).
const ALERT_TRIGGER: &str = "core.alert";
const ALERT_SOURCE: &str = "attune.system";

/// A row as text is all of it. Tables that are read whole are hashed whole.
const DIGEST: &str = r#"
    SELECT concat_ws(' ',
        (SELECT coalesce(md5(string_agg(of::text, '' ORDER BY id)), '') FROM sensor AS of WHERE enabled),
        (SELECT coalesce(md5(string_agg(of::text, '' ORDER BY id)), '') FROM runtime AS of),
        (SELECT coalesce(md5(string_agg(of::text, '' ORDER BY id)), '') FROM runtime_version AS of),
        (SELECT coalesce(md5(string_agg(of::text, '' ORDER BY id)), '') FROM "trigger" AS of WHERE sensor IS NOT NULL),
        (SELECT coalesce(md5(string_agg(of::text, '' ORDER BY id)), '') FROM rule AS of
            WHERE enabled AND "trigger" IS NOT NULL))
"#;

/// Rows are locked in the order of sensors. $1, $2 and $7 are the host; the rest are columns of equal length.
const RUNNING: &str = concat!(
    "
    INSERT INTO sensor_process (sensor, sensor_ref, worker, worker_name, log_artifact_ref, active_rule_count, status, pid,
                                last_started_at, meta)
    SELECT sensor.id, sensor.ref, $1, $2, 'sensor.' || sensor.ref || '.stderr', coalesce(new.active_rules, old.active_rule_count, 0),
           'running', new.pid, now(), jsonb_build_object('manager', 'attune-sensor', 'reset_failure_count', new.reset)
    FROM unnest($3::bigint[], $4::int[], $5::int[], $6::boolean[]) AS new (sensor, active_rules, pid, reset)
    JOIN sensor ON sensor.id = new.sensor
    LEFT JOIN sensor_process AS old ON old.sensor = new.sensor AND old.worker = $1
    WHERE ",
    has_rows!("$1", "$7"),
    "
    ORDER BY sensor.id
    ON CONFLICT (sensor, worker) DO UPDATE SET
        sensor_ref = excluded.sensor_ref,
        worker_name = excluded.worker_name,
        log_artifact_ref = excluded.log_artifact_ref,
        active_rule_count = excluded.active_rule_count,
        status = excluded.status, pid = excluded.pid, last_started_at = excluded.last_started_at,
        last_stopped_at = NULL, next_restart_at = NULL, last_exit_code = NULL, last_signal = NULL,
        stderr_excerpt = NULL, meta = sensor_process.meta || excluded.meta,
        consecutive_failures = CASE WHEN (excluded.meta ->> 'reset_failure_count')::boolean
            THEN 0 ELSE sensor_process.consecutive_failures END,
        last_alerted_failure_count = CASE WHEN (excluded.meta ->> 'reset_failure_count')::boolean
            THEN 0 ELSE sensor_process.last_alerted_failure_count END,
        last_alerted_at = CASE WHEN (excluded.meta ->> 'reset_failure_count')::boolean
            THEN NULL ELSE sensor_process.last_alerted_at END
"
);

#[async_trait]
impl SensorStore for PostgresStore {
    async fn desired_sensors(&self) -> Result<Vec<DesiredSensor>, StoreError> {
        let operation = || "read the desired sensors".to_owned();
        let mut unit = self.read(&operation()).await?;
        let read = read_desired(&mut unit, operation).await;
        let (sensors, runtimes, versions, triggers, rules) = unit.end(read, &operation()).await?;
        DesiredSensor::join(sensors, runtimes, versions, (triggers, rules))
    }

    async fn desired_digest(&self) -> Result<String, StoreError> {
        let row = self.pool.one(sqlx::query(DIGEST)).await;
        row.and_then(|row| row.try_get(0)).during(|| "read whether the desired sensors have changed".to_owned())
    }

    async fn pack_stamps(&self) -> Result<BTreeMap<String, String>, StoreError> {
        let rows = self.pool.all(sqlx::query("SELECT ref, md5(of::text) FROM pack AS of")).await;
        let stamps = rows.and_then(|rows| rows.iter().map(|row| Ok((row.try_get(0)?, row.try_get(1)?))).collect());
        stamps.during(|| "read which packs have changed".to_owned())
    }

    async fn record_processes(&self, host: HostProcess<'_>, records: &[ProcessRecord<'_>]) -> Result<(), StoreError> {
        let operation = || format!("record changes of sensors on worker {}", host.worker_name);
        let mut queries = queries(host, records);
        if queries.len() == 1 {
            let only = self.pool.execute(queries.remove(0)).await;
            return only.during(operation).map(drop);
        }
        let mut unit = self.write(&operation()).await?;
        let written = async {
            for query in queries {
                unit.execute(query).await.during(operation)?;
            }
            Ok(())
        };
        let written = written.await;
        unit.end(written, &operation()).await
    }

    async fn known_hosts(&self, hosts: &[WorkerId]) -> Result<Vec<WorkerId>, StoreError> {
        let hosts: Vec<i64> = hosts.iter().map(|host| host.0).collect();
        let query = sqlx::query("SELECT id FROM worker WHERE id = ANY ($1) ORDER BY id").bind(hosts);
        let operation = || "look for the rows of hosts".to_owned();
        let rows = self.pool.all(query).await.during(operation)?;
        rows.iter().map(|row| row.try_get("id").map(WorkerId)).collect::<Result<_, _>>().during(operation)
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

/// In order, but what says of sensors that they run is one statement at the end, if there is nothing else about them: after a
/// start of the host there are hundreds.
fn queries<'a>(host: HostProcess<'a>, records: &[ProcessRecord<'a>]) -> Vec<Query<'a>> {
    let is_only = |sensor: SensorId| records.iter().filter(|record| record.sensor.id == sensor).count() == 1;
    let mut running = Running::default();
    let mut queries = Vec::new();
    for record in records {
        let process =
            Process { sensor: record.sensor, host, active_rules: record.active_rules.map(|count| count.max(0)) };
        queries.push(match record.change {
            ProcessChange::Running { pid, reset_failures } if is_only(record.sensor.id) => {
                running.add(&process, *pid, *reset_failures);
                continue;
            }
            ProcessChange::Running { pid, reset_failures } => {
                let mut alone = Running::default();
                alone.add(&process, *pid, *reset_failures);
                alone.query(host)
            }
            ProcessChange::Starting => process.starting(),
            ProcessChange::Stopped => process.stopped(),
            ProcessChange::Backoff(end) => process.backoff(end),
            ProcessChange::Alerted { failures } => process.alerted(*failures),
            ProcessChange::Rules => process.rules(),
        });
    }
    if !running.sensors.is_empty() {
        queries.push(running.query(host));
    }
    queries
}

/// Sensors that have begun to run, by column.
#[derive(Default)]
struct Running {
    sensors: Vec<i64>,
    active_rules: Vec<Option<i32>>,
    pids: Vec<i32>,
    resets: Vec<bool>,
}

impl Running {
    fn add(&mut self, process: &Process<'_>, pid: i32, reset: bool) {
        self.sensors.push(process.sensor.id.0);
        self.active_rules.push(process.active_rules);
        self.pids.push(pid);
        self.resets.push(reset);
    }

    fn query(self, host: HostProcess<'_>) -> Query<'_> {
        let Self { sensors, active_rules, pids, resets } = self;
        let query = sqlx::query(RUNNING).bind(host.worker.0).bind(host.worker_name).bind(sensors);
        query.bind(active_rules).bind(pids).bind(resets).bind(host.id.to_string())
    }
}

/// The row to change, and the rule count to write along.
struct Process<'a> {
    sensor: &'a Sensor,
    host: HostProcess<'a>,
    active_rules: Option<i32>,
}

/// Makes the row where there is none, unless the sensor itself is gone. `set` is what the change writes. $5 is the process.
macro_rules! upsert_process {
    ($columns:literal, $values:literal, $set:literal) => {
        concat!(
            "INSERT INTO sensor_process (sensor, sensor_ref, worker, worker_name, log_artifact_ref, active_rule_count, ",
            $columns,
            ") SELECT id, ref, $2, $3, 'sensor.' || ref || '.stderr', coalesce($4, 0), ",
            $values,
            " FROM sensor WHERE id = $1 AND ",
            has_rows!("$2", "$5"),
            "
              ON CONFLICT (sensor, worker) DO UPDATE SET
                  sensor_ref = excluded.sensor_ref,
                  worker_name = excluded.worker_name,
                  log_artifact_ref = excluded.log_artifact_ref,
                  active_rule_count = coalesce($4, sensor_process.active_rule_count), ",
            $set
        )
    };
}

/// Changes the row, where there is one. $4 is the process.
macro_rules! update_process {
    ($set:literal) => {
        concat!(
            "UPDATE sensor_process SET active_rule_count = coalesce($3, active_rule_count)",
            $set,
            " WHERE sensor = $1 AND worker = $2 AND ",
            has_rows!("$2", "$4")
        )
    };
}

impl<'a> Process<'a> {
    fn upsert(&self, sql: &'static str) -> Query<'a> {
        let HostProcess { worker, worker_name, id } = self.host;
        let query = sqlx::query(sql).bind(self.sensor.id.0).bind(worker.0).bind(worker_name);
        query.bind(self.active_rules).bind(id.to_string())
    }

    fn update(&self, sql: &'static str) -> Query<'a> {
        let HostProcess { worker, id, .. } = self.host;
        sqlx::query(sql).bind(self.sensor.id.0).bind(worker.0).bind(self.active_rules).bind(id.to_string())
    }

    fn starting(&self) -> Query<'a> {
        self.upsert(upsert_process!(
            "status",
            "'starting'::sensor_process_status_enum",
            "status = excluded.status, pid = NULL, next_restart_at = NULL"
        ))
    }

    /// Alert marks go back to 0 together with the failures.
    fn backoff(&self, end: &ProcessEnd) -> Query<'a> {
        self.upsert(upsert_process!(
            "status, last_stopped_at, consecutive_failures, last_exit_code, last_signal, stderr_excerpt, next_restart_at",
            "'backoff'::sensor_process_status_enum, now(), $6, $7, $8, $9, $10",
            "status = excluded.status, pid = NULL, last_stopped_at = excluded.last_stopped_at,
             consecutive_failures = excluded.consecutive_failures, last_exit_code = excluded.last_exit_code,
             last_signal = excluded.last_signal, stderr_excerpt = excluded.stderr_excerpt,
             next_restart_at = excluded.next_restart_at,
             last_alerted_failure_count =
                 CASE $6 WHEN 0 THEN 0 ELSE sensor_process.last_alerted_failure_count END,
             last_alerted_at = CASE $6 WHEN 0 THEN NULL ELSE sensor_process.last_alerted_at END"
        ))
        .bind(end.consecutive_failures)
        .bind(end.exit_code)
        .bind(end.signal)
        .bind(end.stderr_excerpt.as_deref().map(text))
        .bind(end.next_restart_at)
    }

    /// The end of something that was never recorded is not recorded either.
    fn stopped(&self) -> Query<'a> {
        self.update(update_process!(
            ", status = 'stopped', pid = NULL, last_stopped_at = now(), next_restart_at = NULL"
        ))
    }

    fn rules(&self) -> Query<'a> {
        self.update(update_process!(""))
    }

    fn alerted(&self, failures: i32) -> Query<'a> {
        self.update(update_process!(", last_alerted_failure_count = $5, last_alerted_at = now()")).bind(failures)
    }
}
