//! Whether an event meets the conditions of a rule.

use std::collections::BTreeMap;

use attune_model::rows::Event;
use serde_json::{Value, json};
use thiserror::Error;

use crate::expression::{Expression, ExpressionError, equal};

/// Why conditions could not be judged; the event counts as not meeting them.
#[derive(Debug, Error, PartialEq)]
pub(super) enum ConditionError {
    /// The expression has no value.
    #[error("expression {text:?} failed")]
    Expression {
        /// The expression.
        text: String,
        /// Why.
        #[source]
        source: ExpressionError,
    },
    /// An entry of the list form makes no sense.
    #[error("condition {index} {detail}")]
    Entry {
        /// From 0.
        index: usize,
        /// What is wrong.
        detail: String,
    },
    /// A form that nobody knows.
    #[error("conditions are neither a list nor an object with `expression`")]
    Form,
}

/// Whether `event` meets `conditions`. An event without payload meets all.
pub(super) fn holds(conditions: &Value, event: &Event) -> Result<bool, ConditionError> {
    let Some(payload) = event.payload.as_ref().filter(|payload| !payload.is_null()) else {
        return Ok(true);
    };
    match conditions {
        Value::Null => Ok(true),
        Value::Array(entries) => all_hold(entries, payload),
        Value::Object(object) if object.is_empty() => Ok(true),
        Value::Object(object) => match object.get("expression") {
            Some(Value::String(text)) => expression_holds(text, event, payload),
            _ => Err(ConditionError::Form),
        },
        _ => Err(ConditionError::Form),
    }
}

fn expression_holds(text: &str, event: &Event, payload: &Value) -> Result<bool, ConditionError> {
    let variable = json!({
        "id": event.id,
        "trigger": event.trigger,
        "trigger_ref": event.trigger_ref,
        "payload": payload,
        "created": event.created,
    });
    let failed = |source| ConditionError::Expression { text: text.to_owned(), source };
    Expression::parse(text).and_then(|read| read.holds(&BTreeMap::from([("event", variable)]))).map_err(failed)
}

fn all_hold(entries: &[Value], payload: &Value) -> Result<bool, ConditionError> {
    // Every entry is looked at, so that a mistake does not hide behind an entry that does not hold.
    let mut all = true;
    for (index, entry) in entries.iter().enumerate() {
        all &= entry_holds(entry, payload).map_err(|detail| ConditionError::Entry { index, detail })?;
    }
    Ok(all)
}

fn entry_holds(entry: &Value, payload: &Value) -> Result<bool, String> {
    let text = |key: &str| entry.get(key).and_then(Value::as_str).ok_or_else(|| format!("has no text {key:?}"));
    let (field, operator) = (text("field")?, text("operator")?);
    let wanted = entry.get("value").unwrap_or(&Value::Null);
    let actual = super::template::walk(payload, field.split('.'))
        .ok_or_else(|| format!("asks for {field:?}, which the payload does not have"))?;
    match operator {
        "equals" => Ok(equal(actual, wanted)),
        "not_equals" => Ok(!equal(actual, wanted)),
        "contains" => match (actual, wanted) {
            (Value::String(whole), Value::String(part)) => Ok(whole.contains(part.as_str())),
            (Value::Array(items), _) => Ok(items.iter().any(|item| equal(item, wanted))),
            _ => Err(format!("looks into {field:?}, which is neither a list nor a text with a text to find")),
        },
        other => Err(format!("has the unknown operator {other:?}; known are equals, not_equals, contains")),
    }
}

#[cfg(test)]
mod tests {
    use attune_model::{EventId, TriggerId};
    use chrono::DateTime;

    use super::*;

    fn event(payload: Option<Value>) -> Event {
        Event {
            id: EventId(7),
            trigger: Some(TriggerId(3)),
            trigger_ref: "core.timer".into(),
            config: None,
            payload,
            source: None,
            source_ref: None,
            rule: None,
            rule_ref: None,
            created: DateTime::from_timestamp(1_700_000_000, 0).unwrap(),
        }
    }

    #[track_caller]
    fn judge(conditions: &Value) -> Result<bool, ConditionError> {
        holds(conditions, &event(Some(json!({"n": 5, "s": "hello", "l": [1, "a"], "o": {"x": null}}))))
    }

    #[test]
    fn nothing_to_meet_is_met() {
        for conditions in [json!(null), json!({}), json!([])] {
            assert_eq!(judge(&conditions), Ok(true), "{conditions}");
        }
    }

    #[test]
    fn an_event_without_payload_meets_everything() {
        for payload in [None, Some(Value::Null)] {
            assert_eq!(holds(&json!({"expression": "false"}), &event(payload)), Ok(true));
        }
    }

    #[test]
    fn every_entry_of_a_list_must_hold() {
        for (entry, expected) in [
            (json!({"field": "n", "operator": "equals", "value": 5.0}), true),
            (json!({"field": "n", "operator": "equals", "value": "5"}), false),
            (json!({"field": "n", "operator": "not_equals", "value": 6}), true),
            (json!({"field": "s", "operator": "contains", "value": "ell"}), true),
            (json!({"field": "l", "operator": "contains", "value": "a"}), true),
            (json!({"field": "l", "operator": "contains", "value": 2}), false),
            (json!({"field": "l.1", "operator": "equals", "value": "a"}), true),
            (json!({"field": "o.x", "operator": "equals"}), true),
        ] {
            assert_eq!(judge(&json!([entry])), Ok(expected), "{entry}");
        }
        let mixed = json!([
            {"field": "n", "operator": "equals", "value": 5},
            {"field": "s", "operator": "equals", "value": "other"},
        ]);
        assert_eq!(judge(&mixed), Ok(false));
    }

    #[test]
    fn an_entry_that_makes_no_sense_is_an_error_that_names_it() {
        for (entry, part) in [
            (json!({"field": "missing.x", "operator": "equals", "value": 1}), "asks for \"missing.x\""),
            (json!({"field": "n", "operator": "greater", "value": 1}), "unknown operator \"greater\""),
            (json!({"field": "n", "operator": "contains", "value": 1}), "neither a list nor a text"),
            (json!({"operator": "equals"}), "has no text \"field\""),
            (json!("n == 5"), "has no text \"field\""),
        ] {
            let first = json!({"field": "n", "operator": "equals", "value": 6});
            let error = judge(&json!([first, entry])).unwrap_err().to_string();
            assert!(error.starts_with("condition 1 ") && error.contains(part), "{error}");
        }
    }

    #[test]
    fn an_expression_sees_the_event() {
        for (text, expected) in [
            ("event.payload.n > 4 and 'ell' in event.payload.s", true),
            ("{{ event.payload.n == 6 }}", false),
            ("event.trigger_ref == 'core.timer' and event.trigger == 3 and event.id == 7", true),
            ("starts_with(event.created, '2023-11-14T22:13:20')", true),
            ("event.payload.missing", false),
        ] {
            assert_eq!(judge(&json!({"expression": text})), Ok(expected), "{text}");
        }
        let error = judge(&json!({"expression": "event.payload.n >"})).unwrap_err();
        assert!(matches!(error, ConditionError::Expression { .. }), "{error}");
    }

    #[test]
    fn other_forms_are_errors() {
        for conditions in [json!({"any": []}), json!({"expression": 5}), json!("true"), json!(true)] {
            assert_eq!(judge(&conditions), Err(ConditionError::Form), "{conditions}");
        }
    }
}
