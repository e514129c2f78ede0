//! Making the schema: once, again, side by side, over somebody else's; and what agents say about one that does not fit.
#![expect(clippy::unwrap_used, reason = "tests")]

use attune_store_postgres::migration::{self, MigrateError, Migration};
use attune_store_postgres::{CheckError, ConnectError, PostgresStore, Role};
use attune_testkit::database::{SCHEMA, TestDatabase};
use futures_util::future::join_all;
use sqlx::{AssertSqlSafe, Connection as _, Row as _};

/// Everything that tells one schema from another, one line each.
async fn description(database: &TestDatabase) -> Vec<String> {
    let mut connection = database.connection().await;
    let query = "
        SELECT 'column ' || table_name || '.' || column_name || ' ' || udt_name || ' ' || is_nullable || ' '
               || coalesce(column_default, '-') || ' ' || coalesce(generation_expression, '-') AS line
        FROM information_schema.columns WHERE table_schema = 'attune'
        UNION ALL
        SELECT 'constraint ' || conrelid::regclass || ' ' || conname || ' ' || pg_get_constraintdef(oid)
        FROM pg_constraint WHERE connamespace = 'attune'::regnamespace
        UNION ALL
        SELECT 'index ' || indexdef FROM pg_indexes WHERE schemaname = 'attune'
        UNION ALL
        SELECT 'trigger ' || pg_get_triggerdef(oid) FROM pg_trigger WHERE NOT tgisinternal
        UNION ALL
        SELECT 'function ' || proname || ' ' || prosrc FROM pg_proc WHERE pronamespace = 'attune'::regnamespace
        UNION ALL
        SELECT 'enum ' || enumtypid::regtype || ' ' || string_agg(enumlabel, ',' ORDER BY enumsortorder)
        FROM pg_enum GROUP BY enumtypid
        UNION ALL
        SELECT 'identity ' || id || ' ' || login FROM attune.identity
        ORDER BY line";
    let rows = sqlx::raw_sql(query).fetch_all(&mut connection).await.unwrap();
    connection.close().await.unwrap();
    rows.iter().map(|row| row.get(0)).collect()
}

