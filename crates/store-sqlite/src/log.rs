//! Log artifacts and their versions.

use async_trait::async_trait;
use attune_model::ExecutionId;
use attune_model::status::RetentionPolicy;
use attune_store::{
    EndedLog, FiledLogs, LogArtifact, LogStore, LogVersion, RegisteredFile, SensorFile, StoreError, artifact_path,
};
use sqlx::sqlite::SqliteConnection;

use crate::columns::{id_list, json, micros};
use crate::error::During;
use crate::{SqliteStore, now};

#[async_trait]
impl LogStore for SqliteStore {
    async fn add_log_version(&self, artifact: &LogArtifact) -> Result<LogVersion, StoreError> {
        let operation = || format!("add a version of artifact {}", artifact.r#ref);
        let mut unit = self.write(&operation()).await?;
        let version = add(&mut unit, artifact).await.during(operation)?;
        unit.commit().await.during(operation)?;
        Ok(version)
    }

    async fn file_logs(&self, logs: &[EndedLog], executions: &[ExecutionId]) -> Result<FiledLogs, StoreError> {
        let operation = || "file the logs of executions".to_owned();
        if logs.is_empty() {
            let mut unit = self.read(&operation()).await?;
            let registered = registered_files(&mut unit, executions).await.during(operation)?;
            return Ok(FiledLogs { versions: Vec::new(), registered });
        }
        let mut unit = self.write(&operation()).await?;
        let mut versions = Vec::with_capacity(logs.len());
        for log in logs {
            let version = add(&mut unit, &log.artifact).await.during(operation)?;
            set_size(&mut unit, version.id, log.size_bytes).await.during(operation)?;
            versions.push(version);
        }
        let registered = registered_files(&mut unit, executions).await.during(operation)?;
        unit.commit().await.during(operation)?;
        Ok(FiledLogs { versions, registered })
    }

    async fn log_versions(&self, execution: ExecutionId) -> Result<Vec<(String, LogVersion)>, StoreError> {
        let operation = || format!("find the logs of execution {execution}");
        let mut unit = self.read(&operation()).await?;
        let found: Vec<(String, i64, i32, String)> = sqlx::query_as(
            r"
            SELECT artifact.ref, filed.id, filed.version, filed.file_path
            FROM artifact_version AS filed JOIN artifact ON artifact.id = filed.artifact
            WHERE filed.execution = ?1 AND filed.created_by = 'worker' AND filed.file_path IS NOT NULL
            ORDER BY filed.id
            ",
        )
        .bind(execution.0)
        .fetch_all(&mut *unit)
        .await
        .during(operation)?;
        let version = |(artifact_ref, id, version, file_path)| {
            (artifact_ref, LogVersion { id, version, file_path, expired_files: Vec::new() })
        };
        Ok(found.into_iter().map(version).collect())
    }

    async fn sensor_files(&self, sensor_refs: &[String]) -> Result<Vec<SensorFile>, StoreError> {
        let operation = || "find the files of sensors".to_owned();
        let mut unit = self.read(&operation()).await?;
        let found: Vec<(i64, String, String, Option<i64>)> = sqlx::query_as(
            r"
            SELECT artifact_version.id, owner, file_path, artifact_version.size_bytes
            FROM artifact_version JOIN artifact ON artifact.id = artifact_version.artifact
            WHERE scope = 'sensor' AND owner IN (SELECT value FROM json_each(?1)) AND file_path IS NOT NULL
            ORDER BY artifact_version.id
            ",
        )
        .bind(serde_json::json!(sensor_refs).to_string())
        .fetch_all(&mut *unit)
        .await
        .during(operation)?;
        let file = |(id, owner, file_path, size): (i64, String, String, Option<i64>)| SensorFile {
            id,
            owner,
            file_path,
            size_bytes: size.map(|size| u64::try_from(size).unwrap_or_default()),
        };
        Ok(found.into_iter().map(file).collect())
    }

    async fn set_log_sizes(&self, sizes: &[(i64, u64)]) -> Result<(), StoreError> {
        if sizes.is_empty() {
            return Ok(());
        }
        let mut unit = self.write("write sizes of logs").await?;
        for &(version, size) in sizes {
            set_size(&mut unit, version, size)
                .await
                .during(|| format!("write the size of artifact version {version}"))?;
        }
        unit.commit().await.during(|| "write sizes of logs".to_owned())
    }
}

async fn add(unit: &mut SqliteConnection, artifact: &LogArtifact) -> Result<LogVersion, sqlx::Error> {
    let id = find_or_make(unit, artifact).await?;
    let version = next_version(unit, id).await?;
    let file_path = artifact_path(&artifact.r#ref, version, "txt");
    let version_id = insert_version(unit, id, artifact, (version, &file_path)).await?;
    let expired_files = expire(unit, id, (artifact.retention_policy, artifact.retention_limit)).await?;
    Ok(LogVersion { id: version_id, version, file_path, expired_files })
}

async fn registered_files(
    unit: &mut SqliteConnection,
    executions: &[ExecutionId],
) -> Result<Vec<RegisteredFile>, sqlx::Error> {
    let found: Vec<(i64, i64, String)> = sqlx::query_as(
        r"
        SELECT id, execution, file_path FROM artifact_version
        WHERE execution IN (SELECT value FROM json_each(?1)) AND file_path IS NOT NULL AND coalesce(size_bytes, 0) = 0
        ORDER BY id
        ",
    )
    .bind(id_list(executions))
    .fetch_all(unit)
    .await?;
    let file = |(id, execution, file_path)| RegisteredFile { id, execution: ExecutionId(execution), file_path };
    Ok(found.into_iter().map(file).collect())
}

async fn find_or_make(unit: &mut SqliteConnection, artifact: &LogArtifact) -> Result<i64, sqlx::Error> {
    let found: Option<(i64, String, i32)> =
        sqlx::query_as("SELECT id, retention_policy, retention_limit FROM artifact WHERE ref = ?1 ORDER BY id LIMIT 1")
            .bind(&artifact.r#ref)
            .fetch_optional(&mut *unit)
            .await?;
    let Some((id, policy, limit)) = found else {
        return make(unit, artifact).await;
    };
    if policy != artifact.retention_policy.as_str() || limit != artifact.retention_limit {
        sqlx::query("UPDATE artifact SET retention_policy = ?2, retention_limit = ?3, updated = ?4 WHERE id = ?1")
            .bind(id)
            .bind(artifact.retention_policy.as_str())
            .bind(artifact.retention_limit)
            .bind(micros(now()))
            .execute(unit)
            .await?;
    }
    Ok(id)
}

async fn make(unit: &mut SqliteConnection, artifact: &LogArtifact) -> Result<i64, sqlx::Error> {
    sqlx::query_scalar(
        r"
        INSERT INTO artifact (ref, scope, owner, type, visibility, name, description, content_type, retention_policy,
                              retention_limit, created, updated)
        VALUES (?1, ?2, ?3, 'file_text', 'private', ?4, ?5, 'text/plain', ?6, ?7, ?8, ?8)
        RETURNING id
        ",
    )
    .bind(&artifact.r#ref)
    .bind(artifact.scope.as_str())
    .bind(&artifact.owner)
    .bind(&artifact.name)
    .bind(&artifact.description)
    .bind(artifact.retention_policy.as_str())
    .bind(artifact.retention_limit)
    .bind(micros(now()))
    .fetch_one(unit)
    .await
}

pub(crate) async fn next_version(unit: &mut SqliteConnection, artifact: i64) -> Result<i32, sqlx::Error> {
    sqlx::query_scalar("SELECT coalesce(max(version), 0) + 1 FROM artifact_version WHERE artifact = ?1")
        .bind(artifact)
        .fetch_one(unit)
        .await
}

async fn insert_version(
    unit: &mut SqliteConnection,
    id: i64,
    artifact: &LogArtifact,
    (version, file_path): (i32, &str),
) -> Result<i64, sqlx::Error> {
    sqlx::query_scalar(
        r"
        INSERT INTO artifact_version (artifact, version, execution, content_type, file_path, meta, created_by, created)
        VALUES (?1, ?2, ?3, 'text/plain', ?4, ?5, ?6, ?7)
        RETURNING id
        ",
    )
    .bind(id)
    .bind(version)
    .bind(artifact.execution.map(|execution| execution.0))
    .bind(file_path)
    .bind(json(&artifact.meta))
    .bind(artifact.created_by)
    .bind(micros(now()))
    .fetch_one(unit)
    .await
}

/// Removes the oldest versions beyond the limit; their files, oldest first. Retention by time is not this store's.
pub(crate) async fn expire(
    unit: &mut SqliteConnection,
    id: i64,
    (policy, limit): (RetentionPolicy, i32),
) -> Result<Vec<String>, sqlx::Error> {
    if policy != RetentionPolicy::Versions || limit <= 0 {
        return Ok(Vec::new());
    }
    let mut removed: Vec<(i32, Option<String>)> = sqlx::query_as(
        r"
        DELETE FROM artifact_version
        WHERE artifact = ?1
          AND version NOT IN (SELECT version FROM artifact_version WHERE artifact = ?1 ORDER BY version DESC LIMIT ?2)
        RETURNING version, file_path
        ",
    )
    .bind(id)
    .bind(limit)
    .fetch_all(unit)
    .await?;
    removed.sort_unstable();
    Ok(removed.into_iter().filter_map(|(_, file)| file).collect())
}

/// The artifact shows the size of its newest version.
async fn set_size(unit: &mut SqliteConnection, version: i64, size: u64) -> Result<(), sqlx::Error> {
    let sql = if size == 0 {
        "DELETE FROM artifact_version WHERE id = ?1 RETURNING artifact"
    } else {
        "UPDATE artifact_version SET size_bytes = ?2 WHERE id = ?1 RETURNING artifact"
    };
    let artifact: Option<i64> = sqlx::query_scalar(sql)
        .bind(version)
        .bind(i64::try_from(size).unwrap_or(i64::MAX))
        .fetch_optional(&mut *unit)
        .await?;
    // Retention may have removed the version while its log was written.
    let Some(artifact) = artifact else {
        return Ok(());
    };
    sqlx::query(
        r"
        UPDATE artifact SET updated = ?2, size_bytes =
            (SELECT size_bytes FROM artifact_version WHERE artifact = ?1 ORDER BY version DESC LIMIT 1)
        WHERE id = ?1
        ",
    )
    .bind(artifact)
    .bind(micros(now()))
    .execute(unit)
    .await
    .map(drop)
}
