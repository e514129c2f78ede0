//! Artifacts: what actions, sensors and people keep. Their descriptions are here, their versions beside.

mod request;
mod rights;
mod versions;

use attune_model::rows::Artifact;
use attune_model::status::ArtifactType;
use attune_model::{ArtifactId, ExecutionId};
use attune_store::NewArtifact;
use axum::extract::State;
use axum::http::StatusCode;
use axum::routing::{get, post, put};
use axum::{Json, Router};
use serde::Deserialize;
use serde_json::{Value, json};

use self::request::{ChangeRequest, CreateRequest, Wanted};
use self::rights::Rights;
use super::Api;
use super::auth::Caller;
use super::error::ApiError;
use super::extract::{Body, Id, LARGEST_BODY, Name, Parameters};
use super::files::given;
use super::page::{PageQuery, paged};
use crate::folders::FilePath;

/// The routes, all below `/api/v1`.
pub(super) fn routes() -> Router<Api> {
    Router::new()
        .route("/artifacts", post(create))
        .route("/artifacts/{id}", get(one).put(change).delete(remove))
        .route("/artifacts/{id}/progress", post(progress))
        .route("/artifacts/{id}/data", put(data))
        .route("/artifacts/{id}/download", get(versions::download_latest))
        .route("/artifacts/{id}/versions", get(versions::list).post(versions::add_document))
        .route("/artifacts/{id}/versions/upload", post(versions::upload))
        .route("/artifacts/{id}/versions/file", post(versions::add_file))
        .route("/artifacts/{id}/versions/{version}", get(versions::one))
        .route("/artifacts/{id}/versions/{version}/download", get(versions::download))
        .route("/artifacts/ref/{ref}", get(of_ref))
        .route("/artifacts/ref/{ref}/versions/upload", post(versions::upsert_upload))
        .route("/artifacts/ref/{ref}/versions/file", post(versions::upsert_file))
        .route("/executions/{id}/artifacts", get(of_execution))
}

