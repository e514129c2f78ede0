//! The platform's API, as far as agents without shared folders need it: files below the folder of artifacts and archives of packs.
//!
//! Which way files and packs travel is decided once, at the start of an agent: a folder counts as shared when the API has left
//! its mark in it. Paths, limits, tokens and the mark are facts of the platform.

use std::fs;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use attune_lifecycle::Backoff;
use attune_model::clock::Clock;
use attune_model::{Secret, chain};
use attune_security::{Agent, TokenKey, sign_worker_token};
use chrono::{DateTime, TimeDelta, Utc};
use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::{Body, Client, HttpError, Method, Problem, Request, Response, Sink, form_encoded};

/// Most bytes of one file that the API takes.
pub const UPLOAD_LIMIT_BYTES: u64 = 100 * 1024 * 1024;

/// What the API leaves in a folder of artifacts that it shares.
const SENTINEL: &str = ".attune-api-sentinel";

/// For one call, from connecting to the last byte.
const CALL_LIMIT: Duration = Duration::from_mins(5);

/// A token is replaced when it is this old; it lives twice as long.
const RENEW_AFTER: TimeDelta = TimeDelta::hours(12);

/// How often a call is tried while the API is away.
const ATTEMPTS: u32 = 3;

const UNAUTHORIZED: u16 = 401;
const NOT_FOUND: u16 = 404;

/// How files or packs travel.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Transport {
    /// Through the folder: it is shared with the platform, or there is nobody else.
    #[default]
    Folder,
    /// Through the API.
    Api,
    /// Through the folder when the API has left its mark in it, else through the API.
    Auto,
}

impl Transport {
    /// Whether it is the API, for a folder that is shared or is not.
    pub fn is_api(self, is_shared: impl FnOnce() -> bool) -> bool {
        match self {
            Self::Folder => false,
            Self::Api => true,
            Self::Auto => !is_shared(),
        }
    }
}

/// Whether the API shares the folder of artifacts. Any readable mark counts, whatever is in it.
pub fn shares_artifacts(artifacts_dir: &Path) -> bool {
    fs::File::open(artifacts_dir.join(SENTINEL)).is_ok()
}

/// The API with the token of an agent.
#[derive(Debug, Clone)]
pub struct PlatformApi {
    client: Client,
    base: String,
    token: Arc<AgentToken>,
    /// Whether the API has asked for the token where the platform's own wants none.
    asks_for_token: Arc<AtomicBool>,
    call_limit: Duration,
}

/// The token of an agent, made anew when it is old.
#[derive(Debug)]
pub struct AgentToken {
    agent: Agent,
    key: Option<TokenKey>,
    clock: Arc<dyn Clock>,
    current: Mutex<Option<(Secret, DateTime<Utc>)>>,
}

impl AgentToken {
    /// The token of such an agent, signed by `key`.
    pub fn new(agent: Agent, key: Option<TokenKey>, clock: Arc<dyn Clock>) -> Self {
        Self { agent, key, clock, current: Mutex::default() }
    }

    /// None without a key: a call then says what the API says.
    fn get(&self) -> Option<Secret> {
        let key = self.key.as_ref()?;
        let now = self.clock.now();
        let mut current = self.current.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((token, signed)) = &*current
            && now.signed_duration_since(*signed).abs() < RENEW_AFTER
        {
            return Some(token.clone());
        }
        match sign_worker_token(key, self.agent, now) {
            Ok(token) => {
                *current = Some((token.clone(), now));
                Some(token)
            }
            Err(error) => {
                tracing::warn!(error = chain(&error), "the agent has no token for the API");
                None
            }
        }
    }

    fn forget(&self) {
        *self.current.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }
}

impl PlatformApi {
    /// The API at `base`.
    pub fn new(client: Client, base: &str, token: AgentToken) -> Self {
        let base = base.trim_end_matches('/').to_owned();
        Self { client, base, token: Arc::new(token), asks_for_token: Arc::default(), call_limit: CALL_LIMIT }
    }

    /// Replaces the time limit of a call.
    #[must_use]
    pub fn with_call_limit(mut self, limit: Duration) -> Self {
        self.call_limit = limit;
        self
    }

    /// Sends the first `size_bytes` of a file, which becomes the whole file there. It is never in memory as a whole.
    pub async fn put_file(&self, file_path: &str, file: fs::File, size_bytes: u64) -> Result<(), HttpError> {
        let mut request = self.request(Method::PUT, &file_url(file_path));
        request.body = Body::File(Arc::new(file), size_bytes);
        self.send(request).await?.success().map(drop)
    }

    /// Adds to a file; one that is not there begins with this. Never tried again by itself: after an error it may have
    /// been done, in part or as a whole, unless no connection was made.
    pub async fn append_file(&self, file_path: &str, content: Vec<u8>) -> Result<(), HttpError> {
        let mut request = self.request(Method::PATCH, &file_url(file_path));
        request.body = Body::Bytes(content.into());
        self.send_authorized(&request).await?.success().map(drop)
    }

    /// How long a file is; none when there is none.
    pub async fn file_size(&self, file_path: &str) -> Result<Option<u64>, HttpError> {
        let request = self.request(Method::HEAD, &file_url(file_path));
        let answer = self.send(request.clone()).await?;
        if answer.status == NOT_FOUND {
            return Ok(None);
        }
        let failed = |problem: &str| request.failed(Problem::Transport(problem.to_owned()));
        let answer = answer.success()?;
        let length = answer.headers.iter().find(|(name, _)| name == "content-length");
        let length = length.and_then(|(_, value)| value.parse().ok());
        // Not the same as a file that is not there.
        length.map(Some).ok_or_else(|| failed("the answer does not say how long the file is"))
    }

