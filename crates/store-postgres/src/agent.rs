//! The agent's own row and the runtimes.

use async_trait::async_trait;
use attune_model::rows::{Runtime, RuntimeVersion, Worker};
use attune_model::status::WorkerStatus;
use attune_model::{JsonMap, WorkerId};
use attune_store::{AgentStore, StoreError, WorkerRegistration};
use chrono::{DateTime, Utc};
use sqlx::Row as _;

use crate::columns::object;
use crate::error::During as _;
use crate::{PostgresStore, rows};

#[async_trait]
impl AgentStore for PostgresStore {
    async fn now(&self) -> Result<DateTime<Utc>, StoreError> {
        let row = self.pool.one(sqlx::query("SELECT now()")).await;
        row.and_then(|row| row.try_get(0)).during(|| "ask for the time".to_owned())
    }

    async fn register_worker(&self, registration: &WorkerRegistration) -> Result<Worker, StoreError> {
        // A sensor host has no port: what somebody wrote there by hand stays.
        let query = sqlx::query(
            r"
            INSERT INTO worker (name, worker_role, worker_type, host, port, status, capabilities, last_heartbeat)
            VALUES ($1, $2::worker_role_enum, $3::worker_type_enum, $4, $5, 'active', $6::jsonb, now())
            ON CONFLICT (name) DO UPDATE SET
                status = 'active',
                last_heartbeat = now(),
                host = excluded.host,
                port = CASE worker.worker_role WHEN 'sensor' THEN worker.port ELSE excluded.port END,
                capabilities = excluded.capabilities
            WHERE worker.worker_role = excluded.worker_role
            RETURNING to_json(worker.*)
            ",
        )
        .bind(&registration.name)
        .bind(registration.role.as_str())
        .bind(registration.worker_type.as_str())
        .bind(&registration.host)
        .bind(registration.port)
        .bind(object(&registration.capabilities));
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
}
