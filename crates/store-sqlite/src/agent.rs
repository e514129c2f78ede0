//! The agent's own row and the runtimes.

use async_trait::async_trait;
use attune_model::rows::{Runtime, RuntimeVersion, Worker};
use attune_model::status::WorkerStatus;
use attune_model::{JsonMap, RuntimeVersionId, WorkerId};
use attune_store::{AgentStore, DetectedRuntime, StoreError, WorkerRegistration};
use chrono::{DateTime, Utc};

use crate::columns::{json, list, micros, object};
use crate::error::During;
use crate::{SqliteStore, now, rows, written};

#[async_trait]
impl AgentStore for SqliteStore {
    async fn now(&self) -> Result<DateTime<Utc>, StoreError> {
        Ok(now())
    }

    async fn register_worker(&self, registration: &WorkerRegistration) -> Result<Worker, StoreError> {
        // A sensor host has no port: what somebody wrote there by hand stays. Its row may be that of another life, whose session is
        // not renewed by this heartbeat.
        let query = sqlx::query(
            r"
            INSERT INTO worker (name, worker_role, worker_type, host, port, status, capabilities, last_heartbeat, created,
                                updated, runtime)
            VALUES (?1, ?2, ?3, ?4, ?5, 'active', ?6, ?7, ?7, ?7, (SELECT id FROM runtime WHERE id = ?8))
            ON CONFLICT (name) DO UPDATE SET
                status = 'active',
                last_heartbeat = excluded.last_heartbeat,
                host = excluded.host,
                port = CASE worker_role WHEN 'sensor' THEN port ELSE excluded.port END,
                capabilities = excluded.capabilities,
                updated = excluded.updated,
                meta = CASE WHEN json_extract(meta, '$.attune_session.life_us') IS NULL THEN meta ELSE
                    json_insert(meta, '$.attune_session.until_us',
                                last_heartbeat + json_extract(meta, '$.attune_session.life_us')) END
            WHERE worker_role = excluded.worker_role
            RETURNING *
            ",
        )
        .bind(&registration.name)
        .bind(registration.role.as_str())
        .bind(registration.worker_type.as_str())
        .bind(&registration.host)
        .bind(registration.port)
        .bind(object(&registration.capabilities))
        .bind(micros(now()))
        .bind(registration.runtime.map(|runtime| runtime.0));
        let row = written(query, &self.writer).await.during(|| format!("register worker {}", registration.name))?;
        row.map_or_else(
            || {
                Err(StoreError::Conflict(format!(
                    "the name {} belongs to a worker of the other role; choose another name for this {} worker",
                    registration.name, registration.role
                )))
            },
            |row| rows::worker(&row),
        )
    }

    async fn heartbeat(&self, worker: WorkerId, status: WorkerStatus) -> Result<bool, StoreError> {
        let done = sqlx::query("UPDATE worker SET last_heartbeat = ?2, updated = ?2, status = ?3 WHERE id = ?1")
            .bind(worker.0)
            .bind(micros(now()))
            .bind(status.as_str())
            .execute(&self.writer)
            .await
            .during(|| format!("write the heartbeat of worker {worker}"))?;
        Ok(done.rows_affected() == 1)
    }

    async fn set_worker_status(&self, worker: WorkerId, status: WorkerStatus) -> Result<(), StoreError> {
        sqlx::query("UPDATE worker SET status = ?2, updated = ?3 WHERE id = ?1")
            .bind(worker.0)
            .bind(status.as_str())
            .bind(micros(now()))
            .execute(&self.writer)
            .await
            .during(|| format!("set worker {worker} to {status}"))
            .map(drop)
    }

    async fn set_capabilities(&self, worker: WorkerId, capabilities: &JsonMap) -> Result<(), StoreError> {
        sqlx::query("UPDATE worker SET capabilities = ?2, updated = ?3 WHERE id = ?1")
            .bind(worker.0)
            .bind(object(capabilities))
            .bind(micros(now()))
            .execute(&self.writer)
            .await
            .during(|| format!("write the capabilities of worker {worker}"))
            .map(drop)
    }

    async fn runtimes(&self) -> Result<Vec<Runtime>, StoreError> {
        let found = sqlx::query("SELECT * FROM runtime ORDER BY ref")
            .fetch_all(&self.readers)
            .await
            .during(|| "read the runtimes".to_owned())?;
        found.iter().map(rows::runtime).collect()
    }

    async fn runtime_versions(&self) -> Result<Vec<RuntimeVersion>, StoreError> {
        let found = sqlx::query("SELECT * FROM runtime_version ORDER BY runtime, id")
            .fetch_all(&self.readers)
            .await
            .during(|| "read the runtime versions".to_owned())?;
        found.iter().map(rows::runtime_version).collect()
    }

    async fn add_detected_runtime(&self, runtime: &DetectedRuntime) -> Result<bool, StoreError> {
        let done = sqlx::query(
            r"
            INSERT INTO runtime (ref, pack, pack_ref, description, name, aliases, distributions, installation, installers,
                                 execution_config, auto_detected, detection_config, created, updated)
            VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, (SELECT installation FROM runtime WHERE id = ?8), '{}', ?9, 1, ?10, ?11,
                    ?11)
            ON CONFLICT (ref) DO NOTHING
            ",
        )
        .bind(&runtime.r#ref)
        .bind(runtime.pack.map(|pack| pack.0))
        .bind(&runtime.pack_ref)
        .bind(&runtime.description)
        .bind(&runtime.name)
        .bind(list(&runtime.aliases))
        .bind(json(&runtime.distributions))
        .bind(runtime.template.map(|template| template.0))
        .bind(json(&runtime.execution_config))
        .bind(json(&runtime.detection_config))
        .bind(micros(now()))
        .execute(&self.writer)
        .await
        .during(|| format!("register runtime {}", runtime.r#ref))?;
        Ok(done.rows_affected() == 1)
    }

    async fn set_verified_versions(&self, versions: &[(RuntimeVersionId, bool)]) -> Result<(), StoreError> {
        let operation = || "write which runtime versions are available".to_owned();
        let mut unit = self.write(&operation()).await?;
        for (version, available) in versions {
            sqlx::query("UPDATE runtime_version SET available = ?2, verified_at = ?3, updated = ?3 WHERE id = ?1")
                .bind(version.0)
                .bind(available)
                .bind(micros(now()))
                .execute(&mut *unit)
                .await
                .during(operation)?;
        }
        unit.commit().await.during(operation)
    }
}
