//! Names that nobody reads: probably typing errors, so each is warned about with the nearest name that exists.
//!
//! They are not fatal: files and variables are shared with other services and versions. Names that are known and have no effect
//! are told in one line.

use attune_yaml::{Mapping, Node};

use crate::files::LoadedFile;
use crate::key::{Described, Shape, VARIABLE_PREFIX, variable_of};
use crate::layers::Layers;
use crate::problem::{Note, Problem};
use crate::table::{DIRECT, MISTAKEN, UNUSED, keys};
use crate::{OWN_PREFIX, Source};

/// A near name is one whose similarity (0 to 1) is at least this.
const NEAR: f64 = 0.88;

/// A misspelt name is one whose similarity (0 to 1) is at least this; names that differ on purpose stay below.
const MISSPELT: f64 = 0.95;

/// What is odd about the names in `layers`.
pub(crate) fn check(layers: &Layers, source: &dyn Source) -> (Vec<Note>, Vec<Problem>) {
    let mut found = Findings::default();
    for (path, variable) in &layers.variables {
        let name = &variable.name;
        let hint = match standing(path) {
            Standing::Used => continue,
            Standing::Unused => {
                found.unused.push(name.clone());
                continue;
            }
            Standing::Section => format!("; it names a section, whose keys are set by {name}__KEY"),
            Standing::Unknown => {
                let near = nearest(path).map(variable_like).or_else(|| one_letter_off(name).map(str::to_owned));
                near.map(|near| format!("; did you mean {near}?")).unwrap_or_default()
            }
        };
        found.notes.push(Note::Warning(format!("variable {name} is not known and not used{hint}")));
    }
    found.misspelt_variables(source);
    for file in &layers.files {
        if let Some(mapping) = file.root.as_mapping() {
            found.walk(file, mapping, "");
        }
    }
    if !found.unused.is_empty() {
        found.notes.push(Note::Info(format!("accepted and without effect on this agent: {}", found.unused.join(", "))));
    }
    (found.notes, found.problems)
}

#[derive(Default)]
struct Findings {
    notes: Vec<Note>,
    /// Names of keys that other services and versions have a use for.
    unused: Vec<String>,
    problems: Vec<Problem>,
}

impl Findings {
    /// `ATTUNE_WORKER__NAME` looks like the scheme and is none of it; `ATTUNE_WORKER_RUNTIME` is one letter short of a
    /// variable that is read by its own name.
    fn misspelt_variables(&mut self, source: &dyn Source) {
        let names = source.all().into_iter().filter_map(|(name, _)| name.into_string().ok());
        for name in names.filter(|name| !name.starts_with(VARIABLE_PREFIX)) {
            let Some(rest) = name.strip_prefix(OWN_PREFIX) else { continue };
            let near = if rest.contains("__") {
                nearest(&rest.to_lowercase().replace("__", ".")).map(variable_like)
            } else {
                one_letter_off(&name).map(str::to_owned)
            };
            if let Some(near) = near {
                self.notes
                    .push(Note::Warning(format!("variable {name} is not known and not used; did you mean {near}?")));
            }
        }
    }

    fn walk(&mut self, file: &LoadedFile, mapping: &Mapping, parent: &str) {
        for entry in mapping {
            let path = if parent.is_empty() { entry.key.clone() } else { format!("{parent}.{}", entry.key) };
            let place = format!("{}:{}: {path}", file.path.display(), entry.line);
            match (standing(&path), entry.value.as_mapping()) {
                (Standing::Used, _) => {}
                (Standing::Unused, _) => self.unused.push(path),
                (Standing::Section, Some(section)) => self.walk(file, section, &path),
                (Standing::Section, None) if entry.value.is_null() => {}
                (Standing::Section, None) => self.not_a_section(place, &entry.value),
                (Standing::Unknown, _) => {
                    let hint = nearest(&path).map(|near| format!("; did you mean {near}?")).unwrap_or_default();
                    self.notes.push(Note::Warning(format!("{place} is not known and not used{hint}")));
                }
            }
        }
    }

    fn not_a_section(&mut self, place: String, node: &Node) {
        self.problems.push(Problem { place, message: format!("must be a mapping, not {}", node.kind()) });
    }
}

#[derive(Debug, PartialEq, Eq)]
enum Standing {
    /// A key, or an entry of one that is a map.
    Used,
    /// Known and without effect.
    Unused,
    /// Keys stand below it.
    Section,
    /// Nobody knows it.
    Unknown,
}

fn standing(path: &str) -> Standing {
    let mut section = false;
    for key in keys() {
        let rest = path.strip_prefix(key.path());
        let is_it = match key.shape() {
            Shape::Single => rest == Some(""),
            Shape::Secret => matches!(rest, Some("" | "_file")),
            Shape::TextMap | Shape::JsonMap => rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('.')),
        };
        if is_it {
            return Standing::Used;
        }
        section |= below(key.path(), path);
    }
    if section {
        return Standing::Section;
    }
    let unused = UNUSED.iter().any(|(name, _)| match name.strip_suffix(".*") {
        Some(section) => path == section || (below(path, section) && !misspelt(path, section)),
        None => path == *name,
    });
    if unused { Standing::Unused } else { Standing::Unknown }
}

/// Whether `path` looks like a key of `section`, apart from a letter or two.
fn misspelt(path: &str, section: &str) -> bool {
    let own = keys().map(Described::path).filter(|known| below(known, section));
    own.map(|known| &known[section.len()..])
        .any(|known| strsim::jaro_winkler(&path[section.len()..], known) >= MISSPELT)
}

/// Whether `path` stands below `section`.
fn below(path: &str, section: &str) -> bool {
    path.strip_prefix(section).is_some_and(|rest| rest.starts_with('.'))
}

fn nearest(path: &str) -> Option<&'static str> {
    if let Some((_, meant)) = MISTAKEN.iter().find(|(mistaken, _)| *mistaken == path) {
        return Some(meant);
    }
    let sections = keys().filter_map(|key| Some(key.path().split_once('.')?.0));
    keys()
        .map(Described::path)
        .chain(sections)
        .map(|known| (strsim::jaro_winkler(path, known), known))
        .filter(|(similarity, _)| *similarity >= NEAR)
        .max_by(|a, b| a.0.total_cmp(&b.0))
        .map(|(_, known)| known)
}

/// The variable of a key, or of the keys of a section.
fn variable_like(path: &str) -> String {
    let variable = variable_of(path);
    if standing(path) == Standing::Section { format!("{variable}__KEY") } else { variable }
}

/// The variable with a name of its own that `name` is, apart from one letter. More would take others for it:
/// deployments hold variables for other programs.
fn one_letter_off(name: &str) -> Option<&'static str> {
    DIRECT.iter().map(|variable| variable.name).find(|known| strsim::osa_distance(name, known) == 1)
}
