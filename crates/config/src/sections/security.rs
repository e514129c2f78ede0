//! `security.*`: keys that agents share with the platform's API.

use attune_model::Secret;

use crate::key::{Described, Key, variable_of};
use crate::kinds::{Flag, SecretText};
use crate::reader::Reader;

/// A valid `security` section.
#[derive(Debug, Clone)]
pub struct SecurityConfig {
    /// Whether the API wants tokens.
    pub enable_auth: bool,
    /// Signs tokens; there when `enable_auth` is set. Without it no token is made.
    pub jwt_secret: Option<Secret>,
    /// Opens secrets at rest.
    pub encryption_key: Option<Secret>,
}

const ENABLE_AUTH: Key<Flag> = Key {
    path: "security.enable_auth",
    kind: Flag,
    default: "true",
    doc: "Whether the API wants tokens.",
    reason: "an API without tokens is for experiments",
};

const JWT_SECRET: Key<SecretText> = Key {
    path: "security.jwt_secret",
    kind: SecretText { least_characters: 1, schemes: &[] },
    default: "",
    doc: "The API's key for signing tokens. Required while `security.enable_auth` is on.",
    reason: "there is no safe default; without it no token is made",
};

const ENCRYPTION_KEY: Key<SecretText> = Key {
    path: "security.encryption_key",
    kind: SecretText { least_characters: 32, schemes: &[] },
    default: "",
    doc: "The platform's key for secrets at rest, at least 32 characters.",
    reason: "without it actions that need an encrypted value fail with that reason",
};

/// Every key of the section.
pub(crate) const KEYS: &[&dyn Described] = &[&ENABLE_AUTH, &JWT_SECRET, &ENCRYPTION_KEY];

/// Reads the section.
pub(crate) fn read(reader: &mut Reader<'_>) -> SecurityConfig {
    let before = reader.problems.len();
    let config = SecurityConfig {
        enable_auth: reader.value(&ENABLE_AUTH),
        jwt_secret: reader.optional(&JWT_SECRET),
        encryption_key: reader.optional(&ENCRYPTION_KEY),
    };
    let sound = reader.problems.len() == before;
    if sound && config.enable_auth && config.jwt_secret.is_none() {
        let message = format!(
            "is required while {} is on: set {}, or {} with the path of a file",
            ENABLE_AUTH.path,
            variable_of(JWT_SECRET.path),
            variable_of("security.jwt_secret_file"),
        );
        reader.problem(JWT_SECRET.path, message);
    }
    config
}
