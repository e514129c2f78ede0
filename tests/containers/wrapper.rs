//! `scripts/attune-agent-wrapper.sh` as process 1 of stock images, each with another downloader and none with the volume.
//!
//! Images with curl and GNU wget are not among them: `tests/wrapper` has those, on the machine itself.

use std::env::consts::ARCH;
use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::thread;

use attune_testkit::containers::{Container, Engine, Network};
use serde_json::json;

use crate::compose::docker;
use crate::prepare;
use crate::site::{API, BOOTSTRAP_TOKEN, Role, Site};

/// Image, what downloads there, and an action that it can run.
const IMAGES: [(&str, &str, &str); 3] =
    [("busybox", "busybox", "reach.shell"), ("python", "python3", "reach.python"), ("node", "node", "reach.node")];

const VERSION: &str = env!("CARGO_PKG_VERSION");

/// Where the agent is put: neither the volume of the other agents nor a folder of the image.
const FOLDER: &str = "/run/agent";

/// As an operator mounts it, by the name that chooses the agent.
fn mounted(name: &str) -> [String; 2] {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("scripts/attune-agent-wrapper.sh");
    [format!("--volume={}:/{name}:ro", script.display()), format!("--entrypoint=/{name}")]
}

/// What the wrapper is told by its environment.
fn told(url: &str, token: &str) -> [String; 4] {
    [
        format!("--env=ATTUNE_AGENT_DIR={FOLDER}"),
        format!("--env=ATTUNE_AGENT_URL={url}"),
        format!("--env=ATTUNE_AGENT_TOKEN={token}"),
        "--env=ATTUNE_AGENT_ATTEMPTS=2".to_owned(),
    ]
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_wrapper_downloads_from_a_hub_becomes_the_agent_and_is_stopped_as_one() {
    let images = IMAGES.map(|(image, ..)| image);
    let Some(site) = Site::new(&images, &["packs/core", "tests/containers/packs/reach"]).await else { return };
    let options = |wrapper: &str| {
        let url = told(&format!("http://{API}:8080/api/v1/agent/binary"), BOOTSTRAP_TOKEN);
        let own = ["--user=1000:1000".to_owned(), format!("--tmpfs={FOLDER}:rw,exec,mode=1777")];
        [&mounted(wrapper)[..], &url, &own].concat()
    };
    for (image, _, action) in IMAGES {
        let worker = site.agent(Role::Worker, image, image, &refs(&options("attune-agent-wrapper.sh")));
        site.ready(&worker, Role::Worker, image).await;
        let said = worker.logs().1;
        assert!(said.contains(&format!("attune-agent-wrapper: attune-agent {VERSION} is in {FOLDER}")), "{said}");
        // The shell is gone: what it downloaded is process 1 of the container.
        let first = std::fs::read_link(format!("/proc/{}/exe", worker.pid())).unwrap();
        assert_eq!(first, Path::new(FOLDER).join("attune-agents"), "{image}");
        let id = site.ask(action, &json!({ "word": image })).await;
        site.until(id, "completed").await;
        assert_eq!(worker.stop(), 0, "{image}: {:?}", worker.logs());
        assert_eq!(site.status(image).await, "inactive");
    }
    let sensor = site.agent(Role::Sensor, "python", "by-name", &refs(&options("attune-sensor-agent-wrapper.sh")));
    site.ready(&sensor, Role::Sensor, "by-name").await;
    assert_eq!(sensor.stop(), 0, "{:?}", sensor.logs());
    assert_eq!(site.status("by-name").await, "inactive");
}

fn refs(words: &[String]) -> Vec<&str> {
    words.iter().map(String::as_str).collect()
}

/// Containers whose server is the test itself.
struct Server {
    listener: TcpListener,
    network: Network,
    engine: Engine,
}

impl Server {
    fn new(name: &str) -> Option<Self> {
        let (engine, _) = prepare::machine(&IMAGES.map(|(image, ..)| image))?;
        let network = engine.network(&format!("attune-test-{name}-{}", std::process::id()));
        let listener = TcpListener::bind((network.gateway(), 0)).unwrap();
        Some(Self { listener, network, engine })
    }

    /// The wrapper in `image`, on a read-only root; `folder` is the option that mounts the place of the agent.
    fn wrapper(&self, image: &str, folder: &str) -> Container {
        let url = format!("http://{}/api/v1/agent/binary", self.listener.local_addr().unwrap());
        let network = format!("--network={}", self.network.name());
        let own = ["--read-only".to_owned(), network, folder.to_owned()];
        let options = [&mounted("attune-agent-wrapper.sh")[..], &told(&url, "any"), &own].concat();
        self.engine.run(&self.engine.named(&format!("attune-test/{image}")), &refs(&options), &["--version"])
    }

    /// The next request, and its path.
    fn asked(&self) -> (TcpStream, String) {
        let (mut stream, _) = self.listener.accept().unwrap();
        let (mut head, mut piece) = (Vec::new(), [0_u8; 4096]);
        while !head.windows(4).any(|window| window == b"\r\n\r\n") {
            let count = stream.read(&mut piece).unwrap();
            assert_ne!(count, 0, "the client went away");
            head.extend_from_slice(&piece[..count]);
        }
        let path = String::from_utf8(head).unwrap().split(' ').nth(1).unwrap().to_owned();
        (stream, path)
    }
}

/// Process 1 has no action of its own for a signal: without one of the script's it would be killed at the end of the patience.
#[test]
fn docker_stop_during_the_download_ends_the_wrapper_at_once_and_nothing_is_left() {
    let Some(server) = Server::new("stop") else { return };
    for (image, downloader, _) in IMAGES {
        let volume = server.engine.volume();
        let container = server.wrapper(image, &volume.at(FOLDER, "rw"));
        // The list of what there is, then the file, of which the beginning comes and the rest does not.
        let (mut list, path) = server.asked();
        assert!(path.ends_with("/info"), "{path}");
        list.write_all(b"HTTP/1.1 404 Not Found\r\nconnection: close\r\ncontent-length: 0\r\n\r\n").unwrap();
        drop(list);
        let (mut file, path) = server.asked();
        assert!(path.ends_with(&format!("/binary?arch={ARCH}&name=attune-agent")), "{path}");
        file.write_all(b"HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: 1000000\r\n\r\n\x7fELF").unwrap();
        let running = docker(&["top", container.id(), "-o", "pid,args"]);
        assert!(running.contains(downloader), "{running}");
        // 137 were the code of one that had to be killed.
        assert_eq!(container.stop(), 143, "{image}: {:?}", container.logs());
        let ls = server.engine.named("attune-test/busybox");
        let listed = server.engine.run(&ls, &[&volume.at(FOLDER, "ro")], &["/bin/ls", "-A", FOLDER]);
        assert_eq!((listed.wait(), listed.logs()), (0, (String::new(), String::new())), "{image}");
    }
}

#[test]
fn what_is_not_the_agent_is_said_and_never_run() {
    let Some(server) = Server::new("pages") else { return };
    let page = b"<!DOCTYPE html><html>Log in</html>";
    let page = [format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n", page.len()).as_bytes(), page].concat();
    let list = json!({"architectures": [{"arch": ARCH, "size_bytes": 1_000_000, "sha256": "00", "available": true}]});
    let list = list.to_string();
    let list = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{list}", list.len()).into_bytes();
    // Without a length, so that only the list tells that something is missing.
    let half = b"HTTP/1.1 200 OK\r\n\r\n\x7fELF and no more".to_vec();
    let refusal = b"HTTP/1.1 401 Unauthorized\r\ncontent-length: 9\r\n\r\n{\"e\":\"e\"}".to_vec();
    let cases = [
        (page, 65, 2, "you got an HTML page: check the URL"),
        (half, 65, 2, "bytes came and the server has 1000000: the download was cut off"),
        (refusal, 78, 1, "the server refuses with status 401: {\"e\":\"e\"}"),
    ];
    for (image, ..) in IMAGES {
        for (answer, code, files, said) in &cases {
            let container = server.wrapper(image, &format!("--tmpfs={FOLDER}:rw,exec,mode=1777"));
            thread::scope(|scope| {
                scope.spawn(|| {
                    for _ in 0..2 * files {
                        let (mut stream, path) = server.asked();
                        stream.write_all(if path.ends_with("/info") { &list } else { answer }).unwrap();
                    }
                });
                assert_eq!(container.wait(), *code, "{image}: {:?}", container.logs());
            });
            let logs = container.logs();
            assert!(logs.0.is_empty() && logs.1.contains(said), "{image}: {logs:?}");
        }
    }
}
