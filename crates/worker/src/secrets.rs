//! Secrets of one execution: parameters put back, keys opened, secret parts of a result taken out.
//!
//! Plaintexts live in the parameter document only; errors and log lines carry names and paths, never values.

use std::sync::Arc;

use attune_model::schema::secret_pointers;
use attune_model::{JsonMap, Secret};
use attune_process::Redactor;
use attune_security::{SealError, SealingKey, redacted};
use attune_store::{KeyRow, SecretValue};
use serde_json::Value;
use thiserror::Error;

/// Where result secrets come from. A fact of the platform.
const RESULT_SOURCE: &str = "parameter_schema";

/// Why a parameter could not be restored.
#[derive(Debug, Error)]
pub(crate) enum RestoreError {
    /// No encryption key is configured.
    #[error("parameter {path} is encrypted, but no encryption key is configured")]
    NoKey {
        /// JSON pointer.
        path: String,
    },
    /// It does not open.
    #[error("parameter {path} cannot be decrypted")]
    Open {
        /// JSON pointer.
        path: String,
        /// Why.
        #[source]
        source: SealError,
    },
    /// There is no such place in the parameters.
    #[error("parameter {path} is stored encrypted, but the parameters have no such place")]
    NoPlace {
        /// JSON pointer.
        path: String,
    },
}

/// Texts that were opened for one execution and must not show in what is kept of its output.
#[derive(Default)]
pub(crate) struct Opened {
    texts: Vec<String>,
}

impl std::fmt::Debug for Opened {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Opened({})", self.texts.len())
    }
}

impl Opened {
    /// Every text and number in `value`.
    pub(crate) fn add(&mut self, value: &Value) {
        match value {
            Value::String(text) => self.texts.push(text.clone()),
            Value::Number(number) => self.texts.push(number.to_string()),
            Value::Array(items) => items.iter().for_each(|item| self.add(item)),
            Value::Object(map) => map.values().for_each(|item| self.add(item)),
            Value::Null | Value::Bool(_) => {}
        }
    }

    /// Masks them; none when there is nothing to mask.
    pub(crate) fn redactor(&self) -> Option<Arc<Redactor>> {
        let redactor = (!self.texts.is_empty()).then(|| Redactor::new(&self.texts));
        redactor.filter(|redactor| !redactor.is_empty()).map(Arc::new)
    }
}

/// `value` with every text masked.
pub(crate) fn masked(value: Value, redactor: &Redactor) -> Value {
    match value {
        Value::String(text) => Value::String(redactor.redact(&text).into_owned()),
        Value::Array(items) => Value::Array(items.into_iter().map(|item| masked(item, redactor)).collect()),
        Value::Object(map) => {
            let pairs =
                map.into_iter().map(|(key, value)| (redactor.redact(&key).into_owned(), masked(value, redactor)));
            Value::Object(pairs.collect())
        }
        other => other,
    }
}

/// Opens and seals with the platform's key, if there is one.
#[derive(Debug, Clone, Default)]
pub(crate) struct Secrets {
    key: Option<SealingKey>,
}

impl Secrets {
    /// Takes the configured key.
    pub(crate) fn new(key: Option<&Secret>) -> Result<Self, SealError> {
        Ok(Self { key: key.map(SealingKey::new).transpose()? })
    }

    /// The key.
    pub(crate) fn key(&self) -> Option<&SealingKey> {
        self.key.as_ref()
    }

    /// The top-level parameters with their encrypted parts put back. Anything but an object has no parameters.
    pub(crate) fn restore(
        &self,
        config: Option<&Value>,
        rows: &[SecretValue],
        opened: &mut Opened,
    ) -> Result<JsonMap, RestoreError> {
        let mut config = config.cloned().unwrap_or_default();
        for row in rows {
            let path = row.json_path.clone();
            let Some(key) = &self.key else {
                return Err(RestoreError::NoKey { path });
            };
            let plain = key
                .open(&row.encrypted_value, row.encryption_key_hash.as_deref())
                .map_err(|source| RestoreError::Open { path: path.clone(), source })?;
            opened.add(&plain);
            *config.pointer_mut(&path).ok_or(RestoreError::NoPlace { path })? = plain;
        }
        Ok(match config {
            Value::Object(map) => map,
            _ => JsonMap::new(),
        })
    }

