//! Rules of a trigger, which sensors ask for.

use attune_model::rows::Rule;
use axum::Json;
use axum::extract::State;
use serde_json::{Value, json};

use super::Api;
use super::auth::Caller;
use super::error::ApiError;
use super::extract::{Name, Parameters};
use super::page::{PageQuery, paged};

/// Disabled rules are listed too: their `enabled` says so.
pub(super) async fn rules(
    State(api): State<Api>,
    _caller: Caller,
    Name(trigger_ref): Name,
    Parameters(query): Parameters<PageQuery>,
) -> Result<Json<Value>, ApiError> {
    let request = query.read()?;
    let Some(trigger) = api.core.store.trigger(&trigger_ref).await? else {
        return Err(ApiError::not_found(format!("trigger {trigger_ref} does not exist")));
    };
    let rules = api.core.store.trigger_rules(trigger.id, request).await?;
    Ok(Json(paged(request, rules, |rule| shown(&rule))))
}

fn shown(rule: &Rule) -> Value {
    json!({
        "id": rule.id,
        "ref": rule.r#ref,
        "pack_ref": rule.pack_ref,
        "label": rule.label,
        "description": rule.description,
        "action_ref": rule.action_ref,
        "trigger_ref": rule.trigger_ref,
        "action_params": rule.action_params,
        "trigger_params": rule.trigger_params,
        "permission_set_refs": rule.permission_set_refs,
        "enabled": rule.enabled,
        "created": rule.created,
        "updated": rule.updated,
    })
}
