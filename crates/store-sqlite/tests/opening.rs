//! Opening files of every kind, and what happens to a file that is not ours.
#![expect(clippy::unwrap_used, reason = "tests")]

use std::path::{Path, PathBuf};

use attune_model::status::{WorkerRole, WorkerType};
use attune_store::{AgentStore as _, HubStore as _, StoreError, WorkerRegistration};
use attune_store_sqlite::{OpenError, SqliteStore};
use futures_util::future::join_all;
use sqlx::sqlite::{SqliteConnectOptions, SqlitePool};
use sqlx::{AssertSqlSafe, Executor as _};

fn folder() -> (tempfile::TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("attune.db");
    (folder, path)
}

/// Another program's connection.
async fn outside(path: &Path) -> SqlitePool {
    let options = SqliteConnectOptions::new().filename(path).create_if_missing(true);
    SqlitePool::connect_with(options).await.unwrap()
}

fn registration(name: &str) -> WorkerRegistration {
    WorkerRegistration {
        name: name.to_owned(),
        role: WorkerRole::Action,
        worker_type: WorkerType::Local,
        runtime: None,
        host: None,
        port: None,
        capabilities: serde_json::Map::new(),
    }
}

#[tokio::test]
async fn a_new_file_gets_the_schema_and_opens_again_with_its_rows() {
    let (_folder, path) = folder();
    let store = SqliteStore::open(&path).await.unwrap();
    assert_eq!(store.path(), path);
    let worker = store.register_worker(&registration("runner")).await.unwrap();
    store.close().await;
    let store = SqliteStore::open(&path).await.unwrap();
    let again = store.register_worker(&registration("runner")).await.unwrap();
    assert_eq!(again.id, worker.id);
    assert_eq!(store.system_identity().await.unwrap().0, 1);
}

