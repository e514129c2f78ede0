//! Files of agents that share no folder with the hub, over real sockets: every method, the limit, and no way out.

use std::fs;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};

use attune_testkit::eventually;
use tempfile::TempDir;
use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpStream;

use crate::support::http::{Answer, get, send};
use crate::support::{World, config_with_folders};

const FILES: &str = "/api/v1/internal/files";
const LIMIT: u64 = 1000;

/// A hub with a folder of artifacts that takes small files.
struct Place {
    world: World,
    dir: TempDir,
    token: String,
}

impl Place {
    async fn new() -> Self {
        let dir = TempDir::new().unwrap();
        let world = World::with(config_with_folders(dir.path(), LIMIT)).await;
        let token = world.user();
        Self { world, dir, token }
    }

    fn file(&self, name: &str) -> PathBuf {
        self.dir.path().join("artifacts").join(name)
    }

    /// Names in the folder of artifacts, without the mark of the hub.
    fn names(&self, folder: &str) -> Vec<String> {
        let names =
            fs::read_dir(self.file(folder)).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
        names.filter(|name| name != ".attune-api-sentinel").collect()
    }

    async fn ask(&self, method: &str, path: &str, body: &[u8]) -> Answer {
        send(self.world.address, method, &format!("{FILES}/{path}"), &self.token, "", body).await
    }
}

fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap().permissions().mode() & 0o7777
}

#[tokio::test]
async fn a_file_is_put_grown_looked_at_read_and_removed() {
    let place = Place::new().await;
    let path = "demo/my+file%2Bx/v1.txt";
    let put = place.ask("PUT", path, b"one").await;
    assert_eq!((put.status, put.data()["size_bytes"].as_i64()), (201, Some(3)));
    let file = place.file("demo/my file+x/v1.txt");
    assert_eq!(fs::read_to_string(&file).unwrap(), "one");
    assert_eq!((mode(&file), mode(file.parent().unwrap())), (0o664, 0o2775));
    assert_eq!(place.ask("PATCH", path, b" two").await.status, 204);
    let head = place.ask("HEAD", path, b"").await;
    assert_eq!((head.status, head.text.as_str()), (200, ""));
    assert!(head.head.contains("content-length: 7"), "{}", head.head);
    let got = place.ask("GET", path, b"").await;
    assert_eq!((got.status, got.text.as_str()), (200, "one two"));
    assert!(got.head.contains("content-length: 7"), "{}", got.head);
    let url = format!("{FILES}/{path}");
    let part = send(place.world.address, "GET", &url, &place.token, "range: bytes=0-1\r\n", b"").await;
    assert_eq!(part.text, "one two", "ranges are not looked at");
    assert_eq!(place.ask("PUT", path, b"three").await.status, 201);
    assert_eq!(fs::read_to_string(&file).unwrap(), "three");
    assert_eq!(place.names("demo/my file+x"), ["v1.txt"]);
    for _ in 0..2 {
        assert_eq!(place.ask("DELETE", path, b"").await.status, 204);
        assert!(!file.exists());
        assert_eq!(place.ask("GET", path, b"").await.status, 404);
        assert_eq!(place.ask("HEAD", path, b"").await.status, 404);
    }
    assert_eq!(place.ask("PATCH", path, b"from nothing").await.status, 204);
    assert_eq!((fs::read_to_string(&file).unwrap().as_str(), mode(&file)), ("from nothing", 0o664));
    place.world.stop().await;
}

#[tokio::test]
async fn what_is_too_large_is_refused_and_leaves_the_file_as_it_was() {
    let place = Place::new().await;
    let limit = usize::try_from(LIMIT).unwrap();
    assert_eq!(place.ask("PUT", "full", &vec![b'x'; limit]).await.status, 201);
    for (method, name, length) in [("PUT", "full", limit + 1), ("PUT", "new", limit + 1), ("PATCH", "full", 1)] {
        let message = place.ask(method, name, &vec![b'y'; length]).await.error(413, "PAYLOAD_TOO_LARGE");
        assert!(message.contains("1000 bytes"), "{message}");
    }
    assert_eq!(fs::read(place.file("full")).unwrap(), vec![b'x'; limit]);
    assert_eq!(place.names(""), ["full"]);
    place.world.stop().await;
}

#[tokio::test]
async fn a_client_that_goes_away_leaves_nothing() {
    let place = Place::new().await;
    let mut stream = TcpStream::connect(place.world.address).await.unwrap();
    let token = &place.token;
    let head = format!(
        "PUT {FILES}/half HTTP/1.1\r\nhost: hub\r\nauthorization: Bearer {token}\r\ncontent-length: 500\r\n\r\n12345"
    );
    stream.write_all(head.as_bytes()).await.unwrap();
    eventually("the upload to begin", async || (place.names("").len() == 1).then_some(())).await;
    assert!(!place.file("half").exists());
    drop(stream);
    eventually("nothing to be left", async || place.names("").is_empty().then_some(())).await;
    place.world.stop().await;
}

#[tokio::test]
async fn no_path_and_no_link_leads_out_of_the_folder() {
    let place = Place::new().await;
    let outside = place.dir.path().join("outside");
    fs::write(&outside, "secret").unwrap();
    symlink(&outside, place.file("link")).unwrap();
    symlink("..", place.file("up")).unwrap();
    fs::create_dir(place.file("folder")).unwrap();
    for path in ["..%2foutside", "%2e%2e/outside", "a//b", "a/%2e/b", "a%00b", "%ff"] {
        for method in ["PUT", "PATCH", "GET", "HEAD", "DELETE"] {
            assert_eq!(place.ask(method, path, b"changed").await.status, 400, "{method} {path}");
        }
    }
    for path in ["link", "up/outside", "link/x", "folder"] {
        for method in ["GET", "HEAD"] {
            assert_eq!(place.ask(method, path, b"").await.status, 404, "{method} {path}");
        }
        if path != "link" && path != "folder" {
            assert_eq!(place.ask("PUT", path, b"changed").await.status, 400, "PUT {path}");
        }
        assert_eq!(place.ask("PATCH", path, b"changed").await.status, 400, "PATCH {path}");
    }
    assert_eq!(place.ask("PUT", "folder", b"changed").await.status, 400);
    assert_eq!(place.ask("DELETE", "folder", b"").await.status, 400);
    assert_eq!(place.ask("DELETE", "up/outside", b"").await.status, 204, "there is nothing behind a link");
    // A link is replaced and removed itself, like any file.
    assert_eq!(place.ask("PUT", "link", b"changed").await.status, 201);
    assert_eq!(fs::read_to_string(place.file("link")).unwrap(), "changed");
    assert_eq!(fs::read_to_string(&outside).unwrap(), "secret");
    place.world.stop().await;
}

#[tokio::test]
async fn nobody_without_a_token_touches_a_file_and_a_hub_without_folders_says_so() {
    let place = Place::new().await;
    fs::write(place.file("file"), "content").unwrap();
    for method in ["PUT", "PATCH", "GET", "HEAD", "DELETE"] {
        let answer = send(place.world.address, method, &format!("{FILES}/file"), "rubbish", "", b"changed").await;
        assert_eq!(answer.status, 401, "{method}");
    }
    assert_eq!(fs::read_to_string(place.file("file")).unwrap(), "content");
    assert_eq!(get(place.world.address, &format!("{FILES}/file"), None).await.status, 401);
    place.world.stop().await;

    let without = World::new().await;
    let answer = get(without.address, &format!("{FILES}/file"), Some(&without.user())).await;
    answer.error(503, "SERVICE_UNAVAILABLE");
    without.stop().await;
}
