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
            .filter(|(_, content)| !content.is_builtin() && has_left(&content.path, &packs))
            .map(|(pack_ref, _)| pack_ref.clone())
            .filter(|pack_ref| packs.iter().all(|content| content.pack.r#ref != *pack_ref))
            .collect();
        let mut steps = Vec::new();
        for pack_ref in gone {
            self.used.remove(&pack_ref);
            lines.push(Line::new(Kind::Pack, pack_ref.clone(), "removed"));
            steps.push(Step::Remove { pack_ref });
        }
        steps.extend(packs.into_iter().filter_map(|content| self.step(content, change)));
        (steps, lines)
    }

    fn step(&mut self, content: PackContent, change: &Change) -> Option<Step> {
        let before = self.used.insert(content.pack.r#ref.clone(), content.clone());
        let content = Box::new(content);
        match before {
            None => Some(Step::Use { content, before: Before::Nothing }),
            Some(before)
                if before.path != content.path || before.pack != content.pack || touches(change, &content.path) =>
            {
                Some(Step::Use { content, before: Before::Another })
            }
            Some(_) => None,
        }
    }

    /// Whoever solved a problem and sees nothing happen wants to know which are left.
    fn new_problems(&mut self, problems: Vec<Problem>) -> Vec<Line> {
        let has_solved = self.reported.iter().any(|problem| !problems.contains(problem));
        let is_left = |problem: &Problem| has_solved && problem.severity == Severity::Error;
        let told = problems.iter().filter(|problem| is_left(problem) || !self.reported.contains(problem));
        let lines = told.map(line_of).collect();
        self.reported = problems;
        lines
    }
}

/// Whether no pack, or one with another ref, is where a pack was. One that cannot be read is still there.
fn has_left(folder: &Path, packs: &[PackContent]) -> bool {
    !folder.join("pack.yaml").exists() || packs.iter().any(|content| content.path == folder)
}

fn touches(change: &Change, folder: &Path) -> bool {
    let Change::Paths(paths) = change else { return true };
    let Ok(real) = folder.canonicalize() else { return false };
    // What is below a link in a folder of packs is reported by the name of the link.
    let parent = folder.parent().and_then(|parent| parent.canonicalize().ok());
    let linked = parent.zip(folder.file_name()).map(|(parent, name)| parent.join(name));
    paths.iter().any(|path| path.starts_with(&real) || linked.as_ref().is_some_and(|linked| path.starts_with(linked)))
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

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    /// A pack of one shell action.
    fn write_pack(folder: &Path, pack_ref: &str) {
        fs::create_dir_all(folder.join("actions")).unwrap();
        fs::write(folder.join("pack.yaml"), format!("ref: {pack_ref}\nlabel: P\nname: P\nversion: 1.0.0\n")).unwrap();
        let action = format!("ref: {pack_ref}.say\nlabel: Say\nrunner_type: shell\nentry_point: say.sh\n");
        fs::write(folder.join("actions/say.yaml"), action).unwrap();
        fs::write(folder.join("actions/say.sh"), "echo hello\n").unwrap();
    }

    /// What a change of `paths` makes of the packs, built-in ones aside.
    fn refresh(packs: &mut PackSet, paths: &[PathBuf]) -> (Vec<String>, Vec<Line>) {
        let change = Change::Paths(paths.iter().cloned().collect());
        let (steps, lines) = packs.refresh(&change);
        let words = steps.iter().filter_map(|step| match step {
            Step::Use { content, .. } if content.is_builtin() => None,
            Step::Use { content, before: Before::Nothing } => Some(format!("load {}", content.pack.r#ref)),
            Step::Use { content, before: Before::Another } => Some(format!("reload {}", content.pack.r#ref)),
            Step::Remove { pack_ref } => Some(format!("remove {pack_ref}")),
        });
        (words.collect(), lines)
    }

    #[test]
    fn a_pack_with_another_ref_takes_the_place_of_the_old_one() {
        let scratch = tempfile::tempdir().unwrap();
        let folder = scratch.path().join("one");
        write_pack(&folder, "one");
        let mut packs = PackSet::new(vec![scratch.path().to_owned()]);
        assert_eq!(refresh(&mut packs, &[]).0, ["load one"]);
        write_pack(&folder, "two");
        assert_eq!(refresh(&mut packs, &[folder.join("pack.yaml")]).0, ["remove one", "load two"]);
        fs::write(folder.join("pack.yaml"), "ref: [\n").unwrap();
        assert!(refresh(&mut packs, &[folder.join("pack.yaml")]).0.is_empty(), "the last good version stays");
        fs::remove_dir_all(&folder).unwrap();
        assert_eq!(refresh(&mut packs, std::slice::from_ref(&folder)).0, ["remove two"]);
    }

    #[test]
    fn a_pack_that_is_found_elsewhere_is_used_from_there() {
        let scratch = tempfile::tempdir().unwrap();
        let (first, second) = (scratch.path().join("a"), scratch.path().join("b"));
        write_pack(&first, "one");
        write_pack(&second, "one");
        let mut packs = PackSet::new(vec![scratch.path().to_owned()]);
        assert_eq!(refresh(&mut packs, &[]).0, ["load one"]);
        fs::remove_dir_all(&first).unwrap();
        assert_eq!(refresh(&mut packs, &[first]).0, ["reload one"]);
        assert_eq!(packs.used["one"].path, second);
    }

    #[test]
    fn a_pack_behind_a_link_is_reloaded_under_either_name() {
        let scratch = tempfile::tempdir().unwrap();
        let (real, link) = (scratch.path().join("elsewhere/one"), scratch.path().join("packs/one"));
        write_pack(&real, "one");
        fs::create_dir(scratch.path().join("packs")).unwrap();
        std::os::unix::fs::symlink(&real, &link).unwrap();
        let mut packs = PackSet::new(vec![scratch.path().join("packs")]);
        assert_eq!(refresh(&mut packs, &[]).0, ["load one"]);
        for folder in [link, real] {
            let code = folder.join("actions/say.sh");
            assert_eq!(refresh(&mut packs, &[code]).0, ["reload one"], "{}", folder.display());
        }
    }

    #[test]
    fn who_solves_one_of_two_problems_is_told_of_the_other() {
        let scratch = tempfile::tempdir().unwrap();
        let folder = scratch.path().join("one");
        write_pack(&folder, "one");
        let mut packs = PackSet::new(vec![scratch.path().to_owned()]);
        assert!(refresh(&mut packs, &[]).1.is_empty());
        let (manifest, action) = (folder.join("pack.yaml"), folder.join("actions/say.yaml"));
        let good = fs::read_to_string(&action).unwrap();
        fs::write(&action, "ref: [\n").unwrap();
        assert_eq!(refresh(&mut packs, std::slice::from_ref(&action)).1.len(), 1);
        fs::write(&manifest, "ref: one\nlabel: P\nname: P\nversion: many\n").unwrap();
        assert_eq!(refresh(&mut packs, std::slice::from_ref(&manifest)).1.len(), 1, "only the new one");
        fs::write(&action, good).unwrap();
        assert_eq!(refresh(&mut packs, &[action]).1.len(), 1, "the one that is left");
        write_pack(&folder, "one");
        let (steps, lines) = refresh(&mut packs, &[manifest]);
        assert_eq!((steps, lines.len()), (vec!["reload one".to_owned()], 0));
    }
}
