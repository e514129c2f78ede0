//! Parameter schemas of packs: defaults, checks, secrets.
//!
//! Two spellings are facts of the platform: *flat* (`name: {type, required, default, enum, secret, …}`) and JSON schema
//! (`type: object` with `properties` and a list `required`). What a schema does not say is allowed.

use std::fmt;

use serde_json::{Map, Value};

use crate::JsonMap;

/// A value that does not fit its schema, or a schema that makes no sense.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Violation {
    /// Dotted path of the parameter; empty for the schema as a whole.
    pub path: String,
    /// What is wrong.
    pub message: String,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.path.is_empty() { f.write_str(&self.message) } else { write!(f, "{}: {}", self.path, self.message) }
    }
}

/// What kind of values is checked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Values {
    /// As the action gets them.
    Final,
    /// As a rule has them: a text with a double-braced template fits every type.
    Templates,
}

/// Types that are checked; others are accepted with any value.
const TYPES: [&str; 7] = ["string", "integer", "number", "boolean", "object", "array", "null"];

/// Gives every top-level parameter that is missing or null its default.
pub fn apply_defaults(schema: &Value, parameters: &mut JsonMap) {
    let Some(fields) = fields(schema) else { return };
    for (name, field) in fields {
        if let Some(default) = field.get("default").filter(|default| !default.is_null())
            && parameters.get(name).is_none_or(Value::is_null)
        {
            parameters.insert(name.clone(), default.clone());
        }
    }
}

/// Everything about `parameters` that the schema forbids. Parameters that it does not mention are allowed.
pub fn validate(schema: &Value, parameters: &JsonMap, values: Values) -> Vec<Violation> {
    let mut found = Vec::new();
    object(&mut found, "", schema, parameters, values);
    found
}

/// Pointers (RFC 6901) to everything that the schema marks as secret, outermost only.
pub fn secret_pointers(schema: &Value) -> Vec<String> {
    let mut found = Vec::new();
    secrets(&mut found, "", schema);
    found
}

/// Fields whose type is not known here; their values are not checked.
pub fn unknown_types(schema: &Value) -> Vec<Violation> {
    let mut found = Vec::new();
    if let Some(fields) = fields(schema) {
        collect_unknown_types(&mut found, "", fields);
    }
    found
}

/// What is wrong with the schema itself: shapes and defaults that do not fit.
pub fn check(schema: &Value) -> Vec<Violation> {
    let mut found = Vec::new();
    let Some(fields) = fields(schema) else {
        let wrong = !schema.is_null();
        return if wrong { vec![violation("", "a schema must be a mapping of names to fields")] } else { found };
    };
    check_fields(&mut found, "", fields);
    found
}

fn violation(path: &str, message: impl Into<String>) -> Violation {
    Violation { path: path.to_owned(), message: message.into() }
}

/// The fields by name, in either spelling.
fn fields(schema: &Value) -> Option<&Map<String, Value>> {
    let map = schema.as_object()?;
    if is_json_schema(map) { map.get("properties")?.as_object() } else { Some(map) }
}

/// A flat schema may well have a field called `type`, but its description is never a text.
fn is_json_schema(map: &Map<String, Value>) -> bool {
    map.get("type").is_some_and(|kind| kind == "object") && map.get("properties").is_some_and(Value::is_object)
}

fn is_required(schema: &Value, name: &str, field: &Value) -> bool {
    let by_list = schema
        .get("required")
        .and_then(Value::as_array)
        .is_some_and(|names| names.iter().any(|required| required == name));
    by_list || field.get("required") == Some(&Value::Bool(true))
}

fn join(path: &str, name: &str) -> String {
    if path.is_empty() { name.to_owned() } else { format!("{path}.{name}") }
}

fn object(found: &mut Vec<Violation>, path: &str, schema: &Value, given: &JsonMap, values: Values) {
    let Some(fields) = fields(schema) else { return };
    for (name, field) in fields {
        let path = join(path, name);
        match given.get(name) {
            None | Some(Value::Null) if is_required(schema, name, field) => {
                found.push(violation(&path, "required, but missing"));
            }
            None | Some(Value::Null) => {}
            Some(given) => value(found, &path, field, given, values),
        }
    }
}

