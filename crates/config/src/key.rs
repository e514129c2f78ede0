//! One key: its name, type, default and the reason for it. Reader, reference page and the search for typing errors all
//! work from these constants.

use attune_yaml::Node;

/// A key of a configuration file and the variable that overrides it.
#[derive(Debug)]
pub(crate) struct Key<K> {
    /// Dotted name in a file.
    pub(crate) path: &'static str,
    /// What it takes.
    pub(crate) kind: K,
    /// As it would be written; empty when there is no default.
    pub(crate) default: &'static str,
    /// What it does.
    pub(crate) doc: &'static str,
    /// Why this default, or what follows from its absence.
    pub(crate) reason: &'static str,
}

/// A type of value.
pub(crate) trait Kind {
    /// What comes out.
    type Value;

    /// What it takes, for the reference page.
    fn describe(&self) -> String;

    /// Reads it; the error is a fragment such as `must be a whole number`.
    fn read(&self, given: Given<'_>) -> Result<Self::Value, String>;

    /// How values of several sources come together.
    fn shape(&self) -> Shape {
        Shape::Single
    }
}

/// How values of several sources come together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Shape {
    /// The strongest source decides alone.
    Single,
    /// Like [`Shape::Single`]; a secret may also stand in a file named by `…_file`.
    Secret,
    /// A map whose entries are overridden one by one; values are text as written.
    TextMap,
    /// A map whose entries are overridden one by one; values are JSON.
    JsonMap,
}

/// A value as a source holds it.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Given<'a> {
    /// From a variable, a default or a secret's file.
    Text(&'a str),
    /// From a configuration file.
    Node(&'a Node),
    /// Merged from several sources.
    Json(&'a serde_json::Value),
}

/// What the reference page and the search for typing errors need, whatever the type.
pub(crate) trait Described: Sync {
    /// Dotted name.
    fn path(&self) -> &'static str;
    /// Type in words.
    fn kind(&self) -> String;
    /// Default as written; empty when there is none.
    fn default(&self) -> &'static str;
    /// What it does.
    fn doc(&self) -> &'static str;
    /// Why.
    fn reason(&self) -> &'static str;
    /// See [`Shape`].
    fn shape(&self) -> Shape;
    /// Why the default cannot be read; none when it can, or when there is none.
    #[cfg(test)]
    fn default_problem(&self) -> Option<String>;
}

impl<K: Kind + Sync> Described for Key<K> {
    fn path(&self) -> &'static str {
        self.path
    }

    fn kind(&self) -> String {
        self.kind.describe()
    }

    fn default(&self) -> &'static str {
        self.default
    }

    fn doc(&self) -> &'static str {
        self.doc
    }

    fn reason(&self) -> &'static str {
        self.reason
    }

    fn shape(&self) -> Shape {
        self.kind.shape()
    }

    #[cfg(test)]
    fn default_problem(&self) -> Option<String> {
        let default = Some(self.default).filter(|text| !text.is_empty())?;
        self.kind.read(Given::Text(default)).err()
    }
}

/// The beginning of every variable of the scheme.
pub(crate) const VARIABLE_PREFIX: &str = "ATTUNE__";

/// The variable that overrides the key `path`.
pub(crate) fn variable_of(path: &str) -> String {
    format!("{VARIABLE_PREFIX}{}", path.replace('.', "__").to_uppercase())
}
