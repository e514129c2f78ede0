//! A PostgreSQL database for one test.
//!
//! The server is that of `DATABASE_URL`, else the local one. The schema is made once, in a template that all tests copy;
//! a test's database goes with its [`TestDatabase`], and what a killed test left behind goes with the next one.

#![expect(clippy::unwrap_used, clippy::missing_panics_doc, reason = "a test without its database ends")]

use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use attune_config::DatabaseConfig;
use attune_model::Secret;
use attune_store_postgres::migration;
use sqlx::postgres::{PgConnectOptions, PgConnection};
use sqlx::{AssertSqlSafe, ConnectOptions as _, Connection as _, Row as _};

/// Where the server is when nobody says so.
const LOCAL: &str = "postgres://postgres@127.0.0.1:5432/postgres";

/// The schema in every test's database.
pub const SCHEMA: &str = "attune";

/// A database that is older than any test takes.
const STALE: Duration = Duration::from_hours(2);

/// Held while templates are made and old databases removed.
const LOCK: &str = "SELECT pg_advisory_lock(hashtextextended('attune test databases', 0))";

/// Its own database with the schema of a fresh installation. Dropped with all its connections.
#[derive(Debug)]
pub struct TestDatabase {
    server: String,
    name: String,
}

impl TestDatabase {
    /// A copy of the template, on the server of `DATABASE_URL` or the local one.
    pub async fn new() -> Self {
        Self::on(&server()).await
    }

    /// [`Self::new`] on the server behind `server`, the URL of a database that may make databases.
    pub async fn on(server: &str) -> Self {
        let mut connection = admin(server).await;
        let template = template(&mut connection, server).await;
        let name = fresh_name("test");
        run(&mut connection, &format!("CREATE DATABASE {name} TEMPLATE {template}")).await;
        connection.close().await.unwrap();
        Self { server: server.to_owned(), name }
    }

    /// A database with nothing in it.
    pub async fn empty() -> Self {
        let server = server();
        let mut connection = admin(&server).await;
        let name = fresh_name("test");
        run(&mut connection, &format!("CREATE DATABASE {name} TEMPLATE template0")).await;
        connection.close().await.unwrap();
        Self { server, name }
    }

    /// Its URL.
    pub fn url(&self) -> String {
        at(&self.server, &self.name)
    }

    /// `host:port` of its server.
    pub fn authority(&self) -> &str {
        let host = self.server.split_once("://").map_or(self.server.as_str(), |(_, rest)| rest);
        let host = host.split(['/', '?']).next().unwrap_or(host);
        host.rsplit_once('@').map_or(host, |(_, authority)| authority)
    }

    /// Its URL through a [`Proxy`](crate::Proxy) or another way at `authority`.
    pub fn url_via(&self, authority: &str) -> String {
        self.url().replacen(self.authority(), authority, 1)
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Settings for a store on it.
    pub fn config(&self) -> DatabaseConfig {
        config(&self.url())
    }

    /// A connection of its own, whose search path is the schema.
    pub async fn connection(&self) -> PgConnection {
        let options: PgConnectOptions = self.url().parse().unwrap();
        let options = options.options([("search_path", format!("{SCHEMA},public"))]).disable_statement_logging();
        options.connect().await.unwrap()
    }

    /// Runs a statement.
    pub async fn execute(&self, sql: &str) {
        let mut connection = self.connection().await;
        run(&mut connection, sql).await;
        connection.close().await.unwrap();
    }

    /// The number that a query yields.
    pub async fn number(&self, sql: &str) -> i64 {
        let mut connection = self.connection().await;
        let sql = format!("SELECT ({sql})::bigint");
        let row = sqlx::query(AssertSqlSafe(sql)).fetch_one(&mut connection).await.unwrap();
        connection.close().await.unwrap();
        row.get(0)
    }

    /// The texts in the first column of a query's rows; none while the server does not answer.
    pub async fn texts(&self, sql: &str) -> Option<Vec<String>> {
        let options: PgConnectOptions = self.url().parse().unwrap();
        let options = options.options([("search_path", format!("{SCHEMA},public"))]).disable_statement_logging();
        let mut connection = options.connect().await.ok()?;
        let sql = format!("SELECT first::text FROM ({sql}) AS of (first)");
        let rows = sqlx::query(AssertSqlSafe(sql)).fetch_all(&mut connection).await.ok()?;
        connection.close().await.ok()?;
        Some(rows.iter().map(|row| row.get::<Option<String>, _>(0).unwrap_or_default()).collect())
    }
}

impl Drop for TestDatabase {
    fn drop(&mut self) {
        // A runtime of its own: the test's may be the one that drops this.
        let (server, name) = (self.server.clone(), self.name.clone());
        let dropped = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async {
                let mut connection = admin(&server).await;
                run(&mut connection, &format!("DROP DATABASE IF EXISTS {name} WITH (FORCE)")).await;
            });
        });
        // The server may be gone by now, and the test with it: the next test sweeps.
        drop(dropped.join());
    }
}