fn value(found: &mut Vec<Violation>, path: &str, field: &Value, given: &Value, values: Values) {
    if values == Values::Templates && given.as_str().is_some_and(|text| text.contains("{{")) {
        return;
    }
    let types = types(field);
    if !types.is_empty() && !types.iter().any(|wanted| fits(wanted, given)) {
        found.push(violation(path, format!("must be {}, not {}", types.join(" or "), describe(given))));
        return;
    }
    if let Some(allowed) = field.get("enum").and_then(Value::as_array)
        && !allowed.contains(given)
    {
        let all: Vec<String> = allowed.iter().map(Value::to_string).collect();
        found.push(violation(path, format!("must be one of {}, not {}", all.join(", "), describe(given))));
        return;
    }
    match given {
        Value::Object(given) if field.get("properties").is_some_and(Value::is_object) => {
            nested(found, path, field, given, values);
        }
        Value::Array(items) => {
            let Some(item) = field.get("items").filter(|item| item.is_object()) else {
                return;
            };
            for (index, given) in items.iter().enumerate() {
                value(found, &format!("{path}[{index}]"), item, given, values);
            }
        }
        _ => {}
    }
}

/// A field with `properties` need not repeat that it is an object.
fn nested(found: &mut Vec<Violation>, path: &str, field: &Value, given: &JsonMap, values: Values) {
    let mut schema = Map::new();
    schema.insert("type".to_owned(), "object".into());
    for key in ["properties", "required"] {
        if let Some(part) = field.get(key) {
            schema.insert(key.to_owned(), part.clone());
        }
    }
    object(found, path, &Value::Object(schema), given, values);
}

/// The checked types of a field; none when one of them is not known.
fn types(field: &Value) -> Vec<&str> {
    let named: Vec<&str> = match field.get("type") {
        Some(Value::String(name)) => vec![name.as_str()],
        Some(Value::Array(names)) => names.iter().filter_map(Value::as_str).collect(),
        _ => Vec::new(),
    };
    if named.iter().all(|name| TYPES.contains(name)) { named } else { Vec::new() }
}

fn fits(wanted: &str, given: &Value) -> bool {
    match wanted {
        "string" => given.is_string(),
        "integer" => given.is_i64() || given.is_u64() || given.as_f64().is_some_and(|number| number.fract() == 0.0),
        "number" => given.is_number(),
        "boolean" => given.is_boolean(),
        "object" => given.is_object(),
        "array" => given.is_array(),
        _ => given.is_null(),
    }
}

/// The kind of a value. Never its text: it may be a secret.
fn describe(given: &Value) -> &'static str {
    match given {
        Value::Null => "null",
        Value::Bool(_) => "a boolean",
        Value::Number(_) => "a number",
        Value::String(_) => "a text",
        Value::Array(_) => "a list",
        Value::Object(_) => "an object",
    }
}

fn secrets(found: &mut Vec<String>, pointer: &str, schema: &Value) {
    let Some(fields) = fields(schema) else { return };
    for (name, field) in fields {
        let pointer = format!("{pointer}/{}", name.replace('~', "~0").replace('/', "~1"));
        if field.get("secret") == Some(&Value::Bool(true)) {
            found.push(pointer);
        } else if let Some(properties) = field.get("properties") {
            secrets(found, &pointer, properties);
        }
    }
}

fn check_fields(found: &mut Vec<Violation>, path: &str, fields: &Map<String, Value>) {
    for (name, field) in fields {
        let path = join(path, name);
        let Some(map) = field.as_object() else {
            found.push(violation(&path, "must be a mapping such as {type: string}"));
            continue;
        };
        if map.get("secret").is_some_and(|value| !value.is_boolean()) {
            found.push(violation(&path, "secret must be true or false"));
        }
        if map.get("required").is_some_and(|value| !value.is_boolean() && !value.is_array()) {
            found.push(violation(&path, "required must be true or false"));
        }
        if map.get("enum").is_some_and(|value| !value.is_array()) {
            found.push(violation(&path, "enum must be a list"));
        }
        if let Some(default) = map.get("default").filter(|default| !default.is_null()) {
            let before = found.len();
            value(found, &path, field, default, Values::Final);
            for wrong in &mut found[before..] {
                wrong.message = format!("the default {}", wrong.message);
            }
        }
        if let Some(properties) = map.get("properties").and_then(Value::as_object) {
            check_fields(found, &path, properties);
        }
    }
}

