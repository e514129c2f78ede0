//! A server that goes away in the middle, and how often it is asked.
#![expect(clippy::unwrap_used, reason = "tests")]

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use attune_config::DatabaseConfig;
use attune_model::status::{ExecutionStatus, WorkerRole, WorkerStatus};
use attune_store::{
    AgentStore as _, Beginning, Claim, Decision, HostSession, HubStore as _, LeaseStore as _, LogArtifact,
    LogStore as _, Renewal, StoreError, WorkerStore as _,
};
use attune_store_postgres::PostgresStore;
use attune_testkit::database::{TestDatabase, config};
use attune_testkit::eventually;
use attune_testkit::store_contract::seed::{World, secret, worker};
use serde_json::json;
use sqlx::Connection as _;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use uuid::Uuid;

/// A relay in front of the server that counts how often the client speaks after the server has spoken, which is how often
/// it waits for an answer, and that can keep answers to itself.
#[derive(Debug, Default)]
struct Relay {
    turns: AtomicUsize,
    silent: AtomicBool,
    /// From this turn on answers are kept; none when it is 0.
    muted_from: AtomicUsize,
}

impl Relay {
    /// A relay, and the URL that leads through it.
    async fn before(database: &TestDatabase) -> (Arc<Self>, String, JoinSet<()>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let url = database.url();
        let authority = url.split(['/', '?']).nth(2).unwrap().rsplit('@').next().unwrap().to_owned();
        let relay = Arc::new(Self::default());
        let mut tasks = JoinSet::new();
        let (through, target) = (Arc::clone(&relay), authority.clone());
        tasks.spawn(async move {
            let mut pairs = JoinSet::new();
            while let Ok((client, _)) = listener.accept().await {
                let server = TcpStream::connect(&target).await.unwrap();
                pairs.spawn(Arc::clone(&through).pass(client, server));
            }
        });
        let separator = if url.contains('?') { '&' } else { '?' };
        let url = format!("{}{separator}sslmode=disable", url.replace(&authority, &format!("127.0.0.1:{port}")));
        (relay, url, tasks)
    }

    async fn pass(self: Arc<Self>, client: TcpStream, server: TcpStream) {
        let (mut from_client, mut to_client) = client.into_split();
        let (mut from_server, mut to_server) = server.into_split();
        let (mut asked, mut answered) = (vec![0; 64 * 1024], vec![0; 64 * 1024]);
        let mut server_spoke = true;
        loop {
            tokio::select! {
                read = from_client.read(&mut asked) => {
                    let Ok(count @ 1..) = read else { return };
                    self.turns.fetch_add(usize::from(std::mem::take(&mut server_spoke)), Ordering::Relaxed);
                    if to_server.write_all(&asked[..count]).await.is_err() { return }
                }
                read = from_server.read(&mut answered) => {
                    let Ok(count @ 1..) = read else { return };
                    server_spoke = true;
                    if self.silent.load(Ordering::Relaxed) || self.is_muted() { continue }
                    if to_client.write_all(&answered[..count]).await.is_err() { return }
                }
            }
        }
    }

    fn is_muted(&self) -> bool {
        let from = self.muted_from.load(Ordering::Relaxed);
        from > 0 && self.turns.load(Ordering::Relaxed) >= from
    }

    fn take_turns(&self) -> usize {
        self.turns.swap(0, Ordering::Relaxed)
    }
}

fn artifact() -> LogArtifact {
    LogArtifact {
        r#ref: "demo.echo.stdout.log".to_owned(),
        scope: attune_model::status::OwnerType::Action,
        owner: "demo.echo".to_owned(),
        name: "demo.echo stdout".to_owned(),
        description: String::new(),
        retention_policy: attune_model::status::RetentionPolicy::Versions,
        retention_limit: 10,
        execution: None,
        meta: json!({}),
        created_by: "worker",
    }
}

async fn store_at(url: &str) -> Arc<PostgresStore> {
    Arc::new(PostgresStore::connect(&config(url)).await.unwrap())
}

