//! Sessions of hosts and the sensors that they hold.
//!
//! Who takes a sensor locks the sensor first and then the `worker` rows of everybody who may hold it, and decides in a
//! later statement, which sees what those were just writing. A renewal locks its row before it looks at the clock: waiting
//! for the lock may take longer than the session holds.

use async_trait::async_trait;
use attune_model::SensorId;
use attune_store::{Beginning, HostProcess, HostSession, LeaseStore, Renewal, Runner, StoreError, UNLEASED_LIFE};
use sqlx::Row as _;
use sqlx::postgres::PgRow;

use crate::PostgresStore;
use crate::columns::micros;
use crate::error::During as _;
use crate::pool::{Query, Unit};

/// Until when the current session of the worker `w` holds, in microseconds; NULL without one. What was promised when another life
/// registered counts more than its heartbeat, which is no renewal.
macro_rules! holds_until {
    () => {
        "coalesce((w.meta #>> '{attune_session,until_us}')::bigint,
                  (extract(epoch FROM w.last_heartbeat) * 1000000)::bigint + (w.meta #>> '{attune_session,life_us}')::bigint)"
    };
}

/// The time of the statement, in microseconds.
macro_rules! micros_now {
    () => {
        "(extract(epoch FROM statement_timestamp()) * 1000000)::bigint"
    };
}

/// Rows `p` of workers `w` that stand for somebody else who runs a sensor. $1 is the own worker, $2 the own session, $3 how
/// long a host that knows no leases lives after a heartbeat.
macro_rules! elsewhere {
    () => {
        concat!(
            "(CASE
                WHEN NOT p.meta ? 'attune_lease' THEN
                    p.worker <> $1 AND p.status IN ('starting', 'running') AND w.status <> 'inactive'
                    AND w.last_heartbeat > statement_timestamp() - $3 * interval '1 microsecond'
                WHEN p.meta #>> '{attune_lease,session}' IS NULL THEN false
                WHEN p.meta #>> '{attune_lease,session}' = $2 THEN false
                WHEN p.meta #>> '{attune_lease,session}' = w.meta #>> '{attune_session,id}' THEN ",
            holds_until!(),
            " > ",
            micros_now!(),
            " ELSE coalesce((w.meta #>> ARRAY['attune_session', 'earlier', p.meta #>> '{attune_lease,session}'])::bigint, 0) > ",
            micros_now!(),
            " END)"
        )
    };
}

/// What the row of a process comes to whose host died without saying so.
macro_rules! died {
    () => {
        "status = 'stopped', pid = NULL, last_stopped_at = now(), next_restart_at = NULL,
            meta = sensor_process.meta || '{\"attune_lease\": {\"session\": null}}'"
    };
}

/// Whether the rows of this worker are this process's: no other one has a session there that holds. A session without a process is
/// of an earlier version, which does not know of this either.
macro_rules! has_rows {
    ($worker:literal, $process:literal) => {
        concat!(
            "NOT EXISTS (SELECT FROM worker AS w WHERE w.id = ",
            $worker,
            " AND w.meta #>> '{attune_session,process}' <> ",
            $process,
            " AND ",
            crate::lease::holds_until!(),
            " > ",
            crate::lease::micros_now!(),
            ")"
        )
    };
}

pub(crate) use {has_rows, holds_until, micros_now};

/// Each earlier session holds as long as it did, and no longer: a host that begins again and again keeps nothing from others.
const BEGIN: &str = concat!(
    "
    UPDATE worker AS w SET
        meta = CASE jsonb_typeof(meta) WHEN 'object' THEN meta ELSE '{}' END
            || jsonb_build_object('attune_session', jsonb_build_object(
                'id', $2::text,
                'process', $5::text,
                'life_us', $3::bigint,
                'earlier', (
                    SELECT coalesce(jsonb_object_agg(known.id, known.until_us), '{}')
                    FROM (
                        SELECT key AS id, value::bigint AS until_us
                        FROM jsonb_each_text(coalesce(w.meta #> '{attune_session,earlier}', '{}'))
                        UNION ALL SELECT w.meta #>> '{attune_session,id}', ",
    holds_until!(),
    "
                    ) AS known
                    WHERE known.id <> $2::text AND known.until_us > ",
    micros_now!(),
    "))),
        last_heartbeat = clock_timestamp(), status = 'active'
    WHERE id = $1
      AND ($4::text IS NULL OR meta #>> '{attune_session,id}' IN ($2, $4) OR coalesce(",
    holds_until!(),
    " <= ",
    micros_now!(),
    ", true))
    RETURNING w.cordoned
    "
);

const RENEW: &str = concat!(
    "
    WITH own AS MATERIALIZED (
        SELECT id, clock_timestamp() AS at FROM (SELECT id FROM worker WHERE id = $1 FOR NO KEY UPDATE) AS locked
    )
    UPDATE worker AS w SET last_heartbeat = own.at, status = 'active',
        meta = CASE WHEN w.meta #> '{attune_session,until_us}' IS NULL THEN w.meta
                    ELSE w.meta #- '{attune_session,until_us}' END
    FROM own
    WHERE w.id = own.id AND w.meta #>> '{attune_session,id}' = $2
      AND ",
    holds_until!(),
    " > (extract(epoch FROM own.at) * 1000000)::bigint
    RETURNING w.cordoned
    "
);

/// Rows of hosts whose lease ran out are corrected along with it.
const TAKE: &str = concat!(
    "
    WITH taken AS (
        INSERT INTO sensor_process (sensor, sensor_ref, worker, worker_name, status, log_artifact_ref, meta)
        SELECT s.id, s.ref, $1, $5, 'stopped', 'sensor.' || s.ref || '.stderr',
               jsonb_build_object('attune_lease', jsonb_build_object('session', $2::text))
        FROM sensor AS s
        WHERE s.id = ANY ($4)
          AND EXISTS (SELECT FROM worker AS w WHERE w.id = $1 AND w.meta #>> '{attune_session,id}' = $2 AND ",
    holds_until!(),
    " > ",
    micros_now!(),
    ")
          AND NOT EXISTS (
              SELECT FROM sensor_process AS p JOIN worker AS w ON w.id = p.worker WHERE p.sensor = s.id AND ",
    elsewhere!(),
    ")
        ON CONFLICT (sensor, worker) DO UPDATE SET
            sensor_ref = excluded.sensor_ref,
            worker_name = excluded.worker_name,
            meta = sensor_process.meta || excluded.meta
        RETURNING sensor
    ), corrected AS (
        UPDATE sensor_process SET ",
    died!(),
    "
        FROM taken
        WHERE sensor_process.sensor = taken.sensor AND sensor_process.worker <> $1
          AND (sensor_process.meta #>> '{attune_lease,session}' IS NOT NULL
               OR sensor_process.status = 'backoff' AND EXISTS (
                   SELECT FROM worker AS w WHERE w.id = sensor_process.worker AND w.meta ? 'attune_session' AND ",
    holds_until!(),
    " <= ",
    micros_now!(),
    "))
    )
    SELECT sensor FROM taken
    "
);

/// Rows `p` of other workers `w` that tell of what a host did that died without saying so. The parameters are those of `elsewhere`.
macro_rules! left_behind {
    () => {
        concat!(
            "p.worker <> $1 AND (
                p.status IN ('starting', 'running', 'backoff') AND p.meta #>> '{attune_lease,session}' IS NOT NULL
                    AND NOT ",
            elsewhere!(),
            " OR p.status = 'backoff' AND w.meta ? 'attune_session' AND ",
            holds_until!(),
            " <= ",
            micros_now!(),
            ")"
        )
    };
}

const IS_LEFT_BEHIND: &str = concat!(
    "SELECT EXISTS (SELECT FROM sensor_process AS p JOIN worker AS w ON w.id = p.worker WHERE ",
    left_behind!(),
    ")"
);

const LOCK_DEAD: &str = concat!(
    "SELECT id FROM worker WHERE id IN (SELECT p.worker FROM sensor_process AS p JOIN worker AS w ON w.id = p.worker WHERE ",
    left_behind!(),
    ") ORDER BY id FOR SHARE"
);

/// What somebody is taking is corrected along with that.
const CORRECT: &str = concat!(
    "UPDATE sensor_process SET ",
    died!(),
    "
    WHERE id IN (
        SELECT p.id FROM sensor_process AS p JOIN worker AS w ON w.id = p.worker
        WHERE ",
    left_behind!(),
    "
        FOR NO KEY UPDATE OF p SKIP LOCKED
    )
    "
);

const ELSEWHERE: &str = concat!(
    "
    SELECT p.sensor, p.worker_name, p.meta ? 'attune_lease' AS leased
    FROM sensor_process AS p JOIN worker AS w ON w.id = p.worker
    WHERE ",
    elsewhere!(),
    " ORDER BY p.sensor, p.id"
);

#[async_trait]
impl LeaseStore for PostgresStore {
    async fn begin_session(
        &self,
        session: &HostSession,
        before: Option<&HostSession>,
    ) -> Result<Beginning, StoreError> {
        let operation = || format!("begin a session of sensor host {}", session.worker_name);
        let query = sqlx::query(BEGIN)
            .bind(session.worker.0)
            .bind(session.id.to_string())
            .bind(micros(session.life))
            .bind(before.map(|before| before.id.to_string()))
            .bind(session.process.to_string());
        if let Some(row) = self.pool.optional(query).await.during(operation)? {
            return Ok(Beginning::Begun { cordoned: row.try_get("cordoned").during(operation)? });
        }
        let query = sqlx::query("SELECT id FROM worker WHERE id = $1").bind(session.worker.0);
        let row = self.pool.optional(query).await.during(operation)?;
        Ok(if row.is_some() { Beginning::Taken } else { Beginning::Gone })
    }

    async fn renew_session(&self, session: &HostSession) -> Result<Renewal, StoreError> {
        let operation = || format!("renew the session of sensor host {}", session.worker_name);
        let query = sqlx::query(RENEW).bind(session.worker.0).bind(session.id.to_string());
        match self.pool.optional(query).await.during(operation)? {
            Some(row) => Ok(Renewal::Renewed { cordoned: row.try_get("cordoned").during(operation)? }),
            None => Ok(Renewal::Lost),
        }
    }

    async fn take_sensors(&self, session: &HostSession, sensors: &[SensorId]) -> Result<Vec<SensorId>, StoreError> {
        let operation = format!("take sensors for host {}", session.worker_name);
        let mut unit = self.write(&operation).await?;
        let taken = take(&mut unit, session, sensors).await.during(|| operation.clone());
        let taken = unit.end(taken, &operation).await?;
        // In the order in which they were asked for.
        Ok(sensors.iter().copied().filter(|sensor| taken.contains(sensor)).collect())
    }

    async fn give_back_sensors(&self, session: &HostSession, sensors: &[SensorId]) -> Result<(), StoreError> {
        let query = sqlx::query(
            r#"
            UPDATE sensor_process SET
                meta = meta || '{"attune_lease": {"session": null}}',
                last_stopped_at = CASE WHEN status IN ('starting', 'running') THEN now() ELSE last_stopped_at END,
                status = CASE WHEN status IN ('starting', 'running') THEN 'stopped' ELSE status END,
                pid = NULL
            WHERE worker = $1 AND meta #>> '{attune_lease,session}' = $2 AND sensor = ANY ($3)
            "#,
        )
        .bind(session.worker.0)
        .bind(session.id.to_string())
        .bind(ids(sensors));
        let done = self.pool.execute(query).await;
        done.during(|| format!("give back sensors of host {}", session.worker_name)).map(drop)
    }

    async fn correct_rows(&self, session: &HostSession) -> Result<u64, StoreError> {
        let operation = "correct rows of hosts that died".to_owned();
        // As a rule there is none, and nothing is locked.
        let row = self.pool.one(of_others(IS_LEFT_BEHIND, session)).await;
        if !row.and_then(|row| row.try_get(0)).during(|| operation.clone())? {
            return Ok(0);
        }
        let mut unit = self.write(&operation).await?;
        let corrected = correct(&mut unit, session).await.during(|| operation.clone());
        unit.end(corrected, &operation).await
    }

    async fn is_replaced(&self, process: HostProcess<'_>) -> Result<bool, StoreError> {
        let query = sqlx::query(concat!("SELECT NOT ", has_rows!("$1", "$2")));
        let row = self.pool.one(query.bind(process.worker.0).bind(process.id.to_string())).await;
        let operation = || format!("read whether another process has the row of sensor host {}", process.worker_name);
        row.and_then(|row| row.try_get(0)).during(operation)
    }

    async fn runners_elsewhere(&self, session: &HostSession) -> Result<Vec<Runner>, StoreError> {
        let operation = || "read who else runs sensors".to_owned();
        let found = self.pool.all(of_others(ELSEWHERE, session)).await.during(operation)?;
        let runner = |row: &PgRow| -> Result<Runner, sqlx::Error> {
            Ok(Runner {
                sensor: SensorId(row.try_get("sensor")?),
                worker_name: row.try_get("worker_name")?,
                leased: row.try_get("leased")?,
            })
        };
        found.iter().map(runner).collect::<Result<_, _>>().during(operation)
    }
}

/// A statement about what others do.
fn of_others(sql: &'static str, session: &HostSession) -> Query<'static> {
    sqlx::query(sql).bind(session.worker.0).bind(session.id.to_string()).bind(micros(UNLEASED_LIFE))
}

/// As in a take, a renewal that is under way comes first.
async fn correct(unit: &mut Unit, session: &HostSession) -> Result<u64, sqlx::Error> {
    unit.execute(of_others(LOCK_DEAD, session)).await?;
    unit.execute(of_others(CORRECT, session)).await
}

fn ids(sensors: &[SensorId]) -> Vec<i64> {
    sensors.iter().map(|sensor| sensor.0).collect()
}

async fn take(unit: &mut Unit, session: &HostSession, sensors: &[SensorId]) -> Result<Vec<SensorId>, sqlx::Error> {
    // Both in the order of ids, so that takers never wait for each other in a circle.
    let lock = sqlx::query("SELECT id FROM sensor WHERE id = ANY ($1) ORDER BY id FOR NO KEY UPDATE");
    unit.execute(lock.bind(ids(sensors))).await?;
    let lock = sqlx::query(
        r"
        SELECT id FROM worker
        WHERE id = $1 OR id IN (SELECT worker FROM sensor_process WHERE sensor = ANY ($2))
        ORDER BY id FOR SHARE
        ",
    );
    unit.execute(lock.bind(session.worker.0).bind(ids(sensors))).await?;
    let query = sqlx::query(TAKE)
        .bind(session.worker.0)
        .bind(session.id.to_string())
        .bind(micros(UNLEASED_LIFE))
        .bind(ids(sensors))
        .bind(&session.worker_name);
    let found = unit.all(query).await?;
    found.iter().map(|row| row.try_get(0).map(SensorId)).collect()
}
