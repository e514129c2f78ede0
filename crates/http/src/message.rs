//! Requests and responses as plain values.

use std::fmt;
use std::fs::File;
use std::sync::Arc;
use std::time::Duration;

use attune_model::Secret;
use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use bytes::Bytes;
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::{HttpError, Problem};

/// Long enough for a busy API, short enough that nobody waits for a dead one.
const DEFAULT_TIMEOUT: Duration = Duration::from_secs(10);
/// How much of a refused answer goes into an error.
const EXCERPT_CHARS: usize = 300;

/// The method of a request.
pub type Method = reqwest::Method;

/// What is sent.
#[derive(Clone, Default)]
pub enum Body {
    /// Nothing.
    #[default]
    Empty,
    /// These bytes; the content type is the caller's to set.
    Bytes(Bytes),
    /// This JSON, with its content type.
    Json(Bytes),
    /// The first bytes of a file, so many, read while they are sent.
    File(Arc<File>, u64),
}

impl fmt::Debug for Body {
    /// Bodies may hold secrets: only their length is shown.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Empty => f.write_str("Empty"),
            Self::Bytes(bytes) => write!(f, "Bytes({})", bytes.len()),
            Self::Json(bytes) => write!(f, "Json({})", bytes.len()),
            Self::File(_, size_bytes) => write!(f, "File({size_bytes})"),
        }
    }
}

/// Where the body of an answer goes that is too large for memory.
#[derive(Debug, Clone)]
pub struct Sink {
    /// Written from its beginning; a later attempt overwrites an earlier one.
    pub file: Arc<File>,
    /// One byte more is an error.
    pub limit_bytes: u64,
}

/// One call.
#[derive(Debug, Clone)]
pub struct Request {
    /// What to do.
    pub method: Method,
    /// With what; `http` or `https`.
    pub url: String,
    /// Added to the URL, encoded.
    pub query: Vec<(String, String)>,
    /// Names and values as given; values are treated as secrets.
    pub headers: Vec<(String, Secret)>,
    /// What is sent.
    pub body: Body,
    /// Takes the body of a 2xx, which the response then does not have. Everything else is bounded by the client.
    pub sink: Option<Sink>,
    /// From the first packet to the last byte of the answer, redirects included.
    pub timeout: Duration,
}

impl Request {
    /// A request without body and headers, with a time limit of 10 s.
    pub fn new(method: Method, url: impl Into<String>) -> Self {
        Self {
            method,
            url: url.into(),
            query: Vec::new(),
            headers: Vec::new(),
            body: Body::Empty,
            sink: None,
            timeout: DEFAULT_TIMEOUT,
        }
    }

    /// `GET url`.
    pub fn get(url: impl Into<String>) -> Self {
        Self::new(Method::GET, url)
    }

    /// `POST url` with `value` as JSON.
    pub fn post_json<T: Serialize + ?Sized>(url: impl Into<String>, value: &T) -> Result<Self, HttpError> {
        let mut request = Self::new(Method::POST, url);
        let json = serde_json::to_vec(value).map_err(|error| request.failed(Problem::Invalid(error.to_string())))?;
        request.body = Body::Json(json.into());
        Ok(request)
    }

    /// Adds a header.
    #[must_use]
    pub fn header(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.headers.push((name.into(), Secret::new(value.into())));
        self
    }

    /// Authenticates with a token.
    #[must_use]
    pub fn bearer(self, token: &Secret) -> Self {
        let value = format!("Bearer {}", token.expose());
        self.header("authorization", value)
    }

    /// Authenticates with a name and a password.
    #[must_use]
    pub fn basic(self, username: &str, password: &Secret) -> Self {
        let pair = BASE64.encode(format!("{username}:{}", password.expose()));
        self.header("authorization", format!("Basic {pair}"))
    }

    /// Adds a query parameter.
    #[must_use]
    pub fn query(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.query.push((name.into(), value.into()));
        self
    }

    /// Replaces the time limit.
    #[must_use]
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = timeout;
        self
    }

    /// The error of this request.
    pub(crate) fn failed(&self, problem: Problem) -> HttpError {
        HttpError { method: self.method.clone(), url: printable(&self.url), problem }
    }
}

/// A text as one segment of a path, encoded as forms are: a space becomes `+`.
pub fn form_encoded(text: &str) -> String {
    let mut encoded = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'*' | b'-' | b'.' | b'_' => encoded.push(char::from(byte)),
            b' ' => encoded.push('+'),
            other => {
                let digit = |value: u8| char::from(b"0123456789ABCDEF"[usize::from(value)]);
                encoded.extend(['%', digit(other >> 4), digit(other & 15)]);
            }
        }
    }
    encoded
}

/// `url` without what may be secret in it.
fn printable(url: &str) -> String {
    match reqwest::Url::parse(url) {
        Ok(mut parsed) => {
            // Fails only for URLs that cannot have user information.
            let (_no_user, _no_password) = (parsed.set_username("").is_ok(), parsed.set_password(None).is_ok());
            parsed.set_query(None);
            parsed.set_fragment(None);
            parsed.to_string()
        }
        Err(_) => "(a URL that does not parse)".to_owned(),
    }
}

/// A whole answer, of whatever status.
#[derive(Debug, Clone)]
pub struct Response {
    /// The code.
    pub status: u16,
    /// Lower-case names and values in the order of the answer; values that are not UTF-8 are shown as well as possible.
    pub headers: Vec<(String, String)>,
    /// All of it, within the client's bound.
    pub body: Vec<u8>,
    /// Where it came from, after redirects.
    pub url: String,
    /// How long it took.
    pub elapsed: Duration,
    /// What it answers, for errors.
    pub(crate) asked: (Method, String),
}

impl Response {
    /// Whether the status is 2xx.
    pub fn is_success(&self) -> bool {
        (200..300).contains(&self.status)
    }

    /// The answer itself if its status is 2xx, else an error with the beginning of its body.
    pub fn success(self) -> Result<Self, HttpError> {
        if self.is_success() {
            return Ok(self);
        }
        let text = String::from_utf8_lossy(&self.body);
        let excerpt = text.trim().chars().take(EXCERPT_CHARS).collect();
        Err(self.failed(Problem::Status { status: self.status, excerpt }))
    }

    /// The body as `T`.
    pub fn json<T: DeserializeOwned>(&self) -> Result<T, HttpError> {
        serde_json::from_slice(&self.body).map_err(|error| self.failed(Problem::Shape(error)))
    }

    fn failed(&self, problem: Problem) -> HttpError {
        HttpError { method: self.asked.0.clone(), url: self.asked.1.clone(), problem }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_shows_neither_credentials_nor_query_nor_headers() {
        let request = Request::get("http://user:hunter2@host:1/path?token=abc#part")
            .bearer(&Secret::new("s3cret".to_owned()))
            .timeout(Duration::from_secs(1));
        let error = request.failed(Problem::Connect("refused".into()));
        assert_eq!(error.to_string(), "GET http://host:1/path");
        let shown = format!("{error:?} {:?}", request.headers);
        assert!(!shown.contains("hunter2") && !shown.contains("abc") && !shown.contains("s3cret"), "{shown}");
    }
}