fn assert_passes<T: std::fmt::Debug>(outcome: Result<T, StoreError>) {
    let error = outcome.unwrap_err();
    assert!(matches!(error, StoreError::Unavailable { .. }) && error.decision() == Decision::Retry, "{error:?}");
}

#[tokio::test]
async fn claim_finish_and_log_versions_are_one_round_trip_each() {
    let database = TestDatabase::new().await;
    let (relay, url, _tasks) = Relay::before(&database).await;
    let store = store_at(&url).await;
    let world = World::of(Arc::clone(&store) as _).await;
    let end = async |fence| {
        let secrets = [secret("/data/a", "YQ=="), secret("/data/b", "Yg==")];
        assert!(
            store
                .finish_execution(&fence, ExecutionStatus::Completed, &json!({"x": 1}), &secrets)
                .await
                .unwrap()
                .is_some()
        );
    };
    // The first of each kind prepares its statement, and makes the artifact.
    end(world.running().await.fence).await;
    let first = store.add_log_version(&artifact()).await.unwrap();
    store.add_log_version(&artifact()).await.unwrap();
    store.set_log_sizes(&[(first.id, 1)]).await.unwrap();

    let scheduled = world.scheduled().await;
    relay.take_turns();
    let fence = world.claim(scheduled.id).await.fence;
    assert_eq!(relay.take_turns(), 1, "a claim");
    end(fence).await;
    assert_eq!(relay.take_turns(), 1, "a finish with secrets");
    let version = store.add_log_version(&artifact()).await.unwrap();
    assert_eq!(relay.take_turns(), 1, "a version of a log");
    store.set_log_sizes(&[(first.id, 3), (version.id, 4)]).await.unwrap();
    assert_eq!(relay.take_turns(), 1, "sizes of two logs");
    assert!(store.heartbeat(world.worker.id, WorkerStatus::Active).await.unwrap());
    relay.take_turns();
    assert!(store.heartbeat(world.worker.id, WorkerStatus::Active).await.unwrap());
    assert_eq!(relay.take_turns(), 1, "a heartbeat");
}

#[tokio::test]
async fn what_a_token_of_a_sensor_is_made_of_is_one_round_trip_and_no_write() {
    let database = TestDatabase::new().await;
    let (relay, url, _tasks) = Relay::before(&database).await;
    let store = store_at(&url).await;
    let _world = World::of(Arc::clone(&store) as _).await;
    let identity = store.identity("sensor:demo.clock").await.unwrap();
    let ask = async || store.token_subject("demo.clock").await.unwrap().unwrap();
    let first = ask().await;
    assert_eq!(first.identity, Some(identity));
    // Which transaction wrote it last.
    let written = "SELECT xmin::text::bigint FROM identity WHERE login = 'sensor:demo.clock'";
    let before = database.number(written).await;
    relay.take_turns();
    assert_eq!(ask().await, first);
    assert_eq!(relay.take_turns(), 1);
    let asked = futures_util::future::join_all((0..40).map(|_| ask())).await;
    assert!(asked.iter().all(|subject| *subject == first), "{asked:?}");
    assert_eq!(relay.take_turns(), 1, "all that are asked for at once");
    assert_eq!(database.number(written).await, before);
}

#[tokio::test]
async fn a_claim_whose_answer_was_lost_is_granted_once_and_can_be_ended() {
    let database = TestDatabase::new().await;
    let (relay, url, _tasks) = Relay::before(&database).await;
    let store = store_at(&url).await;
    let world = World::of(Arc::clone(&store) as _).await;
    world.running().await;
    let execution = world.scheduled().await.id;
    relay.silent.store(true, Ordering::Relaxed);
    assert_passes(store.claim_execution(execution, world.worker.id, None).await);
    relay.silent.store(false, Ordering::Relaxed);

    // The silent connection is not used again; the claim was carried out, and nobody gets it a second time.
    let again = store.claim_execution(execution, world.worker.id, None).await.unwrap();
    assert_eq!(again, Claim::NotOurs { status: Some(ExecutionStatus::Running) });
    let left = store.unfinished_executions(world.worker.id).await.unwrap();
    let (fence, _) = left.into_iter().find(|(fence, _)| fence.execution == execution).unwrap();
    assert!(store.finish_execution(&fence, ExecutionStatus::Abandoned, &json!({}), &[]).await.unwrap().is_some());
}

