//! What values mean: truth, equality, order, kind.

use std::cmp::Ordering;

use serde_json::{Number, Value};

/// A number as whole as it can be kept.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Num {
    /// Whole.
    Int(i64),
    /// Everything else.
    Float(f64),
}

impl Num {
    /// The number in `value`.
    pub(super) fn of(value: &Value) -> Option<Self> {
        let number = value.as_number()?;
        number.as_i64().map(Self::Int).or_else(|| number.as_f64().map(Self::Float))
    }

    /// As a float; large whole numbers lose digits, as everywhere.
    #[expect(clippy::cast_precision_loss, reason = "comparison and division of large whole numbers are approximate")]
    pub(super) fn as_f64(self) -> f64 {
        match self {
            Self::Int(value) => value as f64,
            Self::Float(value) => value,
        }
    }

    /// As JSON; none for what JSON cannot say (infinite, not a number).
    pub(super) fn into_value(self) -> Option<Value> {
        match self {
            Self::Int(value) => Some(Value::from(value)),
            Self::Float(value) => Number::from_f64(value).map(Value::Number),
        }
    }

    /// A total order, which sorting needs: comparing whole numbers with floats by value alone is not transitive.
    pub(super) fn total_order(self, other: Self) -> Ordering {
        #[expect(clippy::cast_possible_truncation, reason = "saturates; only breaks ties between equal floats")]
        let exact = |number| match number {
            Self::Int(value) => i128::from(value),
            Self::Float(value) => value as i128,
        };
        self.as_f64().total_cmp(&other.as_f64()).then_with(|| exact(self).cmp(&exact(other)))
    }

    fn compare(self, other: Self) -> Option<Ordering> {
        match (self, other) {
            (Self::Int(left), Self::Int(right)) => Some(left.cmp(&right)),
            (left, right) => left.as_f64().partial_cmp(&right.as_f64()),
        }
    }
}

/// Python's idea of truth: null, false, 0 and everything empty are not true.
pub(crate) fn is_true(value: &Value) -> bool {
    match value {
        Value::Null => false,
        Value::Bool(value) => *value,
        Value::Number(_) => Num::of(value).is_some_and(|number| number.as_f64() != 0.0),
        Value::String(text) => !text.is_empty(),
        Value::Array(items) => !items.is_empty(),
        Value::Object(entries) => !entries.is_empty(),
    }
}

/// Whether two values are equal; 1 equals 1.0, at any depth, and the order of keys does not matter.
pub(crate) fn equal(left: &Value, right: &Value) -> bool {
    match (left, right) {
        (Value::Number(_), Value::Number(_)) => match (Num::of(left), Num::of(right)) {
            (Some(left), Some(right)) => left.compare(right) == Some(Ordering::Equal),
            _ => false,
        },
        (Value::Array(left), Value::Array(right)) => {
            left.len() == right.len() && left.iter().zip(right).all(|(left, right)| equal(left, right))
        }
        (Value::Object(left), Value::Object(right)) => {
            left.len() == right.len()
                && left.iter().all(|(key, value)| right.get(key).is_some_and(|other| equal(value, other)))
        }
        _ => left == right,
    }
}

/// The order of two numbers, texts or lists; none for everything else.
pub(super) fn order(left: &Value, right: &Value) -> Option<Ordering> {
    match (left, right) {
        (Value::Number(_), Value::Number(_)) => Num::of(left)?.compare(Num::of(right)?),
        (Value::String(left), Value::String(right)) => Some(left.cmp(right)),
        (Value::Array(left), Value::Array(right)) => {
            for (left, right) in left.iter().zip(right) {
                match order(left, right)? {
                    Ordering::Equal => {}
                    other => return Some(other),
                }
            }
            Some(left.len().cmp(&right.len()))
        }
        _ => None,
    }
}

/// The name of its type, as `type_of` gives it.
pub(super) const fn type_name(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "bool",
        Value::Number(_) => "number",
        Value::String(_) => "string",
        Value::Array(_) => "list",
        Value::Object(_) => "object",
    }
}

/// As text: texts as they are, the rest as JSON.
pub(crate) fn text_of(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}
