//! Connections: how many, how long they may take, how they end.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::error::Error;
use std::io;
use std::time::Duration;

use attune_lifecycle::{Backoff, CancellationToken, Stop, Tasks};
use attune_model::listen::Listen;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use thiserror::Error as ThisError;
use tokio::task::AbortHandle;
use tokio::time::{sleep, timeout};

use crate::answer::answer;
use crate::health::Health;
use crate::listener::{Listener, Stream};
use crate::notify::{self, NotifyConfig};

/// Most open connections; the oldest makes room for a new one.
const MOST_CONNECTIONS: usize = 32;

/// How long a client may take to send the head of its request.
const HEAD_LIMIT: Duration = Duration::from_secs(2);

/// How long a connection lives. Each has one request.
const CONNECTION_LIMIT: Duration = Duration::from_secs(5);

/// Most bytes of a head.
const HEAD_BYTES: usize = 8 * 1024;

/// Most header lines.
const MOST_HEADERS: usize = 64;

/// Wait after a failed accept: the process may be out of descriptors until others are closed.
const ACCEPT_PAUSE: Duration = Duration::from_millis(200);

/// Health cannot be told.
#[derive(Debug, ThisError)]
pub enum ServeError {
    /// The configured address cannot be used.
    #[error("health.listen: {listen} cannot be listened on")]
    Bind {
        /// The address.
        listen: Listen,
        /// Why.
        #[source]
        source: io::Error,
    },
}

/// Tells `health` at `listen`, and the service manager if `notify` names one, until everything else among `tasks` has ended.
///
/// Returns the address with the port that the kernel chose, [`Listen::Off`] when nobody is told.
pub async fn serve(
    listen: &Listen,
    notify: Option<NotifyConfig>,
    health: &Health,
    (stop, tasks): (&Stop, &Tasks),
) -> Result<Listen, ServeError> {
    if let Some(notify) = notify {
        let (health, soft) = (health.clone(), stop.soft().clone());
        tasks.spawn_attendant(|rest| notify::tell(notify, health, soft, rest));
    }
    let bound = Listener::bind(listen).await;
    let address = match bound {
        Ok(None) => return Ok(Listen::Off),
        Ok(Some(listener)) => {
            let address = listener.address(listen);
            spawn(listener, health, tasks);
            address
        }
        // It has no place that could be corrected: another agent of this name is there, most often one that is just ending.
        Err(error) if matches!(listen, Listen::Abstract(_)) && error.kind() == io::ErrorKind::AddrInUse => {
            tracing::warn!(%listen, "another process tells the health of an agent of this name; waiting for its end");
            let (health, listen) = (health.clone(), listen.clone());
            let (waiting, address) = (tasks.clone(), listen.clone());
            tasks.spawn_attendant(|rest| bind_later(listen, health, waiting, rest));
            return Ok(address);
        }
        Err(source) => return Err(ServeError::Bind { listen: listen.clone(), source }),
    };
    tracing::info!("health is told at {address}");
    Ok(address)
}

fn spawn(listener: Listener, health: &Health, tasks: &Tasks) {
    let (health, connections) = (health.clone(), tasks.clone());
    tasks.spawn_attendant(|rest| accept(listener, health, connections, rest));
}

async fn bind_later(listen: Listen, health: Health, tasks: Tasks, rest: CancellationToken) {
    let mut backoff = Backoff::new(Duration::from_millis(100), Duration::from_secs(5));
    loop {
        tokio::select! {
            () = rest.cancelled() => return,
            () = sleep(backoff.next_delay()) => {}
        }
        if let Ok(Some(listener)) = Listener::bind(&listen).await {
            tracing::info!("health is told at {listen}");
            return accept(listener, health, tasks, rest).await;
        }
    }
}

async fn accept(listener: Listener, health: Health, tasks: Tasks, rest: CancellationToken) {
    let mut open = VecDeque::with_capacity(MOST_CONNECTIONS);
    loop {
        let accepted = tokio::select! {
            biased;
            () = rest.cancelled() => return,
            accepted = listener.accept() => accepted,
        };
        match accepted {
            Ok(None) => {}
            Ok(Some(stream)) => {
                make_room(&mut open);
                let health = health.clone();
                let connection = tasks.spawn_attendant(|rest| async move {
                    tokio::select! {
                        () = rest.cancelled() => {}
                        () = connection(stream, health) => {}
                    }
                });
                open.push_back(connection.abort_handle());
            }
            Err(error) if concerns_one_client(&error) => {}
            Err(error) => {
                tracing::warn!(error = &error as &dyn Error, "failed to accept a health check");
                tokio::select! {
                    () = rest.cancelled() => return,
                    () = sleep(ACCEPT_PAUSE) => {}
                }
            }
        }
    }
}

/// An answer takes a moment, so the oldest connection is the one that is being held. Letting new ones wait instead would
/// let clients that say nothing keep out the checks that decide about a restart.
fn make_room(open: &mut VecDeque<AbortHandle>) {
    open.retain(|connection| !connection.is_finished());
    while open.len() >= MOST_CONNECTIONS {
        if let Some(oldest) = open.pop_front() {
            oldest.abort();
        }
    }
}

fn concerns_one_client(error: &io::Error) -> bool {
    use io::ErrorKind as K;
    matches!(error.kind(), K::ConnectionAborted | K::ConnectionReset | K::ConnectionRefused | K::Interrupted)
}

async fn connection(stream: Box<dyn Stream>, health: Health) {
    let service = service_fn(move |request| {
        let response = answer(&health, &request);
        async move { Ok::<_, Infallible>(response) }
    });
    let served = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_LIMIT)
        .max_buf_size(HEAD_BYTES)
        .max_headers(MOST_HEADERS)
        .keep_alive(false)
        .serve_connection(TokioIo::new(stream), service);
    match timeout(CONNECTION_LIMIT, served).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => tracing::debug!(error = &error as &dyn Error, "health check ended early"),
        Err(_elapsed) => tracing::debug!("health check took too long"),
    }
}