#[tokio::test]
async fn terminated_backends_cost_at_most_one_call_each_and_nothing_is_stuck() {
    let database = TestDatabase::new().await;
    let store = store_at(&database.url()).await;
    let world = World::of(Arc::clone(&store) as _).await;
    for _ in 0..3 {
        // Several warm connections.
        let calls = (0..8).map(|_| store.execution_status(attune_model::ExecutionId(1)));
        futures_util::future::try_join_all(calls).await.unwrap();
        let terminate = "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity
                         WHERE datname = current_database() AND pid <> pg_backend_pid()";
        assert!(database.number(terminate).await >= 1);
        // The first call may find out; it says so in a way that a retry mends, and the others ask before they trust.
        if let Err(error) = store.heartbeat(world.worker.id, WorkerStatus::Active).await {
            assert_eq!(error.decision(), Decision::Retry, "{error:?}");
        }
        for _ in 0..20 {
            assert!(store.heartbeat(world.worker.id, WorkerStatus::Active).await.unwrap());
        }
    }
}

#[tokio::test]
async fn calls_that_were_given_up_do_not_wear_the_pool_out() {
    let database = TestDatabase::new().await;
    let mut config = config(&database.url());
    config.max_connections = 2;
    let store = Arc::new(PostgresStore::connect(&config).await.unwrap());
    let world = World::of(Arc::clone(&store) as _).await;
    let execution = world.scheduled().await.id;
    // Somebody holds the row, so claims hang; whoever waits for them goes away.
    let mut holder = database.connection().await;
    sqlx::raw_sql("BEGIN; LOCK TABLE execution").execute(&mut holder).await.unwrap();
    for _ in 0..10 {
        let claim = store.claim_execution(execution, world.worker.id, None);
        tokio::time::timeout(Duration::from_millis(20), claim).await.unwrap_err();
    }
    sqlx::raw_sql("ROLLBACK").execute(&mut holder).await.unwrap();
    holder.close().await.unwrap();
    store.ping().await.unwrap();
    // One of the claims that nobody waited for may have been carried out; nothing runs twice.
    let claimed =
        eventually("an answer", async || store.claim_execution(execution, world.worker.id, None).await.ok()).await;
    assert!(
        matches!(claimed, Claim::Claimed(_) | Claim::NotOurs { status: Some(ExecutionStatus::Running) }),
        "{claimed:?}"
    );
}

#[tokio::test]
async fn a_row_that_somebody_holds_for_too_long_is_a_reason_to_try_again() {
    let database = TestDatabase::new().await;
    let store = store_at(&database.url()).await;
    let world = World::of(Arc::clone(&store) as _).await;
    let execution = world.scheduled().await.id;
    let mut holder = database.connection().await;
    sqlx::raw_sql("BEGIN; LOCK TABLE execution").execute(&mut holder).await.unwrap();
    assert_passes(store.claim_execution(execution, world.worker.id, None).await);
    sqlx::raw_sql("ROLLBACK").execute(&mut holder).await.unwrap();
    assert!(matches!(store.claim_execution(execution, world.worker.id, None).await.unwrap(), Claim::Claimed(_)));
}

