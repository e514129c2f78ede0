//! The server under clients that are slow, malicious or many.
#![expect(clippy::unwrap_used, reason = "tests")]

mod support;

use std::io;
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use attune_health::{Answer, AskError, Question, ServeError, Target, ask, serve};
use attune_lifecycle::{Stop, Tasks};
use attune_model::condition::Condition;
use attune_model::listen::Listen;
use attune_testkit::{eventually, eventually_blocking};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::watch;
use tokio::task::spawn_blocking;

use crate::support::{PATIENCE, Running, exchange, get, health, read};

async fn asked(target: Target, question: Question) -> Result<Answer, AskError> {
    spawn_blocking(move || ask(&target, question, Duration::from_secs(10))).await.unwrap()
}

#[tokio::test]
async fn the_four_pages_answer() {
    let running = Running::start().await;
    assert_eq!(get(&running, "/livez").await.body, "alive\n");
    let ready = get(&running, "/readyz").await;
    assert_eq!((ready.status, ready.body.as_str()), (200, "ready\n"));
    assert!(get(&running, "/readyz?verbose").await.body.starts_with("ready\n[+] agent: ok (for "));
    let status = get(&running, "/status.json").await;
    assert_eq!(status.header("content-type"), Some("application/json"));
    let status: serde_json::Value = serde_json::from_str(&status.body).unwrap();
    assert_eq!((&status["agent"]["role"], &status["ready"]), (&"worker".into(), &true.into()));
    assert_eq!(get(&running, "/metrics").await.status, 200);
    assert_eq!(get(&running, "/other").await.status, 404);
    let posted = exchange(&running, b"POST /livez HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\nhi").await.unwrap();
    assert_eq!((posted.status, posted.header("allow")), (405, Some("GET, HEAD")));
    let head = exchange(&running, b"HEAD /livez HTTP/1.1\r\nHost: x\r\n\r\n").await.unwrap();
    assert_eq!((head.status, head.body.as_str()), (200, ""));
    running.stop().await;
}

#[tokio::test]
async fn what_is_not_ready_is_named_until_it_is_again() {
    let running = Running::start().await;
    let (problem, state) = watch::channel(Some("the broker is lost"));
    let since = Instant::now();
    running.health.watch(move |all| {
        all.push(Condition { name: "executions", problem: state.borrow().map(Into::into), since });
        all.push(Condition::well("row", since));
    });
    let answer = get(&running, "/readyz").await;
    assert_eq!(answer.status, 503);
    assert!(answer.body.starts_with("not ready\n[-] executions: the broker is lost (for 0."), "{}", answer.body);
    assert!(!answer.body.contains("row"), "{}", answer.body);
    assert!(get(&running, "/readyz?verbose").await.body.contains("[+] row: ok"));
    assert_eq!(get(&running, "/livez").await.status, 200, "restarting would not bring the broker back");
    assert!(get(&running, "/metrics").await.body.contains("\nattune_ready 0\n"));
    problem.send(None).unwrap();
    assert_eq!(get(&running, "/readyz").await.status, 200);
    running.stop().await;
}

#[tokio::test]
async fn it_answers_until_the_last_task_has_ended() {
    let running = Running::start().await;
    let (end, ended) = tokio::sync::oneshot::channel::<()>();
    running.tasks.spawn(ended);
    running.stop.ask();
    let asking = async {
        let ready = get(&running, "/readyz").await;
        assert_eq!(ready.status, 503);
        assert!(ready.body.contains("[-] agent: the agent is stopping"), "{}", ready.body);
        assert_eq!(get(&running, "/livez").await.status, 200);
        end.send(()).unwrap();
    };
    tokio::join!(running.tasks.drained(), asking);
    let Listen::Tcp(address) = running.address else { panic!("not TCP") };
    assert!(tokio::net::TcpStream::connect(address).await.is_err());
}

#[tokio::test]
async fn a_task_that_ended_on_its_own_is_fatal() {
    let running = Running::start().await;
    running.stop.soft().cancel();
    let answer = get(&running, "/livez").await;
    assert_eq!(answer.status, 503);
    assert!(answer.body.contains("a vital task ended"), "{}", answer.body);
    running.tasks.drained().await;
}

#[tokio::test]
async fn slow_clients_hold_nobody_up() {
    let running = Running::start().await;
    let mut held = Vec::new();
    for number in 0..200 {
        let mut stream = running.connect().await;
        // Some say nothing at all, some a piece of a head.
        if number % 2 == 0 {
            stream.write_all(b"GET /readyz HT").await.unwrap();
        }
        held.push(stream);
    }
    assert_eq!(get(&running, "/readyz").await.status, 200, "200 clients do not go on");
    for mut stream in held {
        // Each is closed by the server, not by us.
        let mut rest = Vec::new();
        match tokio::time::timeout(PATIENCE * 3, stream.read_to_end(&mut rest)).await.expect("it is held for ever") {
            Ok(_) => {}
            Err(error) => assert_eq!(error.kind(), io::ErrorKind::ConnectionReset),
        }
    }
    running.stop().await;
}

#[tokio::test]
async fn a_drip_of_header_lines_ends() {
    let running = Running::start().await;
    let mut stream = running.connect().await;
    stream.write_all(b"GET /readyz HTTP/1.1\r\n").await.unwrap();
    let dripping = eventually("the connection is closed", async || {
        stream.write_all(b"X-Drip: 1\r\n").await.is_err().then_some(())
    });
    dripping.await;
    assert_eq!(get(&running, "/readyz").await.status, 200);
    running.stop().await;
}

