//! A whole installation for a benchmark: a database, a virtual host, folders, and commands in the environment of both.

use std::fs::{self, File};
use std::net::{SocketAddr, TcpListener};
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::Instant;

use attune_testkit::TestBroker;
use attune_testkit::database::TestDatabase;
use tempfile::TempDir;

use crate::agent::Agent;
use crate::program;
use crate::words::Context as _;

/// What tokens are signed with.
pub(crate) const JWT_SECRET: &str = "a secret of the benchmark, for tokens";

/// Where everything is.
#[derive(Debug)]
pub(crate) struct Place {
    pub(crate) database: TestDatabase,
    pub(crate) broker: TestBroker,
    folder: TempDir,
}

/// How a program reaches its servers.
#[derive(Debug, Clone)]
pub(crate) struct Ways {
    pub(crate) database: String,
    pub(crate) broker: String,
}

impl Place {
    /// Makes it, without packs.
    pub(crate) async fn new() -> Result<Self, String> {
        let folder = TempDir::new().context("a folder")?;
        for name in ["packs", "envs", "artifacts", "tmp"] {
            fs::create_dir(folder.path().join(name)).context("a folder")?;
        }
        // The marks of folders that the API shares; without them every log would be sent to an API that is not there.
        for mark in ["packs/.attune-packs-sentinel", "artifacts/.attune-api-sentinel"] {
            fs::write(folder.path().join(mark), "").context("a folder")?;
        }
        Ok(Self { database: TestDatabase::new().await, broker: TestBroker::new(), folder })
    }

    /// A file or folder in it.
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Straight to both servers.
    pub(crate) fn ways(&self) -> Ways {
        Ways { database: self.database.url(), broker: self.broker.url() }
    }

    /// Where a hub can listen.
    pub(crate) fn free_address() -> Result<SocketAddr, String> {
        TcpListener::bind("127.0.0.1:0").and_then(|free| free.local_addr()).context("a port")
    }

    /// Loads the packs of a folder.
    pub(crate) fn load(&self, packs: &str) -> Result<(), String> {
        let mut load = self.command(&self.ways())?;
        program::time(load.args(["packs", "load", "--into"]).arg(self.path("packs")).arg(packs)).map(drop)
    }

    /// A command in its environment.
    pub(crate) fn command(&self, ways: &Ways) -> Result<Command, String> {
        let mut command = Command::new(program::path()?);
        command.env_clear().env("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin");
        for (name, value) in [
            ("ATTUNE__DATABASE__URL", ways.database.as_str()),
            ("ATTUNE__MESSAGE_QUEUE__URL", &ways.broker),
            ("ATTUNE__SECURITY__JWT_SECRET", JWT_SECRET),
            ("ATTUNE__SECURITY__ENCRYPTION_KEY", "a secret of the benchmark, for secrets"),
        ] {
            command.env(name, value);
        }
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

    /// Starts a program. Its log goes to a file, as it would anywhere.
    pub(crate) fn start(&self, name: &'static str, mut command: Command) -> Result<Agent, String> {
        let log = File::options().append(true).create(true).open(self.log_path(name)).context("the log")?;
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log);
        let begun = Instant::now();
        #[expect(clippy::disallowed_methods, reason = "the program is what is measured")]
        let child = command.spawn().context(name)?;
        Ok(Agent::new(name, child, begun))
    }

    fn log_path(&self, name: &str) -> PathBuf {
        self.path(&format!("{name}.log"))
    }

    /// The last lines that a program wrote, for an error.
    pub(crate) fn log(&self, name: &str) -> String {
        let log = fs::read_to_string(self.log_path(name)).unwrap_or_default();
        let lines: Vec<&str> = log.lines().rev().take(5).collect();
        lines.into_iter().rev().collect::<Vec<_>>().join("\n")
    }
}
