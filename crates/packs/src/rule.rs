//! `rules/*.yaml`.

use attune_store::NewRule;
use attune_yaml::Fields;
use serde_json::{Value, json};

use crate::component::{Component, Declared};
use crate::content::ComponentKind;

const KEYS: &[&str] = &[
    "ref",
    "name",
    "label",
    "description",
    "enabled",
    "trigger_ref",
    "action_ref",
    "conditions",
    "action_params",
    "trigger_params",
    "permission_set_refs",
    "permission_set_ref",
    "tags",
    "meta",
    "metadata",
    "pack",
];

/// How a condition compares; a fact of the platform.
const OPERATORS: [&str; 3] = ["equals", "not_equals", "contains"];

impl Declared for NewRule {
    const KIND: ComponentKind = ComponentKind::Rule;
    const KEYS: &'static [&'static str] = KEYS;

    fn read(component: &Component<'_>) -> Option<Self> {
        let fields = &component.fields;
        let own_ref = component.own_ref().unwrap_or_default();
        let full = |field| fields.required_text(field).and_then(|text| component.foreign_ref(field, text));
        let trigger_ref = full("trigger_ref");
        let action_ref = full("action_ref");
        let conditions = conditions(fields);
        let params = |field| Value::Object(fields.object(field).unwrap_or_default());
        let (action_params, trigger_params) = (params("action_params"), params("trigger_params"));
        let one_set = || fields.text("permission_set_ref").map(|one| vec![one]);
        let permission_set_refs = fields.texts("permission_set_refs").or_else(one_set);
        let enabled = fields.boolean("enabled").unwrap_or(true);
        Some(NewRule {
            label: component.label(&own_ref),
            description: fields.text("description"),
            action_ref: action_ref.unwrap_or_default(),
            trigger_ref: trigger_ref.unwrap_or_default(),
            conditions,
            action_params,
            trigger_params,
            permission_set_refs,
            enabled,
            r#ref: own_ref,
        })
    }

    fn own_ref(&self) -> &str {
        &self.r#ref
    }
}

/// A shape that no event can match is an error here: the platform would skip the rule without a word.
fn conditions(fields: &Fields<'_>) -> Value {
    let field = "conditions";
    let Some(conditions) = fields.json(field) else {
        return json!([]);
    };
    match &conditions {
        Value::Array(items) => {
            for (index, item) in items.iter().enumerate() {
                if let Some(wrong) = wrong_with(item) {
                    fields.error(field, format!("[{index}]: {wrong}"));
                }
            }
        }
        Value::Object(map) if map.is_empty() || map.get("expression").is_some_and(Value::is_string) => {}
        Value::Object(_) => fields.error(field, "a mapping needs a text `expression`; this one never matches"),
        _ => fields.error(field, "must be a list of {field, operator, value} or a mapping with `expression`"),
    }
    conditions
}

fn wrong_with(condition: &Value) -> Option<String> {
    let Some(map) = condition.as_object() else {
        return Some("must be a mapping {field, operator, value}".to_owned());
    };
    if !map.get("field").is_some_and(Value::is_string) {
        return Some("needs a text `field`, a dotted path in the event's payload".to_owned());
    }
    if !map.contains_key("value") {
        return Some("needs a `value` to compare with".to_owned());
    }
    match map.get("operator").and_then(Value::as_str) {
        Some(operator) if OPERATORS.contains(&operator) => None,
        _ => Some(format!("`operator` must be one of {}", OPERATORS.join(", "))),
    }
}
