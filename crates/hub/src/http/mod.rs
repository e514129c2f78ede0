//! The HTTP API: paths, bodies, status codes and error shapes are facts of the platform.

mod auth;
mod error;
mod events;
mod executions;
mod extract;
mod health;
mod page;
mod request;
mod server;
mod tokens;
mod triggers;
mod work;
mod workers;

use std::sync::Arc;

use attune_lifecycle::{Stop, Tasks};
use axum::Router;
use axum::extract::DefaultBodyLimit;
use axum::http::{Method, StatusCode, Uri};
use axum::middleware::from_fn_with_state;
use axum::routing::{get, post};

use crate::core::Core;
use error::ApiError;
use work::Work;

pub(crate) use server::serve;

/// Who can reach the API.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Reach {
    /// Programs on this machine only.
    Loopback,
    /// Others too.
    Network,
}

/// What handlers share.
#[derive(Debug, Clone)]
pub(crate) struct Api {
    core: Arc<Core>,
    work: Work,
}

impl Api {
    pub(crate) fn new(core: Arc<Core>, stop: Stop, tasks: Tasks) -> Self {
        Self { core, work: Work::new(stop, tasks) }
    }
}

/// All routes. Sensor tokens are given without authentication only where nobody else can ask for them.
pub(crate) fn router(api: Api, reach: Reach) -> Router {
    let mut router = Router::new()
        .route("/health", get(health::health))
        .route("/health/detailed", get(health::detailed))
        .route("/health/ready", get(health::ready))
        .route("/health/live", get(health::live))
        .route("/auth/sensor-token", post(tokens::sensor_token))
        .route("/api/v1/events", post(events::create))
        .route("/api/v1/triggers/{ref}/rules", get(triggers::rules))
        .route("/api/v1/executions", get(executions::list))
        .route("/api/v1/executions/execute", post(executions::execute))
        .route("/api/v1/executions/{id}", get(executions::get))
        .route("/api/v1/executions/{id}/cancel", post(executions::cancel))
        .route("/api/v1/workers", get(workers::list));
    if reach == Reach::Loopback {
        router = router.route("/auth/internal/sensor-token", post(tokens::internal_sensor_token));
    }
    router
        .fallback(unknown_path)
        .method_not_allowed_fallback(wrong_method)
        .layer(DefaultBodyLimit::max(extract::LARGEST_BODY))
        .layer(from_fn_with_state(api.work.clone(), work::contained))
        .with_state(api)
}

async fn unknown_path(uri: Uri) -> ApiError {
    ApiError::not_found(format!("there is nothing at {}", uri.path()))
}

async fn wrong_method(method: Method, uri: Uri) -> ApiError {
    let message = format!("{} does not answer {method}", uri.path());
    ApiError::new(StatusCode::METHOD_NOT_ALLOWED, message)
}
