//! Events from sensors.

use attune_model::RuleId;
use attune_security::TokenType;
use attune_store::{EventSource, Intake, NewEvent};
use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use serde::Deserialize;
use serde_json::{Value, json};

use super::Api;
use super::auth::Caller;
use super::error::ApiError;
use super::extract::Body;
use crate::events;

/// What binds an event to one rule: this and the rule's id; a fact of the platform.
const RULE_PREFIX: &str = "rule_";

#[derive(Debug, Deserialize)]
pub(super) struct EventRequest {
    #[serde(alias = "trigger_type")]
    trigger_ref: String,
    payload: Option<Value>,
    config: Option<Value>,
    trigger_instance_id: Option<String>,
}

/// Takes an event in. When this answers, everything that the event leads to is stored.
pub(super) async fn create(
    State(api): State<Api>,
    caller: Caller,
    Body(request): Body<EventRequest>,
) -> Result<(StatusCode, Json<Value>), ApiError> {
    let trigger_ref = request.trigger_ref;
    match caller.kind() {
        TokenType::Access => {
            return Err(ApiError::forbidden("events come from sensors, not from people"));
        }
        TokenType::Sensor if !caller.0.trigger_types().contains(&trigger_ref.as_str()) => {
            let sensor = &caller.0.login;
            let message = format!("the token of sensor {sensor} is not good for events of trigger {trigger_ref}");
            return Err(ApiError::forbidden(message));
        }
        _ => {}
    }
    let event = NewEvent {
        config: request.config,
        payload: request.payload,
        source_ref: (caller.kind() == TokenType::Sensor).then(|| caller.0.login.clone()),
        rule: request.trigger_instance_id.as_deref().and_then(bound_rule),
        trigger_ref,
    };
    match events::take(&api.core, EventSource::New(&event)).await? {
        Intake::Taken { event, .. } => Ok((StatusCode::CREATED, Json(json!({ "data": event })))),
        Intake::UnknownTrigger | Intake::UnknownEvent => {
            Err(ApiError::not_found(format!("trigger {} does not exist", event.trigger_ref)))
        }
    }
}

/// Other forms are ignored, as on the platform.
fn bound_rule(instance: &str) -> Option<RuleId> {
    instance.strip_prefix(RULE_PREFIX)?.parse().ok().map(RuleId)
}
