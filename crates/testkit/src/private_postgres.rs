//! A PostgreSQL of a test's own, to be stopped, killed and started again. Shared servers are left alone.

#![expect(clippy::disallowed_methods, reason = "the server is started and ended the way operators do it")]

use std::fs::{self, File};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use attune_sys::{Pid, SIGINT, SIGQUIT, kill};
use tempfile::TempDir;

use crate::certificate;

/// Who runs it when the test is root, whom the server refuses.
const USER: &str = "postgres";

/// A start with recovery takes its time on a busy machine.
const START_LIMIT: Duration = Duration::from_mins(2);

/// A server that runs in a folder of its own, on a port of its own.
#[derive(Debug)]
pub struct PrivatePostgres {
    folder: TempDir,
    port: u16,
    programs: PathBuf,
    speaks_tls: bool,
    child: Option<Child>,
}

impl PrivatePostgres {
    /// Makes one, starts it and waits until it serves.
    ///
    /// # Panics
    ///
    /// When there is no PostgreSQL here.
    pub fn start() -> Self {
        let mut server = Self::new();
        server.run();
        server
    }

    /// … that takes connections by TLS as well.
    ///
    /// # Panics
    ///
    /// When there is no PostgreSQL here.
    pub fn start_with_tls() -> Self {
        let mut server = Self::new();
        certificate::make(server.command(Path::new("openssl")), &server.ca_file(), &server.key_file());
        server.speaks_tls = true;
        server.run();
        server
    }

    fn new() -> Self {
        let programs = programs().expect("the programs of PostgreSQL are not there: run scripts/setup");
        let folder = tempfile::tempdir().expect("a folder for the server");
        fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o777)).expect("a folder for everybody");
        let port = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).and_then(|free| free.local_addr()).expect("a free port");
        let server = Self { folder, port: port.port(), programs, speaks_tls: false, child: None };
        let initdb = server.programs.join("initdb");
        let made = server
            .command(&initdb)
            .args(["--username=postgres", "--auth=trust", "--encoding=UTF8", "--no-locale", "--no-sync", "-D"])
            .arg(server.data())
            .output()
            .expect("initdb runs");
        assert!(made.status.success(), "initdb: {}", String::from_utf8_lossy(&made.stderr));
        server
    }

    /// `host:port` where it listens.
    pub fn authority(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    /// The certificate that vouches for it, if it speaks TLS. It is good for `localhost` alone.
    pub fn ca_file(&self) -> PathBuf {
        self.folder.path().join("certificate.pem")
    }

    fn key_file(&self) -> PathBuf {
        self.folder.path().join("key.pem")
    }

    /// The URL of a database that may make databases.
    pub fn url(&self) -> String {
        format!("postgres://postgres@{}/postgres", self.authority())
    }

    /// Ends every session at once and stops, as an impatient operator would.
    pub fn stop(&mut self) {
        self.end(SIGINT);
    }

    /// Ends it without a checkpoint: the next start recovers.
    pub fn crash(&mut self) {
        self.end(SIGQUIT);
    }

    /// Starts it again with what is on its disk, and waits until it serves.
    ///
    /// # Panics
    ///
    /// When it does not start.
    pub fn run(&mut self) {
        let log_path = self.folder.path().join("log");
        let log = File::create(&log_path).expect("a log file");
        let mut command = self.command(&self.programs.join("postgres"));
        command.arg("-D").arg(self.data()).args(["-c", "listen_addresses=127.0.0.1", "-c", "unix_socket_directories="]);
        command.args(["-p", &self.port.to_string(), "-c", "shared_buffers=16MB", "-c", "max_connections=60"]);
        if self.speaks_tls {
            let (certificate, key) = (self.ca_file(), self.key_file());
            command.args(["-c", "ssl=on", "-c", &format!("ssl_cert_file={}", certificate.display())]);
            command.args(["-c", &format!("ssl_key_file={}", key.display())]);
        }
        command.stdin(Stdio::null()).stdout(log.try_clone().expect("a second handle of the log")).stderr(log);
        self.child = Some(command.spawn().expect("postgres starts"));
        let begun = Instant::now();
        while !self.serves(&log_path) {
            let log = || fs::read_to_string(&log_path).unwrap_or_default();
            assert!(begun.elapsed() < START_LIMIT, "the server does not start: {}", log());
            std::thread::park_timeout(Duration::from_millis(20));
        }
    }

    fn serves(&self, log: &Path) -> bool {
        let is_ready = fs::read_to_string(log).is_ok_and(|log| log.contains("ready to accept connections"));
        is_ready && TcpStream::connect((Ipv4Addr::LOCALHOST, self.port)).is_ok()
    }

    fn data(&self) -> PathBuf {
        self.folder.path().join("data")
    }

    /// `setpriv` becomes the program: its process is the server.
    fn command(&self, program: &Path) -> Command {
        let mut command = if attune_sys::effective_user() == 0 {
            let mut command = Command::new("setpriv");
            command.args(["--reuid", USER, "--regid", USER, "--init-groups", "--"]).arg(program);
            command
        } else {
            Command::new(program)
        };
        command.current_dir(self.folder.path()).env("LC_ALL", "C");
        command
    }

    fn end(&mut self, signal: i32) {
        let Some(mut child) = self.child.take() else { return };
        kill(Pid::new(child.id()).expect("a process id"), signal).expect("the server is there");
        child.wait().expect("the server's end");
    }
}

impl Drop for PrivatePostgres {
    fn drop(&mut self) {
        self.end(SIGQUIT);
    }
}

/// The newest version that is installed.
fn programs() -> Option<PathBuf> {
    let versions = fs::read_dir("/usr/lib/postgresql").ok()?.filter_map(Result::ok);
    let found = versions.map(|version| version.path().join("bin")).filter(|bin| bin.join("initdb").exists());
    found.max()
}
