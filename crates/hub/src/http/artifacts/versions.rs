//! Versions of artifacts: bytes and documents that the hub keeps, and files that their makers write themselves.

use attune_model::rows::{Artifact, ArtifactVersion};
use attune_security::Claims;
use attune_store::{NewVersion, VersionContent, VersionNumber};
use axum::Json;
use axum::extract::State;
use axum::http::header::{CONTENT_DISPOSITION, CONTENT_TYPE, X_CONTENT_TYPE_OPTIONS};
use axum::http::{HeaderValue, StatusCode};
use axum::response::{IntoResponse as _, Response};
use serde_json::{Value, json};

use super::request::{Upload, UpsertRequest, VersionRequest, extension};
use super::rights::Rights;
use super::{find_or_make, readable, remove_files, unknown, writable};
use crate::folders::FilePath;
use crate::http::Api;
use crate::http::auth::Caller;
use crate::http::error::ApiError;
use crate::http::extract::{Body, Id, IdAndName, Name, Parameters};
use crate::http::files::{given, opened, refused, sent};
use crate::http::multipart::Form;
use crate::http::page::{PageQuery, paged};

/// The name of the newest version in a path.
const LATEST: &str = "latest";

type Created = (StatusCode, Json<Value>);

/// Adds bytes to the artifact of a ref, which is made when there is none.
pub(super) async fn upsert_upload(
    State(api): State<Api>,
    Caller(claims): Caller,
    Name(artifact_ref): Name,
    form: Form,
) -> Result<Created, ApiError> {
    let Upload { request, file } = Upload::read(form)?;
    let version = request.version.version(&claims, VersionContent::Bytes(file.into()))?;
    let artifact = find_or_make(&api, &Rights::of(&claims), &artifact_ref, &request.wanted).await?;
    add(&api, &artifact, version).await
}

/// Adds a file to the artifact of a ref, which is made when there is none. The caller writes it where the answer says.
pub(super) async fn upsert_file(
    State(api): State<Api>,
    Caller(claims): Caller,
    Name(artifact_ref): Name,
    Body(request): Body<UpsertRequest>,
) -> Result<Created, ApiError> {
    let artifact = find_or_make(&api, &Rights::of(&claims), &artifact_ref, &request.wanted).await?;
    let version = file_version(request.version, &claims, &artifact)?;
    add(&api, &artifact, version).await
}

/// Adds bytes.
pub(super) async fn upload(
    State(api): State<Api>,
    Caller(claims): Caller,
    Id(id): Id,
    form: Form,
) -> Result<Created, ApiError> {
    let Upload { request, file } = Upload::read(form)?;
    let version = request.version.version(&claims, VersionContent::Bytes(file.into()))?;
    let artifact = writable(&api, &Rights::of(&claims), id).await?;
    add(&api, &artifact, version).await
}

/// Adds a file that the caller writes where the answer says.
pub(super) async fn add_file(
    State(api): State<Api>,
    Caller(claims): Caller,
    Id(id): Id,
    Body(request): Body<VersionRequest>,
) -> Result<Created, ApiError> {
    let artifact = writable(&api, &Rights::of(&claims), id).await?;
    let version = file_version(request, &claims, &artifact)?;
    add(&api, &artifact, version).await
}

/// Adds a document.
pub(super) async fn add_document(
    State(api): State<Api>,
    Caller(claims): Caller,
    Id(id): Id,
    Body(mut request): Body<VersionRequest>,
) -> Result<Created, ApiError> {
    let Some(document) = request.content.take() else {
        return Err(ApiError::invalid(&["content is missing".to_owned()]));
    };
    request.content_type.get_or_insert_with(|| "application/json".to_owned());
    let version = request.version(&claims, VersionContent::Json(document))?;
    let artifact = writable(&api, &Rights::of(&claims), id).await?;
    add(&api, &artifact, version).await
}

fn file_version(request: VersionRequest, claims: &Claims, artifact: &Artifact) -> Result<NewVersion, ApiError> {
    let request = request.or_usual_type(artifact);
    let extension = extension(request.content_type.as_deref());
    request.version(claims, VersionContent::File { extension })
}

