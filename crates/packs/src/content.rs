//! One loaded pack: what the hub stores, and where each part of it was written.

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};

use attune_model::order;
use attune_store::NewPack;
use attune_yaml::Mapping;

/// What a file of a pack declares.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ComponentKind {
    /// `runtimes/`.
    Runtime,
    /// `triggers/`.
    Trigger,
    /// `actions/`.
    Action,
    /// `rules/`.
    Rule,
    /// `sensors/`.
    Sensor,
}

impl ComponentKind {
    /// Every kind, in the order of loading.
    pub const ALL: [Self; 5] = [Self::Runtime, Self::Trigger, Self::Action, Self::Rule, Self::Sensor];

    /// The folder inside the pack.
    pub const fn folder(self) -> &'static str {
        match self {
            Self::Runtime => "runtimes",
            Self::Trigger => "triggers",
            Self::Action => "actions",
            Self::Rule => "rules",
            Self::Sensor => "sensors",
        }
    }
}

impl fmt::Display for ComponentKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Runtime => "runtime",
            Self::Trigger => "trigger",
            Self::Action => "action",
            Self::Rule => "rule",
            Self::Sensor => "sensor",
        })
    }
}

/// A pack without errors.
#[derive(Debug, Clone, PartialEq)]
pub struct PackContent {
    /// Its folder, as it was named; empty for the core runtimes that are built in.
    pub path: PathBuf,
    /// Everything in it, ready to be stored.
    pub pack: NewPack,
    /// Where each component was written.
    pub(crate) sources: BTreeMap<(ComponentKind, String), Source>,
}

impl PackContent {
    /// The file that declares a component.
    pub fn file_of(&self, kind: ComponentKind, component_ref: &str) -> Option<&Path> {
        self.source(kind, component_ref).map(|source| source.file.as_path())
    }

    /// Whether this is the built-in set of core runtimes instead of a folder.
    pub fn is_builtin(&self) -> bool {
        self.path.as_os_str().is_empty()
    }

    pub(crate) fn source(&self, kind: ComponentKind, component_ref: &str) -> Option<&Source> {
        self.sources.get(&(kind, component_ref.to_owned()))
    }
}

/// A file and the lines of its top-level fields.
#[derive(Debug, Clone, PartialEq, Default)]
pub(crate) struct Source {
    pub(crate) file: PathBuf,
    lines: BTreeMap<String, u32>,
}

impl Source {
    pub(crate) fn new(file: &Path, mapping: &Mapping) -> Self {
        let lines = order::map(mapping.iter().map(|entry| (entry.key.clone(), entry.line)));
        Self { file: file.to_owned(), lines }
    }

    /// The line of a field; the first line when it is not written.
    pub(crate) fn line_of(&self, field: &str) -> u32 {
        self.lines.get(field).copied().unwrap_or(1)
    }
}
