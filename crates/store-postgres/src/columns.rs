//! Rows as JSON, one form for all of them, and values as parameters.
//!
//! The server hands rows out as `to_json` makes them, alone or inside the one answer of a claim. So there is one reader for
//! both, enum types need no look-up of their ids, and times come in their full resolution.

use std::fmt::Display;
use std::time::Duration;

use attune_model::JsonMap;
use attune_store::{PageRequest, SecretValue, StoreError};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use sqlx::Row as _;
use sqlx::postgres::PgRow;
use sqlx::types::Json;

/// What the calendar of the server can hold in both directions, in years of 365 days.
const FAR_AWAY: Duration = Duration::from_hours(5000 * 365 * 24);

/// The columns of one row of one table.
pub(crate) struct Columns {
    table: &'static str,
    key: String,
    row: JsonMap,
}

impl Columns {
    /// `row` is a row of `table` with all columns that will be asked for.
    pub(crate) fn new(table: &'static str, row: JsonMap) -> Self {
        let key = row.get("id").map_or_else(|| "?".to_owned(), Value::to_string);
        Self { table, key, row }
    }

    /// Takes the value of a column out.
    pub(crate) fn get<T: DeserializeOwned>(&mut self, column: &'static str) -> Result<T, StoreError> {
        let Some(value) = self.row.remove(column) else {
            return Err(self.wrong(column, &"is missing"));
        };
        serde_json::from_value(value).map_err(|error| self.wrong(column, &error))
    }

    fn wrong(&self, column: &'static str, detail: &dyn Display) -> StoreError {
        StoreError::Inconsistent { table: self.table, column, key: self.key.clone(), detail: detail.to_string() }
    }
}

/// The document in a column of an answer; none in place of NULL.
pub(crate) fn document<T>(row: &PgRow, column: &'static str) -> Result<Option<T>, sqlx::Error>
where
    T: DeserializeOwned,
{
    Ok(row.try_get::<Option<Json<T>>, _>(column)?.map(|Json(document)| document))
}

/// The only column of an answer that consists of one row of a table.
pub(crate) fn whole(row: &PgRow) -> Result<JsonMap, sqlx::Error> {
    row.try_get::<Json<JsonMap>, _>(0).map(|Json(row)| row)
}

/// A document as a parameter. PostgreSQL cannot store NUL, which any program may print: it is replaced as undecodable
/// bytes are.
pub(crate) fn json(value: &Value) -> String {
    let text = value.to_string();
    if text.contains(r"\u0000") { without_nul(value.clone()).to_string() } else { text }
}

/// An object as a parameter.
pub(crate) fn object(map: &JsonMap) -> String {
    json(&Value::Object(map.clone()))
}

/// A text as a parameter, without NUL.
pub(crate) fn text(text: &str) -> String {
    text.replace('\0', "\u{fffd}")
}

fn without_nul(value: Value) -> Value {
    match value {
        Value::String(string) => Value::String(text(&string)),
        Value::Array(items) => items.into_iter().map(without_nul).collect(),
        Value::Object(map) => map.into_iter().map(|(key, value)| (text(&key), without_nul(value))).collect(),
        other => other,
    }
}

/// Encrypted values as one parameter for `jsonb_to_recordset`. Of two for the same path the last one counts.
pub(crate) fn secrets(secrets: &[SecretValue]) -> String {
    let mut rows: Vec<Value> = Vec::with_capacity(secrets.len());
    for (at, secret) in secrets.iter().enumerate() {
        if secrets[at + 1..].iter().any(|later| later.json_path == secret.json_path) {
            continue;
        }
        rows.push(json!({
            "json_path": secret.json_path,
            "source_kind": secret.source_kind,
            "source_ref": secret.source_ref,
            "encrypted_value": secret.encrypted_value,
            "encryption_key_hash": secret.encryption_key_hash,
        }));
    }
    json(&Value::Array(rows))
}

/// A duration in microseconds, cut to what the server's calendar can hold.
pub(crate) fn micros(duration: Duration) -> i64 {
    i64::try_from(duration.min(FAR_AWAY).as_micros()).unwrap_or(i64::MAX)
}

/// An age in microseconds; the future counts as now.
pub(crate) fn age(micros: i64) -> Duration {
    Duration::from_micros(u64::try_from(micros).unwrap_or_default())
}

/// `LIMIT` and `OFFSET`. Page 0 counts as 1.
pub(crate) fn bounds(page: PageRequest) -> (i64, i64) {
    let size = i64::from(page.page_size);
    (size, size * i64::from(page.page.saturating_sub(1)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nul_is_replaced_wherever_it_stands_and_only_there() {
        let value = json!({"a\u{0}": ["x\u{0}y", {"b": "\\u0000"}], "n": 1});
        let stored: Value = serde_json::from_str(&json(&value)).unwrap();
        assert_eq!(stored, json!({"a\u{fffd}": ["x\u{fffd}y", {"b": "\\u0000"}], "n": 1}));
        assert_eq!(text("a\0b"), "a\u{fffd}b");
    }

    #[test]
    fn no_duration_is_beyond_the_calendar() {
        assert_eq!(micros(Duration::from_micros(7)), 7);
        assert_eq!(micros(Duration::MAX), micros(FAR_AWAY));
        assert_eq!(age(-1), Duration::ZERO);
    }
}
