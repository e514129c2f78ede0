//! A worker without shared folders: packs and files go through the platform's API, of which there is here no more than its
//! sockets.

use std::collections::BTreeMap;
use std::fs;
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use attune_model::Secret;
use attune_security::TokenKey;
use attune_testkit::eventually;
use serde_json::json;

use crate::executor::{Action, Executor};
use crate::support::JWT_SECRET;

/// Where the log of `drop.good` goes.
const LOG: &str = "/api/v1/internal/files/drop/good/stdout/log/v1.txt";

/// One request.
#[derive(Debug, Clone)]
struct Asked {
    method: String,
    path: String,
    token: String,
    body: Vec<u8>,
}

/// Files by path, an archive, and everything that was asked.
#[derive(Default)]
struct Api {
    archive: Vec<u8>,
    files: Mutex<BTreeMap<String, Vec<u8>>>,
    asked: Mutex<Vec<Asked>>,
}

impl Api {
    /// Answers for as long as the test runs.
    fn start(address: SocketAddr, archive: Vec<u8>) -> Arc<Self> {
        let api = Arc::new(Self { archive, ..Self::default() });
        let (listener, answering) = (TcpListener::bind(address).unwrap(), api.clone());
        std::thread::spawn(move || {
            for mut client in listener.incoming().flatten() {
                let asked = read(&mut client);
                let (status, body) = answering.answer(&asked);
                answering.asked.lock().unwrap().push(asked);
                let length = body.len();
                let head = format!("HTTP/1.1 {status} X\r\ncontent-length: {length}\r\nconnection: close\r\n\r\n");
                // Who has gone away misses it.
                drop(client.write_all(&[head.as_bytes(), &body].concat()));
            }
        });
        api
    }

    fn answer(&self, asked: &Asked) -> (u16, Vec<u8>) {
        if asked.path == "/api/v1/internal/packs/drop/archive" {
            return (200, self.archive.clone());
        }
        let mut files = self.files.lock().unwrap();
        match (asked.method.as_str(), files.get(&asked.path)) {
            ("PUT", _) => {
                files.insert(asked.path.clone(), asked.body.clone());
                (201, Vec::new())
            }
            ("GET", Some(file)) => (200, file.clone()),
            ("DELETE", _) => (204, Vec::new()),
            _ => (404, Vec::new()),
        }
    }

    fn asked(&self) -> Vec<Asked> {
        self.asked.lock().unwrap().clone()
    }
}

