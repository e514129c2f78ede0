//! Whether the parts of an agent are as they have to be.

use std::borrow::Cow;
use std::time::Instant;

/// One part of an agent, as it is now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Condition {
    /// Which part: a word that does not change.
    pub name: &'static str,
    /// What is wrong with it; none when it is well.
    pub problem: Option<Cow<'static, str>>,
    /// For how long that has been so, by the monotonic clock.
    pub since: Instant,
}

impl Condition {
    /// A part that is well.
    pub fn well(name: &'static str, since: Instant) -> Self {
        Self { name, problem: None, since }
    }

    /// A part that is not.
    pub fn problem(name: &'static str, problem: impl Into<Cow<'static, str>>, since: Instant) -> Self {
        Self { name, problem: Some(problem.into()), since }
    }

    /// Whether it is well.
    pub fn is_well(&self) -> bool {
        self.problem.is_none()
    }
}
