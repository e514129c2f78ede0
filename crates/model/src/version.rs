//! Versions of interpreters and the language of constraints on them (a fact of the platform).
//!
//! A detected version is usually complete (`20.19.0`), a `runtime_version` row names a line (`20`, `3.12`): a line
//! [`covers`] every version in it. Text that is no version matches nothing.

use std::collections::BTreeSet;
use std::fmt;
use std::str::FromStr;

use thiserror::Error;

use crate::capabilities::CapabilityView;
use crate::rows::RuntimeVersion;
use crate::runtime_name::fold;

/// Three numbers. What follows them in the text (`rc1`, `_402`, `-beta`, `+12`) is not compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Version {
    /// First part.
    pub major: u64,
    /// Second part.
    pub minor: u64,
    /// Third part.
    pub patch: u64,
}

impl Version {
    /// From three numbers.
    pub const fn new(major: u64, minor: u64, patch: u64) -> Self {
        Self { major, minor, patch }
    }

    /// Reads one to three parts, with or without `v`; missing parts are 0, a fourth and later ones are dropped.
    pub fn parse(text: &str) -> Option<Self> {
        Written::parse(text).map(|written| written.version)
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}.{}", self.major, self.minor, self.patch)
    }
}

/// A version and how many parts of it were written.
#[derive(Debug, Clone, Copy)]
struct Written {
    version: Version,
    parts: usize,
}

impl Written {
    fn parse(text: &str) -> Option<Self> {
        let text = text.trim();
        let mut rest = text.strip_prefix(['v', 'V']).unwrap_or(text);
        let mut numbers = [0_u64; 3];
        let mut parts = 0;
        loop {
            let digits = rest.len() - rest.trim_start_matches(|c: char| c.is_ascii_digit()).len();
            numbers[parts] = rest[..digits].parse().ok()?;
            parts += 1;
            rest = &rest[digits..];
            match rest.strip_prefix('.') {
                Some(more) if parts < numbers.len() => rest = more,
                _ => break,
            }
        }
        let suffix_ends_the_number =
            rest.is_empty() || rest.starts_with(|c: char| c.is_ascii_alphabetic() || "-+_".contains(c));
        let fourth_part = parts == 3 && rest.starts_with('.');
        if !suffix_ends_the_number && !fourth_part {
            return None;
        }
        let [major, minor, patch] = numbers;
        Some(Self { version: Version { major, minor, patch }, parts })
    }

    /// The first version after the line that the written parts name.
    fn next_line(self) -> Version {
        let Version { major, minor, .. } = self.version;
        if self.parts == 1 {
            Version::new(major.saturating_add(1), 0, 0)
        } else {
            Version::new(major, minor.saturating_add(1), 0)
        }
    }

    fn line_contains(self, version: Version) -> bool {
        self.version <= version && version < self.next_line()
    }
}

/// Whether the version of a row stands for a version that was found: the same text, or `20` for 20.19.0, `3.12` for
/// 3.12.13, `3.12.4` for 3.12.4 and later ones of 3.12.
pub fn covers(row: &str, found: &str) -> bool {
    if row.trim() == found.trim() {
        return true;
    }
    match (Written::parse(row), Version::parse(found)) {
        (Some(row), Some(found)) => row.line_contains(found),
        _ => false,
    }
}

/// Why a text is no constraint.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("version constraint {text:?}: {part:?} must be one to three numbers after an optional =, >, >=, <, <=, ~ or ^")]
pub struct ConstraintError {
    text: String,
    part: String,
}

/// Conditions that must all hold. The empty constraint and `*` hold for every version.
#[derive(Debug, Clone)]
pub struct Constraint {
    text: String,
    conditions: Vec<Condition>,
}

/// `from` inclusive, `until` exclusive.
#[derive(Debug, Clone, Copy)]
struct Condition {
    from: Version,
    until: Option<Version>,
}

const LOWEST: Version = Version::new(0, 0, 0);

impl Constraint {
    /// The constraint that holds for everything.
    pub fn any() -> Self {
        Self { text: String::new(), conditions: Vec::new() }
    }

    /// Reads a comma-separated list of conditions.
    ///
    /// A condition without operator is a tilde. With one part, a tilde spans the whole major line: an interpreter found as
    /// 20.19.0 is what `20` asks for.
    pub fn parse(text: &str) -> Result<Self, ConstraintError> {
        let mut conditions = Vec::new();
        for part in text.split(',').map(str::trim).filter(|part| !part.is_empty() && *part != "*") {
            let error = || ConstraintError { text: text.to_owned(), part: part.to_owned() };
            conditions.push(Condition::parse(part).ok_or_else(error)?);
        }
        Ok(Self { text: text.trim().to_owned(), conditions })
    }

