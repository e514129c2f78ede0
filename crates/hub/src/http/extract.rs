//! Reading bodies, queries and ids, with errors in the API's shape.

use std::time::Duration;

use axum::body::Bytes;
use axum::extract::rejection::PathRejection;
use axum::extract::{FromRequest, FromRequestParts, Path, Query, Request};
use axum::http::header::CONTENT_TYPE;
use axum::http::request::Parts;
use axum::http::{HeaderMap, StatusCode};
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::Api;
use super::error::ApiError;

/// Largest body, in bytes; a fact of the platform.
pub(super) const LARGEST_BODY: usize = 2 * 1024 * 1024;

/// How long a client may take to send its body.
const BODY_LIMIT: Duration = Duration::from_secs(30);

/// A JSON body.
#[derive(Debug)]
pub(super) struct Body<T>(pub(super) T);

impl<T: DeserializeOwned> FromRequest<Api> for Body<T> {
    type Rejection = ApiError;

    async fn from_request(request: Request, api: &Api) -> Result<Self, ApiError> {
        if !is_json(request.headers()) {
            let message = "the body must be JSON: send the header content-type: application/json";
            return Err(ApiError::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, message));
        }
        let body = read_body(request, api).await?;
        let value: Value = serde_json::from_slice(&body)
            .map_err(|error| ApiError::bad_request(format!("the body is not valid JSON: {error}")))?;
        let typed = T::deserialize(&value).map_err(|error| ApiError::invalid(&[error.to_string()]))?;
        Ok(Self(typed))
    }
}

/// The whole body, up to [`LARGEST_BODY`].
pub(super) async fn read_body(request: Request, api: &Api) -> Result<Bytes, ApiError> {
    let read = tokio::time::timeout(BODY_LIMIT, Bytes::from_request(request, api)).await;
    let read = read.map_err(|_elapsed| {
        let message = format!("the body did not arrive within {} s", BODY_LIMIT.as_secs());
        ApiError::new(StatusCode::REQUEST_TIMEOUT, message)
    })?;
    read.map_err(|rejection| match rejection.status() {
        StatusCode::PAYLOAD_TOO_LARGE => {
            let message = format!("the body is larger than {LARGEST_BODY} bytes");
            ApiError::new(StatusCode::PAYLOAD_TOO_LARGE, message)
        }
        _ => ApiError::bad_request("the body could not be read to its end"),
    })
}

/// Also keeps web pages away: a browser sends this type to another origin only after asking.
fn is_json(headers: &HeaderMap) -> bool {
    let text = headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let essence = text.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    essence == "application/json" || (essence.starts_with("application/") && essence.ends_with("+json"))
}

/// The query of a request.
#[derive(Debug)]
pub(super) struct Parameters<T>(pub(super) T);

impl<T: DeserializeOwned> FromRequestParts<Api> for Parameters<T> {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, _api: &Api) -> Result<Self, ApiError> {
        let Query(parameters) = Query::try_from_uri(&parts.uri)
            .map_err(|error| ApiError::invalid(&[format!("query: {}", error.body_text())]))?;
        Ok(Self(parameters))
    }
}

/// The last variable part of a path, as text.
#[derive(Debug)]
pub(super) struct Name(pub(super) String);

impl FromRequestParts<Api> for Name {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, api: &Api) -> Result<Self, ApiError> {
        let path: Result<Path<String>, PathRejection> = Path::from_request_parts(parts, api).await;
        path.map(|Path(name)| Self(name)).map_err(|error| ApiError::bad_request(error.body_text()))
    }
}

/// The last variable part of a path, as a row id.
#[derive(Debug)]
pub(super) struct Id(pub(super) i64);

impl FromRequestParts<Api> for Id {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, api: &Api) -> Result<Self, ApiError> {
        let Name(text) = Name::from_request_parts(parts, api).await?;
        read_id(&text).map(Self)
    }
}

/// The two variable parts of a path: a row id, and a name.
#[derive(Debug)]
pub(super) struct IdAndName(pub(super) i64, pub(super) String);

impl FromRequestParts<Api> for IdAndName {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, api: &Api) -> Result<Self, ApiError> {
        let path: Result<Path<(String, String)>, PathRejection> = Path::from_request_parts(parts, api).await;
        let Path((id, name)) = path.map_err(|error| ApiError::bad_request(error.body_text()))?;
        Ok(Self(read_id(&id)?, name))
    }
}

fn read_id(text: &str) -> Result<i64, ApiError> {
    text.parse().map_err(|_error| ApiError::bad_request(format!("{text:?} is not an id")))
}
