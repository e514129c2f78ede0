//! The installation of this benchmark: a pack of sensors, the hub, and the host that runs them.

use std::fs;
use std::io;
use std::net::{SocketAddr, TcpStream};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use attune_bus::{Bus as _, Outgoing};
use attune_bus_amqp::{AmqpBus, AmqpConfig};
use attune_model::message::RuleEnabled;
use attune_model::{RuleId, Secret};
use sqlx::postgres::PgConnection;
use sqlx::{AssertSqlSafe, Row as _};
use tempfile::TempDir;

use crate::agent::Agent;
use crate::place::Place;
use crate::program;
use crate::words::Context as _;

/// A file system in memory.
const MEMORY: &str = "/dev/shm";
/// Between two looks at what has started.
const LOOK: Duration = Duration::from_millis(1);
/// Between two looks at rows.
const ROWS_LOOK: Duration = Duration::from_millis(50);
/// Patience with everything.
const LIMIT: Duration = Duration::from_mins(3);

const PACK: &str = "ref: bench\nlabel: Bench\nversion: 1.0.0\n";
const ACTION: &str = "ref: bench.none\nlabel: None\nenabled: true\nrunner_type: native\nentry_point: none\n";

/// Where everything is. Its own connection to the database is one only.
#[derive(Debug)]
pub(crate) struct Site {
    place: Place,
    /// The host's private folder: in memory, as in the deployment files.
    run: TempDir,
    count: usize,
    hub: SocketAddr,
    connection: PgConnection,
    bus: AmqpBus,
    /// Of all programs under test together, as far as it was looked.
    pub(crate) most_connections: u64,
}

impl Site {
    /// Makes it, with `count` sensors of which none is wanted.
    pub(crate) async fn new(count: usize) -> Result<Self, String> {
        let place = Place::new().await?;
        write_pack(&place.path("source/bench"), count).context("the pack")?;
        place.load("packs/core")?;
        place.load(&place.path("source").display().to_string())?;
        let connection = place.database.connection().await;
        let url = Secret::new(place.broker.url());
        let bus = AmqpBus::connect(&AmqpConfig::new(url, "bench")).await.context("the broker")?;
        let hub = Place::free_address()?;
        let run = TempDir::with_prefix_in("attune-bench-", MEMORY).context(MEMORY)?;
        Ok(Self { place, run, count, hub, connection, bus, most_connections: 0 })
    }

    pub(crate) fn count(&self) -> u64 {
        self.count as u64
    }

    /// What each sensor runs.
    pub(crate) fn program(&self) -> PathBuf {
        self.place.path("packs/bench/sensors/idle")
    }

    fn command(&self) -> Result<Command, String> {
        let mut command = self.place.command(&self.place.ways())?;
        command.env("ATTUNE__SERVER__HOST", "127.0.0.1").env("ATTUNE__SERVER__PORT", self.hub.port().to_string());
        command.env("ATTUNE_SENSOR_RUNTIMES", "native").env("ATTUNE__SENSOR__RUN_DIR", self.run_dir());
        Ok(command)
    }

    /// Made by the host: a folder that others could look into is not used, and then there are no tokens in files.
    fn run_dir(&self) -> PathBuf {
        self.run.path().join("run")
    }

    pub(crate) async fn start_hub(&self) -> Result<Agent, String> {
        let mut command = self.command()?;
        command.arg("hub");
        let hub = self.place.start("hub", command)?;
        let begun = Instant::now();
        while TcpStream::connect(self.hub).is_err() {
            patience("the hub", begun)?;
            tokio::time::sleep(ROWS_LOOK).await;
        }
        Ok(hub)
    }

    /// Nothing of an earlier host counts any more.
    pub(crate) fn start_host(&self) -> Result<Agent, String> {
        self.forget_the_living()?;
        let mut command = self.command()?;
        command.args(["sensor", "--name", "bench"]);
        self.place.start("sensor", command)
    }

    /// The last lines that the host wrote, for an error.
    pub(crate) fn log(&self) -> String {
        self.place.log("sensor")
    }

    async fn number(&mut self, sql: &'static str) -> Result<u64, String> {
        let row = sqlx::query(sql).fetch_one(&mut self.connection).await.context("a count")?;
        row.try_get::<i64, _>(0).map(i64::unsigned_abs).context("a count")
    }

    pub(crate) async fn want_all(&mut self) -> Result<(), String> {
        let done = sqlx::query("UPDATE rule SET enabled = true").execute(&mut self.connection).await;
        done.map(drop).context("the rules")
    }

    pub(crate) async fn wait_until_registered(&mut self) -> Result<(), String> {
        let begun = Instant::now();
        let sql = "SELECT count(*) FROM worker WHERE worker_role = 'sensor' AND status = 'active'";
        while self.number(sql).await? == 0 {
            patience("the host's row", begun)?;
            tokio::time::sleep(ROWS_LOOK).await;
        }
        Ok(())
    }

    /// Until every row says so. Counts connections meanwhile.
    pub(crate) async fn wait_until_all_are_recorded(&mut self) -> Result<(), String> {
        let begun = Instant::now();
        let sql = "SELECT count(*) FROM sensor_process WHERE status = 'running' AND pid IS NOT NULL";
        while self.number(sql).await? < self.count() {
            patience("the rows of all sensors", begun)?;
            self.look_at_connections().await?;
            tokio::time::sleep(ROWS_LOOK).await;
        }
        Ok(())
    }

    async fn look_at_connections(&mut self) -> Result<(), String> {
        let sql =
            "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()";
        self.most_connections = self.number(sql).await?.max(self.most_connections);
        Ok(())
    }

