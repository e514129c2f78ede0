//! What a plain scalar means in the core schema of YAML 1.2.

use serde_json::Number;

use crate::node::Value;

/// Reads an untagged plain scalar. What JSON cannot carry (`.inf`, `.nan`) stays text.
pub(crate) fn resolve(text: &str) -> Value {
    if let Some(value) = null(text).or_else(|| boolean(text)) {
        return value;
    }
    match integer(text).or_else(|| float(text)) {
        Some(number) => Value::Number { number, source: text.to_owned() },
        None => Value::String(text.to_owned()),
    }
}

pub(crate) fn null(text: &str) -> Option<Value> {
    matches!(text, "" | "~" | "null" | "Null" | "NULL").then_some(Value::Null)
}

pub(crate) fn boolean(text: &str) -> Option<Value> {
    match text {
        "true" | "True" | "TRUE" => Some(Value::Bool(true)),
        "false" | "False" | "FALSE" => Some(Value::Bool(false)),
        _ => None,
    }
}

/// `[-+]?[0-9]+`, `0o[0-7]+`, `0x[0-9a-fA-F]+`, as far as 64 bits reach.
pub(crate) fn integer(text: &str) -> Option<Number> {
    for (prefix, radix) in [("0o", 8), ("0x", 16)] {
        if let Some(digits) = text.strip_prefix(prefix) {
            // A sign after the prefix would be accepted by the standard library, not by the schema.
            let plain = digits.chars().all(|digit| digit.is_digit(radix));
            return plain.then(|| u64::from_str_radix(digits, radix).ok()).flatten().map(Number::from);
        }
    }
    let digits = text.strip_prefix(['-', '+']).unwrap_or(text);
    if digits.is_empty() || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    text.parse::<i64>().map(Number::from).or_else(|_| text.parse::<u64>().map(Number::from)).ok()
}

/// `[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?`, when finite.
pub(crate) fn float(text: &str) -> Option<Number> {
    let unsigned = text.strip_prefix(['-', '+']).unwrap_or(text);
    let looks_like_a_number = unsigned.starts_with(|first: char| first.is_ascii_digit() || first == '.')
        && unsigned.bytes().any(|byte| byte.is_ascii_digit())
        && unsigned.bytes().all(|byte| byte.is_ascii_digit() || matches!(byte, b'.' | b'e' | b'E' | b'+' | b'-'));
    if !looks_like_a_number {
        return None;
    }
    Number::from_f64(text.parse().ok()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn json(text: &str) -> serde_json::Value {
        match resolve(text) {
            Value::Null => serde_json::Value::Null,
            Value::Bool(value) => value.into(),
            Value::Number { number, .. } => serde_json::Value::Number(number),
            Value::String(text) => text.into(),
            Value::Sequence(_) | Value::Mapping(_) => unreachable!("scalars only"),
        }
    }

    #[test]
    fn plain_scalars_follow_the_core_schema() {
        for null in ["", "~", "null", "Null", "NULL"] {
            assert_eq!(json(null), serde_json::Value::Null, "{null}");
        }
        assert_eq!(json("True"), true);
        assert_eq!(json("FALSE"), false);
        assert_eq!(json("12"), 12);
        assert_eq!(json("+12"), 12);
        assert_eq!(json("-0012"), -12);
        assert_eq!(json("0o14"), 12);
        assert_eq!(json("0xfF"), 255);
        assert_eq!(json("18446744073709551615"), u64::MAX);
        assert_eq!(json("1.5"), 1.5);
        assert_eq!(json(".5"), 0.5);
        assert_eq!(json("5."), 5.0);
        assert_eq!(json("-1e3"), -1000.0);
        assert_eq!(json("18446744073709551616"), 18_446_744_073_709_551_616.0);
    }

    #[test]
    fn everything_else_is_text() {
        for text in [
            "yes",
            "on",
            "nUll",
            "tRue",
            "0b1",
            "0o",
            "0o9",
            "0x",
            "0x-1",
            "1_000",
            "1e",
            "e5",
            ".",
            "-",
            "+",
            ".inf",
            "-.inf",
            ".nan",
            "inf",
            "NaN",
            "1e999",
            "12:30",
            "2024-01-01",
            "1.2.3",
            "--1",
            "infinity",
        ] {
            assert_eq!(json(text), text);
        }
    }
}
