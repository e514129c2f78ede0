//! Several processes on one file, and processes that die while they write.
//!
//! The children are this test program itself: it is started again with the name of one ignored test, in the folder with
//! the file. They say on standard output what the store has acknowledged.
#![expect(clippy::unwrap_used, reason = "tests")]

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::{Arc, Mutex};

use attune_model::{ExecutionId, WorkerId};
use attune_process::{Command, Ending, Keep, Outcome, Report, SIGKILL, Sink, Stream};
use attune_store::{AgentStore as _, Claim, LogArtifact, LogStore as _, WorkerStore as _};
use attune_store_sqlite::SqliteStore;
use attune_testkit::eventually;
use attune_testkit::store_contract::seed::World;
use serde_json::json;

const FILE: &str = "attune.db";
/// How a child begins a line for its parent.
const SAYS: &str = "acknowledged ";
const EXECUTIONS: usize = 60;

/// What a child has said so far.
#[derive(Debug, Clone, Default)]
struct Said(Arc<Mutex<String>>);

impl Sink for Said {
    fn write(&mut self, chunk: &[u8]) {
        self.0.lock().unwrap().push_str(&String::from_utf8_lossy(chunk));
    }
}

impl Said {
    fn says(&self, word: &str) -> bool {
        self.0.lock().unwrap().lines().any(|line| line == word)
    }

    /// The numbers on complete lines.
    fn numbers(&self) -> Vec<i64> {
        let text = self.0.lock().unwrap();
        let complete = text.rsplit_once('\n').map_or("", |(complete, _)| complete);
        complete.lines().filter_map(|line| line.split(SAYS).nth(1)?.trim().parse().ok()).collect()
    }
}

/// Runs one ignored test of this program in `folder` until it ends or `stop` does; then it is killed.
async fn child(test: &str, folder: &Path, said: Said, stop: impl Future<Output = ()>) -> Report {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args = ["--exact", test, "--ignored", "--nocapture"].map(Into::into).into();
    command.cwd = Some(folder.to_owned());
    command.stdout = Stream::null().to(said);
    command.stderr = Stream::keep(Keep::Tail { limit_bytes: 4096 });
    command.ending = Ending { signal: SIGKILL, ..Ending::default() };
    attune_process::start(command).unwrap().supervise(None, stop).await
}

fn artifact() -> LogArtifact {
    LogArtifact {
        r#ref: "demo.echo.stdout.log".to_owned(),
        scope: attune_model::status::OwnerType::Action,
        owner: "demo.echo".to_owned(),
        name: "demo.echo stdout".to_owned(),
        description: String::new(),
        retention_policy: attune_model::status::RetentionPolicy::Versions,
        retention_limit: 1_000_000,
        execution: None,
        meta: json!({}),
        created_by: "worker",
    }
}

#[tokio::test]
#[ignore = "the child of another test"]
async fn child_writes_until_it_is_killed() {
    let Ok(store) = SqliteStore::open(Path::new(FILE)).await else {
        return;
    };
    loop {
        let version = store.add_log_version(&artifact()).await.unwrap();
        println!("\n{SAYS}{}", version.id);
    }
}

#[tokio::test]
#[ignore = "the child of another test"]
async fn child_claims_everything() {
    let Ok(store) = SqliteStore::open(Path::new(FILE)).await else {
        return;
    };
    let worker = WorkerId(1);
    println!("\nready");
    eventually("the start", async || Path::new("go").exists().then_some(())).await;
    for id in store.scheduled_executions(worker).await.unwrap() {
        if let Claim::Claimed(claimed) = store.claim_execution(id, worker, None).await.unwrap() {
            println!("\n{SAYS}{}", claimed.execution.id);
        }
    }
}

#[tokio::test]
async fn what_was_acknowledged_is_there_after_the_process_was_killed() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join(FILE);
    SqliteStore::open(&path).await.unwrap().close().await;
    let mut acknowledged = BTreeSet::new();
    for round in 1..=3 {
        let said = Said::default();
        let enough = eventually("writes", async || (said.numbers().len() > 25).then_some(()));
        let report = child("child_writes_until_it_is_killed", folder.path(), said.clone(), enough).await;
        assert!(matches!(report.outcome, Outcome::Cancelled { .. }), "round {round}: {report:?}");
        acknowledged.extend(said.numbers());
        let store = SqliteStore::open(&path).await.unwrap();
        // Another one of each, so that nothing of the dead process holds a lock either.
        let after = store.add_log_version(&artifact()).await.unwrap();
        assert!(acknowledged.iter().all(|id| *id < after.id));
        acknowledged.insert(after.id);
        store.close().await;
    }
    let pool = sqlx::SqlitePool::connect_with(sqlx::sqlite::SqliteConnectOptions::new().filename(&path));
    let stored: Vec<i64> =
        sqlx::query_scalar("SELECT id FROM artifact_version").fetch_all(&pool.await.unwrap()).await.unwrap();
    let stored: BTreeSet<i64> = stored.into_iter().collect();
    let lost: Vec<_> = acknowledged.difference(&stored).collect();
    assert!(lost.is_empty(), "lost {lost:?} of {}", acknowledged.len());
    assert!(acknowledged.len() > 75);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_processes_on_one_file_claim_every_execution_once() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join(FILE);
    let store = Arc::new(SqliteStore::open(&path).await.unwrap());
    let world = World::of(Arc::clone(&store) as _).await;
    assert_eq!(world.worker.id, WorkerId(1));
    let mut scheduled = Vec::new();
    for _ in 0..EXECUTIONS {
        scheduled.push(world.scheduled().await.id);
    }
    let (one, other) = (Said::default(), Said::default());
    let go = async {
        let ready = async || (one.says("ready") && other.says("ready")).then_some(());
        eventually("both children", ready).await;
        std::fs::write(folder.path().join("go"), "").unwrap();
        // This process writes all the time, too.
        while !store.scheduled_executions(world.worker.id).await.unwrap().is_empty() {
            let status = attune_model::status::WorkerStatus::Active;
            assert!(store.heartbeat(world.worker.id, status).await.unwrap());
        }
    };
    let (first, second, ()) = tokio::join!(
        child("child_claims_everything", folder.path(), one.clone(), std::future::pending()),
        child("child_claims_everything", folder.path(), other.clone(), std::future::pending()),
        go,
    );
    assert!(matches!(first.outcome, Outcome::Exited(0)), "{first:?}");
    assert!(matches!(second.outcome, Outcome::Exited(0)), "{second:?}");
    let mut claimed: Vec<_> = one.numbers().into_iter().chain(other.numbers()).map(ExecutionId).collect();
    claimed.sort_unstable();
    assert_eq!(claimed, scheduled);
    assert_eq!(store.unfinished_executions(world.worker.id).await.unwrap().len(), EXECUTIONS);
}
