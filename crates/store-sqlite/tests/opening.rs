//! Opening files of every kind.

use attune_store::AgentStore as _;
use attune_store_sqlite::{OpenError, SqliteStore};

#[tokio::test]
async fn a_new_file_gets_the_schema_and_opens_again() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("attune.db");
    for _ in 0..2 {
        let store = SqliteStore::open(&path).await.unwrap();
        assert_eq!(store.runtimes().await.unwrap(), []);
        store.close().await;
    }
}

#[tokio::test]
async fn a_file_that_is_no_database_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("attune.db");
    std::fs::write(
        &path,
        "this is a text file of some length, which SQLite does not know how to read at all"
            .repeat(100),
    )
    .unwrap();
    let error = SqliteStore::open(&path).await.unwrap_err();
    assert!(matches!(error, OpenError::NotADatabase { .. }), "{error:?}");
}
