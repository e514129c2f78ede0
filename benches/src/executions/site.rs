//! A whole installation for the benchmark: database, virtual host, folders, and the worker as a process of its own.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs::{self, DirEntry, File};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use attune_sys::{Pid, SIGTERM};
use attune_testkit::TestBroker;
use attune_testkit::database::TestDatabase;
use sqlx::Row as _;
use tempfile::TempDir;

use super::Context as _;
use crate::program;

/// The worker's name; its row is there before it starts, so that its queues are known.
const NAME: &str = "bench";

/// Where everything is.
#[derive(Debug)]
pub(crate) struct Site {
    pub(crate) database: TestDatabase,
    pub(crate) broker: TestBroker,
    folder: TempDir,
    /// The row of the worker.
    pub(crate) worker: i64,
    /// A row for the floor.
    pub(crate) floor: i64,
    at_once: usize,
}

/// How the worker reaches its servers.
#[derive(Debug, Clone)]
pub(crate) struct Ways {
    pub(crate) database: String,
    pub(crate) broker: String,
}

impl Site {
    /// Makes it and loads the core pack.
    pub(crate) async fn new(at_once: usize) -> Result<Self, String> {
        let folder = TempDir::new().context("a folder")?;
        for name in ["packs", "envs", "artifacts", "tmp"] {
            fs::create_dir(folder.path().join(name)).context("a folder")?;
        }
        // The marks of folders that the API shares; without them every log would be sent to an API that is not there.
        for mark in ["packs/.attune-packs-sentinel", "artifacts/.attune-api-sentinel"] {
            fs::write(folder.path().join(mark), "").context("a folder")?;
        }
        let (database, broker) = (TestDatabase::new().await, TestBroker::new());
        let mut site = Self { database, broker, folder, worker: 0, floor: 0, at_once };
        let packs = site.path("packs");
        let mut load = site.command(&site.ways())?;
        program::time(load.args(["packs", "load", "--into"]).arg(packs).arg("packs/core"))?;
        site.worker = site.register(NAME).await?;
        site.floor = site.register("floor").await?;
        Ok(site)
    }

    async fn register(&self, name: &str) -> Result<i64, String> {
        let mut connection = self.database.connection().await;
        let sql = "INSERT INTO worker (name, worker_role, worker_type, status, capabilities, last_heartbeat)
                   VALUES ($1, 'action', 'local', 'active', '{}', now()) RETURNING id";
        let row = sqlx::query(sql).bind(name).fetch_one(&mut connection).await.context("a worker's row")?;
        row.try_get(0).context("a worker's row")
    }

    /// A place in its folder.
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Straight to both servers.
    pub(crate) fn ways(&self) -> Ways {
        Ways { database: self.database.url(), broker: self.broker.url() }
    }

    fn command(&self, ways: &Ways) -> Result<Command, String> {
        let mut command = Command::new(program::path()?);
        command.env_clear().env("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin");
        for (name, value) in [
            ("ATTUNE__DATABASE__URL", ways.database.as_str()),
            ("ATTUNE__MESSAGE_QUEUE__URL", &ways.broker),
            ("ATTUNE__SECURITY__JWT_SECRET", "a secret of the benchmark, for tokens"),
            ("ATTUNE__SECURITY__ENCRYPTION_KEY", "a secret of the benchmark, for secrets"),
            ("ATTUNE_WORKER_NAME", NAME),
            ("ATTUNE_WORKER_RUNTIMES", "shell,native"),
        ] {
            command.env(name, value);
        }
        command.env("ATTUNE__WORKER__MAX_CONCURRENT_TASKS", self.at_once.to_string());
        for (name, folder) in [
            ("TMPDIR", "tmp"),
            ("ATTUNE__PACKS_BASE_DIR", "packs"),
            ("ATTUNE__RUNTIME_ENVS_DIR", "envs"),
            ("ATTUNE__ARTIFACTS_DIR", "artifacts"),
        ] {
            command.env(name, self.path(folder));
        }
        Ok(command)
    }

