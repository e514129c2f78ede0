//! The agent's own row and the runtimes.

use async_trait::async_trait;
use attune_model::rows::{Runtime, RuntimeVersion, Worker};
use attune_model::status::WorkerStatus;
use attune_model::{JsonMap, RuntimeVersionId, WorkerId};
use attune_store::{AgentStore, DetectedRuntime, StoreError, WorkerRegistration};
use chrono::{DateTime, Utc};
use sqlx::Row as _;

use crate::columns::{json, object};
use crate::error::During as _;
use crate::{PostgresStore, rows};

#[async_trait]
impl AgentStore for PostgresStore {
    async fn now(&self) -> Result<DateTime<Utc>, StoreError> {
        let row = self.pool.one(sqlx::query("SELECT now()")).await;
        row.and_then(|row| row.try_get(0)).during(|| "ask for the time".to_owned())
    }

    async fn register_worker(&self, registration: &WorkerRegistration) -> Result<Worker, StoreError> {
        // A sensor host has no port: what somebody wrote there by hand stays. Its row may be that of another life, whose session is
        // not renewed by this heartbeat.
        let query = sqlx::query(
            r"
            INSERT INTO worker (name, worker_role, worker_type, host, port, status, capabilities, last_heartbeat, runtime)
            VALUES ($1, $2::worker_role_enum, $3::worker_type_enum, $4, $5, 'active', $6::jsonb, now(),
                    (SELECT id FROM runtime WHERE id = $7))
            ON CONFLICT (name) DO UPDATE SET
                status = 'active',
                last_heartbeat = now(),
                host = excluded.host,
                port = CASE worker.worker_role WHEN 'sensor' THEN worker.port ELSE excluded.port END,
                capabilities = excluded.capabilities,
                meta = CASE WHEN worker.meta #>> '{attune_session,life_us}' IS NULL THEN worker.meta ELSE
                    jsonb_set(worker.meta, '{attune_session,until_us}', coalesce(
                        worker.meta #> '{attune_session,until_us}',
                        to_jsonb((extract(epoch FROM worker.last_heartbeat) * 1000000)::bigint
                                 + (worker.meta #>> '{attune_session,life_us}')::bigint),
                        '0')) END
            WHERE worker.worker_role = excluded.worker_role
            RETURNING to_json(worker.*)
            ",
        )
        .bind(&registration.name)
        .bind(registration.role.as_str())
        .bind(registration.worker_type.as_str())
        .bind(&registration.host)
        .bind(registration.port)
        .bind(object(&registration.capabilities))
        .bind(registration.runtime.map(|runtime| runtime.0));
        let row = self.first(query, rows::worker, || format!("register worker {}", registration.name)).await?;
        row.ok_or_else(|| {
            StoreError::Conflict(format!(
                "the name {} belongs to a worker of the other role; choose another name for this {} worker",
                registration.name, registration.role
            ))
        })
    }

    async fn heartbeat(&self, worker: WorkerId, status: WorkerStatus) -> Result<bool, StoreError> {
        let query =
            sqlx::query("UPDATE worker SET last_heartbeat = now(), status = $2::worker_status_enum WHERE id = $1")
                .bind(worker.0)
                .bind(status.as_str());
        let done = self.pool.execute(query).await.during(|| format!("write the heartbeat of worker {worker}"))?;
        Ok(done == 1)
    }

    async fn set_worker_status(&self, worker: WorkerId, status: WorkerStatus) -> Result<(), StoreError> {
        let query = sqlx::query("UPDATE worker SET status = $2::worker_status_enum WHERE id = $1")
            .bind(worker.0)
            .bind(status.as_str());
        self.pool.execute(query).await.during(|| format!("set worker {worker} to {status}")).map(drop)
    }

    async fn set_capabilities(&self, worker: WorkerId, capabilities: &JsonMap) -> Result<(), StoreError> {
        let query = sqlx::query("UPDATE worker SET capabilities = $2::jsonb WHERE id = $1")
            .bind(worker.0)
            .bind(object(capabilities));
        self.pool.execute(query).await.during(|| format!("write the capabilities of worker {worker}")).map(drop)
    }

    async fn runtimes(&self) -> Result<Vec<Runtime>, StoreError> {
        let query = sqlx::query("SELECT to_json(runtime.*) FROM runtime ORDER BY ref COLLATE \"C\"");
        self.rows(query, rows::runtime, || "read the runtimes".to_owned()).await
    }

    async fn runtime_versions(&self) -> Result<Vec<RuntimeVersion>, StoreError> {
        let query = sqlx::query("SELECT to_json(runtime_version.*) FROM runtime_version ORDER BY runtime, id");
        self.rows(query, rows::runtime_version, || "read the runtime versions".to_owned()).await
    }

    async fn add_detected_runtime(&self, runtime: &DetectedRuntime) -> Result<bool, StoreError> {
        let query = sqlx::query(
            r"
            INSERT INTO runtime (ref, pack, pack_ref, description, name, aliases, distributions, installation, installers,
                                 execution_config, auto_detected, detection_config)
            VALUES ($1, $2, $3, $4, $5, $6, $7::jsonb, (SELECT installation FROM runtime WHERE id = $8), '{}', $9::jsonb,
                    true, $10::jsonb)
            ON CONFLICT (ref) DO NOTHING
            ",
        )
        .bind(&runtime.r#ref)
        .bind(runtime.pack.map(|pack| pack.0))
        .bind(&runtime.pack_ref)
        .bind(&runtime.description)
        .bind(&runtime.name)
        .bind(&runtime.aliases)
        .bind(json(&runtime.distributions))
        .bind(runtime.template.map(|template| template.0))
        .bind(json(&runtime.execution_config))
        .bind(json(&runtime.detection_config));
        let done = self.pool.execute(query).await.during(|| format!("register runtime {}", runtime.r#ref))?;
        Ok(done == 1)
    }

    async fn set_verified_versions(&self, versions: &[(RuntimeVersionId, bool)]) -> Result<(), StoreError> {
        if versions.is_empty() {
            return Ok(());
        }
        let (ids, available): (Vec<i64>, Vec<bool>) =
            versions.iter().map(|(version, available)| (version.0, *available)).unzip();
        let query = sqlx::query(
            r"
            UPDATE runtime_version SET available = given.available, verified_at = now()
            FROM unnest($1::bigint[], $2::boolean[]) AS given (id, available)
            WHERE runtime_version.id = given.id
            ",
        )
        .bind(ids)
        .bind(available);
        self.pool.execute(query).await.during(|| "write which runtime versions are available".to_owned()).map(drop)
    }
}
