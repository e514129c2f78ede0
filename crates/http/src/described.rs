//! One request described by a JSON object, its answer as another: what the action `core.http_request` does.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use attune_model::{JsonMap, Secret};
use serde::Deserialize;
use serde_json::{Value, json};
use thiserror::Error;

use crate::{Body, BuildError, Client, ClientConfig, HttpError, Method, Redirects, Request, Response, Verification};

const DEFAULT_TIMEOUT_SECONDS: f64 = 30.0;
/// A day: beyond it a mistake is likelier than a wish.
const LONGEST_TIMEOUT_SECONDS: f64 = 86_400.0;
const DEFAULT_REDIRECTS: usize = 10;

/// Why a described request has no answer.
#[derive(Debug, Error)]
pub enum DescribedError {
    /// The description is no JSON object, or has a wrong type in it.
    #[error("the parameters are not a JSON object that describes a request")]
    Description(#[source] serde_json::Error),
    /// A parameter cannot be used.
    #[error("parameter `{name}` {problem}")]
    Parameter {
        /// Which.
        name: &'static str,
        /// What is wrong with it.
        problem: String,
    },
    /// The client could not be made.
    #[error("failed to make a client")]
    Client(#[source] BuildError),
    /// The request failed.
    #[error("the request failed")]
    Request(#[source] HttpError),
    /// The answer is a refusal, and the description asks to fail then.
    #[error("{url} answered with status {status}")]
    Status {
        /// Where to.
        url: String,
        /// The code.
        status: u16,
    },
}

/// The description. `null` counts as absent everywhere.
#[derive(Deserialize)]
struct Description {
    url: Option<String>,
    method: Option<String>,
    #[serde(default)]
    headers: Option<BTreeMap<String, Value>>,
    query_params: Option<BTreeMap<String, Value>>,
    body: Option<Value>,
    /// Like `body`, but a text is sent as JSON too.
    json: Option<Value>,
    timeout_seconds: Option<f64>,
    verify_ssl: Option<bool>,
    follow_redirects: Option<bool>,
    max_redirects: Option<usize>,
    auth: Option<Auth>,
    fail_on_error: Option<bool>,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Auth {
    Bearer { token: String },
    Basic { username: String, password: Option<String> },
}

/// Makes the request that `parameters`, a JSON object, describes. Every answer is a success unless it asks to fail.
/// `ca_file` is trusted besides the built-in roots.
pub async fn described(parameters: &[u8], ca_file: Option<PathBuf>) -> Result<JsonMap, DescribedError> {
    let description: Description = serde_json::from_slice(parameters).map_err(DescribedError::Description)?;
    let follow = description.follow_redirects.unwrap_or(true);
    let config = ClientConfig {
        ca_file,
        verification: if description.verify_ssl.unwrap_or(true) { Verification::Full } else { Verification::Off },
        redirects: if follow {
            Redirects::Follow { limit: description.max_redirects.unwrap_or(DEFAULT_REDIRECTS) }
        } else {
            Redirects::Return
        },
        ..ClientConfig::default()
    };
    let client = Client::build(&config).map_err(DescribedError::Client)?;
    let must_succeed = description.fail_on_error.unwrap_or(false);
    let answer = client.send(&request(description)?).await.map_err(DescribedError::Request)?;
    if must_succeed && answer.status >= 400 {
        return Err(DescribedError::Status { url: answer.asked.1, status: answer.status });
    }
    Ok(result(&answer))
}

fn request(description: Description) -> Result<Request, DescribedError> {
    let wrong = |name, problem: &str| DescribedError::Parameter { name, problem: problem.to_owned() };
    let url = description.url.filter(|url| !url.is_empty()).ok_or_else(|| wrong("url", "is missing"))?;
    let method = description.method.unwrap_or_else(|| "GET".to_owned()).to_uppercase();
    let method = Method::from_bytes(method.as_bytes()).map_err(|_invalid| wrong("method", "is not an HTTP method"))?;
    let seconds = description.timeout_seconds.unwrap_or(DEFAULT_TIMEOUT_SECONDS);
    if !(seconds > 0.0 && seconds <= LONGEST_TIMEOUT_SECONDS) {
        return Err(wrong("timeout_seconds", "must be above 0 and at most a day"));
    }
    let mut request = Request::new(method, url).timeout(Duration::from_secs_f64(seconds));
    let mut has_content_type = false;
    for (name, value) in description.headers.unwrap_or_default() {
        has_content_type |= name.eq_ignore_ascii_case("content-type");
        request = request.header(name, plain(&value));
    }
    for (name, value) in description.query_params.unwrap_or_default() {
        request = match value {
            Value::Null => request,
            Value::Array(values) => values.iter().fold(request, |request, value| request.query(&name, plain(value))),
            value => request.query(name, plain(&value)),
        };
    }
    request = match description.auth {
        None => request,
        Some(Auth::Bearer { token }) => request.bearer(&Secret::new(token)),
        Some(Auth::Basic { username, password }) => {
            request.basic(&username, &Secret::new(password.unwrap_or_default()))
        }
    };
    request.body = match (description.json, description.body) {
        (None, None) => Body::Empty,
        (None, Some(Value::String(text))) => Body::Bytes(text.into()),
        (Some(value), _) | (None, Some(value)) if has_content_type => Body::Bytes(value.to_string().into()),
        (Some(value), _) | (None, Some(value)) => Body::Json(value.to_string().into()),
    };
    Ok(request)
}

/// A text as it is, everything else as JSON.
fn plain(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}

fn result(answer: &Response) -> JsonMap {
    let mut headers = JsonMap::new();
    for (name, value) in &answer.headers {
        match headers.get_mut(name) {
            Some(Value::String(present)) => *present = format!("{present}, {value}"),
            _ => drop(headers.insert(name.clone(), json!(value))),
        }
    }
    let mut result = JsonMap::new();
    result.insert("status_code".to_owned(), json!(answer.status));
    result.insert("success".to_owned(), json!(answer.is_success()));
    result.insert("headers".to_owned(), Value::Object(headers));
    result.insert("body".to_owned(), json!(String::from_utf8_lossy(&answer.body)));
    if let Ok(value) = serde_json::from_slice::<Value>(&answer.body) {
        result.insert("json".to_owned(), value);
    }
    let elapsed_ms = u64::try_from(answer.elapsed.as_millis()).unwrap_or(u64::MAX);
    result.insert("elapsed_ms".to_owned(), json!(elapsed_ms));
    result.insert("url".to_owned(), json!(answer.url));
    result
}
