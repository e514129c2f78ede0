//! Folders into packs: read each by itself, then check what they say about each other.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use attune_model::order;
use attune_store::NewPack;
use attune_yaml::{Problem, Report, Severity};

use crate::component::{Component, Declared};
use crate::content::{ComponentKind, PackContent, Source};
use crate::world::World;
use crate::{builtin, check, folder, manifest};

/// Folders that the platform knows and that mean nothing here.
const UNSUPPORTED: [(&str, &str); 3] =
    [("queues", "work queues"), ("permission_sets", "permission sets"), ("workflows", "workflows")];

/// What became of some folders.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Loaded {
    /// Packs without errors: the core pack first, then by ref.
    pub packs: Vec<PackContent>,
    /// Everything that is wrong or doubtful, by file and line.
    pub problems: Vec<Problem>,
}

impl Loaded {
    /// Whether some pack could not be loaded.
    pub fn has_errors(&self) -> bool {
        has_errors(&self.problems)
    }
}

/// Loads every pack in `paths`; a path is a pack or a folder of packs. When none of them is the core pack, its runtimes
/// are taken from the copy that is built in.
pub fn load(paths: &[PathBuf]) -> Loaded {
    let mut problems = Vec::new();
    let mut folders = Vec::new();
    let mut seen = BTreeSet::new();
    for path in paths {
        match folder::packs_in(path) {
            Ok(found) => {
                folders.extend(found.into_iter().filter(|folder| seen.insert(real(folder))));
            }
            Err(found) => problems.extend(found),
        }
    }
    let mut packs: Vec<PackContent> = Vec::new();
    let mut broken = BTreeSet::new();
    for folder in folders {
        let read = read_pack(&folder);
        problems.extend(read.problems);
        match read.content {
            Some(content) => match packs.iter().find(|other| other.pack.r#ref == content.pack.r#ref) {
                Some(other) => problems.extend(same_ref(&content, &other.path)),
                None => packs.push(content),
            },
            None => broken.extend(read.pack_ref),
        }
    }
    if !broken.contains(builtin::CORE) && !packs.iter().any(|content| content.pack.r#ref == builtin::CORE) {
        packs.push(builtin::core());
    }
    order::sort_by(&mut packs, |a, b| rank(a).cmp(&rank(b)));
    let world = World::new(&packs, broken);
    let linked: Vec<(PackContent, Vec<Problem>)> = packs.iter().map(|content| check::link(content, &world)).collect();
    let mut loaded = Loaded { packs: Vec::new(), problems };
    for (content, problems) in linked {
        if !has_errors(&problems) {
            loaded.packs.push(content);
        }
        loaded.problems.extend(problems);
    }
    order::sort(&mut loaded.problems);
    loaded
}

