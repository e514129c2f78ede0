//! An API that hands on to another one, call by call, and keeps those of certain paths until it is told to let them go.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use attune_http::{Body, Client, ClientConfig, Request};
use attune_lifecycle::Tasks;
use axum::Router;
use axum::body::to_bytes;
use axum::extract::State;
use axum::http::{Method, StatusCode};
use axum::response::Response;
use tokio::net::TcpListener;
use tokio::sync::watch;

/// A part of a path, and of which calls.
pub(crate) type Held = Option<(Method, &'static str)>;

#[derive(Debug)]
pub(crate) struct Relay {
    target: String,
    client: Client,
    held: watch::Sender<Held>,
    failing: Mutex<(Held, StatusCode)>,
    /// Calls that came, and those of them that have begun and not ended, by path.
    calls: Mutex<HashMap<String, (usize, usize)>>,
    /// Most calls for one file at the same time.
    most: Mutex<usize>,
    /// How many are kept now.
    kept: AtomicUsize,
}

impl Relay {
    /// In front of `target`; where it listens.
    pub(crate) async fn start(target: String, tasks: &Tasks) -> (Arc<Self>, SocketAddr) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let client = Client::build(&ClientConfig::default()).unwrap();
        let relay = Arc::new(Self {
            target,
            client,
            held: watch::Sender::default(),
            failing: Mutex::new((None, StatusCode::OK)),
            calls: Mutex::default(),
            most: Mutex::default(),
            kept: AtomicUsize::new(0),
        });
        let app = Router::new().fallback(hand_on).with_state(relay.clone());
        tasks.spawn_attendant(|rest| async move {
            tokio::select! {
                served = axum::serve(listener, app) => served.unwrap(),
                () = rest.cancelled() => {}
            }
        });
        (relay, address)
    }

    /// Keeps the calls of this method with a path that has `part` in it; none lets all go.
    pub(crate) fn hold(&self, held: Held) {
        self.held.send_replace(held);
    }

    /// Answers such calls with 503 for the time being; none answers none so.
    pub(crate) fn fail(&self, failing: Held) {
        *self.failing.lock().unwrap() = (failing, StatusCode::SERVICE_UNAVAILABLE);
    }

    /// Answers such calls as if it did not know who calls.
    pub(crate) fn refuse(&self, refused: Held) {
        *self.failing.lock().unwrap() = (refused, StatusCode::UNAUTHORIZED);
    }

    /// How many calls have come for paths with this part in them.
    pub(crate) fn calls(&self, part: &str) -> usize {
        let calls = self.calls.lock().unwrap();
        calls.iter().filter(|(path, _)| path.contains(part)).map(|(_, (came, _))| came).sum()
    }

    /// How many of them have not ended.
    pub(crate) fn under_way(&self, part: &str) -> usize {
        let calls = self.calls.lock().unwrap();
        calls.iter().filter(|(path, _)| path.contains(part)).map(|(_, (_, now))| now).sum()
    }

    /// Whether it has a call that it keeps. One that is only under way may be an earlier one, whose answer is not there yet.
    pub(crate) fn keeps_one(&self) -> bool {
        self.kept.load(Ordering::SeqCst) > 0
    }

    /// Most calls for one file at the same time.
    pub(crate) fn most_at_once(&self) -> usize {
        *self.most.lock().unwrap()
    }
}

/// A call that has begun; dropped, also because its caller has gone, it has ended.
struct Begun(Arc<Relay>, String);

impl Begun {
    fn new(relay: &Arc<Relay>, path: &str) -> Self {
        let mut calls = relay.calls.lock().unwrap();
        let (came, now) = calls.entry(path.to_owned()).or_default();
        (*came, *now) = (*came + 1, *now + 1);
        if path.contains("/files/") {
            let mut most = relay.most.lock().unwrap();
            *most = (*most).max(*now);
        }
        Self(relay.clone(), path.to_owned())
    }
}

impl Drop for Begun {
    fn drop(&mut self) {
        self.0.calls.lock().unwrap().get_mut(&self.1).unwrap().1 -= 1;
    }
}

/// A call that is kept, until it goes on or its caller has gone.
struct Kept<'a>(&'a AtomicUsize);

impl<'a> Kept<'a> {
    fn new(count: &'a AtomicUsize) -> Self {
        count.fetch_add(1, Ordering::SeqCst);
        Self(count)
    }
}

impl Drop for Kept<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

async fn hand_on(State(relay): State<Arc<Relay>>, asked: axum::extract::Request) -> Result<Response, StatusCode> {
    let (parts, body) = asked.into_parts();
    let path = parts.uri.path().to_owned();
    let _begun = Begun::new(&relay, &path);
    let body = to_bytes(body, usize::MAX).await.map_err(|_broken| StatusCode::BAD_REQUEST)?;
    let fits = |held: &Held| held.as_ref().is_some_and(|(method, part)| parts.method == method && path.contains(part));
    let mut held = relay.held.subscribe();
    if fits(&held.borrow()) {
        let _kept = Kept::new(&relay.kept);
        drop(held.wait_for(|held| !fits(held)).await);
    }
    let (failing, status) = relay.failing.lock().unwrap().clone();
    if fits(&failing) {
        return Err(status);
    }
    let mut request = Request::new(parts.method, format!("{}{path}", relay.target)).timeout(Duration::from_mins(1));
    for name in ["authorization", "content-type"] {
        if let Some(value) = parts.headers.get(name) {
            request = request.header(name, value.to_str().unwrap());
        }
    }
    request.body = Body::Bytes(body);
    let answer = relay.client.send(&request).await.map_err(|_away| StatusCode::BAD_GATEWAY)?;
    let mut handed_on = Response::builder().status(answer.status);
    for (name, value) in
        answer.headers.iter().filter(|(name, _)| ["content-type", "content-length"].contains(&name.as_str()))
    {
        handed_on = handed_on.header(name, value);
    }
    Ok(handed_on.body(answer.body.into()).unwrap())
}
