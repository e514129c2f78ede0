//! A whole installation for one test: a database, a virtual host, folders, and the programs that are started on them.

#![allow(dead_code, clippy::allow_attributes, reason = "each test file uses its part of this")]

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};

use attune_testkit::TestBroker;
use attune_testkit::database::TestDatabase;
use attune_testkit::eventually;
use tempfile::TempDir;

/// The program under test.
pub(crate) const BINARY: &str = env!("CARGO_BIN_EXE_attune-agents");

/// Signs the tokens of an installation.
pub(crate) const JWT_SECRET: &str = "a secret of the tests, for tokens";

/// The packs of this repository.
const PACKS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/packs");

/// Everything that programs of one installation share.
pub(crate) struct Installation {
    pub(crate) database: TestDatabase,
    pub(crate) broker: TestBroker,
    pub(crate) folder: TempDir,
    port: u16,
}

impl Installation {
    /// An installation with the schema and the packs of this repository; nothing runs yet.
    pub(crate) async fn new() -> Self {
        let new = Self::bare().await;
        new.load(PACKS);
        new
    }

    /// … without packs.
    pub(crate) async fn bare() -> Self {
        Self::on(TestDatabase::new().await, TestBroker::new())
    }

    /// … on these servers.
    pub(crate) fn on(database: TestDatabase, broker: TestBroker) -> Self {
        let folder = TempDir::new().unwrap();
        for name in ["packs", "envs", "artifacts", "tmp"] {
            fs::create_dir(folder.path().join(name)).unwrap();
        }
        // Free now; nobody else on this machine is given it again soon.
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        Self { database, broker, folder, port }
    }

    /// Loads a folder of packs.
    pub(crate) fn load(&self, packs: &str) {
        let (code, text) = self.output(&["packs", "load", "--into", self.path("packs").to_str().unwrap(), packs]);
        assert_eq!(code, Some(0), "{text}");
    }

    /// Where its hub listens.
    pub(crate) fn hub_address(&self) -> SocketAddr {
        SocketAddr::from(([127, 0, 0, 1], self.port))
    }

    /// A folder or file of the installation.
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// The variables of a deployment.
    pub(crate) fn variables(&self) -> BTreeMap<String, String> {
        let path = |name: &str| self.path(name).to_str().unwrap().to_owned();
        let search = std::env::var("PATH").unwrap();
        [
            ("PATH", search),
            ("TMPDIR", path("tmp")),
            ("ATTUNE__DATABASE__URL", self.database.url()),
            ("ATTUNE__MESSAGE_QUEUE__URL", self.broker.url()),
            ("ATTUNE__SECURITY__JWT_SECRET", JWT_SECRET.to_owned()),
            ("ATTUNE__SECURITY__ENCRYPTION_KEY", "a secret of the tests, for other secrets".to_owned()),
            ("ATTUNE__SERVER__HOST", "127.0.0.1".to_owned()),
            ("ATTUNE__SERVER__PORT", self.port.to_string()),
            ("ATTUNE__PACKS_BASE_DIR", path("packs")),
            ("ATTUNE__RUNTIME_ENVS_DIR", path("envs")),
            ("ATTUNE__ARTIFACTS_DIR", path("artifacts")),
            ("ATTUNE_WORKER_RUNTIMES", "shell,python,node,native".to_owned()),
            ("ATTUNE_SENSOR_RUNTIMES", "shell,python,node,native".to_owned()),
        ]
        .map(|(name, value)| (name.to_owned(), value))
        .into()
    }

    /// Runs a command to its end: exit code and everything that it wrote.
    pub(crate) fn output(&self, arguments: &[&str]) -> (Option<i32>, String) {
        let output = self.command(arguments).output().unwrap();
        let text = [output.stdout, output.stderr].concat();
        (output.status.code(), String::from_utf8_lossy(&text).into_owned())
    }

    /// Starts a program.
    pub(crate) fn start(&self, name: &str, arguments: &[&str]) -> Program {
        self.start_with(name, arguments, |_| {})
    }

