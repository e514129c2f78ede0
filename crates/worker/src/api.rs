//! The platform's API, as far as a worker without shared folders needs it: files of executions and archives of packs.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use attune_http::{Body, Client, HttpError, Method, Problem, Request, Response, form_encoded};
use attune_lifecycle::Backoff;
use attune_model::Secret;
use attune_model::chain;
use attune_model::clock::Clock;
use attune_security::{Agent, TokenKey, sign_worker_token};
use chrono::{DateTime, TimeDelta, Utc};

/// For one call, from connecting to the last byte. A fact of the platform.
const CALL_LIMIT: Duration = Duration::from_mins(5);

/// A token is replaced when it is this old; it lives twice as long.
const RENEW_AFTER: TimeDelta = TimeDelta::hours(12);

/// How often a call is tried while the API is away.
const ATTEMPTS: u32 = 3;

const UNAUTHORIZED: u16 = 401;
const NOT_FOUND: u16 = 404;

/// The API with the worker's token.
#[derive(Debug, Clone)]
pub(crate) struct Api {
    client: Client,
    base: String,
    token: Arc<Token>,
}

#[derive(Debug)]
struct Token {
    key: Option<TokenKey>,
    clock: Arc<dyn Clock>,
    current: Mutex<Option<(Secret, DateTime<Utc>)>>,
}

impl Token {
    /// The token, made anew when it is old. None without a key: the call then says what the API says.
    fn get(&self) -> Option<Secret> {
        let key = self.key.as_ref()?;
        let now = self.clock.now();
        let mut current = self.current.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((token, signed)) = &*current
            && now.signed_duration_since(*signed).abs() < RENEW_AFTER
        {
            return Some(token.clone());
        }
        match sign_worker_token(key, Agent::Worker, now) {
            Ok(token) => {
                *current = Some((token.clone(), now));
                Some(token)
            }
            Err(error) => {
                tracing::warn!(error = chain(&error), "the worker has no token for the API");
                None
            }
        }
    }

    fn forget(&self) {
        *self.current.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }
}

impl Api {
    /// The API at `base`, with tokens signed by `key`.
    pub(crate) fn new(client: Client, base: &str, key: Option<TokenKey>, clock: Arc<dyn Clock>) -> Self {
        let token = Arc::new(Token { key, clock, current: Mutex::default() });
        Self { client, base: base.trim_end_matches('/').to_owned(), token }
    }

    /// Sends a whole file.
    pub(crate) async fn put_file(&self, file_path: &str, content: Vec<u8>) -> Result<(), HttpError> {
        let mut request = self.request(Method::PUT, &file_url(file_path));
        request.body = Body::Bytes(content);
        self.send(request).await?.success().map(drop)
    }

    /// How long a file is; none when there is none.
    pub(crate) async fn file_size(&self, file_path: &str) -> Result<Option<u64>, HttpError> {
        let answer = self.send(self.request(Method::HEAD, &file_url(file_path))).await?;
        if answer.status == NOT_FOUND {
            return Ok(None);
        }
        let answer = answer.success()?;
        let length = answer.headers.iter().find(|(name, _)| name == "content-length");
        Ok(length.and_then(|(_, value)| value.parse().ok()))
    }

    /// Removes a file; one that is not there is no error.
    pub(crate) async fn delete_file(&self, file_path: &str) -> Result<(), HttpError> {
        let answer = self.send(self.request(Method::DELETE, &file_url(file_path))).await?;
        if answer.status == NOT_FOUND { Ok(()) } else { answer.success().map(drop) }
    }

    /// The archive of a pack; none when the API does not have the pack.
    pub(crate) async fn pack_archive(&self, pack_ref: &str) -> Result<Option<Vec<u8>>, HttpError> {
        let path = format!("/api/v1/internal/packs/{}/archive", form_encoded(pack_ref));
        let answer = self.send(self.request(Method::GET, &path)).await?;
        if answer.status == NOT_FOUND { Ok(None) } else { answer.success().map(|answer| Some(answer.body)) }
    }

    fn request(&self, method: Method, path: &str) -> Request {
        Request::new(method, format!("{}{path}", self.base)).timeout(CALL_LIMIT)
    }

    /// Tries again while nobody answers, and once with a new token.
    async fn send(&self, request: Request) -> Result<Response, HttpError> {
        let mut backoff = Backoff::new(Duration::from_millis(100), Duration::from_secs(1));
        let mut renewed = false;
        loop {
            let mut authorized = request.clone();
            if let Some(token) = self.token.get() {
                authorized = authorized.bearer(&token);
            }
            match self.client.send(&authorized).await {
                Ok(answer) if answer.status == UNAUTHORIZED && !renewed => {
                    renewed = true;
                    self.token.forget();
                }
                Err(error) if is_short(&error) && backoff.attempts() + 1 < ATTEMPTS => {
                    tokio::time::sleep(backoff.next_delay()).await;
                }
                answered => return answered,
            }
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
    use attune_http::ClientConfig;

    use super::*;

    #[derive(Debug)]
    struct At(Mutex<DateTime<Utc>>);

    impl Clock for At {
        fn now(&self) -> DateTime<Utc> {
            *self.0.lock().unwrap()
        }
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
        let api = Api::new(client, "http://api/", Some(key.clone()), clock.clone());
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