async fn add(api: &Api, artifact: &Artifact, version: NewVersion) -> Result<Created, ApiError> {
    let Some(added) = api.core.store.add_version(artifact.id, &version).await? else {
        return Err(unknown(artifact.id.0));
    };
    remove_files(api, &added.expired_files);
    Ok((StatusCode::CREATED, Json(json!({ "data": added.version }))))
}

/// Newest first.
pub(super) async fn list(
    State(api): State<Api>,
    Caller(claims): Caller,
    Id(id): Id,
    Parameters(query): Parameters<PageQuery>,
) -> Result<Json<Value>, ApiError> {
    let request = query.read()?;
    let artifact = readable(&api, &Rights::of(&claims), id).await?;
    let versions = api.core.store.versions(artifact.id, request).await?;
    Ok(Json(paged(request, versions, |version| json!(version))))
}

pub(super) async fn one(
    State(api): State<Api>,
    Caller(claims): Caller,
    IdAndName(id, number): IdAndName,
) -> Result<Json<Value>, ApiError> {
    let (_, version) = version(&api, &claims, id, &number).await?;
    Ok(Json(json!({ "data": version })))
}

pub(super) async fn download(
    State(api): State<Api>,
    Caller(claims): Caller,
    IdAndName(id, number): IdAndName,
) -> Result<Response, ApiError> {
    let (artifact, version) = version(&api, &claims, id, &number).await?;
    content(&api, &artifact, &version).await
}

/// The newest version, or what an artifact without versions holds.
pub(super) async fn download_latest(
    State(api): State<Api>,
    Caller(claims): Caller,
    Id(id): Id,
) -> Result<Response, ApiError> {
    let artifact = readable(&api, &Rights::of(&claims), id).await?;
    match api.core.store.version(artifact.id, VersionNumber::Latest).await? {
        Some(version) => content(&api, &artifact, &version).await,
        None => match artifact.data {
            Some(data) => Ok(attached("application/json", &artifact.r#ref, "json", data.to_string().into_response())),
            None => Err(ApiError::not_found(format!("artifact {} has no version yet", artifact.r#ref))),
        },
    }
}

async fn version(api: &Api, claims: &Claims, id: i64, number: &str) -> Result<(Artifact, ArtifactVersion), ApiError> {
    let wanted = match number.parse() {
        Ok(number) => VersionNumber::Number(number),
        Err(_) if number == LATEST => VersionNumber::Latest,
        Err(_) => return Err(ApiError::bad_request(format!("{number:?} is neither a version nor {LATEST}"))),
    };
    let artifact = readable(api, &Rights::of(claims), id).await?;
    match api.core.store.version(artifact.id, wanted).await? {
        Some(version) => Ok((artifact, version)),
        None => Err(ApiError::not_found(format!("artifact {} has no version {number}", artifact.r#ref))),
    }
}

/// What a version holds, wherever it is.
async fn content(api: &Api, artifact: &Artifact, version: &ArtifactVersion) -> Result<Response, ApiError> {
    let missing = || {
        let (name, number) = (&artifact.r#ref, version.version);
        ApiError::not_found(format!("version {number} of artifact {name} has no content yet"))
    };
    let answer = if let Some(path) = &version.file_path {
        let path = FilePath::plain(path).map_err(refused)?;
        let (file, size) = opened(given(api)?, &path)?.ok_or_else(missing)?;
        sent(file, size)
    } else if let Some(document) = &version.content_json {
        document.to_string().into_response()
    } else {
        api.core.store.version_bytes(version.id).await?.ok_or_else(missing)?.into_response()
    };
    let content_type = version.content_type.as_deref().unwrap_or("application/octet-stream");
    let name = format!("{}-v{}", artifact.r#ref, version.version);
    Ok(attached(content_type, &name, extension(Some(content_type)), answer))
}

/// To be saved and never shown as a page: what it says is an action's, not the hub's.
fn attached(content_type: &str, name: &str, extension: &str, mut answer: Response) -> Response {
    let octets = HeaderValue::from_static("application/octet-stream");
    let disposition = HeaderValue::from_str(&format!("attachment; filename=\"{name}.{extension}\""));
    let headers = answer.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_str(content_type).unwrap_or(octets));
    headers.insert(CONTENT_DISPOSITION, disposition.unwrap_or(HeaderValue::from_static("attachment")));
    headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    answer
}
