//! The script as a container starts it, a real hub, and a server that answers what the test likes.

use std::collections::HashMap;
use std::fs::{self, Permissions};
use std::io::Write as _;
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;

use attune_bus::MemoryBus;
use attune_hub::{AgentDownloads, Hub, HubConfig};
use attune_lifecycle::{Stop, Tasks};
use attune_model::Secret;
use attune_model::clock::SystemClock;
use attune_security::{SealingKey, TokenKey};
use attune_store_sqlite::SqliteStore;
use attune_testkit::answers::{answer, head_of, strip};
use tempfile::TempDir;

pub(crate) const TOKEN: &str = "t0ken-of-the-wrapper-tests";
/// Each of them is installed by scripts/setup.
pub(crate) const DOWNLOADERS: [&str; 5] = ["curl", "wget", "busybox", "python3", "node"];
pub(crate) const SHELLS: [&[&str]; 3] = [&["dash"], &["busybox", "ash"], &["bash", "--posix"]];

pub(crate) fn script() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("scripts/attune-agent-wrapper.sh")
}

pub(crate) fn wrapper(shell: &[&str], script: &Path, folder: &Path, url: &str, downloader: &str) -> Command {
    let (first, rest) = shell.split_first().unwrap();
    let mut command = Command::new(first);
    command.args(rest).arg(script).arg("--version").stdin(Stdio::null());
    command
        .env("ATTUNE_AGENT_DIR", folder)
        .env("ATTUNE_AGENT_URL", url)
        .env("ATTUNE_AGENT_TOKEN", TOKEN)
        .env("ATTUNE_AGENT_ATTEMPTS", "1")
        .env("ATTUNE_AGENT_DOWNLOADER", downloader);
    command
}

pub(crate) fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

#[track_caller]
pub(crate) fn became(done: &Output, version: &str) {
    assert_eq!((done.status.code(), text(&done.stdout)), (Some(0), format!("{version}\n")), "{done:?}");
}

/// It ended with `code`, said `reason` and ran nothing.
#[track_caller]
pub(crate) fn refused(done: &Output, code: i32, reason: &str) {
    assert_eq!((done.status.code(), text(&done.stdout).as_str()), (Some(code), ""), "{reason}: {done:?}");
    assert!(text(&done.stderr).contains(reason), "{reason}: {done:?}");
}

