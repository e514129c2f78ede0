//! Log artifacts and their versions.

use async_trait::async_trait;
use attune_model::status::RetentionPolicy;
use attune_store::{LogArtifact, LogStore, LogVersion, StoreError};
use sqlx::sqlite::SqliteConnection;

use crate::columns::{json, micros};
use crate::error::During;
use crate::{SqliteStore, now};

#[async_trait]
impl LogStore for SqliteStore {
    async fn add_log_version(&self, artifact: &LogArtifact) -> Result<LogVersion, StoreError> {
        let operation = || format!("add a version of artifact {}", artifact.r#ref);
        let mut unit = self.write(&operation()).await?;
        let id = find_or_make(&mut unit, artifact).await.during(operation)?;
        let version = next_version(&mut unit, id).await.during(operation)?;
        let file_path = format!("{}/v{version}.txt", artifact.r#ref.replace('.', "/"));
        let version_id = insert_version(&mut unit, id, artifact, (version, &file_path)).await.during(operation)?;
        let expired_files = expire(&mut unit, id, artifact).await.during(operation)?;
        unit.commit().await.during(operation)?;
        Ok(LogVersion { id: version_id, version, file_path, expired_files })
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

async fn next_version(unit: &mut SqliteConnection, artifact: i64) -> Result<i32, sqlx::Error> {
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
async fn expire(unit: &mut SqliteConnection, id: i64, artifact: &LogArtifact) -> Result<Vec<String>, sqlx::Error> {
    if artifact.retention_policy != RetentionPolicy::Versions || artifact.retention_limit <= 0 {
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
    .bind(artifact.retention_limit)
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