/// Settings for a store at `url`.
pub fn config(url: &str) -> DatabaseConfig {
    DatabaseConfig {
        url: Secret::new(url.to_owned()),
        schema: SCHEMA.to_owned(),
        max_connections: 10,
        min_connections: 0,
        connect_timeout: Duration::from_secs(10),
        idle_timeout: Duration::from_mins(10),
        unit_limit: Duration::from_secs(10),
    }
}

/// The URL of the server that tests use.
#[expect(clippy::disallowed_methods, reason = "only tests ask where their server is")]
pub fn server() -> String {
    std::env::var("DATABASE_URL").unwrap_or_else(|_| LOCAL.to_owned())
}

/// `server` with another database.
fn at(server: &str, name: &str) -> String {
    let (base, query) = server.split_once('?').map_or((server, None), |(base, query)| (base, Some(query)));
    let (scheme, rest) = base.split_once("://").unwrap();
    let host = rest.split_once('/').map_or(rest, |(host, _)| host);
    let query = query.map(|query| format!("?{query}")).unwrap_or_default();
    format!("{scheme}://{host}/{name}{query}")
}

async fn admin(server: &str) -> PgConnection {
    let options: PgConnectOptions = server.parse().unwrap();
    let connection = options.disable_statement_logging().connect().await;
    connection.unwrap_or_else(|error| panic!("tests need PostgreSQL at {}: {error}", at(server, "")))
}

async fn run(connection: &mut PgConnection, sql: &str) {
    sqlx::raw_sql(AssertSqlSafe(sql.to_owned()))
        .execute(connection)
        .await
        .unwrap_or_else(|error| panic!("{sql}: {error}"));
}

/// `attune_<kind>_<seconds>_<process>_<number>`.
fn fresh_name(kind: &str) -> String {
    static NUMBER: AtomicU32 = AtomicU32::new(0);
    let number = NUMBER.fetch_add(1, Ordering::Relaxed);
    format!("attune_{kind}_{}_{}_{number}", seconds(), std::process::id())
}

fn seconds() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs()
}

/// The database that tests copy. Its name tells the schema that it holds, so that checkouts do not disturb each other.
async fn template(connection: &mut PgConnection, server: &str) -> String {
    let mut hasher = DefaultHasher::new();
    migration::script(SCHEMA).unwrap().hash(&mut hasher);
    let name = format!("attune_template_{:016x}", hasher.finish());
    let finished = format!("SELECT FROM pg_database WHERE datname = '{name}' AND datistemplate");
    let finished = sqlx::raw_sql(AssertSqlSafe(finished));
    if finished.fetch_optional(&mut *connection).await.unwrap().is_some() {
        return name;
    }
    run(connection, LOCK).await;
    sweep(connection).await;
    let finished = format!("SELECT FROM pg_database WHERE datname = '{name}' AND datistemplate");
    if sqlx::raw_sql(AssertSqlSafe(finished)).fetch_optional(&mut *connection).await.unwrap().is_none() {
        run(connection, &format!("DROP DATABASE IF EXISTS {name} WITH (FORCE)")).await;
        run(connection, &format!("CREATE DATABASE {name} TEMPLATE template0")).await;
        migration::migrate(&config(&at(server, &name))).await.unwrap();
        run(connection, &format!("ALTER DATABASE {name} IS_TEMPLATE true ALLOW_CONNECTIONS false")).await;
    }
    run(connection, "SELECT pg_advisory_unlock_all()").await;
    name
}

/// Removes what killed tests left behind.
async fn sweep(connection: &mut PgConnection) {
    let names = sqlx::raw_sql("SELECT datname::text FROM pg_database WHERE datname LIKE 'attune\\_test\\_%'");
    for row in names.fetch_all(&mut *connection).await.unwrap() {
        let name: String = row.get(0);
        let made = name.split('_').nth(2).and_then(|made| made.parse::<u64>().ok());
        if made.is_some_and(|made| made + STALE.as_secs() < seconds()) {
            run(connection, &format!("DROP DATABASE IF EXISTS {name} WITH (FORCE)")).await;
        }
    }
}