pub(crate) fn names(folder: &Path) -> Vec<String> {
    let mut names: Vec<String> =
        fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

/// An executable file.
pub(crate) fn executable(path: &Path, content: &str) {
    fs::write(path, content).unwrap();
    fs::set_permissions(path, Permissions::from_mode(0o755)).unwrap();
}

/// A folder for `PATH` that has these programs of this machine and no others.
pub(crate) fn only(folder: &Path, programs: &[&str]) {
    fs::create_dir(folder).unwrap();
    for program in programs {
        // A python3 in PATH may be a script that looks for the one to run.
        let find = "command -v \"$1\" && { [ \"$1\" != python3 ] || python3 -c 'import sys; print(sys.executable)'; }";
        let found = Command::new("sh").args(["-c", find, "sh", program]).output().unwrap();
        let found = PathBuf::from(text(&found.stdout).lines().last().unwrap());
        symlink(found, folder.join(program)).unwrap();
    }
}

/// A folder for the beginning of `PATH` whose `sleep` only notes for how long.
pub(crate) struct Pauses(TempDir);

impl Pauses {
    pub(crate) fn new() -> Self {
        let folder = TempDir::new().unwrap();
        let noted = folder.path().join("noted");
        executable(&folder.path().join("sleep"), &format!("#!/bin/sh\necho \"$1\" >>'{}'\n", noted.display()));
        Self(folder)
    }

    pub(crate) fn path(&self) -> String {
        format!("{}:{}", self.0.path().display(), std::env::var("PATH").unwrap())
    }

    /// The seconds of each since the last time that this was asked for.
    pub(crate) fn noted(&self) -> Vec<u32> {
        let file = self.0.path().join("noted");
        let noted = fs::read_to_string(&file).unwrap_or_default();
        if !noted.is_empty() {
            fs::remove_file(file).unwrap();
        }
        noted.lines().map(|line| line.parse().unwrap()).collect()
    }
}

/// A program for this machine that writes `says` and does nothing else.
pub(crate) fn program(says: &str) -> Vec<u8> {
    compiled(&format!("#include <stdio.h>\nint main(void) {{ puts(\"{says}\"); return 0; }}\n"))
}

pub(crate) fn compiled(source: &str) -> Vec<u8> {
    let folder = TempDir::new().unwrap();
    let (code, program) = (folder.path().join("program.c"), folder.path().join("program"));
    fs::write(&code, source).unwrap();
    let done = Command::new("cc").arg("-o").args([&program, &code]).output().unwrap();
    assert!(done.status.success(), "{done:?}");
    fs::read(program).unwrap()
}

/// A hub that hands out this build of the program, and runs as long as this lives.
pub(crate) struct Server {
    address: SocketAddr,
    stop: Stop,
    _runtime: tokio::runtime::Runtime,
    folder: TempDir,
}

impl Server {
    pub(crate) fn start() -> Self {
        let folder = TempDir::new().unwrap();
        let agents = folder.path().join("agents");
        // Most of a build for tests is for debuggers, and all of it would be downloaded many times.
        let small = folder.path().join("small");
        strip(Path::new(crate::BINARY), &small);
        let installed = Command::new(&small).arg("install").arg(&agents).output().unwrap();
        assert!(installed.status.success(), "{installed:?}");
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
        let (stop, database) = (Stop::new(), folder.path().join("attune.db"));
        let address = runtime.block_on(async {
            let key = Secret::new("a key of the wrapper tests, long enough".to_owned());
            let mut config = HubConfig::new(
                "127.0.0.1:0".parse().unwrap(),
                TokenKey::new(&key).unwrap(),
                SealingKey::new(&key).unwrap(),
            );
            let bootstrap_token = Some(Secret::new(TOKEN.to_owned()));
            config.agent = Some(AgentDownloads { binary_dir: agents, bootstrap_token });
            let store = Arc::new(SqliteStore::open(&database).await.unwrap());
            let hub = Hub::build(config, store, Arc::new(MemoryBus::new()), Arc::new(SystemClock)).await.unwrap();
            let address = hub.local_addr();
            hub.spawn(&stop, &Tasks::default());
            address
        });
        Self { address, stop, _runtime: runtime, folder }
    }

    pub(crate) fn url(&self) -> String {
        format!("http://{}/api/v1/agent/binary", self.address)
    }

    /// What it hands out.
    pub(crate) fn file(&self) -> PathBuf {
        self.folder.path().join("small")
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stop.soft().cancel();
        self.stop.hard().cancel();
    }
}

/// A request for the list or for the file.
#[derive(Debug)]
pub(crate) struct Asked {
    pub(crate) path: String,
    pub(crate) token: Option<String>,
    /// What stood in the command lines of this machine while the request waited.
    pub(crate) command_lines: String,
}

/// A server of these answers: each kind of request gets its own in order, and the last of them again and again.
pub(crate) struct Answers {
    address: SocketAddr,
    over: Arc<AtomicBool>,
    served: JoinHandle<Vec<Asked>>,
}

impl Answers {
    /// For the file; the list there is not.
    pub(crate) fn of(files: Vec<Vec<u8>>) -> Self {
        Self::new(vec![answer("404 Not Found", "", b"{}")], files)
    }

    pub(crate) fn new(lists: Vec<Vec<u8>>, files: Vec<Vec<u8>>) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let address = listener.local_addr().unwrap();
        let over = Arc::new(AtomicBool::new(false));
        let until = Arc::clone(&over);
        let served = std::thread::spawn(move || serve(&listener, &until, &lists, &files));
        Self { address, over, served }
    }

    pub(crate) fn url(&self) -> String {
        format!("http://{}/api/v1/agent/binary", self.address)
    }

    /// Everything that was asked for; nothing more is answered.
    pub(crate) fn asked(self) -> Vec<Asked> {
        self.over.store(true, Ordering::SeqCst);
        drop(TcpStream::connect(self.address).unwrap());
        self.served.join().unwrap()
    }

    /// Which of the two each request was for.
    pub(crate) fn kinds(self) -> Vec<&'static str> {
        self.asked().iter().map(|asked| if is_list(&asked.path) { "list" } else { "file" }).collect()
    }
}

fn is_list(path: &str) -> bool {
    path == "/api/v1/agent/info"
}

fn serve(listener: &TcpListener, over: &AtomicBool, lists: &[Vec<u8>], files: &[Vec<u8>]) -> Vec<Asked> {
    let (mut all, mut counts) = (Vec::new(), HashMap::new());
    loop {
        let (mut stream, _) = listener.accept().unwrap();
        if over.load(Ordering::SeqCst) {
            return all;
        }
        let head = head_of(&mut stream);
        let path = head.split(' ').nth(1).unwrap().to_owned();
        let header = |line: &str| line.to_lowercase().strip_prefix("x-agent-token: ").map(|_| line[15..].to_owned());
        let token = head.lines().find_map(header);
        let answers = if is_list(&path) { lists } else { files };
        let count: &mut usize = counts.entry(is_list(&path)).or_default();
        let answer = answers.get(*count).or_else(|| answers.last()).unwrap();
        *count += 1;
        all.push(Asked { path, token, command_lines: command_lines() });
        // A client that has seen enough may be gone.
        drop(stream.write_all(answer));
    }
}

fn command_lines() -> String {
    let processes = fs::read_dir("/proc").unwrap().filter_map(Result::ok);
    processes
        .filter_map(|process| fs::read(process.path().join("cmdline")).ok())
        .map(|line| text(&line) + "\n")
        .collect()
}
