//! What a service manager hears, on a real datagram socket.
#![expect(clippy::unwrap_used, reason = "tests")]

mod support;

use std::time::{Duration, Instant};

use attune_health::{NotifyConfig, serve};
use attune_lifecycle::{Stop, Tasks};
use attune_model::condition::Condition;
use attune_model::listen::Listen;
use tokio::net::UnixDatagram;
use tokio::sync::watch;
use tokio::time::timeout;

use crate::support::{PATIENCE, health};

async fn news(manager: &UnixDatagram) -> String {
    let mut bytes = [0; 64];
    let count = timeout(PATIENCE, manager.recv(&mut bytes)).await.expect("no news").unwrap();
    String::from_utf8(bytes[..count].to_vec()).unwrap()
}

#[tokio::test]
async fn ready_is_said_when_it_is_true_and_stopping_at_the_stop() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("notify.sock");
    let manager = UnixDatagram::bind(&path).unwrap();
    let (stop, tasks) = (Stop::new(), Tasks::default());
    let health = health(&stop);
    let (well, state) = watch::channel(false);
    health.watch(move |all| {
        let problem = (!*state.borrow()).then(|| "not yet".into());
        all.push(Condition { name: "part", problem, since: Instant::now() });
    });
    let notify = NotifyConfig { socket: path.into_os_string(), watchdog: Some(Duration::from_millis(40)) };
    serve(&Listen::Off, Some(notify), &health, (&stop, &tasks)).await.unwrap();
    for _ in 0..5 {
        assert_eq!(news(&manager).await, "WATCHDOG=1", "alive, and not ready");
    }
    well.send(true).unwrap();
    while news(&manager).await != "READY=1" {}
    stop.ask();
    while news(&manager).await != "STOPPING=1" {}
    assert_eq!(news(&manager).await, "WATCHDOG=1", "a long drain is no death");
    timeout(PATIENCE, tasks.drained()).await.expect("it ends with the tasks");
}

#[tokio::test]
async fn a_socket_that_is_not_there_harms_nothing() {
    let (stop, tasks) = (Stop::new(), Tasks::default());
    for socket in ["relative", "/nowhere/notify.sock", "@nobody-listens-here"] {
        let notify = NotifyConfig { socket: socket.into(), watchdog: None };
        serve(&Listen::Off, Some(notify), &health(&stop), (&stop, &tasks)).await.unwrap();
    }
    stop.ask();
    timeout(PATIENCE, tasks.drained()).await.expect("it ends with the tasks");
}
