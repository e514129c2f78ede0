//! The request for an execution: reading and checking, before anything is stored.

use std::collections::BTreeSet;

use attune_model::placement::Placement;
use attune_model::rows::{Action, RawPlacement, Retention};
use attune_model::status::RetentionPolicy;
use attune_security::{Claims, TokenType};
use attune_store::PlacementOverride;
use serde::Deserialize;
use serde_json::{Value, json};

use super::error::ApiError;

#[derive(Debug, Deserialize)]
pub(super) struct ExecuteRequest {
    /// What is to run.
    pub(super) action_ref: String,
    #[serde(default)]
    parameters: Value,
    #[serde(default)]
    env_vars: Value,
    permission_set_refs: Option<Vec<String>>,
    worker_selector: Option<Value>,
    worker_tolerations: Option<Value>,
    worker_affinity: Option<Value>,
    artifact_retention_policy: Option<RetentionPolicy>,
    artifact_retention_limit: Option<i32>,
}

/// A request that makes sense.
#[derive(Debug)]
pub(super) struct Checked {
    /// An object.
    pub(super) parameters: Value,
    /// Names to texts.
    pub(super) env_vars: Option<Value>,
    /// Where it may run.
    pub(super) placement: PlacementOverride,
    /// None copies the action's.
    pub(super) artifact_retention: Option<Retention>,
}

impl ExecuteRequest {
    /// Everything that is wrong with it, at once.
    pub(super) fn check(&self) -> Result<Checked, ApiError> {
        let mut problems = Vec::new();
        let parameters = match &self.parameters {
            Value::Null => json!({}),
            object @ Value::Object(_) => object.clone(),
            _ => {
                problems.push("parameters must be an object".to_owned());
                Value::Null
            }
        };
        problems.extend(env_problems(&self.env_vars));
        problems.extend(self.placement_problem());
        if self.artifact_retention_limit.is_some_and(|limit| limit <= 0) {
            problems.push("artifact_retention_limit must be above 0".to_owned());
        }
        if !problems.is_empty() {
            return Err(ApiError::invalid(&problems));
        }
        let retention = Retention { policy: self.artifact_retention_policy, limit: self.artifact_retention_limit };
        Ok(Checked {
            parameters,
            env_vars: (!self.env_vars.is_null()).then(|| self.env_vars.clone()),
            placement: PlacementOverride {
                selector: self.worker_selector.clone(),
                tolerations: self.worker_tolerations.clone(),
                affinity: self.worker_affinity.clone(),
            },
            artifact_retention: (retention != Retention::default()).then_some(retention),
        })
    }

    /// The rights of the execution: those asked for, else the action's. A running action cannot give more than it has.
    pub(super) fn permissions(&self, claims: &Claims, action: &Action) -> Result<Vec<String>, ApiError> {
        let Some(wanted) = &self.permission_set_refs else {
            return Ok(action.default_execution_permission_set_refs.clone());
        };
        if claims.token_type == TokenType::Execution {
            let own = claims.metadata.as_ref().and_then(|metadata| metadata["permission_set_refs"].as_array());
            let own: BTreeSet<&str> = own.into_iter().flatten().filter_map(Value::as_str).collect();
            let missing: Vec<&str> = wanted.iter().map(String::as_str).filter(|set| !own.contains(set)).collect();
            if !missing.is_empty() {
                let missing = missing.join(", ");
                return Err(ApiError::forbidden(format!(
                    "{} does not have the permission sets {missing}",
                    claims.login
                )));
            }
        }
        Ok(wanted.clone())
    }

    fn placement_problem(&self) -> Option<String> {
        let column = |value: &Option<Value>| value.clone().unwrap_or(Value::Null);
        let raw = RawPlacement {
            selector: column(&self.worker_selector),
            tolerations: column(&self.worker_tolerations),
            affinity: column(&self.worker_affinity),
        };
        Placement::parse(&raw).err().map(|error| error.to_string())
    }
}

fn env_problems(env_vars: &Value) -> Vec<String> {
    let entries = match env_vars {
        Value::Null => return Vec::new(),
        Value::Object(entries) => entries,
        _ => return vec!["env_vars must be an object of names and texts".to_owned()],
    };
    let mut problems = Vec::new();
    for (name, value) in entries {
        if name.is_empty() || name.contains(['=', '\0']) {
            problems.push(format!("env_vars: {name:?} is not a name of a variable"));
        }
        if value.as_str().is_none_or(|text| text.contains('\0')) {
            problems.push(format!("env_vars: the value of {name:?} must be a text without NUL"));
        }
    }
    problems
}
