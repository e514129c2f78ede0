//! Tokens for sensor processes.

use std::time::Duration;

use attune_security::{TokenType, sign_sensor_token};
use attune_store::TokenSubject;
use axum::Json;
use axum::extract::State;
use axum::http::{HeaderMap, header};
use serde::Deserialize;
use serde_json::{Value, json};

use super::Api;
use super::auth::Caller;
use super::error::ApiError;
use super::extract::Body;

/// How long a token may live, in seconds; a fact of the platform.
const LIFE_SECONDS: std::ops::RangeInclusive<u64> = 3600..=259_200;

/// How long a token lives unless asked otherwise.
const USUAL_LIFE_SECONDS: u64 = 86_400;

/// Longest ref, in characters.
const LONGEST_REF: usize = 255;

#[derive(Debug, Deserialize)]
pub(super) struct SensorTokenRequest {
    sensor_ref: String,
    trigger_types: Vec<String>,
    ttl_seconds: Option<u64>,
}

/// For whoever has a token already.
pub(super) async fn sensor_token(
    State(api): State<Api>,
    _caller: Caller,
    Body(request): Body<SensorTokenRequest>,
) -> Result<Json<Value>, ApiError> {
    issue(&api, &request).await
}

/// For sensor hosts on this machine, without token. Web pages are kept away: they always name their origin.
pub(super) async fn internal_sensor_token(
    State(api): State<Api>,
    headers: HeaderMap,
    Body(request): Body<SensorTokenRequest>,
) -> Result<Json<Value>, ApiError> {
    if headers.contains_key(header::ORIGIN) {
        return Err(ApiError::forbidden("web pages get no sensor tokens"));
    }
    issue(&api, &request).await
}

/// For sensor hosts elsewhere, which sign a token of their own with the installation's key.
pub(super) async fn sensor_token_for_agents(
    State(api): State<Api>,
    caller: Caller,
    Body(request): Body<SensorTokenRequest>,
) -> Result<Json<Value>, ApiError> {
    if caller.kind() != TokenType::Worker {
        return Err(ApiError::forbidden("only agents get sensor tokens here"));
    }
    issue(&api, &request).await
}

async fn issue(api: &Api, request: &SensorTokenRequest) -> Result<Json<Value>, ApiError> {
    let seconds = check(request).map_err(|problems| ApiError::invalid(&problems))?;
    let sensor_ref = &request.sensor_ref;
    let Some(subject) = api.core.store.token_subject(sensor_ref).await? else {
        return Err(ApiError::not_found(format!("sensor {sensor_ref} does not exist")));
    };
    let foreign = request.trigger_types.iter().filter(|wanted| !subject.trigger_refs.contains(wanted));
    let foreign: Vec<String> =
        foreign.map(|wanted| format!("trigger_types: {wanted} is not a trigger of sensor {sensor_ref}")).collect();
    if !foreign.is_empty() {
        return Err(ApiError::invalid(&foreign));
    }
    let identity = match subject.identity {
        Some(identity) => identity,
        // Its first token.
        None => api.core.store.identity(&TokenSubject::login(sensor_ref)).await?,
    };
    let sensor = (sensor_ref.as_str(), request.trigger_types.as_slice());
    let lifetime = Duration::from_secs(seconds);
    let signed = sign_sensor_token(&api.core.config.token_key, identity, sensor, api.core.now(), lifetime);
    let (token, claims) = signed.map_err(|error| {
        let error: &dyn std::error::Error = &error;
        tracing::error!(error, "sensor token could not be signed");
        ApiError::internal()
    })?;
    Ok(Json(json!({"data": {
        "identity_id": identity,
        "sensor_ref": sensor_ref,
        "token": token.expose(),
        "expires_at": claims.expires_at(),
        "trigger_types": request.trigger_types,
    }})))
}

/// The life in seconds, or everything that is wrong.
fn check(request: &SensorTokenRequest) -> Result<u64, Vec<String>> {
    let mut problems = Vec::new();
    let length = request.sensor_ref.chars().count();
    if !(1..=LONGEST_REF).contains(&length) {
        problems.push(format!("sensor_ref must have 1 to {LONGEST_REF} characters, not {length}"));
    }
    if request.trigger_types.is_empty() {
        problems.push("trigger_types must name at least one trigger".to_owned());
    }
    if request.trigger_types.iter().any(String::is_empty) {
        problems.push("trigger_types must not contain empty texts".to_owned());
    }
    let seconds = request.ttl_seconds.unwrap_or(USUAL_LIFE_SECONDS);
    if !LIFE_SECONDS.contains(&seconds) {
        let (least, most) = (LIFE_SECONDS.start(), LIFE_SECONDS.end());
        problems.push(format!("ttl_seconds must be {least} to {most}, not {seconds}"));
    }
    if problems.is_empty() { Ok(seconds) } else { Err(problems) }
}
