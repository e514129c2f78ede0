//! Downloads of the agents' binary over real sockets: who gets what, and what never leaves the folder.

use std::fs;
use std::net::SocketAddr;
use std::os::unix::fs::symlink;
use std::path::Path;

use attune_artefact::{MARKER_PREFIX, Machine, facts};
use attune_hub::AgentDownloads;
use attune_model::Secret;
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::support::{World, config};

const TOKEN: &str = "bootstrap token of the tests";
const BINARY: &str = "/api/v1/agent/binary";

struct Answer {
    status: u16,
    head: String,
    body: Vec<u8>,
}

impl Answer {
    fn header(&self, name: &str) -> Option<&str> {
        let lines = self.head.lines().filter_map(|line| line.split_once(": "));
        lines.into_iter().find(|(found, _)| found.eq_ignore_ascii_case(name)).map(|(_, value)| value)
    }

    #[track_caller]
    fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap()
    }

    #[track_caller]
    fn refused(&self, status: u16, error: &str) -> String {
        assert_eq!((self.status, self.json()["error"].as_str()), (status, Some(error)), "{}", self.head);
        self.json()["message"].as_str().unwrap().to_owned()
    }
}

async fn ask(address: SocketAddr, method: &str, path: &str, headers: &str) -> Answer {
    let mut stream = TcpStream::connect(address).await.unwrap();
    let request = format!("{method} {path} HTTP/1.1\r\nhost: hub\r\nconnection: close\r\n{headers}\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).await.unwrap();
    let end = answer.windows(4).position(|window| window == b"\r\n\r\n").unwrap();
    let head = String::from_utf8(answer[..end].to_vec()).unwrap();
    let status = head.split(' ').nth(1).unwrap().parse().unwrap();
    Answer { status, head, body: answer[end + 4..].to_vec() }
}

async fn get(world: &World, path: &str, headers: &str) -> Answer {
    let headers = format!("x-agent-token: {TOKEN}\r\n{headers}");
    ask(world.address, "GET", path, &headers).await
}

/// A file that begins like a program for `machine` and is longer than one piece.
fn program(machine: Machine, version: Option<&str>) -> Vec<u8> {
    let mut bytes = vec![0_u8; 200_000];
    bytes[..6].copy_from_slice(&[0x7f, b'E', b'L', b'F', 2, 1]);
    bytes[18] = if machine == Machine::X86_64 { 62 } else { 183 };
    for (index, byte) in bytes.iter_mut().enumerate().skip(64) {
        *byte = u8::try_from(index % 251).unwrap();
    }
    if let Some(version) = version {
        let marker = format!("{MARKER_PREFIX}{version};");
        bytes[70_000..70_000 + marker.len()].copy_from_slice(marker.as_bytes());
    }
    bytes
}

fn sha256(bytes: &[u8]) -> String {
    facts(&mut &*bytes).unwrap().sha256
}

async fn world(folder: &Path) -> World {
    let mut config = config();
    config.agent =
        Some(AgentDownloads { binary_dir: folder.to_owned(), bootstrap_token: Some(Secret::new(TOKEN.to_owned())) });
    World::with(config).await
}

#[tokio::test]
async fn both_agents_are_the_same_bytes_under_their_own_names() {
    let folder = TempDir::new().unwrap();
    let bytes = program(Machine::X86_64, Some("9.8.7"));
    fs::write(folder.path().join("attune-agents"), &bytes).unwrap();
    symlink("attune-agents", folder.path().join("attune-agent-x86_64")).unwrap();
    let world = world(folder.path()).await;
    for (query, name) in [
        ("", "attune-agent"),
        ("?arch=x86_64", "attune-agent"),
        ("?arch=x86_64&name=attune-agent", "attune-agent"),
        ("?name=attune-sensor-agent", "attune-sensor-agent"),
    ] {
        let answer = get(&world, &format!("{BINARY}{query}"), "").await;
        assert_eq!(answer.status, 200, "{}", answer.head);
        assert_eq!(answer.body, bytes);
        let disposition = format!("attachment; filename=\"{name}\"");
        let etag = format!("\"{}\"", sha256(&bytes));
        for (header, wanted) in [
            ("content-type", "application/octet-stream"),
            ("content-disposition", &disposition),
            ("content-length", "200000"),
            ("cache-control", "public, max-age=3600"),
            ("accept-ranges", "bytes"),
            ("etag", &etag),
            ("x-agent-sha256", etag.trim_matches('"')),
            ("x-agent-size", "200000"),
            ("x-agent-version", "9.8.7"),
        ] {
            assert_eq!(answer.header(header), Some(wanted), "{header}: {}", answer.head);
        }
    }
    let head = ask(world.address, "HEAD", BINARY, &format!("x-agent-token: {TOKEN}\r\n")).await;
    assert_eq!((head.status, head.header("content-length"), head.body.len()), (200, Some("200000"), 0));
    world.stop().await;
}

#[tokio::test]
async fn the_token_is_asked_for_first_then_the_configuration_then_the_architecture() {
    let bad = "/api/v1/agent/binary?arch=sparc&arch=sparc";
    let without = World::new().await;
    let message = get(&without, bad, "").await.refused(503, "Agent downloads disabled");
    assert!(message.contains("agent.bootstrap_token"), "{message}");
    ask(without.address, "GET", "/api/v1/agent/info", "").await.refused(503, "Not configured");
    without.stop().await;

    let folder = TempDir::new().unwrap();
    let mut closed = config();
    closed.agent = Some(AgentDownloads { binary_dir: folder.path().to_owned(), bootstrap_token: None });
    let closed = World::with(closed).await;
    get(&closed, bad, "").await.refused(503, "Agent downloads disabled");
    assert_eq!(ask(closed.address, "GET", "/api/v1/agent/info", "").await.status, 200);
    closed.stop().await;

    let open = world(folder.path()).await;
    ask(open.address, "GET", bad, "").await.refused(401, "Token required");
    for token in ["", "x", &TOKEN[1..], &format!("{TOKEN}x"), "\u{e9}"] {
        let headers = format!("x-agent-token: {token}\r\n");
        ask(open.address, "GET", bad, &headers).await.refused(401, "Invalid token");
    }
    let query = format!("{BINARY}?token={TOKEN}").replace(' ', "%20");
    ask(open.address, "GET", &query, "").await.refused(401, "Token required");
    for arch in ["sparc", "X86_64", "amd64", "", "..%2fx86_64"] {
        let path = format!("{BINARY}?arch={arch}");
        get(&open, &path, "").await.refused(400, "Invalid architecture");
    }
    for name in ["attune", "attune-agents", "..%2fattune-agent", ""] {
        get(&open, &format!("{BINARY}?name={name}"), "").await.refused(400, "Invalid name");
    }
    for arch in ["x86_64", "aarch64", "arm64"] {
        let message = get(&open, &format!("{BINARY}?arch={arch}"), "").await.refused(404, "Not found");
        let named = if arch == "arm64" { "aarch64" } else { arch };
        assert!(message.contains(named) && message.contains(folder.path().to_str().unwrap()), "{message}");
    }
    open.stop().await;
}

#[tokio::test]
async fn the_plain_name_is_looked_for_last_and_for_one_architecture_only() {
    let folder = TempDir::new().unwrap();
    fs::write(folder.path().join("attune-agent"), program(Machine::X86_64, Some("1.0.0"))).unwrap();
    let world = world(folder.path()).await;
    assert_eq!(get(&world, BINARY, "").await.header("x-agent-version"), Some("1.0.0"));
    get(&world, &format!("{BINARY}?arch=aarch64"), "").await.refused(404, "Not found");
    fs::write(folder.path().join("attune-agent-x86_64"), program(Machine::X86_64, Some("2.0.0"))).unwrap();
    assert_eq!(get(&world, BINARY, "").await.header("x-agent-version"), Some("2.0.0"));
    fs::write(folder.path().join("attune-agent-aarch64"), program(Machine::Aarch64, None)).unwrap();
    let answer = get(&world, &format!("{BINARY}?arch=arm64"), "").await;
    assert_eq!((answer.status, answer.header("x-agent-version"), answer.body.len()), (200, None, 200_000));
    world.stop().await;
}

#[tokio::test]
async fn parts_and_tags_spare_what_the_client_has() {
    let folder = TempDir::new().unwrap();
    let bytes = program(Machine::X86_64, Some("1.0.0"));
    let file = folder.path().join("attune-agent");
    fs::write(&file, &bytes).unwrap();
    let world = world(folder.path()).await;
    let etag = format!("\"{}\"", sha256(&bytes));
    for (range, wanted, content_range) in [
        ("bytes=0-99", &bytes[..100], "bytes 0-99/200000"),
        ("bytes=199990-", &bytes[199_990..], "bytes 199990-199999/200000"),
        ("bytes=-5", &bytes[199_995..], "bytes 199995-199999/200000"),
        ("bytes=60000-140000", &bytes[60_000..=140_000], "bytes 60000-140000/200000"),
    ] {
        let answer = get(&world, BINARY, &format!("range: {range}\r\nif-range: {etag}\r\n")).await;
        assert_eq!((answer.status, answer.header("content-range")), (206, Some(content_range)), "{range}");
        assert_eq!(answer.body, wanted, "{range}");
        assert_eq!(answer.header("x-agent-size"), Some("200000"));
    }
    let behind = get(&world, BINARY, "range: bytes=200000-\r\n").await;
    assert_eq!((behind.status, behind.header("content-range")), (416, Some("bytes */200000")));
    let other = get(&world, BINARY, "range: bytes=0-1\r\nif-range: \"another\"\r\n").await;
    assert_eq!((other.status, other.body.len()), (200, 200_000));
    for tags in [etag.clone(), format!("\"a\", W/{etag}"), "*".to_owned()] {
        let same = get(&world, BINARY, &format!("if-none-match: {tags}\r\n")).await;
        assert_eq!((same.status, same.body.len(), same.header("etag")), (304, 0, Some(&*etag)), "{tags}");
    }
    // An upgrade of the folder, as an install does it: the old tag is not good any more.
    let newer = program(Machine::X86_64, Some("1.0.1"));
    fs::write(folder.path().join("new"), &newer).unwrap();
    fs::rename(folder.path().join("new"), &file).unwrap();
    let answer = get(&world, BINARY, &format!("if-none-match: {etag}\r\n")).await;
    assert_eq!((answer.status, answer.header("x-agent-sha256")), (200, Some(&*sha256(&newer))));
    assert_eq!(answer.body, newer);
    world.stop().await;
}

#[tokio::test]
async fn nothing_outside_the_folder_and_nothing_but_programs_is_handed_out() {
    let parent = TempDir::new().unwrap();
    let folder = parent.path().join("agents");
    fs::create_dir(&folder).unwrap();
    let outside = parent.path().join("outside");
    fs::write(&outside, program(Machine::X86_64, None)).unwrap();
    let world = world(&folder).await;
    let path = folder.join("attune-agent-x86_64");
    for target in [outside.to_str().unwrap(), "../outside", "/proc/self/exe", "/etc/passwd"] {
        symlink(target, &path).unwrap();
        get(&world, BINARY, "").await.refused(404, "Not found");
        fs::remove_file(&path).unwrap();
    }
    for content in [b"<html>".to_vec(), Vec::new(), program(Machine::Aarch64, None)] {
        fs::write(&path, content).unwrap();
        get(&world, BINARY, "").await.refused(404, "Not found");
    }
    fs::remove_file(&path).unwrap();
    fs::create_dir(&path).unwrap();
    get(&world, BINARY, "").await.refused(404, "Not found");
    // Inside, a link may lead anywhere, as volumes of Kubernetes do.
    fs::remove_dir(&path).unwrap();
    fs::create_dir(folder.join("..data")).unwrap();
    fs::write(folder.join("..data/agent"), program(Machine::X86_64, None)).unwrap();
    symlink("..data/agent", &path).unwrap();
    assert_eq!(get(&world, BINARY, "").await.status, 200);
    world.stop().await;
}

#[tokio::test]
async fn the_list_needs_no_token_and_tells_the_binarys_own_version() {
    let folder = TempDir::new().unwrap();
    let world = world(folder.path()).await;
    let info = async || ask(world.address, "GET", "/api/v1/agent/info", "").await.json();
    let none = |arch| json!({"arch": arch, "available": false, "size_bytes": 0, "sha256": null, "version": null});
    let empty = info().await;
    assert_eq!(empty["architectures"], json!([none("x86_64"), none("aarch64")]));
    assert_eq!(empty["version"], env!("CARGO_PKG_VERSION"));
    let bytes = program(Machine::X86_64, Some("7.7.7"));
    fs::write(folder.path().join("attune-agent-x86_64"), &bytes).unwrap();
    let foreign = program(Machine::Aarch64, None);
    fs::write(folder.path().join("attune-agent-aarch64"), &foreign).unwrap();
    // As init scripts leave it: of the other binary, and each one after its binary.
    fs::write(folder.path().join("attune-agent.version"), "attune-agent 5.5.5\n").unwrap();
    assert_eq!(info().await["architectures"][1]["version"], Value::Null);
    fs::write(folder.path().join("attune-agent-aarch64.version"), "attune-agent 6.6.6\n").unwrap();
    let full = info().await;
    let one = |arch, bytes: &[u8], version| json!({"arch": arch, "available": true, "size_bytes": 200_000, "sha256": sha256(bytes), "version": version});
    assert_eq!(full["architectures"], json!([one("x86_64", &bytes, "7.7.7"), one("aarch64", &foreign, "6.6.6")]));
    assert_eq!((&full["version"], &full["names"]), (&json!("7.7.7"), &json!(["attune-agent", "attune-sensor-agent"])));
    world.stop().await;
}
