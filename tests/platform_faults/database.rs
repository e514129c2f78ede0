//! Faults of PostgreSQL and of the way to it.

use attune_testkit::database::TestDatabase;
use attune_testkit::{PrivatePostgres, Proxy, TestBroker, eventually};

use crate::rig::Rig;
use crate::support::Program;

/// A worker that reaches the database through a proxy.
async fn behind_proxy(rig: &Rig) -> (Program, Proxy) {
    let database = &rig.installation.database;
    let proxy = Proxy::start(database.authority());
    let url = database.url_via(&proxy.authority());
    let worker = rig.worker_with(&[("ATTUNE__DATABASE__URL", &url)]).await;
    (worker, proxy)
}

pub(crate) async fn said(program: &Program, text: &str) {
    eventually(&format!("{text:?} in the log"), async || program.log().contains(text).then_some(())).await;
}

const KEPT: &str = "the end of the execution cannot be stored, trying again";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_database_that_restarts_loses_no_execution() {
    let mut server = tokio::task::spawn_blocking(PrivatePostgres::start).await.unwrap();
    let rig = Rig::on(TestDatabase::on(&server.url()).await, TestBroker::new()).await;
    let hub = rig.hub().await;
    let worker = rig.worker().await;
    for stop in [PrivatePostgres::stop, PrivatePostgres::crash] {
        let gate = rig.gate();
        drop(std::fs::remove_file(&gate));
        let running = rig.ask_gated(4);
        rig.begun(&running).await;
        rig.until(&running, "running").await;
        stop(&mut server);
        rig.open();
        rig.no_action().await;
        said(&worker, KEPT).await;
        server.run();
        rig.completed(&running).await;
        rig.active().await;
        rig.completed(&rig.ask(3)).await;
    }
    worker.stop();
    hub.stop();
    drop(rig);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_connection_to_the_database_that_is_cut_loses_no_execution() {
    let rig = Rig::new().await;
    let hub = rig.hub().await;
    let (worker, proxy) = behind_proxy(&rig).await;
    let mut asked = rig.ask_gated(4);
    rig.begun(&asked).await;
    rig.open();
    for _ in 0..10 {
        asked.extend(rig.ask(4));
        proxy.cut();
    }
    rig.ended(&asked).await;
    worker.stop();
    hub.stop();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_database_in_a_black_hole_loses_no_execution() {
    let rig = Rig::new().await;
    let hub = rig.hub().await;
    let (worker, proxy) = behind_proxy(&rig).await;
    let running = rig.ask_gated(3);
    rig.begun(&running).await;
    proxy.black_hole_both();
    rig.open();
    rig.no_action().await;
    let asked = rig.ask(3);
    said(&worker, KEPT).await;
    said(&worker, "no heartbeat").await;
    proxy.resume();
    rig.completed(&running).await;
    rig.ended(&asked).await;
    rig.completed(&rig.ask(3)).await;
    worker.stop();
    hub.stop();
}

/// As a standby, or a server whose disk is full.
pub(crate) async fn take_no_writes(rig: &Rig) {
    let database = &rig.installation.database;
    let name = database.name();
    let others = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity
                  WHERE datname = current_database() AND pid <> pg_backend_pid()";
    database.execute(&format!("ALTER DATABASE {name} SET default_transaction_read_only = on")).await;
    database.execute(others).await;
}

/// As before; whoever mends it may write.
pub(crate) async fn take_writes(rig: &Rig) {
    let database = &rig.installation.database;
    let name = database.name();
    database
        .execute(&format!("BEGIN READ WRITE; ALTER DATABASE {name} RESET default_transaction_read_only; COMMIT"))
        .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_database_that_takes_no_writes_for_a_while_loses_no_execution() {
    let rig = Rig::new().await;
    let hub = rig.hub().await;
    let worker = rig.worker().await;
    let running = rig.ask_gated(3);
    rig.begun(&running).await;
    rig.until(&running, "running").await;
    take_no_writes(&rig).await;
    rig.open();
    rig.no_action().await;
    said(&worker, KEPT).await;
    take_writes(&rig).await;
    rig.completed(&running).await;
    rig.completed(&rig.ask(3)).await;
    worker.stop();
    hub.stop();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lock_that_somebody_holds_for_a_while_loses_no_execution() {
    use row_lock::held_at_its_end;
    let rig = Rig::new().await;
    let hub = rig.hub().await;
    let worker = rig.worker().await;
    let (running, held) = held_at_its_end(&rig).await;
    said(&worker, KEPT).await;
    drop(held);
    rig.completed(&running).await;
    worker.stop();
    hub.stop();
}

/// A session of `psql`, which holds a lock until it is dropped.
pub(crate) mod row_lock {
    use std::io::{BufRead as _, BufReader, Write as _};
    use std::process::{Child, Command, Stdio};

    use crate::rig::Rig;

    pub(crate) struct Held(Child);

    impl Held {
        /// Sets the status of the row in passing: what was locked is let go as somebody has changed it.
        pub(crate) fn commit(mut self, execution: i64, status: &str) {
            let sql = format!("UPDATE execution SET status = '{status}' WHERE id = {execution}; COMMIT;\n");
            self.0.stdin.as_mut().unwrap().write_all(sql.as_bytes()).unwrap();
        }
    }

    /// An execution, alone in its list, whose action is over and whose row is locked before its end could be written.
    pub(crate) async fn held_at_its_end(rig: &Rig) -> (Vec<i64>, Held) {
        let running = rig.ask_gated(1);
        rig.begun(&running).await;
        let held = hold(rig, running[0]);
        rig.open();
        rig.no_action().await;
        (running, held)
    }

    /// Locks the row of an execution.
    fn hold(rig: &Rig, execution: i64) -> Held {
        let mut child = Command::new("psql")
            .args(["-qAt", "-X", &rig.installation.database.url()])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let sql = format!(
            "SET search_path = attune; BEGIN; SELECT 'held' FROM execution WHERE id = {execution} FOR UPDATE;\n"
        );
        child.stdin.as_mut().unwrap().write_all(sql.as_bytes()).unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.as_mut().unwrap()).read_line(&mut line).unwrap();
        assert_eq!(line, "held\n");
        Held(child)
    }

    impl Drop for Held {
        fn drop(&mut self) {
            drop(self.0.stdin.take());
            self.0.wait().unwrap();
        }
    }
}
