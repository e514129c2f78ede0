//! Artifacts and their versions. Retention, sizes and notifications at the artifact are the work of the tables' triggers;
//! only the files of what retention removes have to be known here.

use async_trait::async_trait;
use attune_model::rows::{Artifact, ArtifactVersion};
use attune_model::status::{ArtifactVisibility, RetentionPolicy};
use attune_model::{ArtifactId, ArtifactVersionId, ExecutionId};
use attune_store::{
    AddedVersion, ArtifactChange, ArtifactStore, NewArtifact, NewVersion, Page, PageRequest, StoreError,
    VersionContent, VersionNumber, artifact_path,
};
use serde_json::Value;
use sqlx::Row as _;

use crate::columns::{JsonRow, bounds, json, text};
use crate::error::During as _;
use crate::pool::{Query, Unit};
use crate::{PostgresStore, log, rows};

/// The columns of a version without its content, which a list of versions does not carry.
macro_rules! version_columns {
    () => {
        "id, artifact, version, execution, content_type, size_bytes, content_json, file_path, meta, created_by, created"
    };
}

#[async_trait]
impl ArtifactStore for PostgresStore {
    async fn create_artifact(&self, artifact: &NewArtifact) -> Result<Option<Artifact>, StoreError> {
        let operation = format!("make artifact {}", artifact.r#ref);
        let mut unit = self.write(&operation).await?;
        let made = create(&mut unit, artifact, &operation).await;
        unit.end(made, &operation).await
    }

    async fn artifact(&self, id: ArtifactId) -> Result<Option<Artifact>, StoreError> {
        let query = sqlx::query("SELECT to_json(artifact.*) FROM artifact WHERE id = $1").bind(id.0);
        self.first(query, rows::artifact, || format!("read artifact {id}")).await
    }

    async fn artifact_of_ref(&self, artifact_ref: &str) -> Result<Option<Artifact>, StoreError> {
        let sql = "SELECT to_json(artifact.*) FROM artifact WHERE ref = $1 ORDER BY id LIMIT 1";
        let query = sqlx::query(sql).bind(artifact_ref);
        self.first(query, rows::artifact, || format!("read artifact {artifact_ref}")).await
    }

    async fn change_artifact(&self, id: ArtifactId, change: &ArtifactChange) -> Result<Option<Artifact>, StoreError> {
        let query = sqlx::query(
            r"
            UPDATE artifact SET
                visibility = coalesce($2::artifact_visibility_enum, visibility), name = coalesce($3, name),
                description = coalesce($4, description), content_type = coalesce($5, content_type),
                retention_policy = coalesce($6::artifact_retention_enum, retention_policy),
                retention_limit = coalesce($7, retention_limit)
            WHERE id = $1
            RETURNING to_json(artifact.*)
            ",
        )
        .bind(id.0)
        .bind(change.visibility.map(ArtifactVisibility::as_str))
        .bind(change.name.as_deref().map(text))
        .bind(change.description.as_deref().map(text))
        .bind(change.content_type.as_deref().map(text))
        .bind(change.retention_policy.map(RetentionPolicy::as_str))
        .bind(change.retention_limit);
        self.first(query, rows::artifact, || format!("change artifact {id}")).await
    }

    async fn set_artifact_data(&self, id: ArtifactId, data: &Value) -> Result<Option<Artifact>, StoreError> {
        let sql = "UPDATE artifact SET data = $2::jsonb WHERE id = $1 RETURNING to_json(artifact.*)";
        let query = sqlx::query(sql).bind(id.0).bind(json(data));
        self.first(query, rows::artifact, || format!("write the data of artifact {id}")).await
    }

    async fn add_progress(&self, id: ArtifactId, entry: &Value) -> Result<Option<Artifact>, StoreError> {
        let query = sqlx::query(
            r"
            UPDATE artifact SET data =
                CASE WHEN jsonb_typeof(data) = 'array' THEN data ELSE '[]' END || jsonb_build_array($2::jsonb)
            WHERE id = $1
            RETURNING to_json(artifact.*)
            ",
        )
        .bind(id.0)
        .bind(json(entry));
        self.first(query, rows::artifact, || format!("add to the progress of artifact {id}")).await
    }

    async fn delete_artifact(&self, id: ArtifactId) -> Result<Option<Vec<String>>, StoreError> {
        // The versions go with the row; what they were is still seen by the statement that removes it.
        let query = sqlx::query(
            r"
            WITH files AS (
                SELECT coalesce(array_agg(file_path ORDER BY version), '{}') AS paths FROM artifact_version
                WHERE artifact = $1 AND file_path IS NOT NULL
            )
            DELETE FROM artifact USING files WHERE artifact.id = $1 RETURNING files.paths
            ",
        )
        .bind(id.0);
        let operation = || format!("remove artifact {id}");
        let row = self.pool.optional(query).await.during(operation)?;
        row.map(|row| row.try_get("paths")).transpose().during(operation)
    }

    async fn add_version(&self, id: ArtifactId, version: &NewVersion) -> Result<Option<AddedVersion>, StoreError> {
        let operation = format!("add a version of artifact {id}");
        let mut unit = self.write(&operation).await?;
        let added = add(&mut unit, id, version, &operation).await;
        unit.end(added, &operation).await
    }

    async fn versions(&self, id: ArtifactId, page: PageRequest) -> Result<Page<ArtifactVersion>, StoreError> {
        let operation = format!("list the versions of artifact {id}");
        let mut unit = self.read(&operation).await?;
        let found = versions(&mut unit, id, page, &operation).await;
        unit.end(found, &operation).await
    }

    async fn version(&self, id: ArtifactId, number: VersionNumber) -> Result<Option<ArtifactVersion>, StoreError> {
        let query = sqlx::query(concat!(
            "SELECT to_json(found.*) FROM (SELECT ",
            version_columns!(),
            " FROM artifact_version WHERE artifact = $1 AND ($2 IS NULL OR version = $2) ORDER BY version DESC LIMIT 1",
            ") AS found"
        ))
        .bind(id.0)
        .bind(number.number());
        self.first(query, rows::artifact_version, || format!("read a version of artifact {id}")).await
    }

    async fn version_bytes(&self, version: ArtifactVersionId) -> Result<Option<Vec<u8>>, StoreError> {
        let operation = || format!("read the content of artifact version {version}");
        let query = sqlx::query("SELECT content FROM artifact_version WHERE id = $1").bind(version.0);
        let row = self.pool.optional(query).await.during(operation)?;
        Ok(row.map(|row| row.try_get::<Option<Vec<u8>>, _>(0)).transpose().during(operation)?.flatten())
    }

    async fn execution_artifacts(
        &self,
        execution: ExecutionId,
        page: PageRequest,
    ) -> Result<Page<Artifact>, StoreError> {
        let operation = format!("list the artifacts of execution {execution}");
        let mut unit = self.read(&operation).await?;
        let found = of_execution(&mut unit, execution, page, &operation).await;
        unit.end(found, &operation).await
    }
}

/// Refs are not unique in the table, so who makes one holds a lock for its ref.
async fn create(unit: &mut Unit, artifact: &NewArtifact, operation: &str) -> Result<Option<Artifact>, StoreError> {
    log::lock_ref(unit, &artifact.r#ref).await.during(|| operation.to_owned())?;
    let query = sqlx::query(
        r"
        INSERT INTO artifact (ref, scope, owner, type, visibility, name, description, content_type, data,
                              retention_policy, retention_limit)
        SELECT $1, $2::owner_type_enum, $3, $4::artifact_type_enum, $5::artifact_visibility_enum, $6, $7, $8, $9::jsonb,
               $10::artifact_retention_enum, $11
        WHERE NOT EXISTS (SELECT FROM artifact WHERE ref = $1)
        RETURNING to_json(artifact.*)
        ",
    )
    .bind(&artifact.r#ref)
    .bind(artifact.scope.as_str())
    .bind(text(&artifact.owner))
    .bind(artifact.r#type.as_str())
    .bind(artifact.visibility.as_str())
    .bind(artifact.name.as_deref().map(text))
    .bind(artifact.description.as_deref().map(text))
    .bind(artifact.content_type.as_deref().map(text))
    .bind(artifact.data.as_ref().map(json))
    .bind(artifact.retention_policy.as_str())
    .bind(artifact.retention_limit);
    unit.first(query, rows::artifact, || operation.to_owned()).await
}

async fn add(
    unit: &mut Unit,
    id: ArtifactId,
    new: &NewVersion,
    operation: &str,
) -> Result<Option<AddedVersion>, StoreError> {
    let during = || operation.to_owned();
    unit.execute(sqlx::query("SELECT pg_advisory_xact_lock($1)").bind(id.0)).await.during(during)?;
    let query = sqlx::query("SELECT to_json(artifact.*) FROM artifact WHERE id = $1").bind(id.0);
    let Some(artifact) = unit.first(query, rows::artifact, during).await? else { return Ok(None) };
    // Somebody may still count without the lock.
    for _ in 0..3 {
        let query = sqlx::query("SELECT coalesce(max(version), 0) + 1 FROM artifact_version WHERE artifact = $1");
        let number: i32 = unit.one(query.bind(id.0)).await.and_then(|row| row.try_get(0)).during(during)?;
        let expired_files = expire(unit, &artifact, number).await.during(during)?;
        if let Some(version) = insert(unit, &artifact, new, number, operation).await? {
            return Ok(Some(AddedVersion { version, expired_files }));
        }
    }
    Err(sqlx::Error::RowNotFound).during(during)
}

/// Removes the versions that have to make room for `number`; their files.
async fn expire(unit: &mut Unit, artifact: &Artifact, number: i32) -> Result<Vec<String>, sqlx::Error> {
    let query = sqlx::query(
        r"
        WITH expired AS (
            DELETE FROM artifact_version
            WHERE artifact = $1 AND version < $2 AND $3 = 'versions' AND $4 > 0
              AND version NOT IN (
                  SELECT version FROM artifact_version AS newer WHERE newer.artifact = $1
                  ORDER BY version DESC LIMIT greatest($4 - 1, 0)
              )
            RETURNING version, file_path
        )
        SELECT coalesce(array_agg(file_path ORDER BY version), '{}') FROM expired WHERE file_path IS NOT NULL
        ",
    )
    .bind(artifact.id.0)
    .bind(number)
    .bind(artifact.retention_policy.as_str())
    .bind(artifact.retention_limit);
    unit.one(query).await?.try_get(0)
}

/// None when somebody else has that number.
async fn insert(
    unit: &mut Unit,
    artifact: &Artifact,
    new: &NewVersion,
    number: i32,
    operation: &str,
) -> Result<Option<ArtifactVersion>, StoreError> {
    let (bytes, document, file_path) = match &new.content {
        VersionContent::Bytes(bytes) => (Some(bytes), None, None),
        VersionContent::Json(document) => (None, Some(json(document)), None),
        VersionContent::File { extension } => (None, None, Some(artifact_path(&artifact.r#ref, number, extension))),
    };
    let query = sqlx::query(concat!(
        "WITH added AS (
            INSERT INTO artifact_version (artifact, version, execution, content_type, size_bytes, content, content_json,
                                          file_path, meta, created_by)
            VALUES ($1, $2, $3, $4, $5, $6, $7::jsonb, $8, $9::jsonb, $10)
            ON CONFLICT (artifact, version) DO NOTHING
            RETURNING ",
        version_columns!(),
        ") SELECT to_json(added.*) FROM added"
    ))
    .bind(artifact.id.0)
    .bind(number)
    .bind(new.execution.map(|execution| execution.0))
    .bind(new.content_type.as_deref().map(text))
    .bind(new.content.size())
    .bind(bytes)
    .bind(document)
    .bind(file_path)
    .bind(new.meta.as_ref().map(json))
    .bind(new.created_by.as_deref().map(text));
    unit.first(query, rows::artifact_version, || operation.to_owned()).await
}

async fn versions(
    unit: &mut Unit,
    id: ArtifactId,
    page: PageRequest,
    operation: &str,
) -> Result<Page<ArtifactVersion>, StoreError> {
    let during = || operation.to_owned();
    let counted = sqlx::query("SELECT count(*) FROM artifact_version WHERE artifact = $1").bind(id.0);
    let listed = sqlx::query(concat!(
        "SELECT to_json(found.*) FROM (SELECT ",
        version_columns!(),
        " FROM artifact_version WHERE artifact = $1 ORDER BY version DESC LIMIT $2 OFFSET $3) AS found"
    ));
    page_of(unit, (counted, listed.bind(id.0)), page, rows::artifact_version, during).await
}

async fn of_execution(
    unit: &mut Unit,
    execution: ExecutionId,
    page: PageRequest,
    operation: &str,
) -> Result<Page<Artifact>, StoreError> {
    let during = || operation.to_owned();
    let counted = sqlx::query("SELECT count(DISTINCT artifact) FROM artifact_version WHERE execution = $1");
    let listed = sqlx::query(
        r"
        SELECT to_json(artifact.*) FROM artifact
        WHERE id IN (SELECT artifact FROM artifact_version WHERE execution = $1) ORDER BY id LIMIT $2 OFFSET $3
        ",
    );
    let queries = (counted.bind(execution.0), listed.bind(execution.0));
    page_of(unit, queries, page, rows::artifact, during).await
}

/// What the first query counts, and the page of it that the second one lists.
async fn page_of<T>(
    unit: &mut Unit,
    (counted, listed): (Query<'_>, Query<'_>),
    page: PageRequest,
    row: fn(JsonRow<'_>) -> Result<T, StoreError>,
    operation: impl Fn() -> String,
) -> Result<Page<T>, StoreError> {
    let (limit, offset) = bounds(page);
    let total = unit.count(counted, &operation).await?;
    Ok(Page { items: unit.rows(listed.bind(limit).bind(offset), row, operation).await?, total })
}
