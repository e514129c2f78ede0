//! Executions: asking for one, looking at them, cancelling one.

use std::str::FromStr as _;

use attune_model::ExecutionId;
use attune_model::status::ExecutionStatus;
use attune_security::{Claims, TokenType};
use attune_store::{Cancel, ExecutionFilter, ExecutionView, NewExecution};
use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use serde::Deserialize;
use serde_json::{Value, json};

use super::Api;
use super::auth::Caller;
use super::error::ApiError;
use super::extract::{Body, Id, Parameters};
use super::page::{PageQuery, paged};
use super::request::ExecuteRequest;
use crate::rules::protect;

/// Stores an execution as requested. One that a running action asks for is its child and belongs to the same identity.
pub(super) async fn execute(
    State(api): State<Api>,
    Caller(claims): Caller,
    Body(request): Body<ExecuteRequest>,
) -> Result<(StatusCode, Json<Value>), ApiError> {
    let checked = request.check()?;
    let Some(action) = api.core.store.action(&request.action_ref).await? else {
        return Err(ApiError::not_found(format!("action {} does not exist", request.action_ref)));
    };
    let permission_set_refs = request.permissions(&claims, &action)?;
    let protected = protect(checked.parameters, action.param_schema.as_ref(), &api.core.config.sealing_key);
    let protected = protected.map_err(|error| {
        let error: &dyn std::error::Error = &error;
        tracing::error!(error, action = action.r#ref, "parameters could not be encrypted");
        ApiError::internal()
    })?;
    let execution = NewExecution {
        action: action.id,
        action_ref: action.r#ref,
        config: protected.config,
        secrets: protected.secrets,
        env_vars: checked.env_vars,
        parent: parent(&api, &claims).await?,
        executor: claims.identity().unwrap_or(api.core.system),
        permission_set_refs,
        artifact_retention: checked.artifact_retention,
        placement: checked.placement,
    };
    let stored = api.core.request_execution(&execution).await?;
    let view = ExecutionView { execution: stored, rule_ref: None, trigger_ref: None };
    Ok((StatusCode::CREATED, Json(json!({ "data": shown(view) }))))
}

/// The execution that the caller is, if it still exists.
async fn parent(api: &Api, claims: &Claims) -> Result<Option<ExecutionId>, ApiError> {
    let own = if claims.token_type == TokenType::Execution { claims.execution() } else { None };
    let Some(own) = own else { return Ok(None) };
    Ok(api.core.store.execution(own).await?.map(|view| view.execution.id))
}

#[derive(Debug, Deserialize)]
pub(super) struct ListQuery {
    status: Option<String>,
    action_ref: Option<String>,
    #[serde(flatten)]
    page: PageQuery,
}

/// Newest first; `status` may name several, with commas.
pub(super) async fn list(
    State(api): State<Api>,
    _caller: Caller,
    Parameters(query): Parameters<ListQuery>,
) -> Result<Json<Value>, ApiError> {
    let request = query.page.read()?;
    let statuses = query.status.as_deref().unwrap_or_default().split(',').map(str::trim).filter(|s| !s.is_empty());
    let statuses: Result<Vec<ExecutionStatus>, _> = statuses.map(ExecutionStatus::from_str).collect();
    let filter = ExecutionFilter {
        statuses: statuses.map_err(|error| ApiError::invalid(&[format!("status: {error}")]))?,
        action_ref: query.action_ref,
    };
    let executions = api.core.store.executions(&filter, request).await?;
    Ok(Json(paged(request, executions, shown)))
}

pub(super) async fn get(State(api): State<Api>, _caller: Caller, Id(id): Id) -> Result<Json<Value>, ApiError> {
    match api.core.store.execution(ExecutionId(id)).await? {
        Some(view) => Ok(Json(json!({ "data": shown(view) }))),
        None => Err(unknown(id)),
    }
}

/// Answers with the row as it is now; cancelling twice is the same as once.
pub(super) async fn cancel(State(api): State<Api>, _caller: Caller, Id(id): Id) -> Result<Json<Value>, ApiError> {
    match api.core.cancel(ExecutionId(id)).await? {
        Cancel::Cancelled { execution, .. } | Cancel::Canceling { execution } | Cancel::Already { execution } => {
            let view = ExecutionView { execution: *execution, rule_ref: None, trigger_ref: None };
            Ok(Json(json!({ "data": shown(view) })))
        }
        Cancel::Ended { execution } => {
            Err(ApiError::conflict(format!("execution {id} has ended already, it is {}", execution.status)))
        }
        Cancel::Unknown => Err(unknown(id)),
    }
}

fn unknown(id: i64) -> ApiError {
    ApiError::not_found(format!("execution {id} does not exist"))
}

fn shown(view: ExecutionView) -> Value {
    let row = view.execution;
    json!({
        "id": row.id,
        "action": row.action,
        "action_ref": row.action_ref,
        "config": row.config,
        "env_vars": row.env_vars,
        "parent": row.parent,
        "enforcement": row.enforcement,
        "rule_ref": view.rule_ref,
        "trigger_ref": view.trigger_ref,
        "executor": row.executor,
        "permission_set_refs": row.permission_set_refs,
        "worker": row.worker,
        "status": row.status,
        "result": row.result,
        "started_at": row.started_at,
        "created": row.created,
        "updated": row.updated,
    })
}
