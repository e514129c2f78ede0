//! `attune-agents fetch`: what it takes from a server, what it asks for again, and what it says.
#![expect(clippy::unwrap_used, reason = "tests")]
#![expect(clippy::disallowed_methods, reason = "the program under test is started the way a user starts it")]

use std::fs;
use std::io::Write as _;
use std::net::{Ipv4Addr, TcpListener};
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::thread::JoinHandle;

use attune_testkit::answers::{answer, cut, head_of, strip};
use tempfile::TempDir;

const BINARY: &str = env!("CARGO_BIN_EXE_attune-agents");
const ARCH: &str = std::env::consts::ARCH;

/// What of an install stands in a folder.
const ENTRIES: usize = 11;

fn fetch(attempts: &str, url: &str, folder: &Path) -> Command {
    let mut command = Command::new(BINARY);
    command.args(["fetch", "--attempts", attempts, url]).arg(folder).env_clear().stdin(Stdio::null());
    command
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

/// This build of the program without what is for debuggers, which is most of it.
struct Small(TempDir);

impl Small {
    fn new() -> Self {
        let folder = TempDir::new().unwrap();
        strip(Path::new(BINARY), &folder.path().join("small"));
        Self(folder)
    }

    fn bytes(&self) -> Vec<u8> {
        fs::read(self.0.path().join("small")).unwrap()
    }

    /// All of it is in the folder.
    #[track_caller]
    fn is_in(&self, folder: &Path, done: &Output) {
        assert_eq!(done.status.code(), Some(0), "{done:?}");
        let mut verify = Command::new(self.0.path().join("small"));
        let verified = verify.args(["install", "--verify"]).arg(folder).env_clear().output().unwrap();
        assert_eq!(verified.status.code(), Some(0), "{verified:?}");
        assert_eq!(fs::read_dir(folder).unwrap().count(), ENTRIES);
    }
}

/// Gives each request the next of `answers` and returns the heads of the requests.
fn serve(answers: Vec<Vec<u8>>) -> (String, JoinHandle<Vec<String>>) {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let url = format!("http://{}/api/v1/agent/binary", listener.local_addr().unwrap());
    let one = move |answer: Vec<u8>| {
        let (mut stream, _) = listener.accept().unwrap();
        let head = head_of(&mut stream);
        stream.write_all(&answer).unwrap();
        head
    };
    (url, std::thread::spawn(move || answers.into_iter().map(one).collect()))
}

#[test]
fn what_is_fetched_is_checked_before_it_is_put_anywhere() {
    let dir = TempDir::new().unwrap();
    let folder = dir.path().join("agent");
    let program = Small::new().bytes();
    let sleep = fs::read("/bin/sleep").unwrap();
    let whole = answer("200 OK", "", &program);
    let cases = [
        (answer("200 OK", "", b"<!DOCTYPE html><html>"), 65, "it is an HTML page: check the URL"),
        (answer("200 OK", "x-agent-sha256: 00\r\n", &program), 65, "has the checksum"),
        (answer("200 OK", "x-agent-sha256: \r\n", &program), 65, "has the checksum"),
        (answer("200 OK", "x-agent-size: 5\r\n", &program), 65, "and announced 5"),
        (answer("200 OK", "", &sleep), 65, "a program of another project"),
        (cut(&whole), 69, "the connection failed"),
        (
            answer("401 Unauthorized", "", b"{\"error\":\"Invalid token\"}"),
            78,
            "status 401: {\"error\":\"Invalid token\"}",
        ),
        (answer("302 Found", "location: http://127.0.0.1:1/login\r\n", b""), 78, "status 302"),
        (answer("503 Service Unavailable", "", b"{}"), 69, "status 503"),
    ];
    for (answer, code, reason) in cases {
        let (url, served) = serve(vec![answer]);
        let done = fetch("1", &url, &folder).output().unwrap();
        assert_eq!(done.status.code(), Some(code), "{reason}: {done:?}");
        assert!(text(&done.stderr).contains(reason), "{reason}: {done:?}");
        assert!(!folder.exists(), "{reason}: nothing was begun");
        served.join().unwrap();
    }
}

#[test]
fn what_could_not_be_checked_is_said() {
    let small = Small::new();
    let program = small.bytes();
    let sha256 = attune_artefact::facts(&mut std::io::Cursor::new(&program)).unwrap().sha256.to_uppercase();
    let endless = [b"HTTP/1.1 200 OK\r\nconnection: close\r\n\r\n", &program[..]].concat();
    for (answer, said) in [
        (answer("200 OK", "", &program), "tells no checksum: only the size and the ELF header were checked\n"),
        (endless, "tells no checksum: only the ELF header was checked\n"),
        (answer("200 OK", &format!("x-agent-sha256: {sha256}\r\n"), &program), ""),
    ] {
        let dir = TempDir::new().unwrap();
        let folder = dir.path().join("agent");
        let (url, served) = serve(vec![answer]);
        let done = fetch("1", &url, &folder).output().unwrap();
        small.is_in(&folder, &done);
        let said = if said.is_empty() { String::new() } else { format!("{url} {said}") };
        assert_eq!(text(&done.stderr), said);
        served.join().unwrap();
    }
}

#[test]
fn what_may_be_there_a_moment_later_is_fetched_again() {
    let small = Small::new();
    let program = small.bytes();
    let whole = answer("200 OK", "", &program);
    let first = [
        answer("404 Not Found", "", b"{\"error\":\"Not found\"}"),
        answer("503 Service Unavailable", "", b"{}"),
        cut(&whole),
        Vec::new(),
    ];
    // Side by side, because each makes a pause.
    let fetched = first.map(|first| {
        let dir = TempDir::new().unwrap();
        let (url, served) = serve(vec![first, whole.clone()]);
        let mut command = fetch("2", &url, &dir.path().join("agent"));
        (dir, command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap(), served)
    });
    for (dir, child, served) in fetched {
        small.is_in(&dir.path().join("agent"), &child.wait_with_output().unwrap());
        assert_eq!(served.join().unwrap().len(), 2);
    }
}

#[test]
fn the_token_is_sent_from_the_variable_or_from_the_file_that_another_one_names() {
    let dir = TempDir::new().unwrap();
    let (folder, file) = (dir.path().join("agent"), dir.path().join("token"));
    fs::write(&file, "of-the-file\r\n").unwrap();
    let file = file.to_str().unwrap();
    let (named, own) = (("ATTUNE_AGENT_TOKEN_FILE", file), ("ATTUNE_AGENT_TOKEN", "t0ken"));
    for (variables, sent) in [
        (vec![own], Some("t0ken")),
        (vec![named], Some("of-the-file")),
        (vec![own, named], Some("t0ken")),
        (vec![], None),
    ] {
        let (url, served) = serve(vec![answer("401 Unauthorized", "", b"{}")]);
        let done = fetch("1", &url, &folder).envs(variables).output().unwrap();
        assert_eq!(done.status.code(), Some(78), "{done:?}");
        assert!(text(&done.stderr).contains("status 401"), "{done:?}");
        let head = served.join().unwrap().remove(0);
        assert!(head.starts_with(&format!("GET /api/v1/agent/binary?arch={ARCH} ")), "{head}");
        let header = head.lines().find_map(|line| line.strip_prefix("x-agent-token: "));
        assert_eq!(header, sent, "{head}");
    }
    let done = fetch("1", "http://127.0.0.1:1/", &folder).env(named.0, dir.path().join("nowhere")).output().unwrap();
    assert_eq!(done.status.code(), Some(78), "{done:?}");
    assert!(text(&done.stderr).contains("/nowhere cannot be read: "), "{done:?}");
}
