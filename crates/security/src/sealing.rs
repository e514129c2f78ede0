//! Secrets at rest: AES-256-GCM under a key that is the SHA-256 of the configured text.
//!
//! A sealed value is a JSON string: base64 of nonce (12 bytes), ciphertext and tag. The plaintext is compact JSON.

use attune_model::Secret;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use ring::aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use ring::digest;
use ring::rand::{SecureRandom, SystemRandom};
use serde_json::{Value, json};
use thiserror::Error;

/// Shortest encryption key that the platform accepts, in characters.
const SHORTEST_KEY: usize = 32;

/// Why a value could not be sealed or opened.
#[derive(Debug, Error)]
pub enum SealError {
    /// The configured key is no key.
    #[error("the encryption key has {0} characters, it needs at least {SHORTEST_KEY}")]
    ShortKey(usize),
    /// The value was sealed with another key.
    #[error("the value was encrypted with another encryption key")]
    OtherKey,
    /// The value is not a sealed value.
    #[error("the encrypted value is malformed: {0}")]
    Malformed(&'static str),
    /// Key or content do not fit.
    #[error("the encrypted value cannot be opened with this key, or it was changed")]
    Rejected,
    /// The plaintext is not JSON, or could not be written as JSON.
    #[error("the plaintext is not JSON")]
    Json(#[source] serde_json::Error),
    /// The system gave no randomness.
    #[error("the system has no random bytes to give")]
    NoRandomness,
}

/// The key that secrets are stored under.
#[derive(Clone)]
pub struct SealingKey {
    key: LessSafeKey,
    hash: String,
}

impl std::fmt::Debug for SealingKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("SealingKey([redacted])")
    }
}

impl SealingKey {
    /// Takes the text of `security.encryption_key`.
    pub fn new(text: &Secret) -> Result<Self, SealError> {
        let characters = text.expose().chars().count();
        if characters < SHORTEST_KEY {
            return Err(SealError::ShortKey(characters));
        }
        let digest = digest::digest(&digest::SHA256, text.expose().as_bytes());
        let key = UnboundKey::new(&AES_256_GCM, digest.as_ref()).map_err(|_unspecified| SealError::Rejected)?;
        Ok(Self { key: LessSafeKey::new(key), hash: hex(digest.as_ref()) })
    }

    /// `encryption_key_hash`: lower-case hex SHA-256 of the key's text.
    ///
    /// The digest is the key itself, as the platform defines both; it is stored beside every sealed value there. Do not
    /// print it.
    pub fn hash(&self) -> &str {
        &self.hash
    }

    /// Seals `value` under a fresh nonce.
    pub fn seal(&self, value: &Value) -> Result<Value, SealError> {
        let mut nonce = [0_u8; NONCE_LEN];
        SystemRandom::new().fill(&mut nonce).map_err(|_unspecified| SealError::NoRandomness)?;
        let mut text = serde_json::to_vec(value).map_err(SealError::Json)?;
        let tag = self
            .key
            .seal_in_place_separate_tag(Nonce::assume_unique_for_key(nonce), Aad::empty(), &mut text)
            .map_err(|_unspecified| SealError::Rejected)?;
        let mut sealed = nonce.to_vec();
        sealed.extend_from_slice(&text);
        sealed.extend_from_slice(tag.as_ref());
        Ok(Value::String(STANDARD.encode(sealed)))
    }

    /// Opens what [`SealingKey::seal`] or another service of the platform sealed; `hash` is the digest stored with it.
    pub fn open(&self, sealed: &Value, hash: Option<&str>) -> Result<Value, SealError> {
        if hash.is_some_and(|hash| hash != self.hash) {
            return Err(SealError::OtherKey);
        }
        let text = sealed.as_str().ok_or(SealError::Malformed("it is not a string"))?;
        let mut bytes = STANDARD.decode(text).map_err(|_decode| SealError::Malformed("it is not base64"))?;
        let (nonce, body) =
            bytes.split_at_mut_checked(NONCE_LEN).ok_or(SealError::Malformed("it is shorter than a nonce"))?;
        let nonce = Nonce::try_assume_unique_for_key(nonce)
            .map_err(|_unspecified| SealError::Malformed("it is shorter than a nonce"))?;
        let plain = self.key.open_in_place(nonce, Aad::empty(), body).map_err(|_unspecified| SealError::Rejected)?;
        serde_json::from_slice(plain).map_err(SealError::Json)
    }
}