    /// Whether it holds for every version.
    pub fn is_any(&self) -> bool {
        self.conditions.is_empty()
    }

    /// Whether it holds for `version`.
    pub fn matches(&self, version: Version) -> bool {
        self.conditions
            .iter()
            .all(|condition| condition.from <= version && condition.until.is_none_or(|until| version < until))
    }

    /// Whether it holds for a version given as text; for text that is no version only the empty constraint holds.
    pub fn matches_text(&self, version: &str) -> bool {
        self.is_any() || Version::parse(version).is_some_and(|version| self.matches(version))
    }
}

impl FromStr for Constraint {
    type Err = ConstraintError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Self::parse(text)
    }
}

impl fmt::Display for Constraint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.text.is_empty() { "*" } else { &self.text })
    }
}

impl Condition {
    fn parse(part: &str) -> Option<Self> {
        let number = part.trim_start_matches(['=', '>', '<', '~', '^']);
        let operator = &part[..part.len() - number.len()];
        let written = Written::parse(number)?;
        let version = written.version;
        let after = Version { patch: version.patch.saturating_add(1), ..version };
        let (from, until) = match operator {
            "" | "~" => (version, Some(written.next_line())),
            "^" => (version, Some(next_incompatible(version))),
            "=" => (version, Some(after)),
            ">" => (after, None),
            ">=" => (version, None),
            "<" => (LOWEST, Some(version)),
            "<=" => (LOWEST, Some(after)),
            _ => return None,
        };
        Some(Self { from, until })
    }
}

/// Where `^` ends: the first part that is not 0 must stay.
fn next_incompatible(version: Version) -> Version {
    match version {
        Version { major: 0, minor: 0, patch } => Version::new(0, 0, patch.saturating_add(1)),
        Version { major: 0, minor, .. } => Version::new(0, minor.saturating_add(1), 0),
        Version { major, .. } => Version::new(major.saturating_add(1), 0, 0),
    }
}

/// The versions that an agent advertises for a runtime with these folded names: `runtime_versions`, and where that says
/// nothing, `detected_interpreters`.
pub fn advertised_versions(capabilities: &CapabilityView, names: &BTreeSet<String>) -> Vec<String> {
    let listed: BTreeSet<&String> = capabilities
        .runtime_versions
        .iter()
        .filter(|(name, _)| names.contains(&fold(name)))
        .flat_map(|(_, versions)| versions)
        .collect();
    if !listed.is_empty() {
        return listed.into_iter().cloned().collect();
    }
    let detected: BTreeSet<&String> = capabilities
        .detected_interpreters
        .iter()
        .filter(|interpreter| names.contains(&fold(&interpreter.name)))
        .filter_map(|interpreter| interpreter.version.as_ref())
        .collect();
    detected.into_iter().cloned().collect()
}

