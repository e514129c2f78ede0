//! One rule and one event to an enforcement, or to nothing.

use attune_model::IdentityId;
use attune_model::rows::{Action, Event};
use attune_model::schema::secret_pointers;
use attune_security::SealingKey;
use attune_store::{NewEnforcement, NewExecution, PlacementOverride, RuleTarget};
use chrono::{DateTime, Utc};
use serde_json::{Value, json};
use thiserror::Error;

use super::secrets::{ProtectError, protect};
use super::template::{Context, render, segments};
use super::{condition, template};

/// Why a rule that an event meets leads to nothing.
#[derive(Debug, Error)]
enum EnforceError {
    #[error(
        "a secret of the pack's configuration would land in parameter {pointer}, which {action} does not mark as secret"
    )]
    SecretLeaks { pointer: String, action: String },
    #[error(transparent)]
    Protect(#[from] ProtectError),
}

/// Decides what an event leads to.
#[derive(Debug)]
pub(crate) struct RuleEngine<'a> {
    key: &'a SealingKey,
    system: IdentityId,
    now: DateTime<Utc>,
}

impl<'a> RuleEngine<'a> {
    /// `system` owns executions of rules without owner; `now` is `system.timestamp` of templates.
    pub(crate) fn new(key: &'a SealingKey, system: IdentityId, now: DateTime<Utc>) -> Self {
        Self { key, system, now }
    }

    /// The enforcements of the rules that `event` meets. What is wrong with a rule is logged and harms no other rule.
    pub(crate) fn decide(&self, event: &Event, targets: &[RuleTarget]) -> Vec<NewEnforcement> {
        targets.iter().filter_map(|target| self.enforcement(event, target)).collect()
    }

    fn enforcement(&self, event: &Event, target: &RuleTarget) -> Option<NewEnforcement> {
        let (rule, event_id) = (&target.rule, event.id.0);
        match condition::holds(&rule.conditions, event) {
            Ok(true) => {}
            Ok(false) => {
                tracing::debug!(rule = rule.r#ref, event_id, "event does not meet the conditions");
                return None;
            }
            Err(error) => {
                let error: &dyn std::error::Error = &error;
                tracing::warn!(rule = rule.r#ref, event_id, error, "conditions could not be judged; rule skipped");
                return None;
            }
        }
        self.build(event, target)
            .inspect_err(|error| {
                let error: &dyn std::error::Error = error;
                tracing::error!(rule = rule.r#ref, event_id, error, "rule could not be enforced");
            })
            .ok()
    }

    fn build(&self, event: &Event, target: &RuleTarget) -> Result<NewEnforcement, EnforceError> {
        let (rule, pack) = (&target.rule, &target.pack);
        let secrets = secret_pointers(&pack.conf_schema);
        let context = Context::new(event, rule, (&pack.config, &secrets), self.now);
        let parameters = if rule.action_params.is_object() { rule.action_params.clone() } else { json!({}) };
        let rendered = render(&parameters, &context);
        if !rendered.missing.is_empty() {
            let paths = rendered.missing.join(", ");
            tracing::info!(rule = rule.r#ref, event_id = event.id.0, paths, "templates name what does not exist");
        }
        let schema = target.action.as_ref().and_then(|action| action.param_schema.as_ref());
        refuse_leaks(&rendered, schema, &rule.action_ref)?;
        let protected = protect(rendered.value, schema, self.key)?;
        if target.action.is_none() {
            tracing::warn!(rule = rule.r#ref, action = rule.action_ref, "action of the rule does not exist");
        }
        Ok(NewEnforcement {
            rule: rule.id,
            rule_ref: rule.r#ref.clone(),
            config: protected.config,
            payload: as_object(event.payload.as_ref()),
            conditions: as_array(&rule.conditions),
            secrets: protected.secrets,
            execution: target.action.as_ref().map(|action| self.execution(target, action)),
        })
    }

    /// The store adds enforcement, parameters and secrets.
    fn execution(&self, target: &RuleTarget, action: &Action) -> NewExecution {
        let own = target.rule.permission_set_refs.as_ref();
        NewExecution {
            action: action.id,
            action_ref: action.r#ref.clone(),
            config: Value::Null,
            secrets: Vec::new(),
            env_vars: None,
            parent: None,
            executor: target.owner.unwrap_or(self.system),
            permission_set_refs: own.unwrap_or(&action.default_execution_permission_set_refs).clone(),
            artifact_retention: None,
            placement: PlacementOverride::default(),
        }
    }
}

/// A secret may only land in a parameter that the action marks as secret, or inside one.
fn refuse_leaks(rendered: &template::Rendered, schema: Option<&Value>, action: &str) -> Result<(), EnforceError> {
    let safe: Vec<Vec<String>> = schema.map(secret_pointers).unwrap_or_default().iter().map(|p| segments(p)).collect();
    for pointer in &rendered.tainted {
        let place = segments(pointer);
        if !safe.iter().any(|secret| place.starts_with(secret)) {
            return Err(EnforceError::SecretLeaks { pointer: pointer.clone(), action: action.to_owned() });
        }
    }
    Ok(())
}

/// `enforcement.payload` is an object on the platform.
fn as_object(payload: Option<&Value>) -> Value {
    match payload {
        None | Some(Value::Null) => json!({}),
        Some(object @ Value::Object(_)) => object.clone(),
        Some(other) => json!({ "value": other }),
    }
}

/// `enforcement.conditions` is a list on the platform.
fn as_array(conditions: &Value) -> Value {
    match conditions {
        Value::Array(_) => conditions.clone(),
        Value::Null => json!([]),
        Value::Object(object) if object.is_empty() => json!([]),
        other => json!([other]),
    }
}

#[cfg(test)]
mod tests;
