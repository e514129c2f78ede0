//! Random secrets, and comparing secrets without telling how much of them matched.

use attune_model::Secret;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ring::hmac;
use ring::rand::{SecureRandom, SystemRandom};

/// A new secret of 256 random bits, as 43 URL-safe characters. None when the system has no randomness to give.
pub fn random_secret() -> Option<Secret> {
    let mut bytes = [0_u8; 32];
    SystemRandom::new().fill(&mut bytes).ok()?;
    Some(Secret::new(URL_SAFE_NO_PAD.encode(bytes)))
}

/// Whether both texts are equal, in a time that depends on their lengths only.
///
/// Both are digested under a key of their own first, so that neither content nor a difference of lengths shows.
pub fn constant_time_eq(left: &str, right: &str) -> bool {
    let mut key = [0_u8; 32];
    if SystemRandom::new().fill(&mut key).is_err() {
        return false;
    }
    let key = hmac::Key::new(hmac::HMAC_SHA256, &key);
    let tag = hmac::sign(&key, left.as_bytes());
    hmac::verify(&key, right.as_bytes(), tag.as_ref()).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_are_long_and_never_the_same() {
        let one = random_secret().unwrap();
        let other = random_secret().unwrap();
        assert_eq!(one.expose().len(), 43);
        assert_ne!(one, other);
    }

    #[test]
    fn only_equal_texts_are_equal() {
        for (left, right, equal) in
            [("", "", true), ("a", "a", true), ("a", "b", false), ("a", "aa", false), ("", "a", false)]
        {
            assert_eq!(constant_time_eq(left, right), equal, "{left:?} {right:?}");
        }
    }
}