#[tokio::test]
async fn huge_heads_are_refused() {
    let running = Running::start().await;
    let long_line = format!("GET /readyz HTTP/1.1\r\nHost: x\r\nX-Long: {}\r\n\r\n", "x".repeat(1024 * 1024));
    let many_lines = format!("GET /readyz HTTP/1.1\r\nHost: x\r\n{}\r\n", "X-Many: 1\r\n".repeat(500));
    let long_path = format!("GET /{} HTTP/1.1\r\nHost: x\r\n\r\n", "x".repeat(100_000));
    for head in [long_line, many_lines, long_path, "\0\u{1}\r\n\r\n".to_owned(), "\r\n".repeat(100_000)] {
        let answer = exchange(&running, head.as_bytes()).await;
        assert!(answer.as_ref().is_none_or(|answer| (400..500).contains(&answer.status)), "{answer:?}");
    }
    assert_eq!(get(&running, "/readyz").await.status, 200);
    running.stop().await;
}

#[tokio::test]
async fn one_connection_is_one_request() {
    let running = Running::start().await;
    let mut stream = running.connect().await;
    stream.write_all(b"GET /livez HTTP/1.1\r\nHost: x\r\n\r\nGET /readyz HTTP/1.1\r\nHost: x\r\n\r\n").await.unwrap();
    let answer = read(&mut stream).await.unwrap();
    assert_eq!((answer.body.as_str(), answer.header("connection")), ("alive\n", Some("close")));
    running.stop().await;
}

#[tokio::test]
async fn a_socket_in_the_file_system_is_for_owner_and_group_and_goes_away() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("health.sock");
    // What a killed process leaves behind is in nobody's way.
    drop(UnixListener::bind(&path).unwrap());
    let running = Running::at(Listen::Path(path.clone())).await;
    let meta = std::fs::symlink_metadata(&path).unwrap();
    assert!(meta.file_type().is_socket());
    assert_eq!(meta.permissions().mode() & 0o777, 0o660);
    assert!(asked(Target::Path(path.clone()), Question::Ready).await.unwrap().yes);
    let (stop, tasks) = (Stop::new(), Tasks::default());
    let second = serve(&running.address, None, &health(&stop), (&stop, &tasks)).await;
    assert!(matches!(second, Err(ServeError::Bind { .. })), "a live one is not pushed aside: {second:?}");
    running.stop().await;
    assert!(!path.exists());
    std::fs::write(&path, "mine").unwrap();
    let file = serve(&Listen::Path(path.clone()), None, &health(&stop), (&stop, &tasks)).await;
    assert!(matches!(file, Err(ServeError::Bind { .. })), "{file:?}");
    assert_eq!(std::fs::read(&path).unwrap(), b"mine");
}

#[tokio::test]
async fn an_abstract_socket_is_taken_over_from_a_process_that_ends() {
    let listen = Listen::of_agent("worker", &format!("test-{}", std::process::id()), "");
    let target = Target::of(&listen).unwrap();
    let silent = asked(target.clone(), Question::Ready).await;
    assert!(matches!(silent, Err(AskError::Silent { .. })), "{silent:?}");
    let first = Running::at(listen.clone()).await;
    let answer = asked(target.clone(), Question::Ready).await.unwrap();
    assert!(answer.yes && answer.text.starts_with("ready\n[+] agent: ok"), "{answer:?}");
    let second = Running::at(listen).await;
    second.health.watch(|all| all.push(Condition::problem("second", "not yet", Instant::now())));
    first.stop().await;
    let answer = eventually("the second agent answers", async || asked(target.clone(), Question::Ready).await.ok());
    let answer = answer.await;
    assert!(!answer.yes && answer.text.contains("[-] second: not yet"), "{answer:?}");
    assert!(asked(target.clone(), Question::Live).await.unwrap().yes);
    assert!(asked(target.clone(), Question::Metrics).await.unwrap().text.contains("\nattune_ready 0\n"));
    second.stop().await;
    assert!(asked(target, Question::Live).await.is_err());
}

#[test]
fn a_server_that_takes_connections_and_says_nothing_does_not_hold_the_client() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("mute.sock");
    let mute = UnixListener::bind(&path).unwrap();
    let answer = ask(&Target::Path(path.clone()), Question::Ready, Duration::from_millis(50));
    assert!(matches!(answer, Err(AskError::Silent { .. })), "{answer:?}");
    // A backlog that is full makes connecting wait, which has no limit of its own.
    let held = Arc::new(AtomicUsize::new(0));
    let filling = {
        let (held, path) = (held.clone(), path.clone());
        thread::spawn(move || {
            let mut all = Vec::new();
            while let Ok(stream) = UnixStream::connect(&path) {
                all.push(stream);
                held.fetch_add(1, Ordering::SeqCst);
            }
        })
    };
    let mut before = usize::MAX;
    eventually_blocking("the backlog is full", || {
        let now = held.load(Ordering::SeqCst);
        let answer = ask(&Target::Path(path.clone()), Question::Ready, Duration::from_millis(50));
        assert!(matches!(&answer, Err(AskError::Silent { .. })), "{answer:?}");
        (std::mem::replace(&mut before, now) == now && now > 0).then_some(())
    });
    // The one that waits is refused now.
    drop(mute);
    filling.join().unwrap();
}
