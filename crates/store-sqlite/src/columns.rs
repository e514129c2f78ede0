//! Reading columns: types of the model from SQLite's, with table, column and key in every error.

use std::fmt::Display;
use std::str::FromStr;

use attune_model::{ExecutionId, JsonMap};
use attune_store::{PageRequest, StoreError};
use chrono::{DateTime, Utc};
use serde::de::DeserializeOwned;
use serde_json::Value;
use sqlx::sqlite::{Sqlite, SqliteRow};
use sqlx::{Decode, Row, Type};

/// The columns of one row of one table.
pub(crate) struct Columns<'r> {
    table: &'static str,
    row: &'r SqliteRow,
}

impl<'r> Columns<'r> {
    /// `row` was selected from `table` with all columns that will be asked for.
    pub(crate) fn new(table: &'static str, row: &'r SqliteRow) -> Self {
        Self { table, row }
    }

    /// Whole numbers, texts, and truths; none in place of NULL.
    pub(crate) fn get<T>(&self, column: &'static str) -> Result<T, StoreError>
    where
        T: Decode<'r, Sqlite> + Type<Sqlite>,
    {
        self.row.try_get(column).map_err(|error| self.wrong(column, &error))
    }

    /// An enum.
    pub(crate) fn word<T: FromStr<Err: Display>>(&self, column: &'static str) -> Result<T, StoreError> {
        self.get::<&str>(column)?.parse().map_err(|error: T::Err| self.wrong(column, &error))
    }

    /// An enum that may be NULL.
    pub(crate) fn optional_word<T: FromStr<Err: Display>>(
        &self,
        column: &'static str,
    ) -> Result<Option<T>, StoreError> {
        let text = self.get::<Option<&str>>(column)?;
        text.map(str::parse).transpose().map_err(|error: T::Err| self.wrong(column, &error))
    }

    /// A document.
    pub(crate) fn json<T: DeserializeOwned>(&self, column: &'static str) -> Result<T, StoreError> {
        serde_json::from_str(self.get(column)?).map_err(|error| self.wrong(column, &error))
    }

    /// A document that may be NULL.
    pub(crate) fn optional_json<T: DeserializeOwned>(&self, column: &'static str) -> Result<Option<T>, StoreError> {
        let text = self.get::<Option<&str>>(column)?;
        text.map(serde_json::from_str).transpose().map_err(|error| self.wrong(column, &error))
    }

    /// A point in time.
    pub(crate) fn time(&self, column: &'static str) -> Result<DateTime<Utc>, StoreError> {
        let micros = self.get(column)?;
        DateTime::from_timestamp_micros(micros).ok_or_else(|| self.wrong(column, &"not a time"))
    }

    /// A point in time that may be NULL.
    pub(crate) fn optional_time(&self, column: &'static str) -> Result<Option<DateTime<Utc>>, StoreError> {
        self.get::<Option<i64>>(column)?.map(|_| self.time(column)).transpose()
    }

    fn wrong(&self, column: &'static str, detail: &dyn Display) -> StoreError {
        let key = self.row.try_get::<i64, _>("id").map_or_else(|_| "?".to_owned(), |id| id.to_string());
        StoreError::Inconsistent { table: self.table, column, key, detail: detail.to_string() }
    }
}

/// A document as text. Compact, keys in their order.
pub(crate) fn json(value: &Value) -> String {
    value.to_string()
}

/// A list of texts as text.
pub(crate) fn list(items: &[String]) -> String {
    Value::from(items).to_string()
}

/// Keys as text, for `json_each`.
pub(crate) fn id_list(executions: &[ExecutionId]) -> String {
    executions.iter().map(|execution| execution.0).collect::<Value>().to_string()
}

/// An object as text.
pub(crate) fn object(map: &JsonMap) -> String {
    serde_json::to_string(map).expect("keys of a JSON object are texts")
}

/// A time as it is stored.
pub(crate) fn micros(time: DateTime<Utc>) -> i64 {
    time.timestamp_micros()
}

/// `LIMIT` and `OFFSET`. Page 0 counts as 1.
pub(crate) fn bounds(page: PageRequest) -> (i64, i64) {
    let size = i64::from(page.page_size);
    (size, size * i64::from(page.page.saturating_sub(1)))
}