    /// The keys that an action gets, by name. One that cannot be opened is left out and named; the others stay.
    pub(crate) fn ambient(&self, keys: &[KeyRow], opened: &mut Opened) -> JsonMap {
        let mut ambient = JsonMap::new();
        for row in keys {
            let value = match (&self.key, row.encrypted) {
                (_, false) => Ok(row.value.clone()),
                (Some(key), true) => {
                    key.open(&row.value, row.encryption_key_hash.as_deref()).map_err(|error| error.to_string())
                }
                (None, true) => Err("no encryption key is configured".to_owned()),
            };
            match value {
                Ok(value) => {
                    if row.encrypted {
                        opened.add(&value);
                    }
                    ambient.insert(row.name.clone(), value);
                }
                Err(reason) => {
                    tracing::warn!(key = row.name, owner = %row.owner_type, reason, "key left out: it cannot be opened");
                }
            }
        }
        ambient
    }

    /// Replaces the secret parts of `data` by the marker and returns them sealed. Without an encryption key they are
    /// dropped: better lost than readable.
    pub(crate) fn take_out(&self, data: &mut Value, out_schema: Option<&Value>) -> Vec<SecretValue> {
        let mut taken = Vec::new();
        for pointer in out_schema.map(secret_pointers).unwrap_or_default() {
            let Some(place) = data.pointer_mut(&pointer).filter(|place| !place.is_null()) else {
                continue;
            };
            let plain = std::mem::replace(place, redacted());
            match self.seal(&pointer, &plain) {
                Ok(row) => taken.push(row),
                Err(reason) => tracing::warn!(path = pointer, reason, "secret result dropped: it cannot be encrypted"),
            }
        }
        taken
    }

    fn seal(&self, pointer: &str, plain: &Value) -> Result<SecretValue, String> {
        let key = self.key.as_ref().ok_or("no encryption key is configured")?;
        Ok(SecretValue {
            json_path: format!("/data{pointer}"),
            source_kind: RESULT_SOURCE.to_owned(),
            source_ref: Some(pointer.to_owned()),
            encrypted_value: key.seal(plain).map_err(|error| error.to_string())?,
            encryption_key_hash: Some(key.hash().to_owned()),
        })
    }
}

#[cfg(test)]
mod tests {
    use attune_model::status::OwnerType;
    use serde_json::json;

    use super::*;

    const KEY: &str = "0123456789abcdef0123456789abcdef";

    fn secrets() -> Secrets {
        Secrets::new(Some(&Secret::new(KEY.to_owned()))).unwrap()
    }

    fn sealed(value: &Value) -> Value {
        SealingKey::new(&Secret::new(KEY.to_owned())).unwrap().seal(value).unwrap()
    }

    fn row(path: &str, encrypted_value: Value) -> SecretValue {
        SecretValue {
            json_path: path.to_owned(),
            source_kind: "parameter_schema".to_owned(),
            source_ref: None,
            encrypted_value,
            encryption_key_hash: None,
        }
    }

    fn key_row(name: &str, encrypted: bool, value: Value) -> KeyRow {
        KeyRow { name: name.to_owned(), owner_type: OwnerType::Pack, encrypted, encryption_key_hash: None, value }
    }