fn collect_unknown_types(found: &mut Vec<Violation>, path: &str, fields: &Map<String, Value>) {
    for (name, field) in fields {
        let path = join(path, name);
        let names: Vec<&Value> = match field.get("type") {
            None | Some(Value::Null) => Vec::new(),
            Some(Value::Array(names)) => names.iter().collect(),
            Some(one) => vec![one],
        };
        for name in names {
            if !name.as_str().is_some_and(|name| TYPES.contains(&name)) {
                let known = TYPES.join(", ");
                found.push(violation(&path, format!("unknown type {name}, not checked; known are {known}")));
            }
        }
        if let Some(properties) = field.get("properties").and_then(Value::as_object) {
            collect_unknown_types(found, &path, properties);
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn map(value: Value) -> JsonMap {
        let Value::Object(map) = value else { panic!("not an object") };
        map
    }

    fn flat() -> Value {
        json!({
            "message": {"type": "string", "required": true},
            "count": {"type": "integer", "default": 3},
            "mode": {"type": "string", "enum": ["a", "b"], "default": "a"},
            "type": {"type": "string"},
            "auth": {"type": "object", "properties": {"user": {"type": "string"}, "p/w": {"type": "string", "secret": true}}},
            "hosts": {"type": "array", "items": {"type": "string"}},
        })
    }

    fn json_schema() -> Value {
        json!({"type": "object", "required": ["message"], "properties": {
            "message": {"type": "string"}, "count": {"type": ["integer", "null"], "default": 3},
            "token": {"type": "string", "secret": true},
        }})
    }

    fn shown(violations: &[Violation]) -> Vec<String> {
        violations.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn defaults_fill_what_is_missing_or_null_in_both_spellings() {
        for schema in [flat(), json_schema()] {
            let mut parameters = map(json!({"message": "x", "count": null}));
            apply_defaults(&schema, &mut parameters);
            assert_eq!(parameters["count"], 3);
            let mut given = map(json!({"count": 0}));
            apply_defaults(&schema, &mut given);
            assert_eq!(given["count"], 0);
            assert!(!given.contains_key("message"));
        }
    }

    #[test]
    fn every_violation_is_found_and_named() {
        let parameters = map(json!({
            "count": "3", "mode": "c", "type": 1, "auth": {"user": 1}, "hosts": ["a", 2], "unknown": "allowed",
        }));
        assert_eq!(
            shown(&validate(&flat(), &parameters, Values::Final)),
            [
                "message: required, but missing",
                "count: must be integer, not a text",
                r#"mode: must be one of "a", "b", not a text"#,
                "type: must be string, not a number",
                "auth.user: must be string, not a number",
                "hosts[1]: must be string, not a number",
            ]
        );
        assert_eq!(
            shown(&validate(&json_schema(), &map(json!({"count": true})), Values::Final)),
            ["message: required, but missing", "count: must be integer or null, not a boolean",]
        );
        assert!(validate(&flat(), &map(json!({"message": "x", "count": 2.0})), Values::Final).is_empty());
    }

    #[test]
    fn a_template_fits_every_type_of_a_rule() {
        let parameters = map(json!({"message": "x", "count": "{{ event.payload.n }}"}));
        assert!(validate(&flat(), &parameters, Values::Templates).is_empty());
        assert_eq!(validate(&flat(), &parameters, Values::Final).len(), 1);
    }

    #[test]
    fn secrets_are_found_at_every_depth() {
        assert_eq!(secret_pointers(&flat()), ["/auth/p~1w"]);
        assert_eq!(secret_pointers(&json_schema()), ["/token"]);
        assert!(secret_pointers(&Value::Null).is_empty());
    }

    #[test]
    fn a_schema_that_makes_no_sense_is_refused() {
        let schema = json!({"a": "string", "b": {"type": "text"}, "c": {"type": "integer", "default": "x"},
            "d": {"enum": "x"}, "e": {"properties": {"f": {"secret": "yes"}}}});
        assert_eq!(
            shown(&check(&schema)),
            [
                "a: must be a mapping such as {type: string}",
                "c: the default must be integer, not a text",
                "d: enum must be a list",
                "e.f: secret must be true or false",
            ]
        );
        assert_eq!(
            shown(&unknown_types(&schema)),
            ["b: unknown type \"text\", not checked; known are string, integer, number, boolean, object, array, null"]
        );
        assert!(check(&flat()).is_empty() && unknown_types(&flat()).is_empty());
        assert!(check(&json_schema()).is_empty());
        assert!(check(&Value::Null).is_empty());
        assert_eq!(check(&json!([])).len(), 1);
    }
}
