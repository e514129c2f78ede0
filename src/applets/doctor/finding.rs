//! One thing that was looked at, and all of them.

use std::fmt;

use serde_json::{Value, json};

use crate::exit::Exit;

/// How bad it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Severity {
    /// As it should be.
    Fine,
    /// The agent runs, with less than it could have.
    Warning,
    /// The agent would end with this code, or could not do its work.
    Problem(Exit),
}

impl Severity {
    fn as_str(self) -> &'static str {
        match self {
            Self::Fine => "ok",
            Self::Warning => "warning",
            Self::Problem(_) => "problem",
        }
    }
}

/// What was found about one thing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Finding {
    about: &'static str,
    severity: Severity,
    found: String,
    remedy: Option<String>,
}

impl Finding {
    /// As it should be.
    pub(super) fn fine(about: &'static str, found: impl Into<String>) -> Self {
        Self { about, severity: Severity::Fine, found: found.into(), remedy: None }
    }

    /// The agent runs, with less than it could have.
    pub(super) fn warning(about: &'static str, found: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self { about, severity: Severity::Warning, found: found.into(), remedy: Some(remedy.into()) }
    }

    /// The agent would end with `exit`, or could not do its work.
    pub(super) fn problem(
        about: &'static str,
        exit: Exit,
        found: impl Into<String>,
        remedy: impl Into<String>,
    ) -> Self {
        Self { about, severity: Severity::Problem(exit), found: found.into(), remedy: Some(remedy.into()) }
    }

    /// For programs.
    pub(super) fn json(&self) -> Value {
        json!({
            "about": self.about, "severity": self.severity.as_str(), "found": self.found, "remedy": self.remedy,
        })
    }

    /// In one line, for a log.
    pub(super) fn line(&self) -> String {
        let Self { about, found, .. } = self;
        match &self.remedy {
            Some(remedy) => format!("{about}: {found}; {remedy}"),
            None => format!("{about}: {found}"),
        }
    }
}

/// For people: the remedy has a line of its own.
impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { about, severity, found, remedy } = self;
        writeln!(f, "{:<8} {about:<14} {found}", severity.as_str())?;
        remedy.as_ref().map_or(Ok(()), |remedy| writeln!(f, "{:<8} {:<14} -> {remedy}", "", ""))
    }
}

/// Everything that was found, in the order in which it was looked at.
#[derive(Debug, Default)]
pub(super) struct Findings(Vec<Finding>);

impl Findings {
    pub(super) fn add(&mut self, finding: Finding) {
        self.0.push(finding);
    }

    pub(super) fn extend(&mut self, findings: Vec<Finding>) {
        self.0.extend(findings);
    }

    /// The worst decides: what only an operator can correct before what may pass.
    pub(super) fn exit(&self) -> Exit {
        const WORST_FIRST: [Exit; 4] =
            [Exit::Configuration, Exit::OperatingSystem, Exit::CannotCreate, Exit::Unavailable];
        let has = |severity: Severity| self.0.iter().any(|finding| finding.severity == severity);
        let worst = WORST_FIRST.into_iter().find(|exit| has(Severity::Problem(*exit)));
        worst.unwrap_or(if has(Severity::Warning) { Exit::Failed } else { Exit::Success })
    }

    /// All, or only what is not as it should be.
    pub(super) fn shown(&self, short: bool) -> Vec<&Finding> {
        self.0.iter().filter(|finding| !short || finding.severity != Severity::Fine).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn exit(findings: &[Finding]) -> Exit {
        Findings(findings.to_vec()).exit()
    }

    #[test]
    fn the_worst_finding_decides() {
        let fine = Finding::fine("kernel", "there");
        let warning = Finding::warning("folder", "read-only", "mount it");
        let database = Finding::problem("database", Exit::Unavailable, "away", "start it");
        let schema = Finding::problem("schema", Exit::Configuration, "old", "migrate");
        assert_eq!(exit(&[]), Exit::Success);
        assert_eq!(exit(std::slice::from_ref(&fine)), Exit::Success);
        assert_eq!(exit(&[fine.clone(), warning.clone()]), Exit::Failed);
        assert_eq!(exit(&[warning.clone(), database.clone(), fine]), Exit::Unavailable);
        assert_eq!(exit(&[database, schema, warning]), Exit::Configuration);
    }

    #[test]
    fn a_finding_says_what_to_do() {
        let finding = Finding::warning("folder", "read-only", "mount it");
        assert_eq!(finding.to_string(), "warning  folder         read-only\n                        -> mount it\n");
        assert_eq!(finding.line(), "folder: read-only; mount it");
        assert_eq!(finding.json()["severity"], "warning");
    }
}
