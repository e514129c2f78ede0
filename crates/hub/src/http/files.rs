//! Files below the folder of artifacts, and archives of packs: for agents that share no folder with the platform.

use std::path::Path;

use axum::Json;
use axum::body::{Body, Bytes, HttpBody as _};
use axum::extract::State;
use axum::http::header::{CONTENT_LENGTH, CONTENT_TYPE};
use axum::http::{HeaderValue, StatusCode, Uri};
use axum::response::{IntoResponse as _, Response};
use futures_util::{StreamExt as _, stream};
use serde_json::json;
use tokio::fs::File;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use super::Api;
use super::auth::Caller;
use super::error::ApiError;
use super::extract::Name;
use crate::folders::{FilePath, FileProblem, Folders, Place, archive};

/// Where the paths of files begin.
pub(super) const FILES: &str = "/api/v1/internal/files/";

const CHUNK_BYTES: usize = 64 * 1024;

/// Takes a whole file. It appears when it is complete.
pub(super) async fn put(
    State(api): State<Api>,
    _caller: Caller,
    uri: Uri,
    body: Body,
) -> Result<(StatusCode, Json<serde_json::Value>), ApiError> {
    let (folders, path) = asked(&api, &uri)?;
    let upload = folders.make_place(&path).and_then(Place::upload).map_err(refused)?;
    let file = upload.file.try_clone().map_err(|error| failed("write", upload.path(), &error))?;
    let size = receive(body, file.into(), 0, folders.upload_limit_bytes, upload.path()).await?;
    upload.publish().map_err(refused)?;
    Ok((StatusCode::CREATED, Json(json!({"data": {"size_bytes": size}}))))
}

/// Adds to a file; one that is not there begins with this.
pub(super) async fn append(
    State(api): State<Api>,
    _caller: Caller,
    uri: Uri,
    body: Body,
) -> Result<StatusCode, ApiError> {
    let (folders, path) = asked(&api, &uri)?;
    let place = folders.make_place(&path).map_err(refused)?;
    let (file, size) = place.append().map_err(refused)?;
    receive(body, file.into(), size, folders.upload_limit_bytes, place.path()).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Gives a file; ranges are not looked at.
pub(super) async fn get(State(api): State<Api>, _caller: Caller, uri: Uri) -> Result<Response, ApiError> {
    let (folders, path) = asked(&api, &uri)?;
    let Some((file, size)) = opened(folders, &path)? else {
        return Err(ApiError::not_found(format!("{} does not exist", uri.path())));
    };
    let content_type = [(CONTENT_TYPE, HeaderValue::from_static("application/octet-stream"))];
    Ok((content_type, sent(file, size)).into_response())
}

/// The file of a path and its size; none when there is none.
pub(super) fn opened(folders: &Folders, path: &FilePath) -> Result<Option<(std::fs::File, u64)>, ApiError> {
    let Some(place) = folders.place(path).map_err(refused)? else { return Ok(None) };
    place.open().map_err(refused)
}

/// An answer that is a file, read as it is sent.
pub(super) fn sent(file: std::fs::File, size: u64) -> Response {
    // What is written while it is sent is not part of it.
    let chunks = stream::unfold(File::from(file).take(size), async |mut file| {
        let mut chunk = vec![0; CHUNK_BYTES];
        match file.read(&mut chunk).await {
            Ok(0) => None,
            Ok(length) => {
                chunk.truncate(length);
                Some((Ok(Bytes::from(chunk)), file))
            }
            Err(error) => Some((Err(error), file)),
        }
    });
    ([(CONTENT_LENGTH, HeaderValue::from(size))], Body::from_stream(chunks)).into_response()
}

/// Removes a file; one that is not there is no error.
pub(super) async fn remove(State(api): State<Api>, _caller: Caller, uri: Uri) -> Result<StatusCode, ApiError> {
    let (folders, path) = asked(&api, &uri)?;
    if let Some(place) = folders.place(&path).map_err(refused)? {
        place.remove().map_err(refused)?;
    }
    Ok(StatusCode::NO_CONTENT)
}

/// A whole pack as `tar.gz`, rooted at its ref.
pub(super) async fn pack(State(api): State<Api>, _caller: Caller, Name(pack_ref): Name) -> Result<Response, ApiError> {
    let folders = given(&api)?;
    let Some(folder) = folders.pack(&pack_ref) else {
        return Err(ApiError::not_found(format!("pack {pack_ref} does not exist")));
    };
    let packed = attune_lifecycle::spawn_blocking(move || archive(&folder, &pack_ref)).await;
    let packed = packed.map_err(|_panicked| ApiError::internal())?.map_err(refused)?;
    let headers = [(CONTENT_TYPE, HeaderValue::from_static("application/gzip"))];
    Ok((headers, packed).into_response())
}

pub(super) fn given(api: &Api) -> Result<&Folders, ApiError> {
    let folders = api.core.config.folders.as_ref();
    folders.ok_or_else(|| ApiError::unavailable("this hub has no folders to give files from"))
}

fn asked<'a>(api: &'a Api, uri: &Uri) -> Result<(&'a Folders, FilePath), ApiError> {
    let encoded = uri.path().strip_prefix(FILES).unwrap_or_default();
    Ok((given(api)?, FilePath::encoded(encoded).map_err(refused)?))
}

/// Writes a body as it comes, behind the `begun` bytes that are there; it is never in memory as a whole.
async fn receive(body: Body, mut file: File, begun: u64, limit_bytes: u64, path: &Path) -> Result<u64, ApiError> {
    let too_large = || {
        let message = format!("the file would have more than {limit_bytes} bytes");
        ApiError::new(StatusCode::PAYLOAD_TOO_LARGE, message)
    };
    let mut size = begun;
    // Most clients say how much will come: then nothing is written that would be too much.
    if size.saturating_add(body.size_hint().lower()) > limit_bytes {
        return Err(too_large());
    }
    let mut chunks = body.into_data_stream();
    while let Some(chunk) = chunks.next().await {
        let chunk = chunk.map_err(|_broken| ApiError::bad_request("the body could not be read to its end"))?;
        size = size.saturating_add(u64::try_from(chunk.len()).unwrap_or(u64::MAX));
        if size > limit_bytes {
            return Err(too_large());
        }
        file.write_all(&chunk).await.map_err(|error| failed("write", path, &error))?;
    }
    file.flush().await.map_err(|error| failed("write", path, &error))?;
    Ok(size)
}

pub(super) fn refused(problem: FileProblem) -> ApiError {
    match problem {
        FileProblem::Path(path) => ApiError::bad_request(format!("{path:?} is no path of a file")),
        FileProblem::TooLarge(what) => ApiError::new(StatusCode::PAYLOAD_TOO_LARGE, what),
        FileProblem::Io { what, path, source } => failed(what, &path, &source),
    }
}

fn failed(what: &str, path: &Path, error: &std::io::Error) -> ApiError {
    tracing::error!(path = %path.display(), %error, "failed to {what} a file");
    ApiError::internal()
}
