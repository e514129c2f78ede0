//! The agents' binary for images without the volume: paths, statuses, bodies and the order of the checks are facts of the
//! platform; name, `ETag`, ranges, checksum and version are added to them.

mod files;
mod range;

use std::io::SeekFrom;

use attune_artefact::{AGENT, AGENTS, Machine};
use attune_model::Secret;
use attune_security::constant_time_eq;
use axum::Json;
use axum::body::Body;
use axum::extract::rejection::QueryRejection;
use axum::extract::{Query, State};
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncSeekExt as _};
use tokio_util::io::ReaderStream;

use super::Api;
use crate::AgentDownloads;
use files::{LookUp, Opened};
use range::{Part, part};

pub(crate) use files::Known;

/// The header with the token.
const TOKEN: &str = "x-agent-token";
/// What is added to the platform's headers. The size is that of the file, also where a part of it is sent.
const SHA256: HeaderName = HeaderName::from_static("x-agent-sha256");
const SIZE: HeaderName = HeaderName::from_static("x-agent-size");
const VERSION: HeaderName = HeaderName::from_static("x-agent-version");

/// Bytes that are read at a time, and held for each download.
const PIECE_BYTES: usize = 64 * 1024;

/// What is asked for.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Wanted {
    arch: Option<String>,
    name: Option<String>,
}

/// An answer to what cannot be done: `{error, message}`.
#[derive(Debug)]
pub(super) struct Refusal(StatusCode, &'static str, String);

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        let Self(status, error, message) = self;
        (status, Json(json!({"error": error, "message": message}))).into_response()
    }
}

/// The file, or a part of it.
pub(super) async fn binary(
    State(api): State<Api>,
    wanted: Result<Query<Wanted>, QueryRejection>,
    headers: HeaderMap,
) -> Result<Response, Refusal> {
    let downloads = api.core.config.agent.as_ref();
    allowed(downloads.and_then(|downloads| downloads.bootstrap_token.as_ref()), &headers)?;
    let downloads = downloads.ok_or_else(not_configured)?;
    let Query(wanted) = wanted.map_err(|error| Refusal(StatusCode::BAD_REQUEST, "Invalid query", error.body_text()))?;
    let machine = machine(wanted.arch.as_deref())?;
    let name = name(wanted.name.as_deref())?;
    match api.agent_files.open(&downloads.binary_dir, machine).await {
        LookUp::Found(opened) => send(opened, name, &headers).await,
        LookUp::Missing => Err(missing(machine, downloads)),
        LookUp::Failed(problem) => {
            tracing::error!(arch = machine.as_str(), problem, "the agents' binary cannot be handed out");
            Err(missing(machine, downloads))
        }
    }
}

/// Which architectures there are, and what they are. Needs no token: nothing in it is secret.
pub(super) async fn info(State(api): State<Api>) -> Result<Json<Value>, Refusal> {
    let downloads = api.core.config.agent.as_ref().ok_or_else(not_configured)?;
    let mut architectures = Vec::new();
    let mut version = None;
    for machine in Machine::ALL {
        let found = match api.agent_files.open(&downloads.binary_dir, machine).await {
            LookUp::Found(opened) => Some(opened.known),
            LookUp::Missing | LookUp::Failed(_) => None,
        };
        architectures.push(json!({
            "arch": machine.as_str(),
            "available": found.is_some(),
            "size_bytes": found.as_ref().map_or(0, |known| known.size),
            "sha256": found.as_ref().map(|known| &known.sha256),
            "version": found.as_ref().and_then(|known| known.version.as_ref()),
        }));
        version = version.or_else(|| found.and_then(|known| known.version.clone()));
    }
    // The field is always a text for the platform's clients.
    let version = version.unwrap_or_else(|| api.core.config.version.clone());
    Ok(Json(json!({"architectures": architectures, "version": version, "names": AGENTS})))
}

fn allowed(token: Option<&Secret>, headers: &HeaderMap) -> Result<(), Refusal> {
    let Some(token) = token else {
        let message = "no agent.bootstrap_token is configured".to_owned();
        return Err(Refusal(StatusCode::SERVICE_UNAVAILABLE, "Agent downloads disabled", message));
    };
    let Some(given) = headers.get(TOKEN) else {
        let message = "send the bootstrap token in the header X-Agent-Token".to_owned();
        return Err(Refusal(StatusCode::UNAUTHORIZED, "Token required", message));
    };
    let good = given.to_str().is_ok_and(|given| constant_time_eq(given, token.expose()));
    if good {
        return Ok(());
    }
    let message = "the header X-Agent-Token does not hold the bootstrap token".to_owned();
    Err(Refusal(StatusCode::UNAUTHORIZED, "Invalid token", message))
}

