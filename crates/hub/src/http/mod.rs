//! The HTTP API: paths, bodies, status codes and error shapes are facts of the platform.

mod agent;
mod artifacts;
mod auth;
mod error;
mod events;
mod executions;
mod extract;
mod files;
mod health;
mod multipart;
mod page;
mod request;
mod server;
mod tokens;
mod triggers;
mod work;
mod workers;

use std::net::IpAddr;
use std::sync::Arc;

use attune_lifecycle::{Stop, Tasks};
use axum::Router;
use axum::extract::DefaultBodyLimit;
use axum::http::{Method, StatusCode, Uri};
use axum::middleware::from_fn_with_state;
use axum::routing::{get, post, put};

use crate::core::Core;
use error::ApiError;
use work::Work;

pub(crate) use server::serve;

/// From where a client came.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Reach {
    /// From this machine.
    Loopback,
    /// From somewhere else.
    Network,
}

impl Reach {
    fn of(peer: IpAddr) -> Self {
        if peer.to_canonical().is_loopback() { Self::Loopback } else { Self::Network }
    }
}

/// The routes for every client.
#[derive(Debug, Clone)]
pub(crate) struct Routes {
    loopback: Router,
    network: Router,
}

impl Routes {
    /// Routes on `api`.
    pub(crate) fn new(api: Api) -> Self {
        Self { loopback: router(api.clone(), Reach::Loopback), network: router(api, Reach::Network) }
    }

    /// Those that a client at this address may use.
    fn of(&self, peer: IpAddr) -> Router {
        match Reach::of(peer) {
            Reach::Loopback => self.loopback.clone(),
            Reach::Network => self.network.clone(),
        }
    }
}

/// What handlers share.
#[derive(Debug, Clone)]
pub(crate) struct Api {
    core: Arc<Core>,
    work: Work,
    agent_files: agent::Known,
}

impl Api {
    pub(crate) fn new(core: Arc<Core>, stop: Stop, tasks: Tasks) -> Self {
        Self { core, work: Work::new(stop, tasks), agent_files: agent::Known::default() }
    }
}

/// All routes. Sensor tokens are given without authentication only to sensor hosts on this machine; others have to show that
/// they know the key of the installation, by a token that they signed with it.
fn router(api: Api, reach: Reach) -> Router {
    let internal_sensor_token = match reach {
        Reach::Loopback => post(tokens::internal_sensor_token),
        Reach::Network => post(tokens::sensor_token_for_agents),
    };
    Router::new()
        .route("/health", get(health::health))
        .route("/health/detailed", get(health::detailed))
        .route("/health/ready", get(health::ready))
        .route("/health/live", get(health::live))
        .route("/auth/sensor-token", post(tokens::sensor_token))
        .route("/auth/internal/sensor-token", internal_sensor_token)
        .route("/api/v1/events", post(events::create))
        .route("/api/v1/triggers/{ref}/rules", get(triggers::rules))
        .route("/api/v1/executions", get(executions::list))
        .route("/api/v1/executions/execute", post(executions::execute))
        .route("/api/v1/executions/{id}", get(executions::get))
        .route("/api/v1/executions/{id}/cancel", post(executions::cancel))
        .route("/api/v1/workers", get(workers::list))
        .nest("/api/v1", artifacts::routes())
        .route("/api/v1/agent/binary", get(agent::binary))
        .route("/api/v1/agent/info", get(agent::info))
        .route(
            &format!("{}{{*path}}", files::FILES),
            put(files::put).patch(files::append).get(files::get).delete(files::remove),
        )
        .route("/api/v1/internal/packs/{ref}/archive", get(files::pack))
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_clients_on_this_machine_come_from_loopback() {
        for (peer, wanted) in [
            ("127.0.0.1", Reach::Loopback),
            ("127.9.9.9", Reach::Loopback),
            ("::1", Reach::Loopback),
            ("::ffff:127.0.0.1", Reach::Loopback),
            ("10.0.0.1", Reach::Network),
            ("::ffff:10.0.0.1", Reach::Network),
            ("fe80::1", Reach::Network),
        ] {
            assert_eq!(Reach::of(peer.parse().unwrap()), wanted, "{peer}");
        }
    }
}
