//! Whether the hub is alive and can work.

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use serde_json::{Value, json};

use super::Api;

/// No storage is touched.
pub(super) async fn health() -> Json<Value> {
    Json(json!({"status": "ok"}))
}

pub(super) async fn live() -> StatusCode {
    StatusCode::OK
}

/// Storage answers and nothing is being stopped.
pub(super) async fn ready(State(api): State<Api>) -> StatusCode {
    if !api.work.stop.soft().is_cancelled() && storage_answers(&api).await {
        StatusCode::OK
    } else {
        StatusCode::SERVICE_UNAVAILABLE
    }
}

pub(super) async fn detailed(State(api): State<Api>) -> (StatusCode, Json<Value>) {
    let version = &api.core.config.version;
    if storage_answers(&api).await {
        (StatusCode::OK, Json(json!({"status": "ok", "version": version, "database": "connected"})))
    } else {
        let body = json!({"status": "error", "version": version, "database": "disconnected"});
        (StatusCode::SERVICE_UNAVAILABLE, Json(body))
    }
}

async fn storage_answers(api: &Api) -> bool {
    match api.core.store.ping().await {
        Ok(()) => true,
        Err(error) => {
            let error: &dyn std::error::Error = &error;
            tracing::warn!(error, "storage does not answer");
            false
        }
    }
}