fn read(client: &mut TcpStream) -> Asked {
    let (mut text, mut chunk) = (Vec::new(), [0; 4096]);
    let end = loop {
        if let Some(end) = text.windows(4).position(|window| window == b"\r\n\r\n") {
            break end + 4;
        }
        let count = client.read(&mut chunk).unwrap();
        assert!(count > 0, "the head of a request ends");
        text.extend_from_slice(&chunk[..count]);
    };
    let head = String::from_utf8(text[..end].to_vec()).unwrap();
    let value = |name: &str| {
        let is_it = |line: &&str| line.to_lowercase().starts_with(name);
        head.lines().find(is_it).map(|line| line[name.len()..].trim().to_owned())
    };
    let length: usize = value("content-length:").map_or(0, |length| length.parse().unwrap());
    let mut body = text.split_off(end);
    while body.len() < length {
        let count = client.read(&mut chunk).unwrap();
        assert!(count > 0, "the body of a request ends");
        body.extend_from_slice(&chunk[..count]);
    }
    let mut words = head.split(' ').map(ToOwned::to_owned);
    let token = value("authorization: bearer").unwrap_or_default();
    Asked { method: words.next().unwrap(), path: words.next().unwrap(), token, body }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn packs_and_files_go_through_the_api_with_a_token_of_the_worker() {
    let code = "printf out; printf err >&2; mkdir -p \"$ATTUNE_ARTIFACTS_DIR/drop/a b\"
        while [ ! -e \"$ATTUNE_ARTIFACTS_DIR/go\" ]; do sleep 0.01; done
        printf 12345 > \"$ATTUNE_ARTIFACTS_DIR/drop/a b/v1.txt\"";
    let actions = [Action { name: "good", manifest: "output_format: text\n", code }];
    let installation = Executor::prepared(&actions).await;
    // All that the worker has of the pack are rows.
    let packs = installation.path("packs");
    let packed = Command::new("tar").args(["-C", packs.to_str().unwrap(), "-czf", "-", "drop"]).output().unwrap();
    fs::remove_dir_all(packs.join("drop")).unwrap();
    let api = Api::start(installation.hub_address(), packed.stdout);
    let platform = Executor::on(installation).await;
    let id = platform.schedule("good", &[]).await;
    platform.dispatch(id).await;
    platform.register(id, "drop.a_b", "drop.good", &["drop/a b/v1.txt"]).await;
    fs::write(platform.installation.path("artifacts/go"), "").unwrap();
    let (_, row) = platform.ended(id).await;
    assert_eq!(row["status"], "completed", "{row}");
    let expected: BTreeMap<String, Vec<u8>> =
        [("drop/good/stdout/log/v1.txt", "out"), ("drop/good/stderr/log/v1.txt", "err"), ("drop/a+b/v1.txt", "12345")]
            .map(|(path, text)| (format!("/api/v1/internal/files/{path}"), text.into()))
            .into();
    eventually("every file", async || (*api.files.lock().unwrap() == expected).then_some(())).await;
    let sizes = "SELECT json_object_agg(file_path, size_bytes) FROM artifact_version";
    let expected = json!({"drop/good/stdout/log/v1.txt": 3, "drop/good/stderr/log/v1.txt": 3, "drop/a b/v1.txt": 5});
    eventually("every size", async || (platform.json(sizes).await == expected).then_some(())).await;
    let asked = api.asked();
    let archives = asked.iter().filter(|asked| asked.path.ends_with("/drop/archive")).count();
    assert_eq!(archives, 1, "the pack is fetched once: {asked:?}");
    let key = TokenKey::new(&Secret::new(JWT_SECRET.to_owned())).unwrap();
    for Asked { method, path, token, .. } in &asked {
        let claims = key.verify(token, chrono::Utc::now()).unwrap_or_else(|error| panic!("{method} {path}: {error}"));
        let claims = serde_json::to_value(&claims).unwrap();
        assert_eq!((&claims["sub"], &claims["token_type"]), (&json!("1"), &json!("worker")));
        assert_eq!(claims["scope"], "internal_files");
        assert_eq!(claims["exp"].as_i64().unwrap() - claims["iat"].as_i64().unwrap(), 86_400);
        let worker = claims["metadata"]["worker_id"].as_str().unwrap();
        assert!(worker.starts_with("worker-") && worker.len() == 7 + 36, "{worker}");
        assert_eq!(claims["login"], format!("worker:{worker}"));
    }
    platform.worker.stop();
}

/// Packs come from an API whose certificate nobody but the operator vouches for.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_api_that_speaks_tls_is_trusted_by_the_certificates_that_the_environment_names() {
    let actions = [Action { name: "good", manifest: "output_format: text\n", code: "echo fine" }];
    let installation = Executor::prepared(&actions).await;
    let (packs, site) = (installation.path("packs"), installation.path("site"));
    let answer = site.join("api/v1/internal/packs/drop/archive");
    fs::create_dir_all(answer.parent().unwrap()).unwrap();
    let packed = Command::new("tar").args(["-C", packs.to_str().unwrap(), "-czf", "-", "drop"]).output().unwrap();
    let head = format!("HTTP/1.0 200 OK\r\ncontent-length: {}\r\n\r\n", packed.stdout.len());
    fs::write(&answer, [head.as_bytes(), &packed.stdout].concat()).unwrap();
    fs::remove_dir_all(packs.join("drop")).unwrap();
    fs::write(installation.path("artifacts/.attune-api-sentinel"), "{}").unwrap();
    let openssl = |arguments: &str| {
        let mut command = Command::new("openssl");
        command.args(arguments.split(' ')).current_dir(&site).stdin(Stdio::null()).stdout(Stdio::null());
        command.stderr(Stdio::null());
        command
    };
    let certificate = "req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2 -subj /CN=test \
                       -addext subjectAltName=IP:127.0.0.1 -addext basicConstraints=critical,CA:FALSE -keyout key.pem -out certificate.pem";
    let made = openssl(&certificate.split_whitespace().collect::<Vec<_>>().join(" ")).status().unwrap();
    assert!(made.success());
    let address = installation.hub_address();
    // Answers with the file of each path.
    let mut api =
        openssl(&format!("s_server -accept {address} -cert certificate.pem -key key.pem -HTTP")).spawn().unwrap();
    let trusted = site.join("certificate.pem").display().to_string();
    let settings = [("ATTUNE_API_URL", format!("https://{address}")), ("SSL_CERT_FILE", trusted)];
    let settings = settings.each_ref().map(|(name, value)| (*name, value.as_str()));
    let platform = Executor::on_with(installation, &settings).await;
    let (_, row) = platform.run("good", &[]).await;
    assert_eq!((&row["status"], &row["result"]["stdout"]), (&json!("completed"), &json!("fine\n")), "{row}");
    platform.worker.stop();
    api.kill().unwrap();
    api.wait().unwrap();
}

/// The worker serves the platform, not the other way round: it starts and works while the API is away.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_api_that_is_away_holds_up_neither_the_start_nor_a_result() {
    let actions = [Action { name: "good", manifest: "output_format: text\n", code: "echo fine" }];
    let installation = Executor::prepared(&actions).await;
    let platform = Executor::on_with(installation, &[("ATTUNE__WORKER__HEARTBEAT_INTERVAL", "1s")]).await;
    let (said, row) = platform.run("good", &[]).await;
    assert_eq!((&row["status"], &row["result"]["stdout"]), (&json!("completed"), &json!("fine\n")), "{row}");
    assert_eq!(said.last().unwrap()["body"]["payload"]["status"], "Completed");
    let api = Api::start(platform.installation.hub_address(), Vec::new());
    let log = async || api.files.lock().unwrap().get(LOG).cloned().filter(|log| log == b"fine\n");
    eventually("the log follows", log).await;
    let sizes = "SELECT count(*) FROM artifact_version WHERE size_bytes = 5";
    platform.installation.wait_for("the size", sizes, |count| count == 1).await;
    platform.worker.stop();
}