#[tokio::test]
async fn what_a_frozen_host_holds_is_free_for_the_renewals_of_others() {
    let database = TestDatabase::new().await;
    let (relay, url, _tasks) = Relay::before(&database).await;
    let limited = DatabaseConfig { unit_limit: Duration::from_millis(200), ..config(&url) };
    let frozen = PostgresStore::connect(&limited).await.unwrap();
    let store = store_at(&database.url()).await;
    let world = World::of(Arc::clone(&store) as _).await;
    let session = async |name: &str| {
        let worker = store.register_worker(&worker(name, WorkerRole::Sensor)).await.unwrap().id;
        let life = Duration::from_mins(1);
        let session =
            HostSession { worker, worker_name: name.to_owned(), process: Uuid::new_v4(), id: Uuid::new_v4(), life };
        assert_eq!(store.begin_session(&session, None).await.unwrap(), Beginning::Begun { cordoned: false });
        session
    };
    let (one, other) = (session("one").await, session("other").await);
    let sensors = [world.sensor.id];
    assert_eq!(store.take_sensors(&other, &sensors).await.unwrap(), sensors);
    // The first time prepares its statements.
    for _ in 0..2 {
        relay.take_turns();
        assert_eq!(frozen.take_sensors(&one, &sensors).await.unwrap(), []);
    }
    // Before its last word.
    let last = relay.take_turns() - 1;
    relay.muted_from.store(last, Ordering::Relaxed);
    let renewal = async {
        eventually("the middle of it", async || relay.is_muted().then_some(())).await;
        store.renew_session(&other).await
    };
    let (taken, renewed) = tokio::join!(frozen.take_sensors(&one, &sensors), renewal);
    assert_eq!(renewed.unwrap(), Renewal::Renewed { cordoned: false });
    assert_passes(taken);
}

#[tokio::test]
async fn a_read_only_database_is_a_reason_to_try_again() {
    let database = TestDatabase::new().await;
    let store = store_at(&database.url()).await;
    let world = World::of(Arc::clone(&store) as _).await;
    let scheduled = world.scheduled().await.id;
    let running = world.running().await.fence;
    let switch = |to: &str| format!("ALTER DATABASE {} SET default_transaction_read_only = {to}", database.name());
    database.execute(&switch("on")).await;
    // The setting counts for new connections.
    let read_only = store_at(&database.url()).await;
    assert_passes(read_only.claim_execution(scheduled, world.worker.id, None).await);
    assert_passes(read_only.finish_execution(&running, ExecutionStatus::Completed, &json!({}), &[]).await);
    assert_passes(read_only.heartbeat(world.worker.id, WorkerStatus::Active).await);
    assert_eq!(read_only.execution_status(scheduled).await.unwrap(), Some(ExecutionStatus::Scheduled));
    let mut connection = database.connection().await;
    for statement in ["SET default_transaction_read_only = off".to_owned(), switch("off")] {
        sqlx::raw_sql(sqlx::AssertSqlSafe(statement)).execute(&mut connection).await.unwrap();
    }
    // The same store: what was read-only is left for new connections.
    let store = read_only;
    let claim =
        eventually("a claim", async || store.claim_execution(scheduled, world.worker.id, None).await.ok()).await;
    assert!(matches!(claim, Claim::Claimed(_)));
    assert!(store.finish_execution(&running, ExecutionStatus::Completed, &json!({}), &[]).await.unwrap().is_some());
}

#[tokio::test]
async fn what_no_retry_can_mend_says_so() {
    let database = TestDatabase::new().await;
    let store = store_at(&database.url()).await;
    let world = World::of(Arc::clone(&store) as _).await;
    let fence = world.running().await.fence;
    database.execute("ALTER TABLE execution ADD CONSTRAINT small CHECK (pg_column_size(result) < 100)").await;
    let result = json!({"data": (0..500).collect::<Vec<_>>()});
    let refused = store.finish_execution(&fence, ExecutionStatus::Completed, &result, &[]).await.unwrap_err();
    assert_eq!(refused.decision(), Decision::Fail, "{refused:?}");
    // The connection that heard it goes on.
    assert!(store.finish_execution(&fence, ExecutionStatus::Failed, &json!({}), &[]).await.unwrap().is_some());
}

#[tokio::test]
async fn output_with_nul_is_stored_without() {
    let database = TestDatabase::new().await;
    let store = store_at(&database.url()).await;
    let world = World::of(Arc::clone(&store) as _).await;
    let fence = world.running().await.fence;
    let result = json!({"stdout": "a\u{0}b"});
    assert!(store.finish_execution(&fence, ExecutionStatus::Completed, &result, &[]).await.unwrap().is_some());
    assert_eq!(world.row(fence.execution).await.result, Some(json!({"stdout": "a\u{fffd}b"})));
}
