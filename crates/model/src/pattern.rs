//! Regular expressions of people: of packs, of rules, of what interpreters print.
//!
//! Syntax and meaning are those of the `regex` crate, which the platform uses; of the classes of Unicode there are the general
//! categories (`\p{L}`) and those of Perl (`\w`), no scripts and no ages. Of its engines there is only the one that simulates the
//! automaton: the others are faster, and eight times as large. Time is linear in pattern times text, memory in the pattern.

use regex_automata::nfa::thompson::{self, BuildError, WhichCaptures, pikevm::PikeVM};

/// Bytes that a compiled pattern may have where nothing else is said; what the `regex` crate allows.
const USUAL_LIMIT: usize = 10 * 1024 * 1024;

/// A compiled one, that is looked for.
#[derive(Debug)]
pub struct Pattern(PikeVM);

/// A compiled one, of which the first group is looked for.
#[derive(Debug)]
pub struct FirstGroup(PikeVM);

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
        // While it is simulated, each state remembers where each group began and ended: memory that no limit counts.
        compiled(text, limit, WhichCaptures::Implicit).map(Self)
    }

    /// How many steps a search takes at most for each byte of the text.
    pub fn states(&self) -> usize {
        self.0.get_nfa().states().len()
    }

    /// Whether it is found anywhere in the text; `^` and `$` anchor it.
    pub fn is_match(&self, text: &str) -> bool {
        self.0.is_match(&mut self.0.create_cache(), text)
    }
}

impl FirstGroup {
    /// Compiles it.
    pub fn new(text: &str) -> Result<Self, PatternError> {
        compiled(text, USUAL_LIMIT, WhichCaptures::All).map(Self)
    }

    /// What the first group stands for where the pattern is found first; none if it is not found or the group is not part of it.
    pub fn find<'t>(&self, text: &'t str) -> Option<&'t str> {
        let mut found = self.0.create_captures();
        self.0.captures(&mut self.0.create_cache(), text, &mut found);
        text.get(found.get_group(1)?.range())
    }
}

fn compiled(text: &str, limit: usize, groups: WhichCaptures) -> Result<PikeVM, PatternError> {
    let config = thompson::Config::new().nfa_size_limit(Some(limit)).which_captures(groups);
    PikeVM::builder().thompson(config).build(text).map_err(|error| match error.size_limit() {
        Some(_) => PatternError::TooLarge,
        None => PatternError::Invalid(Box::new(error)),
    })
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
            (r"(?i)^GRÖSSE\p{Lu}$", "größeÄ", false),
            (r"(?i)^GRÖẞE$", "größe", true),
            (r"^\p{Lu}\p{L}+$", "Äpfel", true),
            ("", "", true),
        ] {
            assert_eq!(Pattern::new(pattern).unwrap().is_match(text), found, "{pattern} in {text:?}");
        }
    }

    #[test]
    fn the_first_group_is_that_of_the_first_place() {
        let pattern = FirstGroup::new(r"v(\d+)|w").unwrap();
        assert_eq!(pattern.find("v8 v9"), Some("8"));
        assert_eq!(pattern.find("w v9"), None);
        assert_eq!(pattern.find("none"), None);
    }

    /// With what each group stands for remembered in each state, this one would be 4 GB.
    #[test]
    fn groups_cost_no_memory_where_nobody_asks_for_them() {
        let pattern = Pattern::with_limit(&"()".repeat(8000), 1024 * 1024).unwrap();
        assert!(pattern.is_match("") && pattern.states() < 10, "{}", pattern.states());
    }

    #[test]
    fn what_is_no_pattern_or_too_large_is_told_apart() {
        assert!(matches!(Pattern::new("("), Err(PatternError::Invalid(_))));
        assert!(matches!(Pattern::with_limit(r"\w{1000}", 1000), Err(PatternError::TooLarge)));
        assert!(matches!(Pattern::new(r"(\w{1000}){1000}"), Err(PatternError::TooLarge)));
    }
}
