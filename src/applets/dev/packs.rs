//! The packs that `dev` runs: what is in use, and what a change on disk makes of it.
//!
//! A pack in use is replaced only by a version without errors. Everything is read again after a change: that costs
//! milliseconds and cannot forget a dependency between packs.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use attune_packs::{Loaded, PackContent, Problem, Severity};

use super::console::{Kind, Line};
use super::watch::Change;

/// The packs in use.
#[derive(Debug)]
pub(super) struct PackSet {
    paths: Vec<PathBuf>,
    used: BTreeMap<String, PackContent>,
    reported: Vec<Problem>,
}

/// What is to be done about one pack.
#[derive(Debug)]
pub(super) enum Step {
    /// Store this version and tell everybody.
    Use {
        /// What is in it.
        content: Box<PackContent>,
        /// Whether there was one before.
        before: Before,
    },
    /// Its folder is gone.
    Remove {
        /// Its ref.
        pack_ref: String,
    },
}

/// Whether a pack was in use before.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Before {
    /// It is new.
    Nothing,
    /// It replaces one.
    Another,
}

impl PackSet {
    /// Packs or folders of packs; nothing is read yet.
    pub(super) fn new(paths: Vec<PathBuf>) -> Self {
        Self { paths, used: BTreeMap::new(), reported: Vec::new() }
    }

    /// Whether nothing but the built-in runtimes is in use.
    pub(super) fn is_idle(&self) -> bool {
        self.used.values().all(PackContent::is_builtin)
    }

    /// Whether a pack is in use.
    pub(super) fn uses(&self, pack_ref: &str) -> bool {
        self.used.contains_key(pack_ref)
    }

    /// Reads everything and says what is to be done, core first. Problems that were not there before become lines.
    pub(super) fn refresh(&mut self, change: &Change) -> (Vec<Step>, Vec<Line>) {
        let Loaded { packs, problems } = attune_packs::load(&self.paths);
        let mut lines = self.new_problems(problems);
        let gone: Vec<String> = self
            .used
            .iter()
            .filter(|(_, content)| !content.is_builtin() && !content.path.join("pack.yaml").exists())
            .map(|(pack_ref, _)| pack_ref.clone())
            .filter(|pack_ref| packs.iter().all(|content| content.pack.r#ref != *pack_ref))
            .collect();
        let mut steps: Vec<Step> = packs.into_iter().filter_map(|content| self.step(content, change)).collect();
        for pack_ref in gone {
            self.used.remove(&pack_ref);
            lines.push(Line::new(Kind::Pack, pack_ref.clone(), "removed"));
            steps.push(Step::Remove { pack_ref });
        }
        (steps, lines)
    }

    fn step(&mut self, content: PackContent, change: &Change) -> Option<Step> {
        let before = self.used.insert(content.pack.r#ref.clone(), content.clone());
        let content = Box::new(content);
        match before {
            None => Some(Step::Use { content, before: Before::Nothing }),
            Some(before) if before.pack != content.pack || touches(change, &content.path) => {
                Some(Step::Use { content, before: Before::Another })
            }
            Some(_) => None,
        }
    }

    fn new_problems(&mut self, problems: Vec<Problem>) -> Vec<Line> {
        let fresh = problems.iter().filter(|problem| !self.reported.contains(problem)).map(line_of).collect();
        self.reported = problems;
        fresh
    }
}

fn touches(change: &Change, folder: &Path) -> bool {
    let Change::Paths(paths) = change else { return true };
    let Ok(real) = folder.canonicalize() else { return false };
    paths.iter().any(|path| path.starts_with(&real) || path.starts_with(folder))
}

fn line_of(problem: &Problem) -> Line {
    let (kind, status) = match problem.severity {
        Severity::Error => (Kind::Error, "broken"),
        Severity::Warning => (Kind::Pack, "warning"),
    };
    Line::new(kind, problem.file.display().to_string(), status)
        .text(problem.to_string())
        .field("line", problem.line)
        .field("field", problem.field.clone())
        .field("message", problem.message.clone())
}

/// What is in a pack, in one line.
pub(super) fn summary(content: &PackContent) -> String {
    let pack = &content.pack;
    let parts = [
        (pack.actions.len(), "action"),
        (pack.triggers.len(), "trigger"),
        (pack.sensors.len(), "sensor"),
        (pack.rules.len(), "rule"),
        (pack.runtimes.len(), "runtime"),
    ];
    let parts = parts.iter().filter(|(count, _)| *count > 0);
    let words: Vec<String> =
        parts.map(|(count, name)| format!("{count} {name}{}", if *count == 1 { "" } else { "s" })).collect();
    format!("{} {}", pack.version, words.join(", "))
}
