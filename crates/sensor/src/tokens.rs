//! The tokens that a running process was given after its start, to keep them out of its logs. The first one is known to the
//! pipes already.

use std::borrow::Cow;
use std::sync::{Arc, Mutex, PoisonError};

use attune_model::Secret;
use attune_process::Redactor;

/// Shared by a process and its logs. Costs nothing until there is a second token.
#[derive(Debug, Clone, Default)]
pub(crate) struct LaterTokens {
    redactor: Arc<Mutex<Option<Arc<Redactor>>>>,
    /// Older ones may still be printed, but are no secret for long.
    last: Arc<Mutex<Option<Secret>>>,
}

impl LaterTokens {
    /// Before the process can know it.
    pub(crate) fn add(&self, token: &Secret) {
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        let known = last.replace(token.clone());
        let secrets = known.iter().chain([token]).map(Secret::expose);
        *self.redactor.lock().unwrap_or_else(PoisonError::into_inner) = Some(Arc::new(Redactor::new(secrets)));
    }

    /// Takes them out of `lines`.
    pub(crate) fn redact(&self, lines: &mut Vec<u8>) {
        let redactor = self.redactor.lock().unwrap_or_else(PoisonError::into_inner).clone();
        if let Some(Cow::Owned(clean)) = redactor.as_ref().map(|redactor| redactor.redact_bytes(lines)) {
            *lines = clean;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_new_token_and_the_one_before_are_hidden() {
        let tokens = LaterTokens::default();
        let redacted = |text: &str| {
            let mut lines = text.as_bytes().to_vec();
            tokens.redact(&mut lines);
            String::from_utf8(lines).unwrap()
        };
        assert_eq!(redacted("token-one"), "token-one");
        tokens.add(&Secret::new("token-one".to_owned()));
        tokens.add(&Secret::new("token-two".to_owned()));
        assert_eq!(redacted("a token-one b token-two c"), "a [redacted] b [redacted] c");
    }
}
