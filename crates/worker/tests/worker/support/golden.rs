//! What others read, beside files that say how it has to be.

use serde_json::Value;

/// Compares with a golden file.
#[track_caller]
pub fn assert_golden(actual: &Value, expected: &str) {
    let actual = serde_json::to_string_pretty(actual).unwrap() + "\n";
    assert_eq!(actual, expected, "what is sent or stored has changed:\n{actual}");
}

/// What differs from run to run is checked for its form and then named.
pub fn named(mut value: Value, id: i64) -> Value {
    fn is_time(text: &str) -> bool {
        chrono::DateTime::parse_from_rfc3339(text).is_ok_and(|time| time.offset().local_minus_utc() == 0)
    }
    fn walk(value: &mut Value, id: i64) {
        match value {
            Value::Object(map) => {
                for (key, value) in map.iter_mut() {
                    match (key.as_str(), &*value) {
                        ("message_id" | "correlation_id", Value::String(text)) if text.len() == 36 => {
                            *value = "<uuid>".into();
                        }
                        ("execution_id", Value::Number(number)) if number.as_i64() == Some(id) => {
                            *value = "<id>".into()
                        }
                        ("duration_ms", Value::Number(number)) if number.is_u64() => *value = "<integer>".into(),
                        (_, Value::String(text)) if is_time(text) => *value = "<time>".into(),
                        _ => walk(value, id),
                    }
                }
            }
            Value::Array(items) => items.iter_mut().for_each(|item| walk(item, id)),
            _ => {}
        }
    }
    walk(&mut value, id);
    value
}
