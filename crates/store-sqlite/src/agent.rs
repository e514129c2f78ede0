//! The agent's own row and the runtimes.

use async_trait::async_trait;
use attune_model::rows::{Runtime, RuntimeVersion, Worker};
use attune_model::status::WorkerStatus;
use attune_model::{JsonMap, WorkerId};
use attune_store::{AgentStore, StoreError, WorkerRegistration};
use chrono::{DateTime, Utc};

use crate::columns::{micros, object};
use crate::error::During;
use crate::{SqliteStore, now, rows, written};

#[async_trait]
impl AgentStore for SqliteStore {
    async fn now(&self) -> Result<DateTime<Utc>, StoreError> {
        Ok(now())
    }

    async fn register_worker(&self, registration: &WorkerRegistration) -> Result<Worker, StoreError> {
        // A sensor host has no port: what somebody wrote there by hand stays.
        let query = sqlx::query(
            r"
            INSERT INTO worker (name, worker_role, worker_type, host, port, status, capabilities, last_heartbeat, created,
                                updated)
            VALUES (?1, ?2, ?3, ?4, ?5, 'active', ?6, ?7, ?7, ?7)
            ON CONFLICT (name) DO UPDATE SET
                status = 'active',
                last_heartbeat = excluded.last_heartbeat,
                host = excluded.host,
                port = CASE worker_role WHEN 'sensor' THEN port ELSE excluded.port END,
                capabilities = excluded.capabilities,
                updated = excluded.updated
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
        .bind(micros(now()));
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
}