/// Connections are made and nobody answers.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_api_that_does_not_answer_holds_up_neither_an_execution_nor_the_stop() {
    const VERSIONS: &str = "SELECT count(*) FROM artifact_version";
    let actions = [Action { name: "good", manifest: "output_format: text\n", code: "echo fine" }];
    let installation = Executor::prepared(&actions).await;
    let hole = TcpListener::bind(installation.hub_address()).unwrap();
    hole.set_nonblocking(true).unwrap();
    let platform = Executor::on_with(installation, &[("ATTUNE__WORKER__SHUTDOWN_TIMEOUT", "60s")]).await;
    let begun = Instant::now();
    let mut ids = Vec::new();
    for _ in 0..8 {
        ids.push(platform.schedule("good", &[]).await);
        platform.dispatch(ids[ids.len() - 1]).await;
    }
    for id in ids {
        let (_, row) = platform.ended(id).await;
        assert_eq!(row["status"], "completed", "{row}");
    }
    let took = begun.elapsed();
    assert!(took < Duration::from_secs(40), "{took:?}");
    let calls: Vec<_> = std::iter::from_fn(|| hole.accept().ok()).collect();
    let methods = calls.iter().map(|(call, _)| {
        let mut method = [0; 3];
        (&*call).read_exact(&mut method).unwrap();
        method
    });
    let files = methods.filter(|method| method == b"PUT").count();
    assert!((1..=4).contains(&files), "{files} files under way at once");
    let begun = Instant::now();
    platform.worker.stop();
    let took = begun.elapsed();
    assert!(took < Duration::from_secs(30), "nothing runs, and yet it took {took:?} of the grace");
    // Each log keeps its version, which a result may name; the next life sends the file.
    assert_eq!(platform.installation.database.number(VERSIONS).await, 8);
    drop((hole, calls));
    let api = Api::start(platform.installation.hub_address(), Vec::new());
    let next = Executor::on(platform.installation).await;
    let logs = async || (api.files.lock().unwrap().values().filter(|log| *log == b"fine\n").count() == 8).then_some(());
    eventually("the logs follow", logs).await;
    assert_eq!(next.installation.database.number(VERSIONS).await, 8);
    next.worker.stop();
}