fn not_configured() -> Refusal {
    let message = "there is no section `agent` in the configuration".to_owned();
    Refusal(StatusCode::SERVICE_UNAVAILABLE, "Not configured", message)
}

fn machine(arch: Option<&str>) -> Result<Machine, Refusal> {
    let Some(arch) = arch else {
        return Ok(Machine::X86_64);
    };
    arch.parse().map_err(|error| Refusal(StatusCode::BAD_REQUEST, "Invalid architecture", format!("{error}")))
}

fn name(name: Option<&str>) -> Result<&'static str, Refusal> {
    let Some(wanted) = name else {
        return Ok(AGENT);
    };
    AGENTS.into_iter().find(|name| *name == wanted).ok_or_else(|| {
        let message = format!("{wanted:?} is none of {}", AGENTS.join(", "));
        Refusal(StatusCode::BAD_REQUEST, "Invalid name", message)
    })
}

fn missing(machine: Machine, downloads: &AgentDownloads) -> Refusal {
    let message = format!("there is no binary for {machine} in {}", downloads.binary_dir.display());
    Refusal(StatusCode::NOT_FOUND, "Not found", message)
}

async fn send(opened: Opened, name: &str, headers: &HeaderMap) -> Result<Response, Refusal> {
    let Opened { mut file, known } = opened;
    let mut answer = HeaderMap::new();
    let etag = format!("\"{}\"", known.sha256);
    answer.insert(header::CACHE_CONTROL, HeaderValue::from_static("public, max-age=3600"));
    answer.insert(header::ACCEPT_RANGES, HeaderValue::from_static("bytes"));
    text(&mut answer, header::ETAG, &etag);
    text(&mut answer, SHA256, &known.sha256);
    text(&mut answer, SIZE, &known.size.to_string());
    if let Some(version) = &known.version {
        text(&mut answer, VERSION, version);
    }
    if has(headers, &header::IF_NONE_MATCH, &etag) {
        return Ok((StatusCode::NOT_MODIFIED, answer).into_response());
    }
    // A part of another file is of no use to somebody who already has one of this.
    let same = !headers.contains_key(header::IF_RANGE) || has(headers, &header::IF_RANGE, &etag);
    let asked = headers.get(header::RANGE).filter(|_| same).and_then(|range| range.to_str().ok());
    let (status, first, length) = match part(asked, known.size) {
        Part::All => (StatusCode::OK, 0, known.size),
        Part::Some { first, last } => {
            text(&mut answer, header::CONTENT_RANGE, &format!("bytes {first}-{last}/{}", known.size));
            (StatusCode::PARTIAL_CONTENT, first, last - first + 1)
        }
        Part::Nothing => {
            text(&mut answer, header::CONTENT_RANGE, &format!("bytes */{}", known.size));
            return Ok((StatusCode::RANGE_NOT_SATISFIABLE, answer).into_response());
        }
    };
    answer.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/octet-stream"));
    text(&mut answer, header::CONTENT_DISPOSITION, &format!("attachment; filename=\"{name}\""));
    text(&mut answer, header::CONTENT_LENGTH, &length.to_string());
    if let Err(error) = file.seek(SeekFrom::Start(first)).await {
        let error: &dyn std::error::Error = &error;
        tracing::error!(error, "the agents' binary cannot be read");
        return Err(Refusal(StatusCode::INTERNAL_SERVER_ERROR, "Read failed", "see the log of the hub".to_owned()));
    }
    let body = Body::from_stream(ReaderStream::with_capacity(file.take(length), PIECE_BYTES));
    Ok((status, answer, body).into_response())
}

/// Header values here are made of digits, names and hexadecimal texts; a version of a foreign file may be anything.
fn text(headers: &mut HeaderMap, name: HeaderName, value: &str) {
    if let Ok(value) = HeaderValue::from_str(value) {
        headers.insert(name, value);
    }
}

fn has(headers: &HeaderMap, name: &HeaderName, etag: &str) -> bool {
    let values = headers.get_all(name).iter().filter_map(|value| value.to_str().ok());
    values.flat_map(|value| value.split(',')).any(|value| {
        let value = value.trim();
        value == etag || value == "*" || value.strip_prefix("W/") == Some(etag)
    })
}
