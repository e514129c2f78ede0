//! Connections: how many, how long they may take, how they end.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use attune_lifecycle::{Stop, Tasks};
use axum::Router;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::time::sleep;

use super::Routes;

/// Most open connections; more wait in the backlog of the kernel.
const MOST_CONNECTIONS: usize = 512;

/// How long a client may take to send the head of a request, and to begin the next one.
const HEAD_LIMIT: Duration = Duration::from_secs(30);

/// How long one connection is used; clients open another without noticing. It also ends clients that do not read.
const CONNECTION_LIMIT: Duration = Duration::from_mins(10);

/// How long a connection that is to end may take to finish its request.
const FINISH_LIMIT: Duration = Duration::from_mins(1);

/// Wait after a failed accept: the process may be out of descriptors until others are closed.
const ACCEPT_PAUSE: Duration = Duration::from_millis(200);

/// Accepts connections until the stop.
pub(crate) async fn serve(listener: TcpListener, routes: Routes, stop: Stop, tasks: Tasks) {
    let places = Arc::new(Semaphore::new(MOST_CONNECTIONS));
    loop {
        let next = async {
            let place = places.clone().acquire_owned().await;
            (place, listener.accept().await)
        };
        let (place, accepted) = tokio::select! {
            biased;
            () = stop.soft().cancelled() => return,
            next = next => next,
        };
        match accepted {
            Ok((stream, peer)) => {
                let connection = connection(stream, routes.of(peer.ip()), stop.clone());
                tasks.spawn(async move {
                    let _place = place;
                    connection.await;
                });
            }
            Err(error) if concerns_one_client(&error) => {}
            Err(error) => {
                tracing::error!(error = &error as &dyn std::error::Error, "failed to accept a connection");
                tokio::select! {
                    () = stop.soft().cancelled() => return,
                    () = sleep(ACCEPT_PAUSE) => {}
                }
            }
        }
    }
}

fn concerns_one_client(error: &io::Error) -> bool {
    use io::ErrorKind as K;
    matches!(error.kind(), K::ConnectionAborted | K::ConnectionReset | K::ConnectionRefused | K::Interrupted)
}

async fn connection(stream: TcpStream, router: Router, stop: Stop) {
    if let Err(error) = stream.set_nodelay(true) {
        let error: &dyn std::error::Error = &error;
        tracing::debug!(error, "small answers may be slow");
    }
    let served = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_LIMIT)
        .serve_connection(TokioIo::new(stream), TowerToHyperService::new(router));
    tokio::pin!(served);
    let ended = tokio::select! {
        ended = served.as_mut() => ended,
        () = async { tokio::select! { () = stop.soft().cancelled() => {}, () = sleep(CONNECTION_LIMIT) => {} } } => {
            served.as_mut().graceful_shutdown();
            tokio::select! {
                ended = served.as_mut() => ended,
                () = stop.hard().cancelled() => return,
                () = sleep(FINISH_LIMIT) => return,
            }
        }
    };
    if let Err(error) = ended {
        let error: &dyn std::error::Error = &error;
        tracing::debug!(error, "connection ended early");
    }
}
