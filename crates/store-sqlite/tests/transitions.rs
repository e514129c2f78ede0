//! The transitions that the schema allows are those of the model, and the fence survives a clock that goes back.
#![expect(clippy::unwrap_used, reason = "tests")]

use std::path::Path;

use attune_model::status::ExecutionStatus;
use attune_model::{ExecutionId, WorkerId};
use attune_store::{Claim, WorkerStore as _};
use attune_store_sqlite::SqliteStore;
use sqlx::sqlite::{SqliteConnectOptions, SqlitePool};

async fn outside(path: &Path) -> SqlitePool {
    SqlitePool::connect_with(SqliteConnectOptions::new().filename(path)).await.unwrap()
}

#[tokio::test]
async fn the_schema_allows_exactly_the_transitions_of_the_model() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("attune.db");
    let _store = SqliteStore::open(&path).await.unwrap();
    let pool = outside(&path).await;
    for &from in ExecutionStatus::ALL {
        for &to in ExecutionStatus::ALL {
            let id: i64 = sqlx::query_scalar(
                "INSERT INTO execution (action_ref, status, started_at) VALUES ('a.b', ?1, 1) RETURNING id",
            )
            .bind(from.as_str())
            .fetch_one(&pool)
            .await
            .unwrap();
            let changed = sqlx::query("UPDATE execution SET status = ?2 WHERE id = ?1")
                .bind(id)
                .bind(to.as_str())
                .execute(&pool)
                .await;
            // Writing the same status again changes nothing.
            let allowed = from == to || from.may_become(to);
            assert_eq!(changed.is_ok(), allowed, "{from} to {to}: {changed:?}");
        }
    }
}

#[tokio::test]
async fn a_claim_has_a_later_start_than_any_before_even_when_the_clock_was_set_back() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("attune.db");
    let store = SqliteStore::open(&path).await.unwrap();
    let pool = outside(&path).await;
    // The year 2100, as an earlier claim wrote it.
    let future = 4_102_444_800_000_000_i64;
    sqlx::query("INSERT INTO worker (id, name, worker_type, worker_role) VALUES (1, 'w', 'local', 'action')")
        .execute(&pool)
        .await
        .unwrap();
    sqlx::query(
        "INSERT INTO execution (id, action_ref, worker, status, started_at, updated)
         VALUES (1, 'a.b', 1, 'scheduled', ?1, ?1)",
    )
    .bind(future)
    .execute(&pool)
    .await
    .unwrap();
    let claim = store.claim_execution(ExecutionId(1), WorkerId(1), None).await.unwrap();
    let Claim::Claimed(claimed) = claim else { panic!("{claim:?}") };
    assert_eq!(claimed.fence.started_at.timestamp_micros(), future + 1);
    assert_eq!(claimed.execution.updated.timestamp_micros(), future + 1);
}
