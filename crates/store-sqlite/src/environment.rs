//! `pack_environment`: one builder at a time.

use std::time::Duration;

use async_trait::async_trait;
use attune_model::{PackEnvironmentId, WorkerId};
use attune_store::{EnvironmentOutcome, EnvironmentRow, EnvironmentStore, EnvironmentTarget, StoreError};
use chrono::{DateTime, TimeDelta, Utc};
use sqlx::sqlite::SqliteRow;

use crate::columns::{Columns, micros};
use crate::error::During;
use crate::{SqliteStore, now, written};

#[async_trait]
impl EnvironmentStore for SqliteStore {
    async fn upsert_environment(&self, target: &EnvironmentTarget) -> Result<EnvironmentRow, StoreError> {
        let now = now();
        // Right-hand sides see the row as it was; `env_path` and `manifest_checksum` there are the old ones.
        let query = sqlx::query(
            r"
            INSERT INTO pack_environment (pack, pack_ref, runtime, runtime_ref, runtime_version, runtime_version_text,
                                          env_path, manifest_checksum, created, updated)
            VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?9)
            ON CONFLICT (env_key) DO UPDATE SET
                pack_ref = excluded.pack_ref,
                runtime_ref = excluded.runtime_ref,
                runtime_version_text = excluded.runtime_version_text,
                env_path = excluded.env_path,
                manifest_checksum = excluded.manifest_checksum,
                status = iif(env_path = excluded.env_path AND manifest_checksum IS excluded.manifest_checksum
                                 OR status = 'installing' AND claim_expires_at > ?9,
                             status, 'outdated'),
                claimed_by_worker = iif(env_path = excluded.env_path AND manifest_checksum IS excluded.manifest_checksum
                                            OR status = 'installing' AND claim_expires_at > ?9,
                                        claimed_by_worker, NULL),
                claim_expires_at = iif(env_path = excluded.env_path AND manifest_checksum IS excluded.manifest_checksum
                                           OR status = 'installing' AND claim_expires_at > ?9,
                                       claim_expires_at, NULL),
                updated = ?9
            RETURNING *
            ",
        )
        .bind(target.pack.0)
        .bind(&target.pack_ref)
        .bind(target.runtime.0)
        .bind(&target.runtime_ref)
        .bind(target.version.as_ref().map(|(id, _)| id.0))
        .bind(target.version.as_ref().map(|(_, text)| text))
        .bind(&target.env_path)
        .bind(&target.manifest_checksum)
        .bind(micros(now));
        let row = written(query, &self.writer)
            .await
            .and_then(|row| row.ok_or(sqlx::Error::RowNotFound))
            .during(|| format!("register the environment {}", target.env_path))?;
        environment(&row, now)
    }

    async fn environment(&self, id: PackEnvironmentId) -> Result<Option<EnvironmentRow>, StoreError> {
        let row = sqlx::query("SELECT * FROM pack_environment WHERE id = ?1")
            .bind(id.0)
            .fetch_optional(&self.readers)
            .await
            .during(|| format!("read environment {id}"))?;
        let now = now();
        row.map(|row| environment(&row, now)).transpose()
    }

    async fn claim_environment(
        &self,
        id: PackEnvironmentId,
        worker: WorkerId,
        lifetime: Duration,
    ) -> Result<bool, StoreError> {
        let now = now();
        let done = sqlx::query(
            r"
            UPDATE pack_environment
            SET status = 'installing', claimed_by_worker = ?2, claim_expires_at = ?4, updated = ?3
            WHERE id = ?1
              AND (status IN ('pending', 'failed', 'outdated')
                   OR status = 'installing' AND coalesce(claim_expires_at, 0) <= ?3)
            ",
        )
        .bind(id.0)
        .bind(worker.0)
        .bind(micros(now))
        .bind(after(now, lifetime))
        .execute(&self.writer)
        .await
        .during(|| format!("claim environment {id} for worker {worker}"))?;
        Ok(done.rows_affected() == 1)
    }

    async fn renew_environment_claim(
        &self,
        id: PackEnvironmentId,
        worker: WorkerId,
        lifetime: Duration,
    ) -> Result<bool, StoreError> {
        let now = now();
        let done = sqlx::query(
            r"
            UPDATE pack_environment SET claim_expires_at = ?4, updated = ?3
            WHERE id = ?1 AND claimed_by_worker = ?2 AND status = 'installing'
            ",
        )
        .bind(id.0)
        .bind(worker.0)
        .bind(micros(now))
        .bind(after(now, lifetime))
        .execute(&self.writer)
        .await
        .during(|| format!("renew the claim of environment {id} for worker {worker}"))?;
        Ok(done.rows_affected() == 1)
    }

    async fn mark_environment_outdated(&self, id: PackEnvironmentId) -> Result<(), StoreError> {
        sqlx::query("UPDATE pack_environment SET status = 'outdated', updated = ?2 WHERE id = ?1 AND status = 'ready'")
            .bind(id.0)
            .bind(micros(now()))
            .execute(&self.writer)
            .await
            .during(|| format!("mark environment {id} as outdated"))
            .map(drop)
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
                SET status = 'ready', manifest_checksum = ?4, install_log = ?5, install_error = NULL, installed_at = ?3,
                    last_verified = ?3, claimed_by_worker = NULL, claim_expires_at = NULL, updated = ?3
                WHERE id = ?1 AND claimed_by_worker = ?2 AND status = 'installing'
                ",
            )
            .bind(id.0)
            .bind(worker.0)
            .bind(micros(now()))
            .bind(manifest_checksum)
            .bind(log),
            EnvironmentOutcome::Failed { error, log } => sqlx::query(
                r"
                UPDATE pack_environment
                SET status = 'failed', install_error = ?4, install_log = ?5, claimed_by_worker = NULL,
                    claim_expires_at = NULL, updated = ?3
                WHERE id = ?1 AND claimed_by_worker = ?2 AND status = 'installing'
                ",
            )
            .bind(id.0)
            .bind(worker.0)
            .bind(micros(now()))
            .bind(error)
            .bind(log),
        };
        let done = query
            .execute(&self.writer)
            .await
            .during(|| format!("end the claim of environment {id} by worker {worker}"))?;
        Ok(done.rows_affected() == 1)
    }
}

/// The end of a claim; a lifetime that no calendar can hold is cut to the last day that it can.
fn after(now: DateTime<Utc>, lifetime: Duration) -> i64 {
    let end = TimeDelta::from_std(lifetime).ok().and_then(|lifetime| now.checked_add_signed(lifetime));
    micros(end.unwrap_or(DateTime::<Utc>::MAX_UTC))
}

fn environment(row: &SqliteRow, now: DateTime<Utc>) -> Result<EnvironmentRow, StoreError> {
    let of = Columns::new("pack_environment", row);
    let claim_expires_at = of.optional_time("claim_expires_at")?;
    Ok(EnvironmentRow {
        id: PackEnvironmentId(of.get("id")?),
        status: of.word("status")?,
        manifest_checksum: of.get("manifest_checksum")?,
        claimed_by: of.get::<Option<i64>>("claimed_by_worker")?.map(WorkerId),
        claim_expires_at,
        claim_expired: claim_expires_at.is_some_and(|end| end <= now),
        install_error: of.get("install_error")?,
    })
}