#[tokio::test]
async fn a_schema_is_made_once_and_a_second_time_changes_nothing() {
    let database = TestDatabase::empty().await;
    let version = migration::version();
    assert_eq!(migration::migrate(&database.config()).await.unwrap(), Migration::Done { before: 0, version });
    let first = description(&database).await;
    assert!(first.len() > 300, "{}", first.len());
    let again = migration::migrate(&database.config()).await.unwrap();
    assert_eq!(again, Migration::Done { before: version, version });
    assert_eq!(description(&database).await, first);
    // The next identity does not collide with the one that is there from the start.
    database.execute("INSERT INTO identity (login) VALUES ('next')").await;
    assert_eq!(database.number("SELECT max(id) FROM identity").await, 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn several_at_once_wait_for_each_other() {
    let database = TestDatabase::empty().await;
    let config = database.config();
    let version = migration::version();
    let mut done: Vec<i32> = join_all((0..5).map(|_| migration::migrate(&config)))
        .await
        .into_iter()
        .map(|done| match done.unwrap() {
            Migration::Done { before, version: made } => {
                assert_eq!(made, version);
                before
            }
            Migration::Foreign => panic!("not foreign"),
        })
        .collect();
    done.sort_unstable();
    assert_eq!(done, [0, version, version, version, version]);
}

#[tokio::test]
async fn the_script_makes_the_same_schema_and_may_run_again() {
    let (ours, scripted) = (TestDatabase::new().await, TestDatabase::empty().await);
    let script = migration::script(SCHEMA).unwrap();
    for _ in 0..2 {
        let mut connection = scripted.connection().await;
        sqlx::raw_sql(AssertSqlSafe(script.clone())).execute(&mut connection).await.unwrap();
        connection.close().await.unwrap();
        assert_eq!(description(&scripted).await, description(&ours).await);
    }
    let version = migration::version();
    let known = migration::migrate(&scripted.config()).await.unwrap();
    assert_eq!(known, Migration::Done { before: version, version });
}

#[tokio::test]
async fn tables_of_another_origin_are_left_alone() {
    let database = TestDatabase::empty().await;
    database.execute("CREATE SCHEMA attune").await;
    database.execute("CREATE TABLE attune.execution (id bigint PRIMARY KEY, note text)").await;
    assert_eq!(migration::migrate(&database.config()).await.unwrap(), Migration::Foreign);
    assert_eq!(database.number("SELECT count(*) FROM pg_class WHERE relnamespace = 'attune'::regnamespace").await, 2);
    // The script stops by itself, too.
    let mut connection = database.connection().await;
    let script = migration::script(SCHEMA).unwrap();
    let error = sqlx::raw_sql(AssertSqlSafe(script)).execute(&mut connection).await.unwrap_err();
    assert!(error.to_string().contains("another origin"), "{error}");
}

#[tokio::test]
async fn a_schema_of_a_later_version_is_refused() {
    let database = TestDatabase::new().await;
    database.execute("INSERT INTO attune_agents_schema (version) VALUES (4711)").await;
    let error = migration::migrate(&database.config()).await.unwrap_err();
    assert!(matches!(error, MigrateError::Newer { found: 4711, .. }), "{error:?}");
}

#[tokio::test]
async fn what_a_failed_step_did_is_taken_back() {
    let database = TestDatabase::empty().await;
    // A relation of that name is in the way, but it is no table that anybody would mistake for the platform's.
    database.execute("CREATE SCHEMA attune").await;
    database.execute("CREATE VIEW attune.key AS SELECT 1 AS id").await;
    let error = migration::migrate(&database.config()).await.unwrap_err();
    assert!(matches!(error, MigrateError::Failed { version: 1, .. }), "{error:?}");
    assert_eq!(database.number("SELECT count(*) FROM pg_class WHERE relnamespace = 'attune'::regnamespace").await, 1);
}

#[tokio::test]
async fn each_role_finds_what_it_needs_in_a_fresh_schema() {
    let database = TestDatabase::new().await;
    let store = PostgresStore::connect(&database.config()).await.unwrap();
    for role in [Role::Worker, Role::Sensor, Role::Hub] {
        store.check(role).await.unwrap();
    }
}

#[tokio::test]
async fn the_first_difference_is_named_and_only_to_those_whom_it_concerns() {
    use Role::{Hub, Sensor, Worker};
    for (change, difference, concerned) in [
        (
            "ALTER TABLE execution DROP COLUMN started_at",
            "table execution: column started_at is missing",
            &[Worker, Hub][..],
        ),
        (
            "ALTER TABLE execution ALTER COLUMN result TYPE text",
            "table execution: column result is text instead of jsonb",
            &[Worker, Hub],
        ),
        ("DROP TABLE sensor_process", "table sensor_process is missing", &[Sensor, Hub]),
        (
            "ALTER TABLE artifact_version ALTER COLUMN created DROP DEFAULT",
            "table artifact_version: column created has no default",
            &[Worker, Sensor, Hub],
        ),
        (
            "ALTER TABLE event ADD COLUMN tenant bigint NOT NULL",
            "table event: column tenant is required and not known to this version",
            &[Sensor, Hub],
        ),
        (
            "ALTER TABLE pack_environment ALTER COLUMN env_key DROP EXPRESSION",
            "table pack_environment: column env_key is not generated",
            &[Worker, Sensor, Hub],
        ),
        (
            "ALTER TABLE worker DROP CONSTRAINT worker_name_key",
            "table worker: (name) is not unique",
            &[Worker, Sensor, Hub],
        ),
        (
            "UPDATE pg_enum SET enumlabel = 'given_up' WHERE enumlabel = 'abandoned'",
            "type execution_status_enum: value abandoned is missing",
            &[Worker, Hub],
        ),
        ("ALTER TABLE worker ADD COLUMN zone text", "", &[]),
    ] {
        let database = TestDatabase::new().await;
        let store = PostgresStore::connect(&database.config()).await.unwrap();
        database.execute(change).await;
        for role in [Worker, Sensor, Hub] {
            match store.check(role).await {
                Ok(()) => assert!(!concerned.contains(&role), "{change}: {role:?}"),
                Err(CheckError::Differs(found)) => {
                    assert!(concerned.contains(&role), "{change}: {role:?}: {found}");
                    assert_eq!(found, difference);
                }
                Err(error @ CheckError::Store(_)) => panic!("{error:?}"),
            }
        }
    }
}

#[tokio::test]
async fn what_is_wrong_with_the_way_to_the_database_is_told_apart() {
    let database = TestDatabase::empty().await;
    let connect = async |url: String| {
        let config = attune_testkit::database::config(&url);
        PostgresStore::connect(&config).await.unwrap_err()
    };
    let error = connect(database.url()).await;
    assert!(matches!(&error, ConnectError::NoSchema { schema, .. } if schema == "attune"), "{error:?}");
    let missing = database.url().replace(database.name(), "attune_test_that_is_not_there");
    let error = connect(missing).await;
    assert!(matches!(&error, ConnectError::NoDatabase { .. }), "{error:?}");
    // A port that nobody listens on: bound, and given up again.
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let error = connect(format!("postgres://u:hunter2@127.0.0.1:{port}/d")).await;
    assert!(matches!(&error, ConnectError::Unreachable { .. }) && error.may_pass(), "{error:?}");
    assert!(!format!("{error} {error:?}").contains("hunter2"), "{error:?}");
}
