//! Typed access to the layers. A problem is noted and reading goes on, so that one pass finds them all.

use std::path::{Path, PathBuf};

use crate::Source;
use crate::files;
use crate::key::{Given, Key, Kind, Shape, variable_of};
use crate::layers::{Found, Layers, NOT_TEXT, Origin};
use crate::problem::{Note, Problem};

/// Reads keys and collects what is wrong.
pub(crate) struct Reader<'a> {
    layers: &'a Layers,
    source: &'a dyn Source,
    folder: &'a Path,
    /// What was found so far.
    pub(crate) problems: Vec<Problem>,
    /// What the log should say.
    pub(crate) notes: Vec<Note>,
}

impl<'a> Reader<'a> {
    /// `folder` is what relative paths are relative to.
    pub(crate) fn new(layers: &'a Layers, source: &'a dyn Source, folder: &'a Path) -> Self {
        Self { layers, source, folder, problems: Vec::new(), notes: Vec::new() }
    }

    /// The value of a key that has a default.
    pub(crate) fn value<K: Kind>(&mut self, key: &Key<K>) -> K::Value {
        self.optional(key).unwrap_or_else(|| default_of(key))
    }

    /// The value of a key without a default; none when it is not set, or not valid.
    pub(crate) fn optional<K: Kind>(&mut self, key: &Key<K>) -> Option<K::Value> {
        match key.kind.shape() {
            Shape::Single => self.single(key),
            Shape::Secret => self.secret(key),
            shape @ (Shape::TextMap | Shape::JsonMap) => self.map(key, shape),
        }
    }

    /// A folder, made absolute.
    pub(crate) fn folder<K: Kind<Value = PathBuf>>(&mut self, key: &Key<K>) -> PathBuf {
        let path = self.value(key);
        self.folder.join(path)
    }

    /// A folder that a variable outside the scheme names, more strongly than the key does.
    pub(crate) fn folder_or_variable<K: Kind<Value = PathBuf>>(&mut self, variable: &str, key: &Key<K>) -> PathBuf {
        match self.source.get(variable).filter(|value| !value.is_empty()) {
            Some(path) => self.folder.join(path),
            None => self.folder(key),
        }
    }

    /// A variable outside the scheme; an empty one counts as not set.
    pub(crate) fn variable(&mut self, name: &str) -> Option<String> {
        let value = self.source.get(name).filter(|value| !value.is_empty())?;
        let text = value.into_string().ok();
        if text.is_none() {
            self.problem(name, NOT_TEXT);
        }
        text
    }

    /// Whether anything stands under `section`.
    pub(crate) fn has_section(&self, section: &str) -> bool {
        self.layers.has_section(section)
    }

    /// Where `key` was set, or how it can be.
    pub(crate) fn place_of<K>(&self, key: &Key<K>) -> String {
        match self.layers.find(key.path) {
            Some((origin, _)) => origin.to_string(),
            None => format!("{} ({})", key.path, variable_of(key.path)),
        }
    }

    /// Notes something that has to be corrected.
    pub(crate) fn problem(&mut self, place: impl Into<String>, message: impl Into<String>) {
        self.problems.push(Problem { place: place.into(), message: message.into() });
    }

    /// Notes something that is probably not what was meant.
    pub(crate) fn warning(&mut self, message: impl Into<String>) {
        self.notes.push(Note::Warning(message.into()));
    }

    fn single<K: Kind>(&mut self, key: &Key<K>) -> Option<K::Value> {
        let (origin, found) = self.layers.find(key.path)?;
        self.read(key, &origin, &found)
    }

    fn read<K: Kind>(&mut self, key: &Key<K>, origin: &Origin, found: &Found<'_>) -> Option<K::Value> {
        let result = match found {
            Found::Text(text) => key.kind.read(Given::Text(text)),
            Found::Node(node) => key.kind.read(Given::Node(node)),
            Found::NotText => Err(NOT_TEXT.to_owned()),
        };
        result.map_err(|message| self.problem(origin.to_string(), message)).ok()
    }

    fn secret<K: Kind>(&mut self, key: &Key<K>) -> Option<K::Value> {
        let file_key = format!("{}_file", key.path);
        let (origin, found) = match (self.layers.find(key.path), self.layers.find(&file_key)) {
            (Some((origin, _)), Some((file_origin, _))) => {
                self.problem(origin.to_string(), format!("is set, and so is {file_origin}; keep one of them"));
                return None;
            }
            (Some((origin, found)), None) => return self.read(key, &origin, &found),
            (None, Some(file)) => file,
            (None, None) => return None,
        };
        let path = match found {
            Found::Text(text) => Some(text.to_owned()),
            Found::Node(node) => crate::kinds::scalar(Given::Node(node)),
            Found::NotText => None,
        };
        let Some(path) = path else {
            self.problem(origin.to_string(), "must be the path of a file");
            return None;
        };
        match files::secret(&self.folder.join(&path)) {
            Ok(secret) => self.read(key, &origin, &Found::Text(&secret)),
            Err(error) => {
                self.problem(origin.to_string(), format!("{path:?} cannot be read: {error}"));
                None
            }
        }
    }

    fn map<K: Kind>(&mut self, key: &Key<K>, shape: Shape) -> Option<K::Value> {
        let (origin, merged) = self.layers.merged(key.path, shape)?;
        let result = match merged {
            Ok(value) => key.kind.read(Given::Json(&value)),
            Err(part) => Err(part.message()),
        };
        result.map_err(|message| self.problem(origin.to_string(), message)).ok()
    }
}

fn default_of<K: Kind>(key: &Key<K>) -> K::Value {
    match key.kind.read(Given::Text(key.default)) {
        Ok(value) => value,
        Err(problem) => panic!("the default of {} cannot be read, which a test rules out: {problem}", key.path),
    }
}
