//! The contracts that every store keeps, on SQLite.
#![expect(clippy::unwrap_used, reason = "tests")]

use std::sync::Arc;

use async_trait::async_trait;
use attune_store_sqlite::SqliteStore;
use attune_testkit::store_contract::{Lab, Store};
use sqlx::sqlite::{SqliteConnectOptions, SqlitePool};
use sqlx::{AssertSqlSafe, Executor as _};

struct SqliteLab {
    store: Arc<SqliteStore>,
    /// The other side of the file, as another program sees it.
    outside: SqlitePool,
    /// Removed at the end.
    _folder: tempfile::TempDir,
}

#[async_trait]
impl Lab for SqliteLab {
    fn store(&self) -> Arc<dyn Store> {
        Arc::clone(&self.store) as Arc<dyn Store>
    }

    async fn execute(&self, sql: &str) {
        self.outside.execute(AssertSqlSafe(sql.to_owned())).await.unwrap();
    }

    async fn number(&self, sql: &str) -> i64 {
        sqlx::query_scalar(AssertSqlSafe(sql.to_owned())).fetch_one(&self.outside).await.unwrap()
    }
}

async fn lab() -> SqliteLab {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("attune.db");
    let store = Arc::new(SqliteStore::open(&path).await.unwrap());
    let outside = SqlitePool::connect_with(SqliteConnectOptions::new().filename(&path)).await.unwrap();
    SqliteLab { store, outside, _folder: folder }
}

attune_testkit::store_contract_tests!(lab);
