//! `attune-agents migrate`, as an operator runs it: against real databases, and through `psql`.

#![expect(clippy::unwrap_used, clippy::disallowed_methods, reason = "tests start the built binary")]

use std::io::Write as _;
use std::process::{Command, Output, Stdio};

use attune_testkit::database::TestDatabase;

fn migrate(database: &str, arguments: &[&str]) -> Output {
    let folder = tempfile::tempdir().unwrap();
    Command::new(env!("CARGO_BIN_EXE_attune-agents"))
        .arg("migrate")
        .args(arguments)
        .env_clear()
        .env("ATTUNE__DATABASE__URL", database)
        .current_dir(folder.path())
        .output()
        .unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

const TABLES: &str = "SELECT count(*) FROM pg_class WHERE relkind = 'r' AND relnamespace = 'attune'::regnamespace";

#[tokio::test]
async fn a_schema_is_made_and_then_found() {
    let database = TestDatabase::empty().await;
    let first = migrate(&database.url(), &[]);
    assert_eq!((first.status.code(), text(&first.stdout)), (Some(0), "schema attune made, version 1\n".to_owned()));
    let again = migrate(&database.url(), &[]);
    assert_eq!(text(&again.stdout), "schema attune is at version 1 already\n");
    assert_eq!(again.status.code(), Some(0));
    assert!(database.number(TABLES).await > 15);
}

#[tokio::test]
async fn what_is_printed_is_what_psql_can_run() {
    let database = TestDatabase::empty().await;
    // Nothing is contacted: there is no such server.
    let printed = migrate("postgres://nobody@127.0.0.1:1/nothing", &["--print"]);
    assert_eq!(printed.status.code(), Some(0), "{}", text(&printed.stderr));
    let mut psql = Command::new("psql")
        .args(["-X", "-q", "-v", "ON_ERROR_STOP=1", &database.url()])
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .spawn()
        .expect("psql is installed by scripts/setup");
    psql.stdin.take().unwrap().write_all(&printed.stdout).unwrap();
    assert!(psql.wait().unwrap().success());
    assert_eq!(text(&migrate(&database.url(), &[]).stdout), "schema attune is at version 1 already\n");
}

#[tokio::test]
async fn a_schema_of_the_platform_is_left_alone_and_checked() {
    let database = TestDatabase::new().await;
    // As the platform's own migrations leave it: the same tables, without our mark.
    database.execute("DROP TABLE attune_agents_schema").await;
    let tables = database.number(TABLES).await;
    let kept = migrate(&database.url(), &[]);
    let fits = "schema attune was made by others: nothing was changed\nit has all that agents and hub need\n";
    assert_eq!((kept.status.code(), text(&kept.stdout).as_str()), (Some(0), fits));
    database.execute("ALTER TABLE execution DROP COLUMN started_at").await;
    let misfit = migrate(&database.url(), &[]);
    assert_eq!(misfit.status.code(), Some(1));
    let said = text(&misfit.stdout);
    assert!(said.contains("does not fit workers: table execution: column started_at is missing\n"), "{said}");
    assert!(!said.contains("sensor hosts"), "{said}");
    assert_eq!(database.number(TABLES).await, tables);
}

#[tokio::test]
async fn what_is_in_the_way_is_named_and_the_password_is_not() {
    let database = TestDatabase::empty().await;
    let gone = migrate("postgres://user:hunter2@127.0.0.1:1/nothing", &[]);
    assert_eq!(gone.status.code(), Some(69));
    let wrong = migrate("mysql://user:hunter2@127.0.0.1/nothing", &[]);
    assert_eq!(wrong.status.code(), Some(78));
    let missing = migrate(&database.url().replace(database.name(), "attune_test_that_is_not_there"), &[]);
    assert_eq!(missing.status.code(), Some(69));
    assert!(text(&missing.stderr).contains("has no database attune_test_that_is_not_there"));
    for output in [gone, wrong, missing] {
        let said = text(&output.stderr) + &text(&output.stdout);
        assert!(said.starts_with("error: ") && !said.contains("hunter2"), "{said}");
    }
}
