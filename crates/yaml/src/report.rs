//! Problems of one file, collected instead of stopping at the first.

use std::cell::RefCell;
use std::fmt;
use std::path::{Path, PathBuf};

use crate::fields::Fields;
use crate::node::Node;
use crate::parse::{ParseError, parse};

/// How bad a problem is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Severity {
    /// The file is used all the same.
    Warning,
    /// The file is not used.
    Error,
}

/// One thing that is wrong in one place.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Problem {
    /// The file, as it was named.
    pub file: PathBuf,
    /// Line, from 1; 0 when the file as a whole is meant.
    pub line: u32,
    /// Dotted path of the field; empty when the document as a whole is meant.
    pub field: String,
    /// What is wrong and what would be right.
    pub message: String,
    /// How bad it is.
    pub severity: Severity,
}

/// `file:line: field: message`, without what is not known.
impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:", self.file.display())?;
        if self.line > 0 {
            write!(f, "{}:", self.line)?;
        }
        if !self.field.is_empty() {
            write!(f, " {}:", self.field)?;
        }
        if self.severity == Severity::Warning {
            f.write_str(" warning:")?;
        }
        write!(f, " {}", self.message)
    }
}

/// Collects the problems of one file; readers of parts share it.
#[derive(Debug)]
pub struct Report {
    file: PathBuf,
    found: RefCell<Vec<Problem>>,
}

impl Report {
    /// Nothing found so far.
    pub fn new(file: impl Into<PathBuf>) -> Self {
        Self { file: file.into(), found: RefCell::default() }
    }

    /// The file this is about.
    pub fn file(&self) -> &Path {
        &self.file
    }

    /// Parses the file's text; a text that is not YAML becomes an error of this report.
    pub fn parse(&self, text: &str) -> Option<Node> {
        parse(text)
            .map_err(|ParseError { line, column, message }| {
                self.error(line, "", format!("{message} (column {column})"));
            })
            .ok()
    }

    /// Reads the document's top mapping; `known` are all keys that may stand there.
    pub fn fields<'a>(&'a self, root: &'a Node, known: &'static [&'static str]) -> Option<Fields<'a>> {
        Fields::new(self, root, String::new(), Some(known))
    }

    /// Adds an error.
    pub fn error(&self, line: u32, field: impl Into<String>, message: impl Into<String>) {
        self.add(line, field.into(), message.into(), Severity::Error);
    }

    /// Adds a warning.
    pub fn warning(&self, line: u32, field: impl Into<String>, message: impl Into<String>) {
        self.add(line, field.into(), message.into(), Severity::Warning);
    }

    fn add(&self, line: u32, field: String, message: String, severity: Severity) {
        let file = self.file.clone();
        self.found.borrow_mut().push(Problem { file, line, field, message, severity });
    }

    /// Whether an error was found.
    pub fn has_errors(&self) -> bool {
        self.found.borrow().iter().any(|problem| problem.severity == Severity::Error)
    }

    /// Everything found, in the order of the lines; what was found twice, once.
    pub fn into_problems(self) -> Vec<Problem> {
        let mut found = self.found.into_inner();
        found.sort();
        found.dedup();
        found
    }
}
