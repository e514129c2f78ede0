//! Logs of many executions in one statement.
//!
//! As with a single version, mostly nobody counts versions of the same artifacts at the moment: then one statement numbers
//! all logs, adds them with their sizes and tells what retention pushes out. Where an artifact is missing or held, where
//! numbers turn out to be old, and where one call brings more versions than the artifact keeps, the long way is taken.

use std::collections::BTreeMap;

use attune_model::ExecutionId;
use attune_model::status::RetentionPolicy;
use attune_store::{EndedLog, FiledLogs, LogVersion, RegisteredFile, StoreError};
use serde::Deserialize;
use serde_json::{Value, json};
use sqlx::postgres::PgRow;

use crate::PostgresStore;
use crate::columns::{self, document};
use crate::error::During as _;
use crate::log::{add_locked, version};
use crate::pool::{Query, Unit};

/// Files that the executions `$2` registered and wrote themselves.
macro_rules! registered {
    ($executions:literal) => {
        concat!(
            "(SELECT json_agg(json_build_object('id', id, 'execution', execution, 'file_path', file_path) ORDER BY id)
              FROM artifact_version
              WHERE execution = ANY (",
            $executions,
            ") AND file_path IS NOT NULL AND coalesce(size_bytes, 0) = 0) AS registered"
        )
    };
}

const REGISTERED: &str = concat!("SELECT ", registered!("$1"));

const FILE: &str = concat!(
    r"
    WITH given AS (
        SELECT * FROM jsonb_to_recordset($1::jsonb)
        AS given (at int, ref text, policy text, kept int, execution bigint, meta jsonb, created_by text, size bigint)
    ), found AS (
        SELECT DISTINCT ON (artifact.ref) artifact.ref, artifact.id
        FROM artifact WHERE artifact.ref IN (SELECT ref FROM given)
        ORDER BY artifact.ref, artifact.id
    ), locked AS MATERIALIZED (
        SELECT ref, id, pg_try_advisory_xact_lock(id) AS held FROM found
    ), free AS MATERIALIZED (
        SELECT count(*) FILTER (WHERE held) = (SELECT count(DISTINCT ref) FROM given) AS ok FROM locked
    ), numbered AS MATERIALIZED (
        SELECT given.*, locked.id AS artifact,
               (SELECT coalesce(max(version), 0) FROM artifact_version WHERE artifact = locked.id)
               + row_number() OVER (PARTITION BY locked.id ORDER BY given.at) AS version,
               count(*) OVER (PARTITION BY locked.id) AS fresh,
               row_number() OVER (PARTITION BY locked.id ORDER BY given.at DESC) = 1 AS is_last
        FROM given JOIN locked USING (ref) CROSS JOIN free
        WHERE free.ok
    ), retained AS (
        UPDATE artifact
        SET retention_policy = numbered.policy::artifact_retention_enum, retention_limit = numbered.kept
        FROM numbered
        WHERE artifact.id = numbered.artifact AND numbered.is_last
          AND (artifact.retention_policy, artifact.retention_limit)
              IS DISTINCT FROM (numbered.policy::artifact_retention_enum, numbered.kept)
    ), added AS (
        INSERT INTO artifact_version (artifact, version, execution, content_type, size_bytes, file_path, meta, created_by)
        SELECT artifact, version, execution, 'text/plain', size, replace(ref, '.', '/') || '/v' || version || '.txt',
               meta, created_by
        FROM numbered ORDER BY artifact, version
        RETURNING id, artifact, version, file_path
    ), expired AS (
        DELETE FROM artifact_version USING numbered
        WHERE artifact_version.artifact = numbered.artifact AND numbered.is_last
          AND numbered.policy = 'versions' AND numbered.kept > 0
          AND artifact_version.version NOT IN (
              SELECT version FROM artifact_version AS newer WHERE newer.artifact = numbered.artifact
              ORDER BY version DESC LIMIT greatest(numbered.kept - numbered.fresh, 0)
          )
        RETURNING artifact_version.artifact, artifact_version.version, artifact_version.file_path
    )
    SELECT (
        SELECT json_agg(json_build_object(
            'id', added.id, 'version', added.version, 'file_path', added.file_path,
            'expired_files', CASE WHEN numbered.is_last THEN (
                SELECT json_agg(expired.file_path ORDER BY expired.version) FROM expired
                WHERE expired.artifact = added.artifact AND expired.file_path IS NOT NULL
            ) END
        ) ORDER BY numbered.at)
        FROM numbered JOIN added USING (artifact, version)
    ) AS versions,
    ",
    registered!("$2")
);

#[derive(Debug, Deserialize)]
struct Added {
    id: i64,
    version: i32,
    file_path: String,
    expired_files: Option<Vec<String>>,
}

#[derive(Debug, Deserialize)]
struct Registered {
    id: i64,
    execution: i64,
    file_path: String,
}

pub(crate) async fn file(
    store: &PostgresStore,
    logs: &[EndedLog],
    executions: &[ExecutionId],
) -> Result<FiledLogs, StoreError> {
    let operation = || "file the logs of executions".to_owned();
    let executions: Vec<i64> = executions.iter().map(|execution| execution.0).collect();
    if logs.is_empty() {
        let row = store.pool.one(sqlx::query(REGISTERED).bind(executions)).await.during(operation)?;
        return Ok(FiledLogs { versions: Vec::new(), registered: registered(&row).during(operation)? });
    }
    if !outgrows_itself(logs) {
        let given = columns::json(&logs.iter().enumerate().map(given).collect::<Value>());
        let query = sqlx::query(FILE).bind(given).bind(&executions);
        match store.pool.one(query).await {
            Err(error) if error.as_database_error().is_some_and(sqlx::error::DatabaseError::is_unique_violation) => {}
            Err(error) => return Err(error).during(operation),
            Ok(row) => {
                let versions = versions(&row).during(operation)?;
                if versions.len() == logs.len() {
                    return Ok(FiledLogs { versions, registered: registered(&row).during(operation)? });
                }
            }
        }
    }
    let mut unit = store.write(&operation()).await?;
    let filed = one_by_one(&mut unit, logs, executions).await.during(operation);
    unit.end(filed, &operation()).await
}

/// Whether one artifact gets more versions at once than it keeps.
fn outgrows_itself(logs: &[EndedLog]) -> bool {
    let mut counts: BTreeMap<&str, i32> = BTreeMap::new();
    logs.iter().any(|log| {
        let count = counts.entry(&log.artifact.r#ref).or_default();
        *count += 1;
        log.artifact.retention_policy == RetentionPolicy::Versions && *count > log.artifact.retention_limit.max(1)
    })
}

fn given((at, log): (usize, &EndedLog)) -> Value {
    let EndedLog { artifact, size_bytes } = log;
    json!({
        "at": at,
        "ref": artifact.r#ref,
        "policy": artifact.retention_policy.as_str(),
        "kept": artifact.retention_limit,
        "execution": artifact.execution,
        "meta": artifact.meta,
        "created_by": artifact.created_by,
        "size": i64::try_from(*size_bytes).unwrap_or(i64::MAX),
    })
}

/// In the order of their refs, so that two of these never wait for each other.
async fn one_by_one(unit: &mut Unit, logs: &[EndedLog], executions: Vec<i64>) -> Result<FiledLogs, sqlx::Error> {
    let mut order: Vec<usize> = (0..logs.len()).collect();
    order.sort_by(|&a, &b| logs[a].artifact.r#ref.cmp(&logs[b].artifact.r#ref));
    let mut added: BTreeMap<usize, LogVersion> = BTreeMap::new();
    for at in order {
        let row = add_locked(unit, &logs[at].artifact).await?;
        let version = version(&row)?;
        unit.execute(size_of(version.id, logs[at].size_bytes)).await?;
        added.insert(at, version);
    }
    let row = unit.one(sqlx::query(REGISTERED).bind(executions)).await?;
    Ok(FiledLogs { versions: added.into_values().collect(), registered: registered(&row)? })
}

/// The version is the newest of its artifact.
fn size_of(version: i64, size_bytes: u64) -> Query<'static> {
    sqlx::query(
        r"
        WITH written AS (
            UPDATE artifact_version SET size_bytes = $2 WHERE id = $1 RETURNING artifact
        )
        UPDATE artifact SET size_bytes = $2 FROM written WHERE artifact.id = written.artifact
        ",
    )
    .bind(version)
    .bind(i64::try_from(size_bytes).unwrap_or(i64::MAX))
}

fn versions(row: &PgRow) -> Result<Vec<LogVersion>, sqlx::Error> {
    let versions = document::<Vec<Added>>(row, "versions")?.unwrap_or_default().into_iter();
    let version = |Added { id, version, file_path, expired_files }: Added| LogVersion {
        id,
        version,
        file_path,
        expired_files: expired_files.unwrap_or_default(),
    };
    Ok(versions.map(version).collect())
}

fn registered(row: &PgRow) -> Result<Vec<RegisteredFile>, sqlx::Error> {
    let files = document::<Vec<Registered>>(row, "registered")?.unwrap_or_default().into_iter();
    let file = |Registered { id, execution, file_path }: Registered| RegisteredFile {
        id,
        execution: ExecutionId(execution),
        file_path,
    };
    Ok(files.map(file).collect())
}