    /// Removes a file; one that is not there is no error.
    pub async fn delete_file(&self, file_path: &str) -> Result<(), HttpError> {
        let answer = self.send(self.request(Method::DELETE, &file_url(file_path))).await?;
        if answer.status == NOT_FOUND { Ok(()) } else { answer.success().map(drop) }
    }

    /// Fetches the archive of a pack; false when the API does not have the pack.
    pub async fn pack_archive(&self, pack_ref: &str, sink: Sink) -> Result<bool, HttpError> {
        let path = format!("/api/v1/internal/packs/{}/archive", form_encoded(pack_ref));
        let request = Request { sink: Some(sink), ..self.request(Method::GET, &path) };
        let answer = self.send(request).await?;
        if answer.status == NOT_FOUND { Ok(false) } else { answer.success().map(|_| true) }
    }

    /// Posts `value` and reads the JSON of the answer, within `limit`. Not tried again while nobody answers. The token is not sent
    /// (a fact of the platform) unless the API answers 401 without it; from then on it is. The limit is that of each request.
    pub async fn post<T: DeserializeOwned>(&self, path: &str, value: &Value, limit: Duration) -> Result<T, HttpError> {
        let request = Request::post_json(format!("{}{path}", self.base), value)?.timeout(limit);
        if !self.asks_for_token.load(Ordering::Relaxed) {
            let answer = self.client.send(&request).await?;
            if answer.status != UNAUTHORIZED || self.token.get().is_none() {
                return answer.success()?.json();
            }
            self.asks_for_token.store(true, Ordering::Relaxed);
        }
        self.send_authorized(&request).await?.success()?.json()
    }

    fn request(&self, method: Method, path: &str) -> Request {
        Request::new(method, format!("{}{path}", self.base)).timeout(self.call_limit)
    }

    /// Tries again while nobody answers.
    async fn send(&self, request: Request) -> Result<Response, HttpError> {
        let mut backoff = Backoff::new(Duration::from_millis(100), Duration::from_secs(1));
        loop {
            match self.send_authorized(&request).await {
                Err(error) if is_short(&error) && backoff.attempts() + 1 < ATTEMPTS => {
                    tokio::time::sleep(backoff.next_delay()).await;
                }
                answered => return answered,
            }
        }
    }

    /// Tries again only when the token was refused, and once, with a new one.
    async fn send_authorized(&self, request: &Request) -> Result<Response, HttpError> {
        let answer = self.client.send(&self.authorized(request)).await?;
        if answer.status != UNAUTHORIZED {
            return Ok(answer);
        }
        self.token.forget();
        self.client.send(&self.authorized(request)).await
    }

    fn authorized(&self, request: &Request) -> Request {
        let request = request.clone();
        match self.token.get() {
            Some(token) => request.bearer(&token),
            None => request,
        }
    }
}

/// A failure that may be over at once. One that took the whole time limit is not.
fn is_short(error: &HttpError) -> bool {
    matches!(error.problem, Problem::Connect(_) | Problem::Transport(_))
}

/// Each segment of the path by itself, as forms are encoded. A fact of the platform.
fn file_url(file_path: &str) -> String {
    let segments: Vec<String> = file_path.split('/').map(form_encoded).collect();
    format!("/api/v1/internal/files/{}", segments.join("/"))
}

#[cfg(test)]
mod tests {
    use crate::ClientConfig;

    use super::*;

    #[derive(Debug)]
    struct At(Mutex<DateTime<Utc>>);

    impl Clock for At {
        fn now(&self) -> DateTime<Utc> {
            *self.0.lock().unwrap()
        }
    }

    #[test]
    fn any_readable_mark_counts() {
        let dir = tempfile::tempdir().unwrap();
        let by_api = |way: Transport| way.is_api(|| shares_artifacts(dir.path()));
        assert_eq!([Transport::Folder, Transport::Api, Transport::Auto].map(by_api), [false, true, true]);
        fs::write(dir.path().join(SENTINEL), "not even JSON").unwrap();
        assert_eq!([Transport::Folder, Transport::Api, Transport::Auto].map(by_api), [false, true, false]);
    }

    #[test]
    fn segments_are_encoded_one_by_one() {
        assert_eq!(file_url("demo/my file+x/v1.txt"), "/api/v1/internal/files/demo/my+file%2Bx/v1.txt");
    }

    #[test]
    fn a_token_is_renewed_in_time() {
        let clock = Arc::new(At(Mutex::new(Utc::now())));
        let key = TokenKey::new(&Secret::new("secret".to_owned())).unwrap();
        let client = Client::build(&ClientConfig::default()).unwrap();
        let api =
            PlatformApi::new(client, "http://api/", AgentToken::new(Agent::Worker, Some(key.clone()), clock.clone()));
        let first = api.token.get().unwrap();
        assert_eq!(api.token.get().unwrap().expose(), first.expose());
        let claims = key.verify(first.expose(), clock.now()).unwrap();
        assert_eq!((claims.scope.as_deref(), claims.sub.as_str()), (Some("internal_files"), "1"));
        *clock.0.lock().unwrap() += RENEW_AFTER;
        let second = api.token.get().unwrap();
        assert_ne!(second.expose(), first.expose());
        *clock.0.lock().unwrap() -= RENEW_AFTER * 2;
        assert_ne!(api.token.get().unwrap().expose(), second.expose(), "also when the clock was set back");
    }
}
