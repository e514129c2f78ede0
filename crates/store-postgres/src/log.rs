//! Log artifacts and their versions.
//!
//! Versions of one artifact are counted under an advisory lock on its id (a fact of the platform: its API does the same).
//! Mostly nobody holds it: then one statement does everything. Its numbers may still be old, because what it sees was
//! fixed before it got the lock; the unique key finds that out and the long way is taken.

use std::collections::HashMap;

use async_trait::async_trait;
use attune_model::ExecutionId;
use attune_store::{EndedLog, FiledLogs, LogArtifact, LogStore, LogVersion, SensorFile, StoreError};
use sqlx::Row as _;
use sqlx::postgres::PgRow;

use crate::columns::json;
use crate::error::During as _;
use crate::pool::{Query, Unit};
use crate::{PostgresStore, log_batch};

/// Adds a version to the artifact whose id `locked` yields together with `held`: whether its lock could be had. The
/// oldest versions beyond the limit go here and not only by the table's own trigger, because their files have to be known.
macro_rules! add_version {
    ($locked:literal) => {
        concat!(
            "WITH locked AS (",
            $locked,
            r"
            ), kept AS (
                UPDATE artifact SET retention_policy = $2::artifact_retention_enum, retention_limit = $3
                FROM locked
                WHERE artifact.id = locked.id AND locked.held
                  AND (artifact.retention_policy, artifact.retention_limit)
                      IS DISTINCT FROM ($2::artifact_retention_enum, $3)
                RETURNING artifact.id
            ), added AS (
                INSERT INTO artifact_version (artifact, version, execution, content_type, file_path, meta, created_by)
                SELECT locked.id, next.version, $4, 'text/plain',
                       replace($1, '.', '/') || '/v' || next.version || '.txt', $5::jsonb, $6
                FROM locked
                CROSS JOIN LATERAL (
                    SELECT coalesce(max(version), 0) + 1 AS version FROM artifact_version WHERE artifact = locked.id
                ) AS next
                WHERE locked.held
                ON CONFLICT (artifact, version) DO NOTHING
                RETURNING id, artifact, version, file_path
            ), expired AS (
                DELETE FROM artifact_version USING added
                WHERE artifact_version.artifact = added.artifact AND $2 = 'versions' AND $3 > 0
                  AND artifact_version.version NOT IN (
                      SELECT version FROM artifact_version AS newer WHERE newer.artifact = added.artifact
                      ORDER BY version DESC LIMIT greatest($3 - 1, 0)
                  )
                RETURNING artifact_version.version, artifact_version.file_path
            )
            SELECT added.id, added.version, added.file_path,
                   coalesce((SELECT array_agg(file_path ORDER BY version) FROM expired WHERE file_path IS NOT NULL),
                            '{}') AS expired_files
            FROM added
            "
        )
    };
}

const ADD_AT_ONCE: &str = add_version!(
    "SELECT id, pg_try_advisory_xact_lock(id) AS held FROM (
         SELECT id FROM artifact WHERE ref = $1 ORDER BY id LIMIT 1
     ) AS found"
);

/// The lock is held by the statement before.
const ADD_LOCKED: &str = add_version!("SELECT id, true AS held FROM artifact WHERE ref = $1 ORDER BY id LIMIT 1");

