//! `scripts/attune-agent-wrapper.sh` with every shell and downloader of this machine, against a real hub.
#![expect(clippy::unwrap_used, reason = "tests")]
#![expect(clippy::disallowed_methods, reason = "the script under test is started the way a container starts it")]

use std::fs::{self, Permissions};
use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use attune_bus::MemoryBus;
use attune_hub::{AgentDownloads, Hub, HubConfig};
use attune_lifecycle::{Stop, Tasks};
use attune_model::Secret;
use attune_model::clock::SystemClock;
use attune_security::{SealingKey, TokenKey};
use attune_store_sqlite::SqliteStore;
use tempfile::TempDir;

const BINARY: &str = env!("CARGO_BIN_EXE_attune-agents");
const VERSION: &str = env!("CARGO_PKG_VERSION");
const TOKEN: &str = "t0ken-of-the-wrapper-tests";
/// Each of them is installed by scripts/setup.
const DOWNLOADERS: [&str; 5] = ["curl", "wget", "busybox", "python3", "node"];
const SHELLS: [&[&str]; 3] = [&["dash"], &["busybox", "ash"], &["bash", "--posix"]];

fn script() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("scripts/attune-agent-wrapper.sh")
}

fn wrapper(shell: &[&str], script: &Path, folder: &Path, url: &str, downloader: &str) -> Command {
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

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

#[track_caller]
fn became(done: &Output, program: &str) {
    assert_eq!((done.status.code(), text(&done.stdout)), (Some(0), format!("{program} {VERSION}\n")), "{done:?}");
}

fn names(folder: &Path) -> Vec<String> {
    let mut names: Vec<String> =
        fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

/// A hub that hands out this build of the program, and runs as long as this lives.
struct Server {
    address: SocketAddr,
    stop: Stop,
    _runtime: tokio::runtime::Runtime,
    _folder: TempDir,
}

impl Server {
    fn start() -> Self {
        let folder = TempDir::new().unwrap();
        let agents = folder.path().join("agents");
        let installed = Command::new(BINARY).arg("install").arg(&agents).output().unwrap();
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
        Self { address, stop, _runtime: runtime, _folder: folder }
    }

    fn url(&self) -> String {
        format!("http://{}/api/v1/agent/binary", self.address)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stop.soft().cancel();
        self.stop.hard().cancel();
    }
}

#[test]
fn every_downloader_and_every_shell_gets_the_agent_and_becomes_it() {
    let server = Server::start();
    for (index, downloader) in DOWNLOADERS.into_iter().enumerate() {
        let dir = TempDir::new().unwrap();
        let folder = dir.path().join("deep/agent");
        let shell = SHELLS[index % SHELLS.len()];
        let done = wrapper(shell, &script(), &folder, &server.url(), downloader).output().unwrap();
        became(&done, "attune-agent");
        assert_eq!(names(&folder), ["attune-agent", "attune-agents", "attune-sensor-agent"], "{downloader}");
        let facts = attune_artefact::facts(&mut fs::File::open(folder.join("attune-agent")).unwrap()).unwrap();
        assert_eq!(facts, attune_artefact::facts(&mut fs::File::open(BINARY).unwrap()).unwrap(), "{downloader}");
        // Once it is there, nobody is asked.
        let again = wrapper(shell, &script(), &folder, "http://127.0.0.1:1/binary", downloader).output().unwrap();
        became(&again, "attune-agent");
    }
}

/// Whatever this machine has beside it: small images have nothing else.
#[test]
fn nothing_but_busybox_is_enough() {
    let (server, dir) = (Server::start(), TempDir::new().unwrap());
    let (bin, folder) = (dir.path().join("bin"), dir.path().join("agent"));
    fs::create_dir(&bin).unwrap();
    let found = Command::new("sh").args(["-c", "command -v busybox && busybox --list"]).output().unwrap();
    let found = text(&found.stdout);
    let (busybox, names_of_it) = found.split_once('\n').unwrap();
    for name in names_of_it.lines() {
        symlink(busybox, bin.join(name)).unwrap();
    }
    let mut command = Command::new(bin.join("ash"));
    command.arg(script()).arg("--version").stdin(Stdio::null()).env_clear().env("PATH", bin);
    command.env("ATTUNE_AGENT_DIR", &folder).env("ATTUNE_AGENT_URL", server.url());
    let done = command.env("ATTUNE_AGENT_TOKEN", TOKEN).env("ATTUNE_AGENT_ATTEMPTS", "1").output().unwrap();
    became(&done, "attune-agent");
    assert_eq!(names(&folder), ["attune-agent", "attune-agents", "attune-sensor-agent"]);
}

#[test]
fn its_own_name_chooses_the_agent_and_two_at_once_do_not_disturb_each_other() {
    let (server, dir) = (Server::start(), TempDir::new().unwrap());
    let sensor = dir.path().join("attune-sensor-agent-wrapper.sh");
    symlink(script(), &sensor).unwrap();
    let folder = dir.path().join("agent");
    let start = |script: &Path, downloader| -> Child {
        let mut command = wrapper(&["sh"], script, &folder, &server.url(), downloader);
        command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
    };
    let both = [start(&script(), "curl"), start(&sensor, "python3")];
    let [worker, sensor] = both.map(|child| child.wait_with_output().unwrap());
    became(&worker, "attune-agent");
    became(&sensor, "attune-sensor-agent");
    assert_eq!(names(&folder), ["attune-agent", "attune-agents", "attune-sensor-agent"]);
}

#[test]
fn a_token_that_is_refused_ends_it_at_once_and_says_so() {
    let (server, dir) = (Server::start(), TempDir::new().unwrap());
    for downloader in DOWNLOADERS {
        let folder = dir.path().join("agent");
        let mut command = wrapper(&["sh"], &script(), &folder, &server.url(), downloader);
        command.env("ATTUNE_AGENT_TOKEN", "another").env("ATTUNE_AGENT_ATTEMPTS", "100");
        let done = command.output().unwrap();
        assert_eq!(done.status.code(), Some(78), "{downloader}: {done:?}");
        // What comes with this one status, wget throws away.
        let said = if downloader == "wget" { "" } else { ": {\"error\":\"Invalid token\"" };
        let reason = format!("the server refuses with status 401{said}");
        assert!(text(&done.stderr).contains(&reason), "{downloader}: {done:?}");
        assert_eq!(names(&folder), [] as [&str; 0], "{downloader}");
    }
}

/// A server of `answers`, one for each connection after those that ask for the list, which it does not have. The token is
/// the one that each request is to have. What stands in the command lines of this machine while a request waits goes into
/// the result.
fn serve(token: Option<&str>, answers: Vec<Vec<u8>>) -> (String, std::thread::JoinHandle<Vec<String>>) {
    let token = token.map(|token| format!("x-agent-token: {token}"));
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let url = format!("http://{}/api/v1/agent/binary", listener.local_addr().unwrap());
    let served = std::thread::spawn(move || {
        let (mut answers, mut seen) = (answers.into_iter(), Vec::new());
        while answers.len() > 0 {
            let (mut stream, _) = listener.accept().unwrap();
            let (mut head, mut piece) = (Vec::new(), [0_u8; 4096]);
            while !head.windows(4).any(|window| window == b"\r\n\r\n") {
                let count = stream.read(&mut piece).unwrap();
                assert_ne!(count, 0, "the client went away");
                head.extend_from_slice(&piece[..count]);
            }
            seen.push(command_lines());
            let head = text(&head);
            let header = head.lines().map(str::to_lowercase).find(|line| line.starts_with("x-agent-token"));
            assert_eq!(header, token, "{head}");
            let list = head.starts_with("GET /api/v1/agent/info ");
            let answer = if list { response("404 Not Found", b"{}") } else { answers.next().unwrap() };
            // A client that has seen enough may be gone.
            drop(stream.write_all(&answer));
        }
        seen
    });
    (url, served)
}

fn command_lines() -> String {
    let processes = fs::read_dir("/proc").unwrap().filter_map(Result::ok);
    processes
        .filter_map(|process| fs::read(process.path().join("cmdline")).ok())
        .map(|line| text(&line) + "\n")
        .collect()
}

fn response(status: &str, body: &[u8]) -> Vec<u8> {
    let length = body.len();
    let mut answer = format!("HTTP/1.1 {status}\r\nconnection: close\r\ncontent-length: {length}\r\n\r\n").into_bytes();
    answer.extend_from_slice(body);
    answer
}

#[test]
fn no_command_line_ever_holds_the_token_and_a_web_page_is_not_taken_for_the_agent() {
    let dir = TempDir::new().unwrap();
    for (downloader, program) in DOWNLOADERS.into_iter().zip(["curl", "wget", "busybox", "python", "node"]) {
        let folder = dir.path().join("agent");
        let (url, served) = serve(Some(TOKEN), vec![response("200 OK", b"\n<!DOCTYPE html><html>Log in</html>")]);
        let done = wrapper(&["sh"], &script(), &folder, &url, downloader).output().unwrap();
        assert_eq!(done.status.code(), Some(65), "{downloader}: {done:?}");
        assert!(text(&done.stderr).contains("you got an HTML page: check the URL"), "{downloader}: {done:?}");
        assert_eq!(names(&folder), [] as [&str; 0], "{downloader}");
        for lines in served.join().unwrap() {
            assert!(lines.contains(program), "{downloader} runs while the request waits");
            assert!(!lines.contains(TOKEN), "{downloader}: {lines}");
        }
    }
}

#[test]
fn what_fails_for_a_while_is_tried_again_and_what_is_not_the_agent_is_not_kept() {
    let dir = TempDir::new().unwrap();
    let folder = dir.path().join("agent");
    let sleep = fs::read("/bin/sleep").unwrap();
    let answers =
        vec![response("503 Service Unavailable", b"{\"error\":\"Not configured\"}\n"), response("200 OK", b"")];
    let (url, served) = serve(Some(TOKEN), [answers, vec![response("200 OK", &sleep)]].concat());
    let mut command = wrapper(&["dash"], &script(), &folder, &url, "curl");
    let done = command.env("ATTUNE_AGENT_ATTEMPTS", "3").output().unwrap();
    served.join().unwrap();
    let said = text(&done.stderr);
    assert_eq!(done.status.code(), Some(65), "{said}");
    for line in [
        "the server answers with status 503: {\"error\":\"Not configured\"}; trying again in 1 s (1 of 3)",
        "the answer is empty; trying again in 2 s (2 of 3)",
        "and not attune-agent",
    ] {
        assert!(said.contains(line), "{line}: {said}");
    }
    assert_eq!(names(&folder), [] as [&str; 0]);
}

#[test]
fn a_server_that_asks_for_no_token_is_asked_without_one() {
    let dir = TempDir::new().unwrap();
    for downloader in DOWNLOADERS {
        let folder = dir.path().join("agent");
        let (url, served) = serve(None, vec![response("200 OK", b"<html>")]);
        let mut command = wrapper(&["sh"], &script(), &folder, &url, downloader);
        let done = command.env_remove("ATTUNE_AGENT_TOKEN").output().unwrap();
        assert_eq!(done.status.code(), Some(65), "{downloader}: {done:?}");
        served.join().unwrap();
    }
}

/// What it sets for itself would reach all user code by way of the agent.
#[test]
fn the_agent_gets_locale_and_mask_as_the_container_has_them() {
    let dir = TempDir::new().unwrap();
    let agent = dir.path().join("attune-agent");
    fs::write(&agent, "#!/bin/sh\numask\necho \"${LC_ALL-none} $LANG\"\n").unwrap();
    fs::set_permissions(&agent, Permissions::from_mode(0o755)).unwrap();
    for shell in SHELLS {
        for (locale, wanted) in [(None, "0027\nnone C.UTF-8\n"), (Some("POSIX"), "0027\nPOSIX C.UTF-8\n")] {
            let mut command = Command::new("sh");
            command.args(["-c", "umask 027; exec \"$@\"", "sh"]).args(shell).arg(script());
            command.env("ATTUNE_AGENT_DIR", dir.path()).env("LANG", "C.UTF-8").env_remove("LC_ALL");
            let done = command.envs(locale.map(|locale| ("LC_ALL", locale))).output().unwrap();
            assert_eq!((done.status.code(), text(&done.stdout).as_str()), (Some(0), wanted), "{shell:?}: {done:?}");
        }
    }
}

/// A shell that waits for a program in the foreground does not see the signal before that ends, and process 1 of a container is
/// killed meanwhile.
#[test]
fn a_stop_during_a_download_ends_it_and_leaves_nothing() {
    let dir = TempDir::new().unwrap();
    for (index, downloader) in DOWNLOADERS.into_iter().enumerate() {
        let folder = dir.path().join("agent");
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let url = format!("http://{}/api/v1/agent/binary", listener.local_addr().unwrap());
        let mut agent = wrapper(SHELLS[index % SHELLS.len()], &script(), &folder, &url, downloader).spawn().unwrap();
        // It has asked, and gets no answer.
        let (mut stream, _) = listener.accept().unwrap();
        assert_ne!(stream.read(&mut [0; 4096]).unwrap(), 0);
        let told = Command::new("kill").args(["-TERM", &agent.id().to_string()]).status().unwrap();
        assert!(told.success());
        assert_eq!(agent.wait().unwrap().code(), Some(143), "{downloader}");
        assert_eq!(names(&folder), [] as [&str; 0], "{downloader}");
        // The downloader is gone as well.
        while stream.read(&mut [0; 4096]).is_ok_and(|count| count > 0) {}
    }
}

#[test]
fn what_killed_downloads_left_is_removed_and_what_another_is_doing_is_not() {
    let (server, dir) = (Server::start(), TempDir::new().unwrap());
    let folder = dir.path().join("agent");
    let an_hour_ago = SystemTime::now() - Duration::from_hours(1);
    let begin = |name: &str, at| {
        let work = folder.join(name);
        fs::create_dir_all(&work).unwrap();
        fs::write(work.join("new"), "half").unwrap();
        fs::File::open(work.join("new")).unwrap().set_modified(at).unwrap();
        fs::File::open(&work).unwrap().set_modified(an_hour_ago).unwrap();
    };
    begin(".attune-fetch.left", an_hour_ago);
    begin(".attune-fetch.running", SystemTime::now());
    let done = wrapper(&["sh"], &script(), &folder, &server.url(), "curl").output().unwrap();
    became(&done, "attune-agent");
    let wanted = [".attune-fetch.running", "attune-agent", "attune-agents", "attune-sensor-agent"];
    assert_eq!(names(&folder), wanted);
    // Also by one that finds the agent.
    begin(".attune-fetch.left", an_hour_ago);
    became(&wrapper(&["sh"], &script(), &folder, &server.url(), "curl").output().unwrap(), "attune-agent");
    assert_eq!(names(&folder), wanted);
}

#[test]
fn settings_that_cannot_be_are_refused_before_anything_is_done() {
    let dir = TempDir::new().unwrap();
    let folder = dir.path().join("agent");
    for (name, value, code) in [
        ("ATTUNE_AGENT_URL", "ftp://host/file", 64),
        ("ATTUNE_AGENT_ATTEMPTS", "many", 64),
        ("ATTUNE_AGENT_DOWNLOADER", "telnet", 64),
        ("ATTUNE_AGENT_TOKEN", "two\nlines", 64),
        ("ATTUNE_AGENT_TOKEN", "with\"quote", 64),
        ("ATTUNE_AGENT_DIR", "/proc/nowhere", 73),
    ] {
        let mut command = wrapper(&["dash"], &script(), &folder, "http://127.0.0.1:1/binary", "curl");
        let done = command.env(name, value).output().unwrap();
        assert_eq!(done.status.code(), Some(code), "{name}={value}: {done:?}");
        assert!(!folder.exists(), "{name}");
    }
    let mut https = wrapper(&["dash"], &script(), &folder, "https://host/binary", "busybox");
    assert_eq!(https.output().unwrap().status.code(), Some(69), "no token in an argument, not even then");
}

#[test]
fn the_script_is_good_for_every_posix_shell() {
    let checked = Command::new("shellcheck").args(["--shell=sh", "--severity=info"]).arg(script()).output().unwrap();
    assert!(checked.status.success(), "{}", text(&checked.stdout));
}
