//! Regular expressions of people: of packs, of rules, of what interpreters print.
//!
//! Syntax and meaning are those of the `regex` crate, which the platform uses. Of its engines there is only the one that
//! simulates the automaton: the others are faster, and eight times as large. Time is linear in pattern times text.

use regex_automata::nfa::thompson::{self, BuildError, pikevm::PikeVM};

/// Bytes that a compiled pattern may have where nothing else is said; what the `regex` crate allows.
const USUAL_LIMIT: usize = 10 * 1024 * 1024;

/// A compiled one.
#[derive(Debug)]
pub struct Pattern(PikeVM);

/// A text that is no pattern.
#[derive(Debug, thiserror::Error)]
pub enum PatternError {
    /// It would be larger than allowed.
    #[error("the pattern is too large")]
    TooLarge,
    /// It cannot be read.
    #[error("the pattern is not a regular expression")]
    Invalid(#[source] Box<BuildError>),
}

impl Pattern {
    /// Compiles it.
    pub fn new(text: &str) -> Result<Self, PatternError> {
        Self::with_limit(text, USUAL_LIMIT)
    }

    /// Compiles it to at most `limit` bytes.
    pub fn with_limit(text: &str, limit: usize) -> Result<Self, PatternError> {
        let config = thompson::Config::new().nfa_size_limit(Some(limit));
        match PikeVM::builder().thompson(config).build(text) {
            Ok(machine) => Ok(Self(machine)),
            Err(error) if error.size_limit().is_some() => Err(PatternError::TooLarge),
            Err(error) => Err(PatternError::Invalid(Box::new(error))),
        }
    }

    /// Whether it is found anywhere in the text; `^` and `$` anchor it.
    pub fn is_match(&self, text: &str) -> bool {
        self.0.is_match(&mut self.0.create_cache(), text)
    }

    /// What the first group stands for where the pattern is found first; none if it is not found or the group is not part of it.
    pub fn first_group<'t>(&self, text: &'t str) -> Option<&'t str> {
        let mut found = self.0.create_captures();
        self.0.captures(&mut self.0.create_cache(), text, &mut found);
        text.get(found.get_group(1)?.range())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pattern_is_found_anywhere_and_may_be_anchored() {
        for (pattern, text, found) in [
            ("b+", "abbc", true),
            ("^b", "abbc", false),
            (r"(?m)^b$", "a\nb", true),
            (r"^\w+ \d+$", "größe 42", true),
            (r"(?i)python 3\.1[0-9]", "Python 3.12.1\n", true),
            ("", "", true),
        ] {
            assert_eq!(Pattern::new(pattern).unwrap().is_match(text), found, "{pattern} in {text:?}");
        }
    }

    #[test]
    fn the_first_group_is_that_of_the_first_place() {
        let pattern = Pattern::new(r"v(\d+)|w").unwrap();
        assert_eq!(pattern.first_group("v8 v9"), Some("8"));
        assert_eq!(pattern.first_group("w v9"), None);
        assert_eq!(pattern.first_group("none"), None);
    }

    #[test]
    fn what_is_no_pattern_or_too_large_is_told_apart() {
        assert!(matches!(Pattern::new("("), Err(PatternError::Invalid(_))));
        assert!(matches!(Pattern::with_limit(r"\w{1000}", 1000), Err(PatternError::TooLarge)));
        assert!(matches!(Pattern::new(r"(\w{1000}){1000}"), Err(PatternError::TooLarge)));
    }
}