    /// Starts the worker. Its log goes to a file, as it would anywhere.
    pub(crate) fn start(&self, ways: &Ways) -> Result<Agent, String> {
        let log = File::options().append(true).create(true).open(self.path("worker.log")).context("the log")?;
        let mut command = self.command(ways)?;
        command.arg("worker").stdin(Stdio::null()).stdout(Stdio::null()).stderr(log);
        let begun = Instant::now();
        #[expect(clippy::disallowed_methods, reason = "the worker is what is measured")]
        let child = command.spawn().context("the worker")?;
        Ok(Agent { child, begun })
    }

    /// The last lines that the worker wrote, for an error.
    pub(crate) fn log(&self) -> String {
        let log = fs::read_to_string(self.path("worker.log")).unwrap_or_default();
        let lines: Vec<&str> = log.lines().rev().take(5).collect();
        lines.into_iter().rev().collect::<Vec<_>>().join("\n")
    }
}

/// A worker that runs; killed when dropped.
#[derive(Debug)]
pub(crate) struct Agent {
    child: Child,
    /// When it was started.
    pub(crate) begun: Instant,
}

/// What a process holds, in bytes.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Memory {
    pub(crate) resident: u64,
    pub(crate) own: u64,
    pub(crate) peak: u64,
    pub(crate) threads: u64,
}

impl Agent {
    /// Its own time on a processor, without that of its children.
    pub(crate) fn cpu(&self) -> Result<Duration, String> {
        let stat = self.read("stat")?;
        let after_name = stat.rsplit_once(") ").map(|(_, rest)| rest).unwrap_or_default();
        let ticks: u64 = after_name.split(' ').skip(11).take(2).filter_map(|number| number.parse::<u64>().ok()).sum();
        Ok(Duration::from_micros(ticks * 1_000_000 / attune_sys::ticks_per_second()))
    }

    /// Nanoseconds of each of its threads on a processor, by the scheduler's own count: ticks are too coarse for a process
    /// that sleeps. A thread that ends takes its count with it.
    pub(crate) fn threads(&self) -> Result<BTreeMap<OsString, u64>, String> {
        let folder = format!("/proc/{}/task", self.child.id());
        let threads = fs::read_dir(folder).context("the worker has ended")?.flatten();
        let count = |thread: DirEntry| {
            let counts = fs::read_to_string(thread.path().join("schedstat")).ok()?;
            Some((thread.file_name(), counts.split(' ').next()?.parse().ok()?))
        };
        Ok(threads.filter_map(count).collect())
    }

    /// What it holds now.
    pub(crate) fn memory(&self) -> Result<Memory, String> {
        let (rollup, status) = (self.read("smaps_rollup")?, self.read("status")?);
        let number = |text: &str, name: &str| {
            let line = text.lines().find_map(|line| line.strip_prefix(name))?;
            line.split_whitespace().next()?.parse::<u64>().ok()
        };
        let kilobytes = |text: &str, name: &str| number(text, name).unwrap_or_default() * 1024;
        Ok(Memory {
            resident: kilobytes(&rollup, "Rss:"),
            // Clean pages of the binary's file are shared by all that run it, and the kernel may take them back.
            own: kilobytes(&rollup, "Private_Dirty:"),
            peak: kilobytes(&status, "VmHWM:"),
            threads: number(&status, "Threads:").unwrap_or_default(),
        })
    }

    fn read(&self, name: &str) -> Result<String, String> {
        fs::read_to_string(format!("/proc/{}/{name}", self.child.id())).context("the worker has ended")
    }

    /// Asks it to stop, and tells how long that took.
    pub(crate) fn stop(mut self) -> Result<Duration, String> {
        let begun = Instant::now();
        let pid = Pid::new(self.child.id()).ok_or("the worker has no process id")?;
        attune_sys::kill(pid, SIGTERM).context("stopping the worker")?;
        let status = self.child.wait().context("the end of the worker")?;
        if status.success() { Ok(begun.elapsed()) } else { Err(format!("the worker ended with {status}")) }
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        // It may have ended by itself.
        drop(self.child.kill());
        drop(self.child.wait());
    }
}
