//! Artifacts and their versions. What the platform's triggers do to them is done here.

use async_trait::async_trait;
use attune_model::rows::{Artifact, ArtifactVersion};
use attune_model::status::{ArtifactVisibility, RetentionPolicy};
use attune_model::{ArtifactId, ArtifactVersionId, ExecutionId};
use attune_store::{
    AddedVersion, ArtifactChange, ArtifactStore, NewArtifact, NewVersion, Page, PageRequest, StoreError,
    VersionContent, VersionNumber, artifact_path,
};
use serde_json::Value;
use sqlx::sqlite::{SqliteConnection, SqliteRow};

use crate::columns::{bounds, json, micros};
use crate::error::During;
use crate::{Query, SqliteStore, log, now, rows, written};

#[async_trait]
impl ArtifactStore for SqliteStore {
    async fn create_artifact(&self, artifact: &NewArtifact) -> Result<Option<Artifact>, StoreError> {
        let query = sqlx::query(
            r"
            INSERT INTO artifact (ref, scope, owner, type, visibility, name, description, content_type, data,
                                  retention_policy, retention_limit, created, updated)
            SELECT ?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?12
            WHERE NOT EXISTS (SELECT 1 FROM artifact WHERE ref = ?1)
            RETURNING *
            ",
        )
        .bind(&artifact.r#ref)
        .bind(artifact.scope.as_str())
        .bind(&artifact.owner)
        .bind(artifact.r#type.as_str())
        .bind(artifact.visibility.as_str())
        .bind(&artifact.name)
        .bind(&artifact.description)
        .bind(&artifact.content_type)
        .bind(artifact.data.as_ref().map(json))
        .bind(artifact.retention_policy.as_str())
        .bind(artifact.retention_limit)
        .bind(micros(now()));
        self.changed(query, || format!("make artifact {}", artifact.r#ref)).await
    }

    async fn artifact(&self, id: ArtifactId) -> Result<Option<Artifact>, StoreError> {
        let row = sqlx::query("SELECT * FROM artifact WHERE id = ?1").bind(id.0).fetch_optional(&self.readers).await;
        row.during(|| format!("read artifact {id}"))?.as_ref().map(rows::artifact).transpose()
    }

    async fn artifact_of_ref(&self, artifact_ref: &str) -> Result<Option<Artifact>, StoreError> {
        let query = sqlx::query("SELECT * FROM artifact WHERE ref = ?1 ORDER BY id LIMIT 1").bind(artifact_ref);
        let row = query.fetch_optional(&self.readers).await;
        row.during(|| format!("read artifact {artifact_ref}"))?.as_ref().map(rows::artifact).transpose()
    }

    async fn change_artifact(&self, id: ArtifactId, change: &ArtifactChange) -> Result<Option<Artifact>, StoreError> {
        let query = sqlx::query(
            r"
            UPDATE artifact SET
                visibility = coalesce(?2, visibility), name = coalesce(?3, name),
                description = coalesce(?4, description), content_type = coalesce(?5, content_type),
                retention_policy = coalesce(?6, retention_policy), retention_limit = coalesce(?7, retention_limit),
                updated = ?8
            WHERE id = ?1
            RETURNING *
            ",
        )
        .bind(id.0)
        .bind(change.visibility.map(ArtifactVisibility::as_str))
        .bind(&change.name)
        .bind(&change.description)
        .bind(&change.content_type)
        .bind(change.retention_policy.map(RetentionPolicy::as_str))
        .bind(change.retention_limit)
        .bind(micros(now()));
        self.changed(query, || format!("change artifact {id}")).await
    }

    async fn set_artifact_data(&self, id: ArtifactId, data: &Value) -> Result<Option<Artifact>, StoreError> {
        let query = sqlx::query("UPDATE artifact SET data = ?2, updated = ?3 WHERE id = ?1 RETURNING *")
            .bind(id.0)
            .bind(json(data))
            .bind(micros(now()));
        self.changed(query, || format!("write the data of artifact {id}")).await
    }

    async fn add_progress(&self, id: ArtifactId, entry: &Value) -> Result<Option<Artifact>, StoreError> {
        let query = sqlx::query(
            r"
            UPDATE artifact SET updated = ?3, data = json_insert(
                CASE WHEN json_type(data) = 'array' THEN data ELSE '[]' END, '$[#]', json(?2))
            WHERE id = ?1
            RETURNING *
            ",
        )
        .bind(id.0)
        .bind(json(entry))
        .bind(micros(now()));
        self.changed(query, || format!("add to the progress of artifact {id}")).await
    }

    async fn delete_artifact(&self, id: ArtifactId) -> Result<Option<Vec<String>>, StoreError> {
        let operation = || format!("remove artifact {id}");
        let mut unit = self.write(&operation()).await?;
        let files = delete(&mut unit, id).await.during(operation)?;
        unit.commit().await.during(operation)?;
        Ok(files)
    }

    async fn add_version(&self, id: ArtifactId, version: &NewVersion) -> Result<Option<AddedVersion>, StoreError> {
        let operation = || format!("add a version of artifact {id}");
        let mut unit = self.write(&operation()).await?;
        let row = sqlx::query("SELECT * FROM artifact WHERE id = ?1").bind(id.0).fetch_optional(&mut *unit).await;
        let Some(row) = row.during(operation)? else { return Ok(None) };
        let (row, expired_files) = add(&mut unit, &rows::artifact(&row)?, version).await.during(operation)?;
        let version = rows::artifact_version(&row)?;
        unit.commit().await.during(operation)?;
        Ok(Some(AddedVersion { version, expired_files }))
    }

    async fn versions(&self, id: ArtifactId, page: PageRequest) -> Result<Page<ArtifactVersion>, StoreError> {
        let operation = || format!("list the versions of artifact {id}");
        let (limit, offset) = bounds(page);
        let mut unit = self.read(&operation()).await?;
        let total: i64 = sqlx::query_scalar("SELECT count(*) FROM artifact_version WHERE artifact = ?1")
            .bind(id.0)
            .fetch_one(&mut *unit)
            .await
            .during(operation)?;
        let found = sqlx::query(
            r"
            SELECT id, artifact, version, execution, content_type, size_bytes, content_json, file_path, meta, created_by,
                   created
            FROM artifact_version WHERE artifact = ?1 ORDER BY version DESC LIMIT ?2 OFFSET ?3
            ",
        )
        .bind(id.0)
        .bind(limit)
        .bind(offset)
        .fetch_all(&mut *unit)
        .await
        .during(operation)?;
        unit.commit().await.during(operation)?;
        let items = found.iter().map(rows::artifact_version).collect::<Result<_, _>>()?;
        Ok(Page { items, total: total.unsigned_abs() })
    }

    async fn version(&self, id: ArtifactId, number: VersionNumber) -> Result<Option<ArtifactVersion>, StoreError> {
        let row = sqlx::query(
            r"
            SELECT id, artifact, version, execution, content_type, size_bytes, content_json, file_path, meta, created_by,
                   created
            FROM artifact_version WHERE artifact = ?1 AND (?2 IS NULL OR version = ?2) ORDER BY version DESC LIMIT 1
            ",
        )
        .bind(id.0)
        .bind(number.number())
        .fetch_optional(&self.readers)
        .await;
        row.during(|| format!("read a version of artifact {id}"))?.as_ref().map(rows::artifact_version).transpose()
    }

    async fn version_bytes(&self, version: ArtifactVersionId) -> Result<Option<Vec<u8>>, StoreError> {
        let found: Option<Option<Vec<u8>>> = sqlx::query_scalar("SELECT content FROM artifact_version WHERE id = ?1")
            .bind(version.0)
            .fetch_optional(&self.readers)
            .await
            .during(|| format!("read the content of artifact version {version}"))?;
        Ok(found.flatten())
    }

    async fn execution_artifacts(
        &self,
        execution: ExecutionId,
        page: PageRequest,
    ) -> Result<Page<Artifact>, StoreError> {
        let operation = || format!("list the artifacts of execution {execution}");
        let (limit, offset) = bounds(page);
        let mut unit = self.read(&operation()).await?;
        let total: i64 =
            sqlx::query_scalar("SELECT count(DISTINCT artifact) FROM artifact_version WHERE execution = ?1")
                .bind(execution.0)
                .fetch_one(&mut *unit)
                .await
                .during(operation)?;
        let found = sqlx::query(
            r"
            SELECT * FROM artifact WHERE id IN (SELECT artifact FROM artifact_version WHERE execution = ?1)
            ORDER BY id LIMIT ?2 OFFSET ?3
            ",
        )
        .bind(execution.0)
        .bind(limit)
        .bind(offset)
        .fetch_all(&mut *unit)
        .await
        .during(operation)?;
        unit.commit().await.during(operation)?;
        let items = found.iter().map(rows::artifact).collect::<Result<_, _>>()?;
        Ok(Page { items, total: total.unsigned_abs() })
    }
}

impl SqliteStore {
    /// The artifact that a writing statement returns.
    async fn changed(&self, query: Query<'_>, operation: impl Fn() -> String) -> Result<Option<Artifact>, StoreError> {
        written(query, &self.writer).await.during(operation)?.as_ref().map(rows::artifact).transpose()
    }
}

async fn delete(unit: &mut SqliteConnection, id: ArtifactId) -> Result<Option<Vec<String>>, sqlx::Error> {
    let files: Vec<String> = sqlx::query_scalar(
        "SELECT file_path FROM artifact_version WHERE artifact = ?1 AND file_path IS NOT NULL ORDER BY version",
    )
    .bind(id.0)
    .fetch_all(&mut *unit)
    .await?;
    // Its versions go with it.
    let removed = sqlx::query("DELETE FROM artifact WHERE id = ?1").bind(id.0).execute(unit).await?.rows_affected();
    Ok((removed > 0).then_some(files))
}

async fn add(
    unit: &mut SqliteConnection,
    artifact: &Artifact,
    new: &NewVersion,
) -> Result<(SqliteRow, Vec<String>), sqlx::Error> {
    let number = log::next_version(unit, artifact.id.0).await?;
    let (bytes, document, file_path) = match &new.content {
        VersionContent::Bytes(bytes) => (Some(bytes), None, None),
        VersionContent::Json(document) => (None, Some(json(document)), None),
        VersionContent::File { extension } => (None, None, Some(artifact_path(&artifact.r#ref, number, extension))),
    };
    let size = new.content.size();
    let row = sqlx::query(
        r"
        INSERT INTO artifact_version (artifact, version, execution, content_type, size_bytes, content, content_json,
                                      file_path, meta, created_by, created)
        VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11)
        RETURNING id, artifact, version, execution, content_type, size_bytes, content_json, file_path, meta, created_by,
                  created
        ",
    )
    .bind(artifact.id.0)
    .bind(number)
    .bind(new.execution.map(|execution| execution.0))
    .bind(&new.content_type)
    .bind(size)
    .bind(bytes)
    .bind(document)
    .bind(file_path)
    .bind(new.meta.as_ref().map(json))
    .bind(&new.created_by)
    .bind(micros(now()))
    .fetch_one(&mut *unit)
    .await?;
    let kept = (artifact.retention_policy, artifact.retention_limit);
    let expired = log::expire(unit, artifact.id.0, kept).await?;
    sqlx::query(
        "UPDATE artifact SET size_bytes = ?2, content_type = coalesce(?3, content_type), updated = ?4 WHERE id = ?1",
    )
    .bind(artifact.id.0)
    .bind(size)
    .bind(&new.content_type)
    .bind(micros(now()))
    .execute(unit)
    .await?;
    Ok((row, expired))
}
