//! What is wrong with a configuration, and what the log should say about one that is not.

use std::fmt;

use thiserror::Error;

/// One thing that has to be corrected.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// The variable, or file, line and key.
    pub place: String,
    /// What is wrong there. Never holds a value that could be a secret.
    pub message: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.place, self.message)
    }
}

/// A sentence for the log about how the configuration was put together.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Note {
    /// A fact.
    Info(String),
    /// Something that is probably not what was meant.
    Warning(String),
}

/// A configuration that cannot be used, with everything that is wrong with it.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub struct Rejected {
    /// At least one.
    pub problems: Vec<Problem>,
    /// Which files were used, and what else is odd.
    pub notes: Vec<Note>,
}

impl fmt::Display for Rejected {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.problems.as_slice() {
            [problem] => write!(f, "the configuration is not valid: {problem}"),
            problems => {
                write!(f, "the configuration is not valid, {} problems:", problems.len())?;
                problems.iter().try_for_each(|problem| write!(f, "\n  {problem}"))
            }
        }
    }
}