    #[test]
    fn encrypted_parameters_come_back_in_their_place() {
        let config = json!({"user": "ann", "auth": {"token": redacted()}});
        let rows = [row("/auth/token", sealed(&json!("s3cret")))];
        let mut opened = Opened::default();
        let restored = secrets().restore(Some(&config), &rows, &mut opened).unwrap();
        assert_eq!(opened.texts, ["s3cret"]);
        assert_eq!(Value::Object(restored), json!({"user": "ann", "auth": {"token": "s3cret"}}));
        for other in [None, Some(json!(null)), Some(json!([1]))] {
            assert!(secrets().restore(other.as_ref(), &[], &mut Opened::default()).unwrap().is_empty());
        }
    }

    #[test]
    fn a_parameter_that_cannot_be_restored_is_named_without_its_value() {
        let config = json!({"token": redacted()});
        let good = sealed(&json!("s3cret"));
        let messages = [
            Secrets::default()
                .restore(Some(&config), &[row("/token", good.clone())], &mut Opened::default())
                .unwrap_err(),
            secrets().restore(Some(&config), &[row("/token", json!("AAAA"))], &mut Opened::default()).unwrap_err(),
            secrets().restore(Some(&config), &[row("/nowhere/token", good)], &mut Opened::default()).unwrap_err(),
        ];
        for error in messages {
            let text = error.to_string();
            assert!(text.contains("/token") || text.contains("token"), "{text}");
            assert!(!text.contains("s3cret"), "{text}");
        }
    }

    #[test]
    fn one_key_that_does_not_open_leaves_the_others() {
        let keys = [
            key_row("plain", false, json!({"a": 1})),
            key_row("broken", true, json!("AAAA")),
            key_row("good", true, sealed(&json!("s3cret"))),
            key_row("plain", false, json!("later wins")),
        ];
        let mut opened = Opened::default();
        let ambient = secrets().ambient(&keys, &mut opened);
        assert_eq!(opened.texts, ["s3cret"], "keys that are not encrypted are no secrets");
        assert_eq!(Value::Object(ambient), json!({"plain": "later wins", "good": "s3cret"}));
        let without_key = Secrets::default().ambient(&keys, &mut Opened::default());
        assert_eq!(Value::Object(without_key), json!({"plain": "later wins"}));
    }

    #[test]
    fn secret_parts_of_a_result_are_sealed_and_marked() {
        let schema =
            json!({"user": {"type": "string"}, "auth": {"type": "object", "properties": {"token": {"secret": true}}}});
        let mut data = json!({"user": "ann", "auth": {"token": {"deep": 1}}});
        let rows = secrets().take_out(&mut data, Some(&schema));
        assert_eq!(data, json!({"user": "ann", "auth": {"token": redacted()}}));
        let [row] = rows.as_slice() else { panic!("{rows:?}") };
        assert_eq!(
            (row.json_path.as_str(), row.source_kind.as_str(), row.source_ref.as_deref()),
            ("/data/auth/token", "parameter_schema", Some("/auth/token"))
        );
        let opened = SealingKey::new(&Secret::new(KEY.to_owned())).unwrap();
        assert_eq!(opened.open(&row.encrypted_value, row.encryption_key_hash.as_deref()).unwrap(), json!({"deep": 1}));

        let mut data = json!({"auth": {"token": "s3cret"}});
        assert!(Secrets::default().take_out(&mut data, Some(&schema)).is_empty());
        assert_eq!(data["auth"]["token"], redacted());
        assert!(secrets().take_out(&mut json!("text"), Some(&schema)).is_empty());
    }

    #[test]
    fn every_text_of_a_secret_is_masked_in_data_and_nothing_else() {
        let mut opened = Opened::default();
        opened.add(&json!({"password": "hunter22", "pins": [123_456, null, true]}));
        let redactor = opened.redactor().unwrap();
        let data = json!({"url": "https://ann:hunter22@host", "list": ["123456", "other"], "n": 1});
        assert_eq!(
            masked(data, &redactor),
            json!({"url": "https://ann:[redacted]@host", "list": ["[redacted]", "other"], "n": 1})
        );
        assert!(Opened::default().redactor().is_none());
        assert!(!format!("{opened:?}").contains("hunter22"));
    }
}
