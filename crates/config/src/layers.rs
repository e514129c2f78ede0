//! The sources of values in order of strength: variables, the file of the environment, the base file.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fmt;
use std::path::PathBuf;

use attune_model::JsonMap;
use attune_model::order;
use attune_yaml::{Mapping, Node};
use serde_json::Value;

use crate::Source;
use crate::files::LoadedFile;
use crate::key::{Given, Shape, VARIABLE_PREFIX};

/// All sources together.
pub(crate) struct Layers {
    /// By the key they override.
    pub(crate) variables: BTreeMap<String, Variable>,
    /// The strongest first.
    pub(crate) files: Vec<LoadedFile>,
}

/// A variable of the scheme.
pub(crate) struct Variable {
    /// As it is spelled in the environment.
    pub(crate) name: String,
    /// May hold anything.
    pub(crate) value: OsString,
}

/// Where a value stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Origin {
    /// In the environment.
    Variable(String),
    /// In a file.
    File { path: PathBuf, line: u32, key: String },
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Variable(name) => f.write_str(name),
            Self::File { path, line, key } => write!(f, "{}:{line}: {key}", path.display()),
        }
    }
}

/// A value that was found.
pub(crate) enum Found<'a> {
    /// In the environment.
    Text(&'a str),
    /// In the environment, and it is not text.
    NotText,
    /// In a file.
    Node(&'a Node),
}

impl Layers {
    /// Sorts out the variables of the scheme. Empty ones count as not set, as deployments write `${NAME:-}`.
    pub(crate) fn new(source: &dyn Source, files: Vec<LoadedFile>) -> Self {
        let variables = source.all().into_iter().filter_map(|(name, value)| {
            let name = name.into_string().ok()?;
            let (prefix, rest) = name.split_at_checked(VARIABLE_PREFIX.len())?;
            if !prefix.eq_ignore_ascii_case(VARIABLE_PREFIX) || value.is_empty() {
                return None;
            }
            Some((rest.to_lowercase().replace("__", "."), Variable { name, value }))
        });
        Self { variables: order::map(variables), files }
    }

    /// The strongest value of `path`.
    pub(crate) fn find(&self, path: &str) -> Option<(Origin, Found<'_>)> {
        if let Some(variable) = self.variables.get(path) {
            let found = variable.value.to_str().map_or(Found::NotText, Found::Text);
            return Some((Origin::Variable(variable.name.clone()), found));
        }
        self.files.iter().find_map(|file| {
            let (line, node) = lookup(&file.root, path)?;
            Some((Origin::File { path: file.path.clone(), line, key: path.to_owned() }, Found::Node(node)))
        })
    }

    /// Whether anything stands under `section`.
    pub(crate) fn has_section(&self, section: &str) -> bool {
        let prefix = format!("{section}.");
        self.variables.keys().any(|path| path.starts_with(&prefix))
            || self.files.iter().any(|file| lookup(&file.root, section).is_some())
    }

    /// The map at `path`, put together entry by entry, and where its strongest part stands. A part that is not a map
    /// is given back as it is, for its type to refuse.
    pub(crate) fn merged(&self, path: &str, shape: Shape) -> Option<(Origin, Result<Value, NotMap<'_>>)> {
        let mut map = JsonMap::new();
        let mut strongest = None;
        for file in self.files.iter().rev() {
            let Some((line, node)) = lookup(&file.root, path) else { continue };
            let origin = Origin::File { path: file.path.clone(), line, key: path.to_owned() };
            let Some(mapping) = node.as_mapping() else {
                return Some((origin, Err(NotMap::Node(node))));
            };
            overlay(&mut map, json_of(mapping, shape));
            strongest = Some(origin);
        }
        let prefix = format!("{path}.");
        let entries = self.variables.iter().filter_map(|(key, variable)| Some((key.strip_prefix(&prefix)?, variable)));
        if let Some(variable) = self.variables.get(path) {
            let origin = Origin::Variable(variable.name.clone());
            match variable.value.to_str().map(serde_json::from_str) {
                Some(Ok(Value::Object(entries))) => overlay(&mut map, entries),
                _ => return Some((origin, Err(NotMap::Variable))),
            }
            strongest = Some(origin);
        }
        for (key, variable) in entries {
            let origin = Origin::Variable(variable.name.clone());
            let Some(text) = variable.value.to_str() else {
                return Some((origin, Err(NotMap::NotText)));
            };
            if shape == Shape::TextMap && key.contains('.') {
                return Some((origin, Err(NotMap::Nested)));
            }
            let value = if shape == Shape::JsonMap { guess(text) } else { Value::String(text.to_owned()) };
            overlay(&mut map, nested(key, value));
            strongest = Some(origin);
        }
        Some((strongest?, Ok(Value::Object(map))))
    }
}

/// A part of a map that is none.
#[derive(Debug)]
pub(crate) enum NotMap<'a> {
    /// In a file.
    Node(&'a Node),
    /// A variable that holds no JSON object.
    Variable,
    /// A variable that holds no text.
    NotText,
    /// A variable for an entry within an entry, where entries are texts.
    Nested,
}

impl NotMap<'_> {
    /// What is wrong.
    pub(crate) fn message(&self) -> String {
        match self {
            Self::Node(node) => format!("must be a mapping, not {}", node.kind()),
            Self::Variable => "must be an object as JSON; or set one variable for each entry".to_owned(),
            Self::NotText => NOT_TEXT.to_owned(),
            Self::Nested => "the name of an entry cannot hold `__`; set the whole map as JSON instead".to_owned(),
        }
    }
}

/// About variables that hold no text.
pub(crate) const NOT_TEXT: &str = "is not UTF-8";

/// The node at the dotted `path` and the line of its key; null counts as nothing.
fn lookup<'a>(root: &'a Node, path: &str) -> Option<(u32, &'a Node)> {
    let mut node = root;
    let mut line = root.line;
    for part in path.split('.') {
        let entry = node.as_mapping()?.entry(part)?;
        (line, node) = (entry.line, &entry.value);
    }
    Some((line, node)).filter(|(_, node)| !node.is_null())
}

fn json_of(mapping: &Mapping, shape: Shape) -> JsonMap {
    let value = |node: &Node| match crate::kinds::scalar(Given::Node(node)) {
        Some(text) if shape == Shape::TextMap => Value::String(text),
        _ => node.to_json(),
    };
    mapping.iter().map(|entry| (entry.key.clone(), value(&entry.value))).collect()
}

/// Puts `stronger` over `map`; objects within are put together in the same way.
fn overlay(map: &mut JsonMap, stronger: JsonMap) {
    for (key, value) in stronger {
        match (map.get_mut(&key), value) {
            (Some(Value::Object(below)), Value::Object(above)) => overlay(below, above),
            (_, value) => {
                map.insert(key, value);
            }
        }
    }
}

fn nested(path: &str, value: Value) -> JsonMap {
    let (key, value) = match path.split_once('.') {
        Some((key, rest)) => (key, Value::Object(nested(rest, value))),
        None => (path, value),
    };
    JsonMap::from_iter([(key.to_owned(), value)])
}

/// A value without a declared type: bool, whole number, number, else text.
fn guess(text: &str) -> Value {
    text.parse().map(Value::Bool).ok().or_else(|| text.parse::<i64>().map(Value::from).ok()).unwrap_or_else(|| {
        let number = text.parse::<f64>().ok().and_then(serde_json::Number::from_f64);
        number.map_or_else(|| Value::String(text.to_owned()), Value::Number)
    })
}
