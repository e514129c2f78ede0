//! Requests as tasks: how many at once, and what ends them.

use std::sync::Arc;

use attune_lifecycle::{Stop, Tasks};
use axum::extract::{Request, State};
use axum::middleware::Next;
use axum::response::{IntoResponse as _, Response};
use tokio::sync::Semaphore;

use super::error::ApiError;

/// Most requests that are worked on at once; more wait for their turn.
const MOST_REQUESTS: usize = 64;

/// Where requests are worked on.
#[derive(Debug, Clone)]
pub(super) struct Work {
    pub(super) stop: Stop,
    tasks: Tasks,
    turns: Arc<Semaphore>,
}

impl Work {
    pub(super) fn new(stop: Stop, tasks: Tasks) -> Self {
        Self { stop, tasks, turns: Arc::new(Semaphore::new(MOST_REQUESTS)) }
    }
}

/// Runs a request as a task of its own: a client that goes away does not stop it between the commit and the messages,
/// and a panic ends this request only.
pub(super) async fn contained(State(work): State<Work>, request: Request, next: Next) -> Response {
    let stopping = || ApiError::unavailable("the hub is stopping").into_response();
    let Ok(turn) = work.turns.clone().acquire_owned().await else {
        return stopping();
    };
    let path = request.uri().path().to_owned();
    let hard = work.stop.hard().clone();
    let done = work.tasks.spawn(async move {
        let _turn = turn;
        tokio::select! {
            biased;
            () = hard.cancelled() => None,
            response = next.run(request) => Some(response),
        }
    });
    match done.await {
        Ok(Some(response)) => response,
        Ok(None) => stopping(),
        Err(error) => {
            let error: &dyn std::error::Error = &error;
            tracing::error!(error, path, "request ended by a panic");
            ApiError::internal().into_response()
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use attune_testkit::{PATIENCE, eventually};
    use axum::Router;
    use axum::middleware::from_fn_with_state;
    use axum::routing::get;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::{TcpListener, TcpStream};
    use tokio::sync::Notify;

    use super::*;
    use crate::http::{Routes, serve};

    /// A server with a route that panics and one that waits until it is told to go on.
    struct Server {
        address: SocketAddr,
        stop: Stop,
        tasks: Tasks,
        begun: Arc<AtomicUsize>,
        finished: Arc<AtomicUsize>,
        go_on: Arc<Notify>,
    }

    impl Server {
        async fn start() -> Self {
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            let (stop, tasks) = (Stop::new(), Tasks::default());
            let (begun, finished, go_on) =
                (Arc::<AtomicUsize>::default(), Arc::<AtomicUsize>::default(), Arc::<Notify>::default());
            let slow = {
                let (begun, finished, go_on) = (begun.clone(), finished.clone(), go_on.clone());
                move || async move {
                    begun.fetch_add(1, Ordering::SeqCst);
                    go_on.notified().await;
                    finished.fetch_add(1, Ordering::SeqCst);
                    "slow but sure"
                }
            };
            let router = Router::new()
                .route("/panic", get(async || -> &'static str { panic!("on purpose") }))
                .route("/slow", get(slow))
                .layer(from_fn_with_state(Work::new(stop.clone(), tasks.clone()), contained));
            let address = listener.local_addr().unwrap();
            let same = Routes { loopback: router.clone(), network: router };
            tasks.spawn(serve(listener, same, stop.clone(), tasks.clone()));
            Self { address, stop, tasks, begun, finished, go_on }
        }

        async fn ask(&self, path: &str) -> TcpStream {
            let mut stream = TcpStream::connect(self.address).await.unwrap();
            let request = format!("GET {path} HTTP/1.1\r\nhost: h\r\nconnection: close\r\n\r\n");
            stream.write_all(request.as_bytes()).await.unwrap();
            stream
        }

        async fn all_begun(&self, count: usize) {
            eventually("requests to begin", async || (self.begun.load(Ordering::SeqCst) == count).then_some(())).await;
        }

        async fn drained(&self) {
            tokio::time::timeout(PATIENCE, self.tasks.drained()).await.unwrap();
        }
    }

    async fn answer(mut stream: TcpStream) -> String {
        let mut text = String::new();
        stream.read_to_string(&mut text).await.unwrap();
        text
    }

    #[tokio::test]
    async fn a_panic_ends_its_request_only() {
        let server = Server::start().await;
        for _ in 0..2 {
            let text = answer(server.ask("/panic").await).await;
            assert!(text.starts_with("HTTP/1.1 500") && text.contains("INTERNAL_ERROR"), "{text}");
            assert!(!text.contains("on purpose"), "{text}");
        }
        server.stop.soft().cancel();
        server.drained().await;
    }

    #[tokio::test]
    async fn a_client_that_goes_away_does_not_stop_its_request() {
        let server = Server::start().await;
        drop(server.ask("/slow").await);
        server.all_begun(1).await;
        server.go_on.notify_one();
        eventually("it to finish", async || (server.finished.load(Ordering::SeqCst) == 1).then_some(())).await;
        server.stop.soft().cancel();
        server.drained().await;
    }

    #[tokio::test]
    async fn a_soft_stop_lets_requests_finish_and_a_hard_one_does_not() {
        let server = Server::start().await;
        let first = server.ask("/slow").await;
        server.all_begun(1).await;
        let second = server.ask("/slow").await;
        server.all_begun(2).await;
        server.stop.soft().cancel();
        server.go_on.notify_one();
        assert!(answer(first).await.contains("slow but sure"));
        server.stop.hard().cancel();
        server.drained().await;
        assert!(!answer(second).await.contains("slow but sure"));
    }

    #[tokio::test]
    async fn more_requests_than_turns_wait_and_are_all_answered() {
        let server = Server::start().await;
        let mut streams = Vec::new();
        for _ in 0..MOST_REQUESTS + 5 {
            streams.push(server.ask("/slow").await);
        }
        server.all_begun(MOST_REQUESTS).await;
        for done in 1..=MOST_REQUESTS + 5 {
            server.go_on.notify_one();
            eventually("the next", async || (server.finished.load(Ordering::SeqCst) == done).then_some(())).await;
        }
        for stream in streams {
            assert!(answer(stream).await.contains("slow but sure"));
        }
        server.stop.soft().cancel();
        server.drained().await;
    }
}