/// Loads the pack in `folder` again, checked against the other packs that are in use.
pub fn reload(folder: &Path, others: &[PackContent]) -> Loaded {
    let mut read = read_pack(folder);
    let Some(content) = read.content else {
        return Loaded { packs: Vec::new(), problems: read.problems };
    };
    let others = others.iter().filter(|other| other.pack.r#ref != content.pack.r#ref);
    let mut packs: Vec<PackContent> = others.cloned().collect();
    packs.push(content.clone());
    order::sort_by(&mut packs, |a, b| rank(a).cmp(&rank(b)));
    let (content, problems) = check::link(&content, &World::new(&packs, BTreeSet::new()));
    let usable = !has_errors(&problems);
    read.problems.extend(problems);
    order::sort(&mut read.problems);
    Loaded { packs: if usable { vec![content] } else { Vec::new() }, problems: read.problems }
}

fn rank(content: &PackContent) -> (bool, &str) {
    (content.pack.r#ref != builtin::CORE, &content.pack.r#ref)
}

fn real(folder: &Path) -> PathBuf {
    folder.canonicalize().unwrap_or_else(|_| folder.to_owned())
}

pub(crate) fn has_errors(problems: &[Problem]) -> bool {
    problems.iter().any(|problem| problem.severity == Severity::Error)
}

fn same_ref(content: &PackContent, first: &Path) -> Vec<Problem> {
    let report = Report::new(content.path.join(folder::MANIFEST));
    let pack_ref = &content.pack.r#ref;
    report.error(1, "ref", format!("the pack {pack_ref:?} is already in {}", first.display()));
    report.into_problems()
}

/// One pack by itself.
struct Read {
    content: Option<PackContent>,
    pack_ref: Option<String>,
    problems: Vec<Problem>,
}

fn read_pack(path: &Path) -> Read {
    let (pack, mut problems) = read_manifest(path);
    let Some(mut pack) = pack else {
        return Read { content: None, pack_ref: None, problems };
    };
    let pack_ref = pack.r#ref.clone();
    let mut reader = Reader::new(path, &pack_ref);
    pack.runtimes = reader.components();
    pack.triggers = reader.components();
    pack.actions = reader.components();
    pack.rules = reader.components();
    pack.sensors = reader.components();
    reader.warn_about_unsupported();
    let Reader { problems: found, sources, .. } = reader;
    problems.extend(found);
    let content = (!has_errors(&problems)).then(|| PackContent { path: path.to_owned(), pack, sources });
    Read { content, pack_ref: Some(pack_ref), problems }
}

/// `pack.yaml` alone. With a manifest but errors the components are still read, to report theirs as well.
pub(crate) fn read_manifest(path: &Path) -> (Option<NewPack>, Vec<Problem>) {
    let report = Report::new(path.join(folder::MANIFEST));
    let pack = folder::read(&report)
        .and_then(|text| report.parse(&text))
        .and_then(|root| report.fields(&root, manifest::KEYS).and_then(|fields| manifest::read(&fields, path)));
    (pack, report.into_problems())
}

/// Reads the components of one pack.
#[derive(Debug)]
pub(crate) struct Reader<'a> {
    path: &'a Path,
    pack_ref: &'a str,
    pub(crate) problems: Vec<Problem>,
    pub(crate) sources: BTreeMap<(ComponentKind, String), Source>,
}

impl<'a> Reader<'a> {
    pub(crate) fn new(path: &'a Path, pack_ref: &'a str) -> Self {
        Self { path, pack_ref, problems: Vec::new(), sources: BTreeMap::new() }
    }

    /// Every component of one kind, in the order of the files.
    pub(crate) fn components<T: Declared>(&mut self) -> Vec<T> {
        match folder::yaml_files(&self.path.join(T::KIND.folder())) {
            Ok(files) => files.iter().filter_map(|file| self.file(file)).collect(),
            Err(problems) => {
                self.problems.extend(problems);
                Vec::new()
            }
        }
    }

    /// The component in one file.
    pub(crate) fn file<T: Declared>(&mut self, file: &Path) -> Option<T> {
        let report = Report::new(file);
        let text = folder::read(&report);
        let component = text.and_then(|text| self.text(&report, &text));
        self.problems.extend(report.into_problems());
        component
    }

    /// The component in a text; problems go to `report`.
    pub(crate) fn text<T: Declared>(&mut self, report: &Report, text: &str) -> Option<T> {
        let root = report.parse(text)?;
        let fields = report.fields(&root, T::KEYS)?;
        let source = Source::new(report.file(), fields.mapping());
        let line = source.line_of("ref");
        let component = Component { fields, kind: T::KIND, folder: self.path, pack_ref: self.pack_ref };
        let read = T::read(&component)?;
        if read.own_ref().is_empty() {
            return None; // said in the report
        }
        let key = (T::KIND, read.own_ref().to_owned());
        if let Some(other) = self.sources.get(&key) {
            let message = format!("the {} {} is already declared in {}", T::KIND, key.1, other.file.display());
            report.error(line, "ref", message);
            return None;
        }
        self.sources.insert(key, source);
        Some(read)
    }

    fn warn_about_unsupported(&mut self) {
        for (name, what) in UNSUPPORTED {
            let path = self.path.join(name);
            if folder::yaml_files(&path).is_ok_and(|files| !files.is_empty()) {
                let report = Report::new(path);
                report.warning(0, "", format!("{what} are not supported here, ignored"));
                self.problems.extend(report.into_problems());
            }
        }
    }
}
