//! Reading a mapping field by field. Every accessor reports what is wrong and goes on, so that one pass finds all.
//!
//! A null value counts as a missing one. A field that the caller did not declare is warned about when the mapping is
//! opened, with the nearest declared name.

use serde_json::Map;

use crate::node::{Mapping, Node, Value};
use crate::report::Report;

/// From this similarity on (Jaro-Winkler, 0 to 1) a known name is offered for an unknown one.
const SIMILAR: f64 = 0.8;

/// One mapping of a file.
#[derive(Debug)]
pub struct Fields<'a> {
    report: &'a Report,
    mapping: &'a Mapping,
    line: u32,
    path: String,
}

impl<'a> Fields<'a> {
    /// Opens `node` as the mapping at `path`; `known` of `None` allows every key.
    pub(crate) fn new(
        report: &'a Report,
        node: &'a Node,
        path: String,
        known: Option<&'static [&'static str]>,
    ) -> Option<Self> {
        let Some(mapping) = node.as_mapping() else {
            report.error(node.line, path, format!("must be a mapping, this is {}", node.kind()));
            return None;
        };
        let fields = Self { report, mapping, line: node.line, path };
        if let Some(known) = known {
            fields.warn_about_unknown(known);
        }
        Some(fields)
    }

    fn warn_about_unknown(&self, known: &[&str]) {
        for entry in self.mapping.iter().filter(|entry| !known.contains(&entry.key.as_str())) {
            let message = match nearest(&entry.key, known) {
                Some(name) => format!("unknown key, ignored; did you mean {name:?}?"),
                None => "unknown key, ignored".to_owned(),
            };
            self.report.warning(entry.line, self.path_of(&entry.key), message);
        }
    }

    /// The line where this mapping begins.
    pub fn line(&self) -> u32 {
        self.line
    }

    /// The mapping itself.
    pub fn mapping(&self) -> &'a Mapping {
        self.mapping
    }

    /// The dotted path of a field of this mapping.
    pub fn path_of(&self, name: &str) -> String {
        if self.path.is_empty() { name.to_owned() } else { format!("{}.{name}", self.path) }
    }

    /// The line of a field, or of the mapping when the field is missing.
    pub fn line_of(&self, name: &str) -> u32 {
        self.mapping.entry(name).map_or(self.line, |entry| entry.line)
    }

    /// Adds an error about a field.
    pub fn error(&self, name: &str, message: impl Into<String>) {
        self.report.error(self.line_of(name), self.path_of(name), message);
    }

    /// Adds a warning about a field.
    pub fn warning(&self, name: &str, message: impl Into<String>) {
        self.report.warning(self.line_of(name), self.path_of(name), message);
    }

    /// The value of a field unless it is missing or null.
    pub fn get(&self, name: &str) -> Option<&'a Node> {
        self.mapping.get(name).filter(|node| !node.is_null())
    }

    /// A text. Where a number or a boolean stands, its text is taken as written, with a warning.
    pub fn text(&self, name: &str) -> Option<String> {
        self.text_of(self.get(name)?, &self.path_of(name))
    }

    /// A text that must be there and not blank.
    pub fn required_text(&self, name: &str) -> Option<String> {
        if self.get(name).is_none() {
            self.error(name, "required, but missing");
            return None;
        }
        let text = self.text(name)?;
        if text.trim().is_empty() {
            self.error(name, "must not be empty");
            return None;
        }
        Some(text)
    }

    /// `true` or `false`.
    pub fn boolean(&self, name: &str) -> Option<bool> {
        let node = self.get(name)?;
        match &node.value {
            Value::Bool(value) => Some(*value),
            _ => self.wrong(name, node, "true or false"),
        }
    }

    /// A whole number within `range`.
    pub fn integer(&self, name: &str, range: std::ops::RangeInclusive<i64>) -> Option<i64> {
        let node = self.get(name)?;
        let number = match &node.value {
            Value::Number { number, .. } => number.as_i64(),
            _ => None,
        };
        match number {
            Some(number) if range.contains(&number) => Some(number),
            Some(number) => {
                self.error(name, format!("must be from {} to {}, not {number}", range.start(), range.end()));
                None
            }
            None => self.wrong(name, node, "a whole number"),
        }
    }

    /// A number.
    pub fn number(&self, name: &str) -> Option<f64> {
        let node = self.get(name)?;
        match &node.value {
            Value::Number { number, .. } => number.as_f64(),
            _ => self.wrong(name, node, "a number"),
        }
    }

    /// One of a few words.
    pub fn choice<T: Copy>(&self, name: &str, words: &[(&str, T)]) -> Option<T> {
        let text = self.text(name)?;
        let hit = words.iter().find(|(word, _)| *word == text).map(|(_, value)| *value);
        if hit.is_none() {
            let all: Vec<&str> = words.iter().map(|(word, _)| *word).collect();
            self.error(name, format!("must be one of {}, not {text:?}", all.join(", ")));
        }
        hit
    }

    /// A list of texts.
    pub fn texts(&self, name: &str) -> Option<Vec<String>> {
        let items = self.items(name)?;
        let read = |(path, node): (String, &Node)| self.text_of(node, &path);
        Some(items.into_iter().filter_map(read).collect())
    }

    /// The items of a list, each with its path.
    pub fn items(&self, name: &str) -> Option<Vec<(String, &'a Node)>> {
        let node = self.get(name)?;
        match &node.value {
            Value::Sequence(items) => {
                let path = self.path_of(name);
                Some(items.iter().enumerate().map(|(index, item)| (format!("{path}[{index}]"), item)).collect())
            }
            _ => self.wrong(name, node, "a list"),
        }
    }

    /// Any value as JSON.
    pub fn json(&self, name: &str) -> Option<serde_json::Value> {
        self.get(name).map(Node::to_json)
    }

    /// A mapping as a JSON object.
    pub fn object(&self, name: &str) -> Option<Map<String, serde_json::Value>> {
        let node = self.get(name)?;
        match &node.value {
            Value::Mapping(mapping) => Some(mapping.to_json()),
            _ => self.wrong(name, node, "a mapping"),
        }
    }

    /// A mapping with declared keys, to be read like this one.
    pub fn section(&self, name: &str, known: &'static [&'static str]) -> Option<Fields<'a>> {
        Self::new(self.report, self.get(name)?, self.path_of(name), Some(known))
    }

    /// A mapping whose keys the author chooses.
    pub fn open_section(&self, name: &str) -> Option<Fields<'a>> {
        Self::new(self.report, self.get(name)?, self.path_of(name), None)
    }

    /// A list item as a mapping with declared keys; `path` comes from [`Self::items`].
    pub fn item(&self, path: String, node: &'a Node, known: &'static [&'static str]) -> Option<Fields<'a>> {
        Self::new(self.report, node, path, Some(known))
    }

    fn text_of(&self, node: &Node, path: &str) -> Option<String> {
        let as_written = match &node.value {
            Value::String(text) => return Some(text.clone()),
            Value::Number { source, .. } => source.clone(),
            Value::Bool(value) => value.to_string(),
            _ => {
                self.report.error(node.line, path, format!("must be a text, this is {}", node.kind()));
                return None;
            }
        };
        let message = format!("should be a text, this is {}; read as {as_written:?}, put it in quotes", node.kind());
        self.report.warning(node.line, path, message);
        Some(as_written)
    }

    fn wrong<T>(&self, name: &str, node: &Node, wanted: &str) -> Option<T> {
        self.error(name, format!("must be {wanted}, this is {}", node.kind()));
        None
    }
}

fn nearest<'k>(name: &str, known: &[&'k str]) -> Option<&'k str> {
    let score = |candidate: &str| strsim::jaro_winkler(name, candidate);
    known
        .iter()
        .map(|candidate| (score(candidate), *candidate))
        .filter(|(score, _)| *score >= SIMILAR)
        .max_by(|(a, _), (b, _)| a.total_cmp(b))
        .map(|(_, candidate)| candidate)
}
