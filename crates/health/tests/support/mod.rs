//! A running server, and clients that speak to it in bytes.
#![allow(dead_code, reason = "each test binary uses a part")]

pub(crate) mod exposition;

use std::time::Duration;

use attune_health::{About, Health, Parts, serve};
use attune_lifecycle::{Stop, Tasks};
use attune_model::listen::Listen;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

/// Longer than any limit of the server.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

/// A server on a free port.
pub(crate) struct Running {
    pub(crate) health: Health,
    pub(crate) address: Listen,
    pub(crate) stop: Stop,
    pub(crate) tasks: Tasks,
}

/// An agent that is ready.
pub(crate) fn health(stop: &Stop) -> Health {
    let about = About { role: "worker", name: "tester".to_owned(), version: "1.2.3", parts: Parts::BOTH };
    let health = Health::new(about, stop.clone());
    health.started();
    health
}

impl Running {
    pub(crate) async fn start() -> Self {
        Self::at("127.0.0.1:0".parse().unwrap()).await
    }

    pub(crate) async fn at(listen: Listen) -> Self {
        let (stop, tasks) = (Stop::new(), Tasks::default());
        let health = health(&stop);
        let address = serve(&listen, None, &health, (&stop, &tasks)).await.unwrap();
        Self { health, address, stop, tasks }
    }

    pub(crate) async fn connect(&self) -> TcpStream {
        let Listen::Tcp(address) = &self.address else { panic!("not TCP") };
        TcpStream::connect(address).await.unwrap()
    }

    pub(crate) async fn stop(self) {
        self.stop.ask();
        timeout(PATIENCE, self.tasks.drained()).await.expect("the server does not end");
    }
}

/// What came back.
#[derive(Debug)]
pub(crate) struct Reply {
    pub(crate) status: u16,
    pub(crate) head: String,
    pub(crate) body: String,
}

impl Reply {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.head.lines().find_map(|line| {
            let (key, value) = line.split_once(':')?;
            key.eq_ignore_ascii_case(name).then(|| value.trim())
        })
    }
}

/// Asks for a path.
pub(crate) async fn get(running: &Running, path: &str) -> Reply {
    exchange(running, format!("GET {path} HTTP/1.1\r\nHost: x\r\n\r\n").as_bytes()).await.unwrap()
}

/// Sends bytes and reads to the end; none when no answer came.
pub(crate) async fn exchange(running: &Running, bytes: &[u8]) -> Option<Reply> {
    let mut stream = running.connect().await;
    // The server may close before it has read everything.
    if stream.write_all(bytes).await.is_err() {
        return None;
    }
    read(&mut stream).await
}

/// Reads an answer to its end.
pub(crate) async fn read(stream: &mut TcpStream) -> Option<Reply> {
    let mut bytes = Vec::new();
    let ended = timeout(PATIENCE, stream.read_to_end(&mut bytes)).await.expect("the server holds the connection");
    if ended.is_err() || bytes.is_empty() {
        return None;
    }
    let text = String::from_utf8(bytes).unwrap();
    let (head, body) = text.split_once("\r\n\r\n").unwrap();
    let status = head.split(' ').nth(1).unwrap().parse().unwrap();
    Some(Reply { status, head: head.to_owned(), body: body.to_owned() })
}