async fn create(
    State(api): State<Api>,
    Caller(claims): Caller,
    Body(request): Body<CreateRequest>,
) -> Result<(StatusCode, Json<Value>), ApiError> {
    let rights = Rights::of(&claims);
    let artifact = request.artifact(&rights)?;
    may_make(&api, &rights, &artifact).await?;
    match api.core.store.create_artifact(&artifact).await? {
        Some(made) => Ok((StatusCode::CREATED, Json(json!({ "data": made })))),
        None => Err(ApiError::conflict(format!("artifact {} exists already", artifact.r#ref))),
    }
}

async fn one(State(api): State<Api>, Caller(claims): Caller, Id(id): Id) -> Result<Json<Value>, ApiError> {
    let artifact = readable(&api, &Rights::of(&claims), id).await?;
    Ok(Json(json!({ "data": artifact })))
}

async fn of_ref(
    State(api): State<Api>,
    Caller(claims): Caller,
    Name(artifact_ref): Name,
) -> Result<Json<Value>, ApiError> {
    let Some(artifact) = api.core.store.artifact_of_ref(&artifact_ref).await? else {
        return Err(ApiError::not_found(format!("artifact {artifact_ref} does not exist")));
    };
    Rights::of(&claims).read(&artifact)?;
    Ok(Json(json!({ "data": artifact })))
}

async fn change(
    State(api): State<Api>,
    Caller(claims): Caller,
    Id(id): Id,
    Body(request): Body<ChangeRequest>,
) -> Result<Json<Value>, ApiError> {
    let change = request.change()?;
    let artifact = writable(&api, &Rights::of(&claims), id).await?;
    shown(id, api.core.store.change_artifact(artifact.id, &change).await?)
}

/// Removes its files too.
async fn remove(State(api): State<Api>, Caller(claims): Caller, Id(id): Id) -> Result<StatusCode, ApiError> {
    let artifact = writable(&api, &Rights::of(&claims), id).await?;
    match api.core.store.delete_artifact(artifact.id).await? {
        Some(files) => {
            remove_files(&api, &files);
            Ok(StatusCode::NO_CONTENT)
        }
        None => Err(unknown(id)),
    }
}

#[derive(Debug, Deserialize)]
struct ProgressRequest {
    entry: Value,
}

/// Adds an entry.
async fn progress(
    State(api): State<Api>,
    Caller(claims): Caller,
    Id(id): Id,
    Body(request): Body<ProgressRequest>,
) -> Result<Json<Value>, ApiError> {
    let artifact = writable(&api, &Rights::of(&claims), id).await?;
    if artifact.r#type != ArtifactType::Progress {
        return Err(ApiError::invalid(&[format!("artifact {} is {}, not progress", artifact.r#ref, artifact.r#type)]));
    }
    // Whoever adds for ever fills no more than whoever sends all of it at once.
    let length = |value: &Value| value.to_string().len();
    if artifact.data.as_ref().map_or(0, length) + length(&request.entry) > LARGEST_BODY {
        let message = format!("the progress of artifact {} would have more than {LARGEST_BODY} bytes", artifact.r#ref);
        return Err(ApiError::new(StatusCode::PAYLOAD_TOO_LARGE, message));
    }
    shown(id, api.core.store.add_progress(artifact.id, &request.entry).await?)
}

#[derive(Debug, Deserialize)]
struct DataRequest {
    data: Value,
}

/// Replaces what is no version: all entries of progress, or an address.
async fn data(
    State(api): State<Api>,
    Caller(claims): Caller,
    Id(id): Id,
    Body(request): Body<DataRequest>,
) -> Result<Json<Value>, ApiError> {
    let artifact = writable(&api, &Rights::of(&claims), id).await?;
    shown(id, api.core.store.set_artifact_data(artifact.id, &request.data).await?)
}

/// Those that the execution made versions of and the caller may read.
async fn of_execution(
    State(api): State<Api>,
    Caller(claims): Caller,
    Id(id): Id,
    Parameters(query): Parameters<PageQuery>,
) -> Result<Json<Value>, ApiError> {
    let request = query.read()?;
    if api.core.store.execution(ExecutionId(id)).await?.is_none() {
        return Err(ApiError::not_found(format!("execution {id} does not exist")));
    }
    let rights = Rights::of(&claims);
    let mut found = api.core.store.execution_artifacts(ExecutionId(id), request).await?;
    found.items.retain(|artifact| rights.read(artifact).is_ok());
    Ok(Json(paged(request, found, |artifact| json!(artifact))))
}

/// The artifact of that ref, made when there is none.
async fn find_or_make(api: &Api, rights: &Rights, artifact_ref: &str, wanted: &Wanted) -> Result<Artifact, ApiError> {
    let store = &api.core.store;
    let new = wanted.artifact(artifact_ref, rights)?;
    // Somebody may make or remove it between two steps.
    for _ in 0..3 {
        if let Some(found) = store.artifact_of_ref(artifact_ref).await? {
            rights.write(&found)?;
            let Some(change) = wanted.retention(&found) else { return Ok(found) };
            if let Some(changed) = store.change_artifact(found.id, &change).await? {
                return Ok(changed);
            }
            continue;
        }
        may_make(api, rights, &new).await?;
        if let Some(made) = store.create_artifact(&new).await? {
            return Ok(made);
        }
    }
    Err(ApiError::conflict(format!("artifact {artifact_ref} is being made and removed, try again")))
}

async fn may_make(api: &Api, rights: &Rights, artifact: &NewArtifact) -> Result<(), ApiError> {
    rights.own(artifact.scope, &artifact.owner, &artifact.r#ref)?;
    let Some(pack) = rights.foreign_pack(&artifact.r#ref)? else { return Ok(()) };
    match api.core.store.pack(pack).await? {
        Some(_) => Err(ApiError::forbidden(format!("{} is a ref of pack {pack}", artifact.r#ref))),
        None => Ok(()),
    }
}

async fn readable(api: &Api, rights: &Rights, id: i64) -> Result<Artifact, ApiError> {
    let artifact = found(api, id).await?;
    rights.read(&artifact)?;
    Ok(artifact)
}

async fn writable(api: &Api, rights: &Rights, id: i64) -> Result<Artifact, ApiError> {
    let artifact = found(api, id).await?;
    rights.write(&artifact)?;
    Ok(artifact)
}

async fn found(api: &Api, id: i64) -> Result<Artifact, ApiError> {
    api.core.store.artifact(ArtifactId(id)).await?.ok_or_else(|| unknown(id))
}

fn shown(id: i64, artifact: Option<Artifact>) -> Result<Json<Value>, ApiError> {
    artifact.map(|artifact| Json(json!({ "data": artifact }))).ok_or_else(|| unknown(id))
}

fn unknown(id: i64) -> ApiError {
    ApiError::not_found(format!("artifact {id} does not exist"))
}

/// Removes the files of versions that are gone. What cannot be removed is only lost room.
fn remove_files(api: &Api, files: &[String]) {
    let Ok(folders) = given(api) else { return };
    for file in files {
        let removed = FilePath::plain(file).and_then(|path| match folders.place(&path)? {
            Some(place) => place.remove(),
            None => Ok(()),
        });
        if let Err(problem) = removed {
            tracing::warn!(file, ?problem, "the file of a version that is gone could not be removed");
        }
    }
}
