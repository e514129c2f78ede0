//! Sessions of hosts and the sensors that they hold. Every unit that decides holds the write lock from its start.

use async_trait::async_trait;
use attune_model::SensorId;
use attune_store::{Beginning, HostProcess, HostSession, LeaseStore, Renewal, Runner, StoreError, UNLEASED_LIFE};
use sqlx::Row as _;
use sqlx::sqlite::SqliteConnection;

use crate::columns::micros;
use crate::error::During;
use crate::{SqliteStore, now, written};

/// Until when the current session of the worker `w` holds; NULL without one. What was promised when another life registered
/// counts more than its heartbeat, which is no renewal.
macro_rules! holds_until {
    () => {
        "coalesce(json_extract(w.meta, '$.attune_session.until_us'),
                  w.last_heartbeat + json_extract(w.meta, '$.attune_session.life_us'))"
    };
}

/// Rows `p` of workers `w` that stand for somebody else who runs a sensor. ?1 is the own worker, ?2 the own session, ?3 now,
/// ?4 when the last heartbeat of a living host that knows no leases can have been.
macro_rules! elsewhere {
    () => {
        concat!(
            "(CASE
                WHEN json_type(p.meta, '$.attune_lease') IS NULL THEN
                    p.worker <> ?1 AND p.status IN ('starting', 'running') AND w.status <> 'inactive'
                    AND w.last_heartbeat > ?4
                WHEN json_extract(p.meta, '$.attune_lease.session') IS NULL THEN FALSE
                WHEN json_extract(p.meta, '$.attune_lease.session') = ?2 THEN FALSE
                WHEN json_extract(p.meta, '$.attune_lease.session') = json_extract(w.meta, '$.attune_session.id') THEN ",
            holds_until!(),
            " > ?3
                ELSE coalesce(json_extract(w.meta, '$.attune_session.earlier.\"' || json_extract(p.meta, '$.attune_lease.session')
                                                   || '\"'), 0) > ?3
            END)"
        )
    };
}

/// What the row of a process comes to whose host died without saying so. ?3 is now.
macro_rules! died {
    () => {
        "status = 'stopped', pid = NULL, last_stopped_at = ?3, next_restart_at = NULL, updated = ?3,
            meta = json_set(meta, '$.attune_lease', json_object('session', NULL))"
    };
}