/// What stands in place of a secret in stored parameters and results.
pub fn redacted() -> Value {
    json!({"$attune_secret": true, "redacted": true})
}

/// Whether `value` is that marker.
pub fn is_redacted(value: &Value) -> bool {
    value.get("$attune_secret").and_then(Value::as_bool) == Some(true)
        && value.get("redacted").and_then(Value::as_bool) == Some(true)
}

fn hex(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let digit = |value: u8| char::from(DIGITS[usize::from(value & 0xf)]);
    bytes.iter().flat_map(|byte| [digit(byte >> 4), digit(*byte)]).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: &str = "0123456789abcdef0123456789abcdef";

    fn key(text: &str) -> SealingKey {
        SealingKey::new(&Secret::new(text.to_owned())).unwrap()
    }

    #[test]
    fn every_json_value_comes_back_and_no_two_seals_are_equal() {
        let key = key(KEY);
        for value in [json!(null), json!("s3cret"), json!(7), json!({"a": [1, "ü"]}), json!("")] {
            let sealed = key.seal(&value).unwrap();
            assert_ne!(sealed, key.seal(&value).unwrap());
            assert_eq!(key.open(&sealed, Some(key.hash())).unwrap(), value);
            assert_eq!(key.open(&sealed, None).unwrap(), value);
        }
    }

    #[test]
    fn a_value_sealed_elsewhere_opens() {
        // Made with Python's `cryptography`: AESGCM(sha256(key)), nonce 00..0b, plaintext "hello" with its quotes.
        let elsewhere = json!("AAECAwQFBgcICQoLY4Y+LdBKhS+R8D7dAq20Z6nbJl7SYNs=");
        assert_eq!(key(KEY).hash(), "3eb1bd439947eb762998e566ccc2e099c791118b2f40579cc4f7da2b5061b7f9");
        assert_eq!(key(KEY).open(&elsewhere, None).unwrap(), json!("hello"));
    }

    #[test]
    fn another_key_a_changed_byte_or_rubbish_does_not_open() {
        let key = key(KEY);
        let other = SealingKey::new(&Secret::new("another key that is long enough!".to_owned())).unwrap();
        let sealed = key.seal(&json!("x")).unwrap();
        assert!(matches!(other.open(&sealed, None), Err(SealError::Rejected)));
        assert!(matches!(other.open(&sealed, Some(key.hash())), Err(SealError::OtherKey)));
        let mut bytes = STANDARD.decode(sealed.as_str().unwrap()).unwrap();
        bytes[NONCE_LEN] ^= 1;
        assert!(matches!(key.open(&json!(STANDARD.encode(bytes)), None), Err(SealError::Rejected)));
        for (rubbish, part) in [(json!(7), "string"), (json!("***"), "base64"), (json!("AAAA"), "nonce")] {
            let error = key.open(&rubbish, None).unwrap_err();
            assert!(error.to_string().contains(part), "{error}");
        }
        assert!(matches!(key.open(&json!(STANDARD.encode([0; 12])), None), Err(SealError::Rejected)));
    }

    #[test]
    fn a_short_key_is_refused_and_a_key_never_prints_itself() {
        let short = SealingKey::new(&Secret::new("x".repeat(31)));
        assert!(matches!(short, Err(SealError::ShortKey(31))), "{short:?}");
        assert_eq!(format!("{:?}", key(KEY)), "SealingKey([redacted])");
    }

    #[test]
    fn the_marker_is_recognised_and_nothing_else() {
        assert!(is_redacted(&redacted()));
        assert_eq!(redacted().to_string(), r#"{"$attune_secret":true,"redacted":true}"#);
        assert!(!is_redacted(&json!({"redacted": true})));
        assert!(!is_redacted(&json!("[redacted]")));
    }
}
