//! Secret parameters: taken out, sealed, replaced by the marker.

use attune_model::schema::secret_pointers;
use attune_security::{SealError, SealingKey, is_redacted, redacted};
use attune_store::SecretValue;
use serde_json::Value;
use thiserror::Error;

/// What `execution_secret_value.source_kind` says about parameters that their schema marks as secret.
const SOURCE_KIND: &str = "parameter_schema";

/// Why parameters could not be protected.
#[derive(Debug, Error)]
#[error("parameter {pointer} could not be encrypted")]
pub(crate) struct ProtectError {
    /// Which.
    pointer: String,
    /// Why.
    #[source]
    source: SealError,
}

/// Parameters as they may be stored.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Protected {
    /// With the marker in place of every secret.
    pub(crate) config: Value,
    /// The secrets, encrypted.
    pub(crate) secrets: Vec<SecretValue>,
}

/// Seals every parameter that `schema` marks as secret. Null, missing and already redacted ones stay as they are.
pub(crate) fn protect(mut config: Value, schema: Option<&Value>, key: &SealingKey) -> Result<Protected, ProtectError> {
    let mut secrets = Vec::new();
    for pointer in schema.map(secret_pointers).unwrap_or_default() {
        let Some(place) = config.pointer_mut(&pointer).filter(|value| !value.is_null() && !is_redacted(value)) else {
            continue;
        };
        let encrypted_value = key.seal(place).map_err(|source| ProtectError { pointer: pointer.clone(), source })?;
        *place = redacted();
        secrets.push(SecretValue {
            json_path: pointer.clone(),
            source_kind: SOURCE_KIND.to_owned(),
            source_ref: Some(pointer),
            encrypted_value,
            encryption_key_hash: Some(key.hash().to_owned()),
        });
    }
    Ok(Protected { config, secrets })
}

#[cfg(test)]
mod tests {
    use attune_model::Secret;
    use serde_json::json;

    use super::*;

    #[test]
    fn secrets_leave_the_parameters_and_open_again() {
        let key = SealingKey::new(&Secret::new("k".repeat(32))).unwrap();
        let schema = json!({
            "user": {"type": "string"},
            "token": {"type": "string", "secret": true},
            "auth": {"type": "object", "properties": {"password": {"secret": true}}},
            "unused": {"type": "string", "secret": true},
            "empty": {"type": "string", "secret": true},
        });
        let given = json!({"user": "u", "token": "t0p", "auth": {"password": [1]}, "empty": null});
        let protected = protect(given, Some(&schema), &key).unwrap();
        assert_eq!(
            protected.config,
            json!({"user": "u", "token": redacted(), "auth": {"password": redacted()}, "empty": null})
        );
        let opened: Vec<_> = protected
            .secrets
            .iter()
            .map(|secret| {
                let hash = secret.encryption_key_hash.as_deref();
                (secret.json_path.as_str(), key.open(&secret.encrypted_value, hash).unwrap())
            })
            .collect();
        assert_eq!(opened, [("/token", json!("t0p")), ("/auth/password", json!([1]))]);
        let again = protect(protected.config.clone(), Some(&schema), &key).unwrap();
        assert_eq!((again.config, again.secrets.len()), (protected.config, 0));
        let plain = protect(json!({"token": "x"}), None, &key).unwrap();
        assert_eq!((plain.config, plain.secrets.len()), (json!({"token": "x"}), 0));
    }
}
