//! Archives of packs, which may be far larger than what an agent may hold.
#![expect(clippy::unwrap_used, reason = "tests")]

use std::fs::{self, File};
use std::io::Read as _;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use attune_http::{AgentToken, Client, ClientConfig, PackSync, PlatformApi};
use attune_lifecycle::Tasks;
use attune_model::clock::SystemClock;
use attune_security::Agent;
use flate2::Compression;
use flate2::write::GzEncoder;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

const CONTENT_BYTES: u64 = 40 * 1024 * 1024;
/// Far less than the archive, far more than a client needs.
const MOST_BYTES: u64 = 16 * 1024 * 1024;

/// One large file, not compressed.
fn archive_at(path: &Path) {
    let gzip = GzEncoder::new(File::create(path).unwrap(), Compression::none());
    let mut archive = tar::Builder::new(gzip);
    let mut header = tar::Header::new_gnu();
    header.set_size(CONTENT_BYTES);
    header.set_mode(0o644);
    archive.append_data(&mut header, "demo/model.bin", std::io::repeat(b'm').take(CONTENT_BYTES)).unwrap();
    archive.into_inner().unwrap().finish().unwrap();
}

/// Breaks the first answer off in the middle.
async fn answer(mut stream: TcpStream, archive: &Path, is_first: bool) {
    let mut asked = [0; 4096];
    let mut count = 0;
    while !asked[..count].ends_with(b"\r\n\r\n") {
        count += stream.read(&mut asked[count..]).await.unwrap();
    }
    let file = tokio::fs::File::open(archive).await.unwrap();
    let length = file.metadata().await.unwrap().len();
    let head = format!("HTTP/1.1 200 OK\r\ncontent-length: {length}\r\nconnection: close\r\n\r\n");
    stream.write_all(head.as_bytes()).await.unwrap();
    let sent = if is_first { length / 2 } else { length };
    // Whoever has enough closes the connection.
    drop(tokio::io::copy(&mut file.take(sent), &mut stream).await);
}

/// The most memory that this process had.
fn peak_bytes() -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() * 1024
}

#[tokio::test]
async fn an_archive_is_never_in_memory_as_a_whole_and_leaves_nothing_beside_the_pack() {
    let dir = tempfile::tempdir().unwrap();
    let archive = dir.path().join("archive");
    archive_at(&archive);
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let servers = Tasks::default();
    servers.spawn(async move {
        let mut is_first = true;
        while let Ok((stream, _)) = listener.accept().await {
            answer(stream, &archive, is_first).await;
            is_first = false;
        }
    });
    let token = AgentToken::new(Agent::Worker, None, Arc::new(SystemClock));
    let client = Client::build(&ClientConfig::default()).unwrap();
    let api = PlatformApi::new(client, &url, token).with_call_limit(Duration::from_mins(1));
    let packs = dir.path().join("packs");
    let before = peak_bytes();
    PackSync::new(&packs, api).fetch("demo").await.unwrap();
    let grown = peak_bytes() - before;
    assert!(grown < MOST_BYTES, "{grown} bytes more");
    assert_eq!(fs::metadata(packs.join("demo/model.bin")).unwrap().len(), CONTENT_BYTES);
    let left: Vec<_> = fs::read_dir(&packs).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(left, ["demo"]);
}
