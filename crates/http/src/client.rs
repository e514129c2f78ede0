//! The client: sends a request, reads the bounded answer.

use std::error::Error;
use std::net::IpAddr;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use serde::de::DeserializeOwned;

use crate::file_body::FileBody;
use crate::file_sink::FileSink;
use crate::{Body, BuildError, HttpError, Problem, Request, Response, Verification, tls};

/// Answers of the platform's API are far smaller; a list page is the largest.
const DEFAULT_RESPONSE_LIMIT: usize = 8 * 1024 * 1024;
/// A host on the same network answers the handshake in milliseconds.
const DEFAULT_CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// What to do with 3xx.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Redirects {
    /// They are answers like others.
    Return,
    /// They are followed, at most so many.
    Follow {
        /// One more is an error.
        limit: usize,
    },
}

/// Settings of a client.
#[derive(Debug, Clone)]
pub struct ClientConfig {
    /// PEM certificates that are trusted besides the built-in roots.
    pub ca_file: Option<PathBuf>,
    /// Whether servers prove who they are.
    pub verification: Verification,
    /// What happens with 3xx.
    pub redirects: Redirects,
    /// For the connection alone; the time limit of a request covers everything.
    pub connect_timeout: Duration,
    /// Longest body that is read.
    pub response_limit_bytes: usize,
}

impl Default for ClientConfig {
    fn default() -> Self {
        Self {
            ca_file: None,
            verification: Verification::Full,
            redirects: Redirects::Return,
            connect_timeout: DEFAULT_CONNECT_TIMEOUT,
            response_limit_bytes: DEFAULT_RESPONSE_LIMIT,
        }
    }
}

/// A client with its connections. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Client {
    /// Follows the proxy variables of the environment.
    proxied: reqwest::Client,
    /// For this host itself, which no proxy can reach for us.
    direct: reqwest::Client,
    response_limit_bytes: usize,
}

impl Client {
    /// Makes a client.
    pub fn build(config: &ClientConfig) -> Result<Self, BuildError> {
        let ClientConfig { ca_file, verification, redirects, connect_timeout, response_limit_bytes } = config;
        let tls = tls::configuration(*verification, ca_file.as_deref())?;
        let builder = || {
            reqwest::Client::builder()
                .tls_backend_preconfigured(tls.clone())
                .connect_timeout(*connect_timeout)
                .user_agent(concat!("attune-agents/", env!("CARGO_PKG_VERSION")))
                .redirect(match redirects {
                    Redirects::Return => reqwest::redirect::Policy::none(),
                    Redirects::Follow { limit } => reqwest::redirect::Policy::limited(*limit),
                })
        };
        Ok(Self {
            proxied: builder().build().map_err(|source| BuildError::Client { source })?,
            direct: builder().no_proxy().build().map_err(|source| BuildError::Client { source })?,
            response_limit_bytes: *response_limit_bytes,
        })
    }

    /// Sends a request and reads the whole answer, whatever its status.
    pub async fn send(&self, request: &Request) -> Result<Response, HttpError> {
        let begun = Instant::now();
        // The library's own limit restarts with each redirect; this one does not.
        let mut response = match tokio::time::timeout(request.timeout, self.exchange(request)).await {
            Ok(outcome) => outcome.map_err(|problem| request.failed(problem))?,
            Err(_elapsed) => return Err(request.failed(Problem::TimedOut(request.timeout))),
        };
        response.elapsed = begun.elapsed();
        Ok(response)
    }

    /// Sends a request that has to be answered with 2xx and JSON.
    pub async fn send_for_json<T: DeserializeOwned>(&self, request: &Request) -> Result<T, HttpError> {
        self.send(request).await?.success()?.json()
    }

    async fn exchange(&self, request: &Request) -> Result<Response, Problem> {
        let url = reqwest::Url::parse(&request.url).map_err(|error| {
            let hint = match error {
                url::ParseError::IdnaError => ": names of hosts are written in ASCII, such as xn--bcher-kva.example",
                _ => "",
            };
            Problem::Invalid(format!("{error}{hint}"))
        })?;
        let client = if is_this_host(&url) { &self.direct } else { &self.proxied };
        let mut builder = client.request(request.method.clone(), url);
        for (name, value) in &request.headers {
            builder = builder.header(name, value.expose());
        }
        builder = match &request.body {
            Body::Empty => builder,
            Body::Bytes(bytes) => builder.body(bytes.clone()),
            Body::File(file, size_bytes) => builder.body(reqwest::Body::wrap(FileBody::new(file.clone(), *size_bytes))),
            Body::Json(bytes) => builder.header("content-type", "application/json").body(bytes.clone()),
        };
        let mut built = builder.build().map_err(|error| Problem::Invalid(chain(&error)))?;
        if !request.query.is_empty() {
            built.url_mut().query_pairs_mut().extend_pairs(&request.query);
        }
        let answer = client.execute(built).await.map_err(|error| problem_of(&error))?;
        self.read(request, answer).await
    }

    async fn read(&self, request: &Request, mut answer: reqwest::Response) -> Result<Response, Problem> {
        let headers = answer
            .headers()
            .iter()
            .map(|(name, value)| (name.as_str().to_owned(), String::from_utf8_lossy(value.as_bytes()).into_owned()))
            .collect();
        let body = match request.sink.clone().filter(|_| answer.status().is_success()) {
            Some(sink) => {
                let mut sink = FileSink::new(sink);
                while let Some(chunk) = answer.chunk().await.map_err(|error| problem_of(&error))? {
                    sink.take(&chunk).await?;
                }
                sink.finish().await?;
                Vec::new()
            }
            None => self.body(&mut answer).await?,
        };
        let asked = request.failed(Problem::Invalid(String::new()));
        Ok(Response {
            status: answer.status().as_u16(),
            headers,
            body,
            url: answer.url().to_string(),
            elapsed: Duration::ZERO,
            asked: (asked.method, asked.url),
        })
    }
}

impl Client {
    async fn body(&self, answer: &mut reqwest::Response) -> Result<Vec<u8>, Problem> {
        let limit_bytes = self.response_limit_bytes;
        let mut body = Vec::new();
        while let Some(chunk) = answer.chunk().await.map_err(|error| problem_of(&error))? {
            if body.len() + chunk.len() > limit_bytes {
                return Err(Problem::TooLong { limit_bytes: limit_bytes as u64 });
            }
            body.extend_from_slice(&chunk);
        }
        Ok(body)
    }
}

fn is_this_host(url: &reqwest::Url) -> bool {
    let host = url.host_str().unwrap_or_default().trim_start_matches('[').trim_end_matches(']');
    host == "localhost" || host.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
}

fn problem_of(error: &reqwest::Error) -> Problem {
    if error.is_connect() {
        Problem::Connect(chain(error))
    } else if error.is_builder() || error.is_redirect() {
        Problem::Invalid(chain(error))
    } else {
        Problem::Transport(chain(error))
    }
}

/// The causes of a library error without its own text, which repeats the whole URL.
fn chain(error: &reqwest::Error) -> String {
    let mut parts = Vec::new();
    let mut next = error.source();
    while let Some(cause) = next {
        parts.push(cause.to_string());
        next = cause.source();
    }
    if parts.is_empty() { "no further detail".to_owned() } else { parts.join(": ") }
}