#[async_trait]
impl LeaseStore for SqliteStore {
    async fn begin_session(
        &self,
        session: &HostSession,
        before: Option<&HostSession>,
    ) -> Result<Beginning, StoreError> {
        let operation = || format!("begin a session of sensor host {}", session.worker_name);
        // Each earlier session holds as long as it did, and no longer: a host that begins again and again keeps nothing from others.
        let begun = sqlx::query(concat!(
            "
            UPDATE worker AS w SET
                meta = json_set(coalesce(meta, '{}'), '$.attune_session', json_object(
                    'id', ?2,
                    'process', ?6,
                    'life_us', ?3,
                    'earlier', (
                        SELECT json_group_object(known.id, known.until_us)
                        FROM (
                            SELECT key AS id, value AS until_us FROM json_each(w.meta, '$.attune_session.earlier')
                            UNION ALL SELECT json_extract(w.meta, '$.attune_session.id'), ",
            holds_until!(),
            "
                        ) AS known
                        WHERE known.id <> ?2 AND known.until_us > ?4))),
                last_heartbeat = ?4, updated = ?4, status = 'active'
            WHERE id = ?1
              AND (?5 IS NULL OR json_extract(meta, '$.attune_session.id') IN (?2, ?5) OR coalesce(",
            holds_until!(),
            " <= ?4, TRUE))
            RETURNING cordoned
            "
        ))
        .bind(session.worker.0)
        .bind(session.id.to_string())
        .bind(life(session))
        .bind(micros(now()))
        .bind(before.map(|before| before.id.to_string()))
        .bind(session.process.to_string())
        .fetch_all(&self.writer)
        .await
        .during(operation)?;
        if let Some(row) = begun.first() {
            return Ok(Beginning::Begun { cordoned: row.try_get("cordoned").during(operation)? });
        }
        let query = sqlx::query("SELECT id FROM worker WHERE id = ?1").bind(session.worker.0);
        let row = query.fetch_optional(&self.readers).await.during(operation)?;
        Ok(if row.is_some() { Beginning::Taken } else { Beginning::Gone })
    }

    async fn renew_session(&self, session: &HostSession) -> Result<Renewal, StoreError> {
        let operation = || format!("renew the session of sensor host {}", session.worker_name);
        // The clock is read when nobody else can write any more: waiting for that may take longer than the session holds.
        let mut unit = self.write(&operation()).await?;
        let renewed = sqlx::query(concat!(
            "
            UPDATE worker AS w SET last_heartbeat = ?3, updated = ?3, status = 'active',
                meta = json_remove(meta, '$.attune_session.until_us')
            WHERE id = ?1 AND json_extract(meta, '$.attune_session.id') = ?2 AND ",
            holds_until!(),
            " > ?3
            RETURNING cordoned
            "
        ))
        .bind(session.worker.0)
        .bind(session.id.to_string())
        .bind(micros(now()))
        .fetch_all(&mut *unit)
        .await
        .during(operation)?;
        unit.commit().await.during(operation)?;
        match renewed.first() {
            Some(row) => Ok(Renewal::Renewed { cordoned: row.try_get("cordoned").during(operation)? }),
            None => Ok(Renewal::Lost),
        }
    }

    async fn take_sensors(&self, session: &HostSession, sensors: &[SensorId]) -> Result<Vec<SensorId>, StoreError> {
        let operation = || format!("take sensors for host {}", session.worker_name);
        let mut unit = self.write(&operation()).await?;
        let mut taken = Vec::new();
        for sensor in sensors {
            if take(&mut unit, session, *sensor).await.during(operation)? {
                taken.push(*sensor);
            }
        }
        unit.commit().await.during(operation)?;
        Ok(taken)
    }

    async fn give_back_sensors(&self, session: &HostSession, sensors: &[SensorId]) -> Result<(), StoreError> {
        let query = sqlx::query(
            "
            UPDATE sensor_process SET
                meta = json_set(meta, '$.attune_lease', json_object('session', NULL)),
                last_stopped_at = CASE WHEN status IN ('starting', 'running') THEN ?4 ELSE last_stopped_at END,
                status = CASE WHEN status IN ('starting', 'running') THEN 'stopped' ELSE status END,
                pid = NULL, updated = ?4
            WHERE worker = ?1 AND json_extract(meta, '$.attune_lease.session') = ?2
              AND sensor IN (SELECT value FROM json_each(?3))
            RETURNING id
            ",
        )
        .bind(session.worker.0)
        .bind(session.id.to_string())
        .bind(serde_json::Value::from(sensors.iter().map(|sensor| sensor.0).collect::<Vec<_>>()).to_string())
        .bind(micros(now()));
        written(query, &self.writer).await.during(|| format!("give back sensors of host {}", session.worker_name))?;
        Ok(())
    }

    async fn correct_rows(&self, session: &HostSession) -> Result<u64, StoreError> {
        let operation = || "correct rows of hosts that died".to_owned();
        let mut unit = self.write(&operation()).await?;
        let corrected = sqlx::query(concat!(
            "
            UPDATE sensor_process SET ",
            died!(),
            "
            WHERE id IN (
                SELECT p.id FROM sensor_process p JOIN worker w ON w.id = p.worker
                WHERE p.worker <> ?1 AND (
                    p.status IN ('starting', 'running', 'backoff')
                        AND json_extract(p.meta, '$.attune_lease.session') IS NOT NULL AND NOT ",
            elsewhere!(),
            "
                    OR p.status = 'backoff' AND json_extract(w.meta, '$.attune_session') IS NOT NULL AND ",
            holds_until!(),
            " <= ?3))
            "
        ))
        .bind(session.worker.0)
        .bind(session.id.to_string())
        .bind(micros(now()))
        .bind(micros(now() - UNLEASED_LIFE))
        .execute(&mut *unit)
        .await
        .during(operation)?;
        unit.commit().await.during(operation)?;
        Ok(corrected.rows_affected())
    }

    async fn is_replaced(&self, process: HostProcess<'_>) -> Result<bool, StoreError> {
        let operation = || format!("read whether another process has the row of sensor host {}", process.worker_name);
        let mut unit = self.read(&operation()).await?;
        let replaced = has_other_process(&mut unit, process).await.during(operation)?;
        unit.commit().await.during(operation)?;
        Ok(replaced)
    }

    async fn runners_elsewhere(&self, session: &HostSession) -> Result<Vec<Runner>, StoreError> {
        let operation = || "read who else runs sensors".to_owned();
        let found = sqlx::query(concat!(
            "
            SELECT p.sensor, p.worker_name, json_type(p.meta, '$.attune_lease') IS NOT NULL AS leased
            FROM sensor_process p JOIN worker w ON w.id = p.worker
            WHERE ",
            elsewhere!(),
            " ORDER BY p.sensor, p.id"
        ))
        .bind(session.worker.0)
        .bind(session.id.to_string())
        .bind(micros(now()))
        .bind(micros(now() - UNLEASED_LIFE))
        .fetch_all(&self.readers)
        .await
        .during(operation)?;
        let runner = |row: &sqlx::sqlite::SqliteRow| -> Result<Runner, sqlx::Error> {
            Ok(Runner {
                sensor: SensorId(row.try_get("sensor")?),
                worker_name: row.try_get("worker_name")?,
                leased: row.try_get("leased")?,
            })
        };
        found.iter().map(runner).collect::<Result<_, _>>().during(operation)
    }
}

/// Whether a process other than this one has a session there that holds. A session without a process is of an earlier version, which
/// does not know of this either.
pub(crate) async fn has_other_process(
    unit: &mut SqliteConnection,
    process: HostProcess<'_>,
) -> Result<bool, sqlx::Error> {
    let query = sqlx::query_scalar(concat!(
        "SELECT EXISTS (SELECT 1 FROM worker w WHERE w.id = ?1 AND json_extract(w.meta, '$.attune_session.process') <> ?2 AND ",
        holds_until!(),
        " > ?3)"
    ));
    query.bind(process.worker.0).bind(process.id.to_string()).bind(micros(now())).fetch_one(unit).await
}

fn life(session: &HostSession) -> i64 {
    i64::try_from(session.life.as_micros()).unwrap_or(i64::MAX / 4)
}

async fn take(unit: &mut SqliteConnection, session: &HostSession, sensor: SensorId) -> Result<bool, sqlx::Error> {
    let taken = sqlx::query(concat!(
        "
        INSERT INTO sensor_process (sensor, sensor_ref, worker, worker_name, status, log_artifact_ref, meta, created,
                                    updated)
        SELECT s.id, s.ref, ?1, ?6, 'stopped', 'sensor.' || s.ref || '.stderr',
               json_object('attune_lease', json_object('session', ?2)), ?3, ?3
        FROM sensor s
        WHERE s.id = ?5
          AND EXISTS (SELECT 1 FROM worker w WHERE w.id = ?1 AND json_extract(w.meta, '$.attune_session.id') = ?2 AND ",
        holds_until!(),
        " > ?3)
          AND NOT EXISTS (SELECT 1 FROM sensor_process p JOIN worker w ON w.id = p.worker WHERE p.sensor = ?5 AND ",
        elsewhere!(),
        ")
        ON CONFLICT (sensor, worker) DO UPDATE SET
            sensor_ref = excluded.sensor_ref,
            worker_name = excluded.worker_name,
            meta = json_set(meta, '$.attune_lease', json_object('session', ?2)),
            updated = excluded.updated
        RETURNING id
        "
    ))
    .bind(session.worker.0)
    .bind(session.id.to_string())
    .bind(micros(now()))
    .bind(micros(now() - UNLEASED_LIFE))
    .bind(sensor.0)
    .bind(&session.worker_name)
    .fetch_all(&mut *unit)
    .await?;
    if taken.is_empty() {
        return Ok(false);
    }
    sqlx::query(concat!(
        "
        UPDATE sensor_process AS p SET ",
        died!(),
        "
        WHERE sensor = ?1 AND worker <> ?2
          AND (json_extract(meta, '$.attune_lease.session') IS NOT NULL
               OR status = 'backoff' AND EXISTS (
                   SELECT 1 FROM worker w WHERE w.id = p.worker AND json_extract(w.meta, '$.attune_session') IS NOT NULL AND ",
        holds_until!(),
        " <= ?3))
        "
    ))
    .bind(sensor.0)
    .bind(session.worker.0)
    .bind(micros(now()))
    .execute(unit)
    .await?;
    Ok(true)
}