    pub(crate) fn forget_the_living(&self) -> Result<(), String> {
        fs::write(self.place.path("alive"), "").context("the marks of the living")
    }

    fn living(&self) -> u64 {
        fs::metadata(self.place.path("alive")).map_or(0, |mark| mark.len())
    }

    /// When so many ran. Blocks.
    pub(crate) fn wait_for_living(&self, count: u64) -> Result<Instant, String> {
        let begun = Instant::now();
        while self.living() < count {
            patience("the programs", begun)?;
            std::thread::park_timeout(LOOK);
        }
        Ok(Instant::now())
    }

    /// When the last one ran. Counts connections meanwhile.
    pub(crate) async fn wait_until_all_run(&mut self) -> Result<Instant, String> {
        let mut looked = Instant::now();
        let begun = looked;
        while self.living() < self.count() {
            patience("the sensors", begun)?;
            if looked.elapsed() > ROWS_LOOK {
                self.look_at_connections().await?;
                looked = Instant::now();
            }
            tokio::time::sleep(LOOK).await;
        }
        let ran = Instant::now();
        let tokens = self.tokens().context("the host's private folder")?;
        if tokens < self.count() {
            return Err(format!("the host handed out {tokens} tokens in files, and not {}", self.count()));
        }
        Ok(ran)
    }

    /// Those that the host has put into its private folder.
    fn tokens(&self) -> io::Result<u64> {
        let mut count = 0;
        for life in fs::read_dir(self.run_dir())? {
            let life = life?.path();
            if life.is_dir() {
                for file in fs::read_dir(life)? {
                    count += u64::from(file?.path().extension().is_some_and(|extension| extension == "token"));
                }
            }
        }
        Ok(count)
    }

    /// Changes a rule, and says so as the platform does.
    pub(crate) async fn change_rule(&mut self, number: usize) -> Result<(), String> {
        self.forget_the_living()?;
        let sql = format!("UPDATE rule SET trigger_params = '{{\"n\": 2}}' WHERE ref = 'bench.r{number}'");
        sqlx::query(AssertSqlSafe(sql)).execute(&mut self.connection).await.context("a rule")?;
        let message = RuleEnabled {
            rule_id: RuleId(1),
            rule_ref: format!("bench.r{number}"),
            trigger_ref: format!("bench.t{number}"),
            trigger_params: None,
        };
        let message = Outgoing::new(&message, "bench", chrono::Utc::now()).context("a message")?;
        self.bus.publish(&[message]).await.context("a message")
    }

    /// When the next one ran.
    pub(crate) fn wait_until_more_run(&self) -> Result<Instant, String> {
        self.wait_for_living(1)
    }

    /// From now on sensors take their time to end.
    pub(crate) fn make_ends_slow(&self) -> Result<(), String> {
        fs::write(self.place.path("slow"), "").context("a mark")
    }

    /// From now on they do not end until they are killed.
    pub(crate) fn make_all_deaf(&self) -> Result<(), String> {
        fs::write(self.place.path("deaf"), "").context("a mark")
    }

    /// No process of a sensor, and no row that tells of one.
    pub(crate) async fn assert_nothing_is_left(&mut self) -> Result<(), String> {
        let program = self.program();
        let is_ours =
            |process: &fs::DirEntry| fs::read_link(process.path().join("exe")).is_ok_and(|exe| exe == program);
        let processes = fs::read_dir("/proc").context("the processes")?.flatten().filter(is_ours).count();
        let rows =
            self.number("SELECT count(*) FROM sensor_process WHERE status <> 'stopped' OR pid IS NOT NULL").await?;
        if processes == 0 && rows == 0 {
            return Ok(());
        }
        Err(format!("the host left {processes} processes, and {rows} rows that tell of some"))
    }
}

fn patience(what: &str, begun: Instant) -> Result<(), String> {
    if begun.elapsed() < LIMIT { Ok(()) } else { Err(format!("waited {LIMIT:?} for {what}")) }
}

/// One trigger, one rule and one sensor of each number; the program is the same for all.
fn write_pack(folder: &Path, count: usize) -> io::Result<()> {
    for name in ["actions", "triggers", "sensors", "rules"] {
        fs::create_dir_all(folder.join(name))?;
    }
    let write = |name: &str, text: &str| fs::write(folder.join(name), text);
    write("pack.yaml", PACK)?;
    write("actions/none.yaml", ACTION)?;
    write("actions/none", "#!/bin/sh\n")?;
    for number in 0..count {
        write(
            &format!("triggers/t{number}.yaml"),
            &format!("ref: bench.t{number}\nlabel: T{number}\nenabled: true\nparameters:\n  n:\n    type: integer\n"),
        )?;
        write(
            &format!("sensors/s{number}.yaml"),
            &format!(
                "ref: bench.s{number}\nlabel: S{number}\nenabled: true\nrunner_type: native\nentry_point: idle\n\
                 trigger_types:\n  - bench.t{number}\n"
            ),
        )?;
        write(
            &format!("rules/r{number}.yaml"),
            &format!(
                "ref: bench.r{number}\nlabel: R{number}\nenabled: false\ntrigger_ref: bench.t{number}\n\
                 trigger_params:\n  n: 1\naction_ref: bench.none\n"
            ),
        )?;
    }
    let idle = program::path().map_err(io::Error::other)?.with_file_name("attune-bench-idle");
    for (from, to) in [(Some(idle), "sensors/idle"), (None, "actions/none")] {
        let to = folder.join(to);
        if let Some(from) = from {
            fs::copy(from, &to)?;
        }
        fs::set_permissions(&to, fs::Permissions::from_mode(0o755))?;
    }
    Ok(())
}