#[tokio::test]
async fn only_its_owner_can_read_a_new_file() {
    use std::os::unix::fs::PermissionsExt as _;
    let (folder, path) = folder();
    let store = SqliteStore::open(&path).await.unwrap();
    store.register_worker(&registration("runner")).await.unwrap();
    for entry in std::fs::read_dir(folder.path()).unwrap() {
        let entry = entry.unwrap();
        let mode = entry.metadata().unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600, "{:?}", entry.file_name());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_file_may_be_opened_for_the_first_time_by_several_at_once() {
    let (_folder, path) = folder();
    let stores = join_all((0..8).map(|_| SqliteStore::open(&path))).await;
    for (number, store) in stores.into_iter().enumerate() {
        let name = format!("runner-{number}");
        store.unwrap().register_worker(&registration(&name)).await.unwrap();
    }
    let store = SqliteStore::open(&path).await.unwrap();
    assert_eq!(store.action_workers().await.unwrap().len(), 8);
}

#[tokio::test]
async fn a_file_that_is_no_database_is_named_and_left_alone() {
    for content in ["hello", &"a longer text that SQLite cannot read either. ".repeat(100)] {
        let (_folder, path) = folder();
        std::fs::write(&path, content).unwrap();
        let error = SqliteStore::open(&path).await.unwrap_err();
        assert!(matches!(error, OpenError::NotADatabase { .. }), "{error:?}");
        assert!(error.to_string().contains(path.to_str().unwrap()), "{error}");
        assert_eq!(std::fs::read_to_string(&path).unwrap(), content);
    }
}

#[tokio::test]
async fn a_database_of_another_program_is_refused_and_left_alone() {
    for statement in ["CREATE TABLE notes (text TEXT)", "PRAGMA application_id = 7", "PRAGMA user_version = 3"] {
        let (_folder, path) = folder();
        let pool = outside(&path).await;
        pool.execute(statement).await.unwrap();
        pool.close().await;
        let before = std::fs::read(&path).unwrap();
        let error = SqliteStore::open(&path).await.unwrap_err();
        assert!(matches!(error, OpenError::Foreign { .. }), "{error:?}");
        assert_eq!(std::fs::read(&path).unwrap(), before, "not even switched to WAL");
    }
}

#[tokio::test]
async fn a_schema_of_a_later_version_is_refused() {
    let (_folder, path) = folder();
    SqliteStore::open(&path).await.unwrap().close().await;
    let pool = outside(&path).await;
    pool.execute("PRAGMA user_version = 4711").await.unwrap();
    pool.close().await;
    let error = SqliteStore::open(&path).await.unwrap_err();
    let OpenError::Newer { found, known, .. } = error else { panic!("{error:?}") };
    assert_eq!((found, known), (4711, 1));
}

#[tokio::test]
async fn a_folder_that_cannot_be_written_is_named() {
    let (folder, path) = folder();
    std::fs::write(folder.path().join("file"), "").unwrap();
    let missing = folder.path().join("missing/attune.db");
    let below_a_file = folder.path().join("file/attune.db");
    // Not even root makes files there.
    let kernel = PathBuf::from("/proc/attune.db");
    std::fs::create_dir(&path).unwrap();
    for bad in [missing, below_a_file, kernel, path] {
        let error = SqliteStore::open(&bad).await.unwrap_err();
        assert!(matches!(error, OpenError::Unwritable { .. }), "{error:?}");
        assert!(error.to_string().contains(bad.to_str().unwrap()), "{error}");
    }
}

#[tokio::test]
async fn a_damaged_file_is_reported_and_not_repaired_by_force() {
    let (_folder, path) = folder();
    SqliteStore::open(&path).await.unwrap().close().await;
    let mut bytes = std::fs::read(&path).unwrap();
    for byte in bytes.iter_mut().skip(100) {
        *byte = 0xab;
    }
    std::fs::write(&path, &bytes).unwrap();
    let error = SqliteStore::open(&path).await.unwrap_err();
    assert!(matches!(error, OpenError::Damaged { .. }), "{error:?}");
    assert_eq!(std::fs::read(&path).unwrap(), bytes);
}

#[tokio::test]
async fn a_row_that_makes_no_sense_is_named_with_table_column_and_key() {
    let (_folder, path) = folder();
    let store = SqliteStore::open(&path).await.unwrap();
    let worker = store.register_worker(&registration("runner")).await.unwrap();
    let pool = outside(&path).await;
    pool.execute("UPDATE worker SET capabilities = '{broken'").await.unwrap();
    let error = store.action_workers().await.unwrap_err();
    let StoreError::Inconsistent { table, column, key, .. } = error else { panic!("{error:?}") };
    assert_eq!((table, column, key), ("worker", "capabilities", worker.id.to_string()));
    store.set_capabilities(worker.id, &serde_json::Map::new()).await.unwrap();
    let late = i64::MAX;
    let sql = format!("UPDATE worker SET last_heartbeat = {late}");
    pool.execute(AssertSqlSafe(sql)).await.unwrap();
    let error = store.action_workers().await.unwrap_err();
    assert!(error.to_string().contains("last_heartbeat"), "{error}");
}

#[tokio::test]
async fn values_outside_the_platforms_enums_are_refused_by_the_schema() {
    let (_folder, path) = folder();
    let store = SqliteStore::open(&path).await.unwrap();
    store.register_worker(&registration("runner")).await.unwrap();
    let pool = outside(&path).await;
    for statement in [
        "UPDATE worker SET status = 'resting'",
        "UPDATE worker SET worker_role = 'both'",
        "UPDATE worker SET last_heartbeat = 'yesterday'",
        "UPDATE worker SET cordoned = 2",
        "INSERT INTO execution (action_ref, status) VALUES ('a.b', 'done')",
        "INSERT INTO execution (action_ref, status) VALUES ('a.b', 'running')",
        "INSERT INTO key (ref, owner_type, name, encrypted, value) VALUES ('k', 'pack', 'k', 0, '1')",
    ] {
        pool.execute(statement).await.unwrap_err();
    }
}