#[async_trait]
impl LogStore for PostgresStore {
    async fn add_log_version(&self, artifact: &LogArtifact) -> Result<LogVersion, StoreError> {
        let operation = format!("add a version of artifact {}", artifact.r#ref);
        let added = self.pool.optional(version_of(ADD_AT_ONCE, artifact)).await.during(|| operation.clone())?;
        if let Some(row) = added {
            return version(&row).during(|| operation);
        }
        let mut unit = self.write(&operation).await?;
        let added = add_locked(&mut unit, artifact).await.during(|| operation.clone());
        let row = unit.end(added, &operation).await?;
        version(&row).during(|| operation)
    }

    async fn file_logs(&self, logs: &[EndedLog], executions: &[ExecutionId]) -> Result<FiledLogs, StoreError> {
        log_batch::file(self, logs, executions).await
    }

    async fn log_versions(&self, execution: ExecutionId) -> Result<Vec<(String, LogVersion)>, StoreError> {
        let query = sqlx::query(
            r"
            SELECT artifact.ref, filed.id, filed.version, filed.file_path, '{}'::text[] AS expired_files
            FROM artifact_version AS filed JOIN artifact ON artifact.id = filed.artifact
            WHERE filed.execution = $1 AND filed.created_by = 'worker' AND filed.file_path IS NOT NULL
            ORDER BY filed.id
            ",
        );
        let operation = || format!("find the logs of execution {execution}");
        let rows = self.pool.all(query.bind(execution.0)).await.during(operation)?;
        rows.iter().map(|row| Ok((row.try_get("ref")?, version(row)?))).collect::<Result<_, _>>().during(operation)
    }

    async fn sensor_files(&self, sensor_refs: &[String]) -> Result<Vec<SensorFile>, StoreError> {
        let query = sqlx::query(
            r"
            SELECT artifact_version.id, owner, file_path, artifact_version.size_bytes
            FROM artifact_version JOIN artifact ON artifact.id = artifact_version.artifact
            WHERE artifact.scope = 'sensor' AND artifact.owner = ANY ($1) AND file_path IS NOT NULL
            ORDER BY artifact_version.id
            ",
        );
        let operation = || "find the files of sensors".to_owned();
        let rows = self.pool.all(query.bind(sensor_refs)).await.during(operation)?;
        rows.iter().map(sensor_file).collect::<Result<_, _>>().during(operation)
    }

    async fn set_log_sizes(&self, sizes: &[(i64, u64)]) -> Result<(), StoreError> {
        if sizes.is_empty() {
            return Ok(());
        }
        // Of two sizes for one version the last one counts.
        let sizes: HashMap<i64, i64> =
            sizes.iter().map(|&(version, size)| (version, i64::try_from(size).unwrap_or(i64::MAX))).collect();
        let (versions, sizes): (Vec<i64>, Vec<i64>) = sizes.into_iter().unzip();
        let query = sqlx::query(
            r"
            WITH given AS (
                SELECT id, size FROM unnest($1::bigint[], $2::bigint[]) AS given (id, size)
            ), artifacts AS MATERIALIZED (
                -- In one order for everybody, so that two of these never wait for each other.
                SELECT id FROM artifact
                WHERE id IN (SELECT artifact FROM artifact_version WHERE id = ANY ($1))
                ORDER BY id FOR NO KEY UPDATE
            ), removed AS (
                DELETE FROM artifact_version USING given
                WHERE artifact_version.id = given.id AND given.size = 0
                  AND artifact_version.artifact IN (SELECT id FROM artifacts)
            ), written AS (
                UPDATE artifact_version SET size_bytes = given.size FROM given
                WHERE artifact_version.id = given.id AND given.size > 0
                  AND artifact_version.artifact IN (SELECT id FROM artifacts)
            )
            -- An artifact shows the size of its newest version. Where that is another version than ours, who wrote it
            -- shows it.
            UPDATE artifact SET size_bytes = (
                SELECT coalesce(given.size, artifact_version.size_bytes)
                FROM artifact_version LEFT JOIN given ON given.id = artifact_version.id
                WHERE artifact_version.artifact = artifact.id AND given.size IS DISTINCT FROM 0
                ORDER BY version DESC LIMIT 1
            )
            FROM artifacts
            WHERE artifact.id = artifacts.id AND (
                SELECT id FROM artifact_version WHERE artifact_version.artifact = artifacts.id
                ORDER BY version DESC LIMIT 1
            ) = ANY ($1)
            ",
        )
        .bind(versions)
        .bind(sizes);
        self.pool.execute(query).await.during(|| "write sizes of logs".to_owned()).map(drop)
    }
}

fn version_of<'a>(sql: &'static str, artifact: &'a LogArtifact) -> Query<'a> {
    sqlx::query(sql)
        .bind(&artifact.r#ref)
        .bind(artifact.retention_policy.as_str())
        .bind(artifact.retention_limit)
        .bind(artifact.execution.map(|execution| execution.0))
        .bind(json(&artifact.meta))
        .bind(artifact.created_by)
}

fn sensor_file(row: &PgRow) -> Result<SensorFile, sqlx::Error> {
    let size: Option<i64> = row.try_get("size_bytes")?;
    Ok(SensorFile {
        id: row.try_get("id")?,
        owner: row.try_get("owner")?,
        file_path: row.try_get("file_path")?,
        size_bytes: size.map(|size| u64::try_from(size).unwrap_or_default()),
    })
}

pub(crate) fn version(row: &PgRow) -> Result<LogVersion, sqlx::Error> {
    Ok(LogVersion {
        id: row.try_get("id")?,
        version: row.try_get("version")?,
        file_path: row.try_get("file_path")?,
        expired_files: row.try_get("expired_files")?,
    })
}

/// The long way: waits for whoever counts versions of this artifact, and makes it first when there is none. Refs are not
/// unique, so that is done under a lock of its own.
pub(crate) async fn add_locked(unit: &mut Unit, artifact: &LogArtifact) -> Result<PgRow, sqlx::Error> {
    let lock = sqlx::query(
        "SELECT pg_advisory_xact_lock(id) FROM (SELECT id FROM artifact WHERE ref = $1 ORDER BY id LIMIT 1) AS found",
    );
    if unit.optional(lock.bind(&artifact.r#ref)).await?.is_none() {
        make(unit, artifact).await?;
    }
    // Somebody may still count without the lock.
    for _ in 0..3 {
        if let Some(row) = unit.optional(version_of(ADD_LOCKED, artifact)).await? {
            return Ok(row);
        }
    }
    Err(sqlx::Error::RowNotFound)
}

/// Whoever makes an artifact of this ref is alone with it until the end of the unit.
pub(crate) async fn lock_ref(unit: &mut Unit, artifact_ref: &str) -> Result<(), sqlx::Error> {
    let lock = sqlx::query("SELECT pg_advisory_xact_lock(hashtextextended('attune artifact ' || $1, 0))");
    unit.execute(lock.bind(artifact_ref)).await.map(drop)
}

async fn make(unit: &mut Unit, artifact: &LogArtifact) -> Result<(), sqlx::Error> {
    lock_ref(unit, &artifact.r#ref).await?;
    let query = sqlx::query(
        r"
        INSERT INTO artifact (ref, scope, owner, type, visibility, name, description, content_type, retention_policy,
                              retention_limit)
        SELECT $1, $2::owner_type_enum, $3, 'file_text', 'private', $4, $5, 'text/plain', $6::artifact_retention_enum, $7
        WHERE NOT EXISTS (SELECT FROM artifact WHERE ref = $1)
        ",
    )
    .bind(&artifact.r#ref)
    .bind(artifact.scope.as_str())
    .bind(&artifact.owner)
    .bind(&artifact.name)
    .bind(&artifact.description)
    .bind(artifact.retention_policy.as_str())
    .bind(artifact.retention_limit);
    unit.execute(query).await?;
    let lock = sqlx::query(
        "SELECT pg_advisory_xact_lock(id) FROM (SELECT id FROM artifact WHERE ref = $1 ORDER BY id LIMIT 1) AS found",
    );
    unit.execute(lock.bind(&artifact.r#ref)).await.map(drop)
}
