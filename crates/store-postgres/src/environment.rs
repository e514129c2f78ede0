//! `pack_environment`: one builder at a time.

use std::time::Duration;

use async_trait::async_trait;
use attune_model::{PackEnvironmentId, WorkerId};
use attune_store::{EnvironmentOutcome, EnvironmentRow, EnvironmentStore, EnvironmentTarget, StoreError};

use crate::PostgresStore;
use crate::columns::{Columns, JsonRow, micros, text};
use crate::error::During as _;

#[async_trait]
impl EnvironmentStore for PostgresStore {
    async fn upsert_environment(&self, target: &EnvironmentTarget) -> Result<EnvironmentRow, StoreError> {
        // What is kept: everything when nothing that matters changed, and the claim of a builder that is alive.
        let query = sqlx::query(
            r"
            WITH stored AS (
                INSERT INTO pack_environment AS old (pack, pack_ref, runtime, runtime_ref, runtime_version,
                                                     runtime_version_text, env_path, manifest_checksum)
                VALUES ($1, $2, $3, $4, $5, $6, $7, $8)
                ON CONFLICT (env_key) DO UPDATE SET
                    pack_ref = excluded.pack_ref,
                    runtime_ref = excluded.runtime_ref,
                    runtime_version_text = excluded.runtime_version_text,
                    env_path = excluded.env_path,
                    manifest_checksum = excluded.manifest_checksum,
                    (status, claimed_by_worker, claim_expires_at) = (
                        SELECT CASE WHEN kept THEN old.status ELSE 'outdated' END,
                               CASE WHEN kept THEN old.claimed_by_worker END,
                               CASE WHEN kept THEN old.claim_expires_at END
                        FROM (SELECT old.env_path = excluded.env_path
                                     AND old.manifest_checksum IS NOT DISTINCT FROM excluded.manifest_checksum
                                     OR old.status = 'installing' AND coalesce(old.claim_expires_at > now(), false)
                             ) AS decision (kept)
                    )
                RETURNING *
            )
            SELECT to_json(found.*) FROM (
                SELECT stored.*, coalesce(claim_expires_at <= now(), false) AS claim_expired FROM stored
            ) AS found
            ",
        )
        .bind(target.pack.0)
        .bind(&target.pack_ref)
        .bind(target.runtime.0)
        .bind(&target.runtime_ref)
        .bind(target.version.as_ref().map(|(id, _)| id.0))
        .bind(target.version.as_ref().map(|(_, text)| text))
        .bind(&target.env_path)
        .bind(&target.manifest_checksum);
        let operation = || format!("register the environment {}", target.env_path);
        let row = self.first(query, environment, operation).await?;
        row.ok_or(sqlx::Error::RowNotFound).during(operation)
    }

    async fn environment(&self, id: PackEnvironmentId) -> Result<Option<EnvironmentRow>, StoreError> {
        let query = sqlx::query(
            r"
            SELECT to_json(found.*) FROM (
                SELECT *, coalesce(claim_expires_at <= now(), false) AS claim_expired FROM pack_environment WHERE id = $1
            ) AS found
            ",
        )
        .bind(id.0);
        self.first(query, environment, || format!("read environment {id}")).await
    }

    async fn claim_environment(
        &self,
        id: PackEnvironmentId,
        worker: WorkerId,
        lifetime: Duration,
    ) -> Result<bool, StoreError> {
        let query = sqlx::query(
            r"
            UPDATE pack_environment
            SET status = 'installing', claimed_by_worker = $2,
                claim_expires_at = now() + $3 * interval '1 microsecond'
            WHERE id = $1
              AND (status IN ('pending', 'failed', 'outdated')
                   OR status = 'installing' AND coalesce(claim_expires_at <= now(), true))
            ",
        )
        .bind(id.0)
        .bind(worker.0)
        .bind(micros(lifetime));
        let done = self.pool.execute(query).await;
        Ok(done.during(|| format!("claim environment {id} for worker {worker}"))? == 1)
    }

    async fn renew_environment_claim(
        &self,
        id: PackEnvironmentId,
        worker: WorkerId,
        lifetime: Duration,
    ) -> Result<bool, StoreError> {
        let query = sqlx::query(
            r"
            UPDATE pack_environment SET claim_expires_at = now() + $3 * interval '1 microsecond'
            WHERE id = $1 AND claimed_by_worker = $2 AND status = 'installing'
            ",
        )
        .bind(id.0)
        .bind(worker.0)
        .bind(micros(lifetime));
        let done = self.pool.execute(query).await;
        Ok(done.during(|| format!("renew the claim of environment {id} for worker {worker}"))? == 1)
    }

    async fn mark_environment_outdated(&self, id: PackEnvironmentId) -> Result<(), StoreError> {
        let query = sqlx::query("UPDATE pack_environment SET status = 'outdated' WHERE id = $1 AND status = 'ready'");
        let done = self.pool.execute(query.bind(id.0)).await;
        done.during(|| format!("mark environment {id} as outdated")).map(drop)
    }

    async fn finish_environment(
        &self,
        id: PackEnvironmentId,
        worker: WorkerId,
        outcome: &EnvironmentOutcome,
    ) -> Result<bool, StoreError> {
        let query = match outcome {
            EnvironmentOutcome::Ready { manifest_checksum, log } => sqlx::query(
                r"
                UPDATE pack_environment
                SET status = 'ready', manifest_checksum = $3, install_log = $4, install_error = NULL,
                    installed_at = now(), last_verified = now(), claimed_by_worker = NULL, claim_expires_at = NULL
                WHERE id = $1 AND claimed_by_worker = $2 AND status = 'installing'
                ",
            )
            .bind(id.0)
            .bind(worker.0)
            .bind(manifest_checksum)
            .bind(text(log)),
            EnvironmentOutcome::Failed { error, log } => sqlx::query(
                r"
                UPDATE pack_environment
                SET status = 'failed', install_error = $3, install_log = $4, claimed_by_worker = NULL,
                    claim_expires_at = NULL
                WHERE id = $1 AND claimed_by_worker = $2 AND status = 'installing'
                ",
            )
            .bind(id.0)
            .bind(worker.0)
            .bind(text(error))
            .bind(text(log)),
        };
        let done = self.pool.execute(query).await;
        Ok(done.during(|| format!("end the claim of environment {id} by worker {worker}"))? == 1)
    }
}

fn environment(row: JsonRow<'_>) -> Result<EnvironmentRow, StoreError> {
    let mut of = Columns::new("pack_environment", row);
    Ok(EnvironmentRow {
        id: of.get("id")?,
        status: of.get("status")?,
        manifest_checksum: of.get("manifest_checksum")?,
        claimed_by: of.get("claimed_by_worker")?,
        claim_expires_at: of.get("claim_expires_at")?,
        claim_expired: of.get("claim_expired")?,
        install_error: of.get("install_error")?,
    })
}
