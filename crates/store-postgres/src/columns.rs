//! Rows as JSON, one form for all of them, and values as parameters.
//!
//! The server hands rows out as `to_json` makes them, alone or inside the one answer of a claim. So there is one reader for
//! both, enum types need no look-up of their ids, and times come in their full resolution.

use std::borrow::Cow;
use std::fmt::{self, Display};
use std::time::Duration;

use attune_model::JsonMap;
use attune_store::{PageRequest, SecretValue, StoreError};
use serde::de::{DeserializeOwned, MapAccess, Visitor};
use serde::{Deserialize, Deserializer};
use serde_json::{Value, json};
use sqlx::Row as _;
use sqlx::postgres::PgRow;
use sqlx::types::Json;

/// What the calendar of the server can hold in both directions, in years of 365 days.
const FAR_AWAY: Duration = Duration::from_hours(5000 * 365 * 24);

/// How many columns a table has as a rule.
const USUAL_COLUMNS: usize = 24;

/// A row as `to_json` makes it. Hundreds of them are read at a time, so the names of the columns stay where they are, in the
/// answer of the server.
#[derive(Debug, Clone)]
pub(crate) struct JsonRow<'a>(Vec<(Name<'a>, Option<Value>)>);

#[derive(Debug, Clone, Deserialize)]
struct Name<'a>(#[serde(borrow)] Cow<'a, str>);

impl<'de> Deserialize<'de> for JsonRow<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(RowVisitor)
    }
}

struct RowVisitor;

impl<'de> Visitor<'de> for RowVisitor {
    type Value = JsonRow<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a row as an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut columns = Vec::with_capacity(USUAL_COLUMNS);
        while let Some((name, value)) = map.next_entry()? {
            columns.push((name, Some(value)));
        }
        Ok(JsonRow(columns))
    }
}

/// The columns of one row of one table.
pub(crate) struct Columns<'a> {
    table: &'static str,
    id: Option<Value>,
    row: JsonRow<'a>,
    /// Where the next column is looked for first: most are asked for in the order of the table.
    next: usize,
}

impl<'a> Columns<'a> {
    /// `row` is a row of `table` with all columns that will be asked for.
    pub(crate) fn new(table: &'static str, row: JsonRow<'a>) -> Self {
        let mut columns = Self { table, id: None, row, next: 0 };
        columns.id = columns.find("id").and_then(|id| id.clone());
        columns.next = 0;
        columns
    }

    /// Takes the value of a column out.
    pub(crate) fn get<T: DeserializeOwned>(&mut self, column: &'static str) -> Result<T, StoreError> {
        let Some(value) = self.find(column).and_then(Option::take) else {
            return Err(self.wrong(column, &"is missing"));
        };
        serde_json::from_value(value).map_err(|error| self.wrong(column, &error))
    }

    fn find(&mut self, column: &str) -> Option<&mut Option<Value>> {
        let (before, after) = self.row.0.split_at(self.next.min(self.row.0.len()));
        let is_it = |(name, _): &(Name<'_>, _)| name.0 == column;
        let after_it = after.iter().position(is_it).map(|at| before.len() + at);
        let at = after_it.or_else(|| before.iter().position(is_it))?;
        self.next = at + 1;
        self.row.0.get_mut(at).map(|(_, value)| value)
    }

    fn wrong(&self, column: &'static str, detail: &dyn Display) -> StoreError {
        let key = self.id.as_ref().map_or_else(|| "?".to_owned(), Value::to_string);
        StoreError::Inconsistent { table: self.table, column, key, detail: detail.to_string() }
    }
}

/// The document in a column of an answer; none in place of NULL.
pub(crate) fn document<'a, T>(row: &'a PgRow, column: &'static str) -> Result<Option<T>, sqlx::Error>
where
    T: Deserialize<'a> + 'a,
{
    Ok(row.try_get::<Option<Json<T>>, _>(column)?.map(|Json(document)| document))
}

/// The only column of an answer that consists of one row of a table.
pub(crate) fn whole(row: &PgRow) -> Result<JsonRow<'_>, sqlx::Error> {
    row.try_get::<Json<JsonRow<'_>>, _>(0).map(|Json(row)| row)
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
