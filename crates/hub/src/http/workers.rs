//! Workers, for people.

use attune_model::rows::Worker;
use axum::Json;
use axum::extract::State;
use serde_json::{Value, json};

use super::Api;
use super::auth::Caller;
use super::error::ApiError;
use super::extract::Parameters;
use super::page::{PageQuery, paged};

/// Workers of both roles.
pub(super) async fn list(
    State(api): State<Api>,
    _caller: Caller,
    Parameters(query): Parameters<PageQuery>,
) -> Result<Json<Value>, ApiError> {
    let request = query.read()?;
    let workers = api.core.store.workers(request).await?;
    Ok(Json(paged(request, workers, |worker| shown(&worker))))
}

fn shown(worker: &Worker) -> Value {
    json!({
        "id": worker.id,
        "name": worker.name,
        "worker_role": worker.role,
        "worker_type": worker.worker_type,
        "host": worker.host,
        "status": worker.status,
        "capabilities": worker.capabilities,
        "last_heartbeat": worker.last_heartbeat,
        "cordoned": worker.cordoned,
    })
}
