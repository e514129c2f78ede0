//! The contracts that every store keeps, on PostgreSQL.
#![expect(clippy::unwrap_used, reason = "tests")]

use std::sync::Arc;

use async_trait::async_trait;
use attune_store_postgres::PostgresStore;
use attune_testkit::database::TestDatabase;
use attune_testkit::store_contract::{Lab, Store};

struct PostgresLab {
    store: Arc<PostgresStore>,
    /// Goes last: dropping it ends every connection.
    database: TestDatabase,
}

#[async_trait]
impl Lab for PostgresLab {
    fn store(&self) -> Arc<dyn Store> {
        Arc::clone(&self.store) as Arc<dyn Store>
    }

    async fn execute(&self, sql: &str) {
        self.database.execute(sql).await;
    }

    async fn number(&self, sql: &str) -> i64 {
        self.database.number(sql).await
    }
}

async fn lab() -> PostgresLab {
    let database = TestDatabase::new().await;
    let store = Arc::new(PostgresStore::connect(&database.config()).await.unwrap());
    PostgresLab { store, database }
}

attune_testkit::store_contract_tests!(lab);