    /// … with a changed command.
    pub(crate) fn start_with(&self, name: &str, arguments: &[&str], change: impl FnOnce(&mut Command)) -> Program {
        let mut command = self.command(arguments);
        change(&mut command);
        self.start_command(name, command)
    }

    /// … with a command of the caller's.
    pub(crate) fn start_command(&self, name: &str, mut command: Command) -> Program {
        let log = self.path(&format!("{name}.log"));
        let file = File::options().append(true).create(true).open(&log).unwrap();
        command.stdin(Stdio::null()).stdout(file.try_clone().unwrap()).stderr(file);
        Program { child: command.spawn().unwrap(), log }
    }

    /// A command in the environment of the installation.
    pub(crate) fn command(&self, arguments: &[&str]) -> Command {
        self.command_of(BINARY, arguments)
    }

    /// … of another program.
    pub(crate) fn command_of(&self, program: &str, arguments: &[&str]) -> Command {
        let mut command = Command::new(program);
        command.args(arguments).env_clear().envs(self.variables()).current_dir(self.folder.path());
        command
    }

    /// Waits until a query yields a number for which `wanted` holds.
    pub(crate) async fn wait_for(&self, what: &str, sql: &str, wanted: impl Fn(i64) -> bool) -> i64 {
        eventually(what, async || Some(self.database.number(sql).await).filter(|number| wanted(*number))).await
    }
}

/// A running program; killed when dropped.
pub(crate) struct Program {
    child: Child,
    log: PathBuf,
}

impl Program {
    /// Its process id.
    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// What it wrote so far.
    pub(crate) fn log(&self) -> String {
        fs::read_to_string(&self.log).unwrap()
    }

    /// Sends a signal by its name.
    pub(crate) fn signal(&self, name: &str) {
        let signal = format!("-{name}");
        assert!(Command::new("kill").args([&signal, &self.pid().to_string()]).status().unwrap().success());
    }

    /// Ends it as a lost machine would.
    pub(crate) fn kill(mut self) {
        self.signal("KILL");
        self.wait();
    }

    /// Waits for its end.
    pub(crate) fn wait(&mut self) -> ExitStatus {
        attune_testkit::eventually_blocking("the end of a program", || self.child.try_wait().unwrap())
    }

    /// Asks it to stop and waits until it did, in order.
    pub(crate) fn stop(mut self) -> String {
        self.signal("TERM");
        let status = self.wait();
        let log = self.log();
        assert_eq!(status.code(), Some(0), "{log}");
        log
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        // It may have ended by itself.
        drop(self.child.kill());
        drop(self.child.wait());
        if std::thread::panicking() {
            #[expect(clippy::print_stderr, reason = "the log of a program explains the test that failed")]
            let () = eprintln!("== {}\n{}", self.log.display(), self.log());
        }
    }
}

/// Processes whose command line contains `text`, without zombies.
pub(crate) fn processes_with(text: &str) -> Vec<u32> {
    pids().filter(|pid| proc_file(*pid, "cmdline").is_some_and(|line| line.contains(text))).collect()
}

/// Processes that were started in an installation, whoever started them and whatever became of their parents, without zombies.
pub(crate) fn processes_of(installation: &Installation) -> Vec<u32> {
    let folder = installation.folder.path().to_str().unwrap();
    let is_of = |pid: &u32| {
        ["cmdline", "environ"].iter().any(|file| proc_file(*pid, file).is_some_and(|text| text.contains(folder)))
    };
    pids().filter(is_of).collect()
}

/// Whether there is such a process, and no zombie.
pub(crate) fn is_alive(pid: u32) -> bool {
    proc_file(pid, "cmdline").is_some_and(|line| !line.is_empty())
}

fn pids() -> impl Iterator<Item = u32> {
    let entries = fs::read_dir("/proc").unwrap().filter_map(Result::ok);
    entries.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok())
}

fn proc_file(pid: u32, name: &str) -> Option<String> {
    let bytes = fs::read(Path::new("/proc").join(pid.to_string()).join(name)).ok()?;
    Some(String::from_utf8_lossy(&bytes).replace('\0', " "))
}