/// The highest row that satisfies the constraint; without a constraint the default row, else the highest.
pub fn best<'a>(
    rows: impl IntoIterator<Item = &'a RuntimeVersion>,
    constraint: &Constraint,
) -> Option<&'a RuntimeVersion> {
    rows.into_iter()
        .filter_map(|row| Version::parse(&row.version).map(|version| (version, row)))
        .filter(|(version, _)| constraint.matches(*version))
        .max_by_key(|(version, row)| (constraint.is_any() && row.is_default, *version))
        .map(|(_, row)| row)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::capabilities::DetectedInterpreter;
    use crate::{RuntimeId, RuntimeVersionId};

    fn holds(constraint: &str, version: &str) -> bool {
        Constraint::parse(constraint).unwrap().matches_text(version)
    }

    #[test]
    fn versions_have_one_to_three_parts_and_a_suffix_that_does_not_count() {
        for (text, expected) in [
            ("20", Version::new(20, 0, 0)),
            ("v3.12", Version::new(3, 12, 0)),
            (" V1.22.5 ", Version::new(1, 22, 5)),
            ("1.2.3.4", Version::new(1, 2, 3)),
            ("1.8.0_402", Version::new(1, 8, 0)),
            ("3.13.0rc1", Version::new(3, 13, 0)),
            ("21-ea", Version::new(21, 0, 0)),
        ] {
            assert_eq!(Version::parse(text), Some(expected), "{text}");
        }
        for text in ["", "x", "v", "1..2", "1.", "1 2", ".1", "99999999999999999999"] {
            assert_eq!(Version::parse(text), None, "{text}");
        }
    }

    #[test]
    fn a_row_covers_the_line_it_names() {
        assert!(covers("20", "20.19.0"));
        assert!(!covers("20", "21.0.0"));
        assert!(covers("3.12", "3.12.13"));
        assert!(!covers("3.12", "3.13.0"));
        assert!(covers("3.12.4", "3.12.4"));
        assert!(covers("3.12.4", "3.12.9"));
        assert!(!covers("3.12.4", "3.12.3"));
        assert!(covers("nightly", "nightly"));
        assert!(!covers("nightly", "1.0"));
    }

    #[test]
    fn operators_compare_with_the_padded_version() {
        assert!(holds("=3.12", "3.12.0") && !holds("=3.12", "3.12.1"));
        assert!(holds(">3.12", "3.12.1") && !holds(">3.12", "3.12.0"));
        assert!(holds(">= 3.12", "3.12") && !holds(">=3.12", "3.11.9"));
        assert!(holds("<3.12", "3.11.9") && !holds("<3.12", "3.12.0"));
        assert!(holds("<=3.12", "3.12.0") && !holds("<=3.12", "3.12.1"));
        assert!(holds("~3.12.4", "3.12.9") && !holds("~3.12.4", "3.13.0") && !holds("~3.12.4", "3.12.3"));
        assert!(holds("^3.12", "3.13.0") && !holds("^3.12", "4.0.0"));
        assert!(holds("^0.2.3", "0.2.9") && !holds("^0.2.3", "0.3.0"));
        assert!(holds("^0.0.3", "0.0.3") && !holds("^0.0.3", "0.0.4"));
    }

    #[test]
    fn a_bare_version_is_its_line() {
        assert!(holds("3.12", "3.12.13") && !holds("3.12", "3.13.0"));
        assert!(holds("20", "20.0.0") && holds("20", "20.19.0") && !holds("20", "21.0.0"));
        assert!(holds("v18", "18.1"));
    }

    #[test]
    fn a_comma_is_and() {
        assert!(holds(">=3.11, <3.13", "3.12.1"));
        assert!(!holds(">=3.11,<3.13", "3.13.0"));
    }

    #[test]
    fn the_empty_constraint_holds_even_for_text_that_is_no_version() {
        assert!(holds("", "nightly") && holds("*", "1.0"));
        assert!(!holds(">=0", "nightly"));
    }

    #[test]
    fn a_malformed_constraint_names_the_part() {
        let error = Constraint::parse(">=3.11, ~~2").unwrap_err().to_string();
        assert!(error.contains(r#"">=3.11, ~~2""#) && error.contains(r#""~~2""#), "{error}");
        for text in ["x", "=", ">1.x", "=>3", "==3"] {
            assert!(Constraint::parse(text).is_err(), "{text}");
        }
    }

    fn row(version: &str, is_default: bool) -> RuntimeVersion {
        RuntimeVersion {
            id: RuntimeVersionId(1),
            runtime: RuntimeId(1),
            runtime_ref: "core.python".into(),
            version: version.into(),
            execution_config: json!({}),
            distributions: json!({}),
            is_default,
            available: false,
        }
    }

    #[test]
    fn the_default_wins_only_without_a_constraint() {
        let rows = [row("3.9", false), row("3.11", true), row("3.12", false), row("odd", false)];
        let chosen =
            |constraint: &str| best(&rows, &Constraint::parse(constraint).unwrap()).map(|row| row.version.clone());
        assert_eq!(chosen(""), Some("3.11".into()));
        assert_eq!(chosen(">=3.9"), Some("3.12".into()));
        assert_eq!(chosen("<3.11"), Some("3.9".into()));
        assert_eq!(chosen(">=4"), None);
        assert_eq!(best(&rows[2..], &Constraint::any()).unwrap().version, "3.12");
    }

    #[test]
    fn detected_interpreters_speak_when_runtime_versions_say_nothing() {
        let mut capabilities = CapabilityView {
            detected_interpreters: vec![DetectedInterpreter {
                name: "node".into(),
                path: "/usr/bin/node".into(),
                version: Some("20.19.0".into()),
            }],
            ..CapabilityView::default()
        };
        let names = BTreeSet::from(["node".to_owned()]);
        assert_eq!(advertised_versions(&capabilities, &names), ["20.19.0"]);
        capabilities.runtime_versions.insert("NodeJS".into(), vec!["22".into(), "20".into()]);
        assert_eq!(advertised_versions(&capabilities, &names), ["20", "22"]);
        assert!(advertised_versions(&capabilities, &BTreeSet::new()).is_empty());
    }
}
