//! Where programs are: the folders of `PATH`, then the prefixes where images and version managers put interpreters.
//!
//! No program is started to find another one: neither `which` nor a shell need exist.

use std::collections::HashSet;
use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use attune_model::order;
use attune_model::version::{Version, covers};
use attune_process::may_execute;

/// Folders with programs, in the order in which they are asked.
#[derive(Debug)]
pub(crate) struct Places {
    path: Vec<PathBuf>,
    home: Option<PathBuf>,
    /// Read from disk when the first name is not found in `PATH`: most starts never need it.
    prefixes: OnceLock<Vec<PathBuf>>,
}

impl Places {
    /// Relative entries of `path` are dropped: what they mean depends on who asks.
    pub(crate) fn new(path: &OsStr, home: Option<&Path>) -> Self {
        let path = std::env::split_paths(path).filter(|folder| folder.is_absolute());
        Self { path: unique(path), home: home.map(Path::to_owned), prefixes: OnceLock::new() }
    }

    pub(crate) fn path_only(self) -> Self {
        Self { prefixes: OnceLock::from(Vec::new()), ..self }
    }

    /// Every executable file of this name, best first.
    pub(crate) fn candidates<'a>(&'a self, name: &'a str) -> impl Iterator<Item = PathBuf> + 'a {
        let beyond = std::iter::once_with(|| self.prefixes()).flatten();
        let folders = self.path.iter().chain(beyond);
        folders.map(move |folder| folder.join(name)).filter(|file| is_executable(file))
    }

    fn prefixes(&self) -> &[PathBuf] {
        self.prefixes.get_or_init(|| {
            let known: HashSet<&PathBuf> = self.path.iter().collect();
            let mut folders = usual_prefixes(Path::new("/"), self.home.as_deref());
            folders.retain(|folder| !known.contains(folder));
            folders
        })
    }
}

/// A regular file, symlinks followed, that this process may execute: one that only another user may must not hide a
/// later one that all may.
pub(crate) fn is_executable(file: &Path) -> bool {
    fs::metadata(file).is_ok_and(|metadata| metadata.is_file()) && may_execute(file)
}

/// The prefixes that exist below `root` and `home`.
fn usual_prefixes(root: &Path, home: Option<&Path>) -> Vec<PathBuf> {
    let mut folders: Vec<PathBuf> =
        ["usr/local/bin", "usr/bin", "bin", "usr/local/go/bin"].iter().map(|folder| root.join(folder)).collect();
    for parent in ["opt", "usr/local", "usr/lib/jvm"] {
        folders.extend(children(&root.join(parent)).into_iter().map(|child| child.join("bin")));
    }
    // /opt/java/openjdk, /opt/bitnami/python and the like.
    for vendor in children(&root.join("opt")) {
        folders.extend(children(&vendor).into_iter().map(|child| child.join("bin")));
    }
    if let Some(home) = home {
        folders.extend(home_prefixes(home));
    }
    unique(folders.into_iter().filter(|folder| folder.is_dir()))
}

fn home_prefixes(home: &Path) -> Vec<PathBuf> {
    let mut folders = vec![home.join(".local/bin")];
    for manager in [".pyenv", ".rbenv", ".nodenv", ".goenv", ".asdf"] {
        folders.push(home.join(manager).join("shims"));
    }
    folders.extend(nvm_node(&home.join(".nvm")));
    for conda in ["miniconda3", "miniforge3", "mambaforge", "anaconda3", ".conda"] {
        folders.push(home.join(conda).join("bin"));
    }
    folders.push(home.join(".volta/bin"));
    folders
}

/// nvm has no shims: the chosen version is the one that `alias/default` names, else the newest.
fn nvm_node(nvm: &Path) -> Option<PathBuf> {
    let chosen = fs::read_to_string(nvm.join("alias/default")).unwrap_or_default();
    let installed = children(&nvm.join("versions/node"));
    let version = |folder: &PathBuf| folder.file_name().and_then(OsStr::to_str).and_then(Version::parse);
    let is_chosen = |version: Version| covers(chosen.trim(), &version.to_string());
    let best = installed.iter().filter_map(|folder| version(folder).map(|version| (version, folder)));
    let (_, folder) = best.max_by_key(|(version, _)| (is_chosen(*version), *version))?;
    Some(folder.join("bin"))
}

/// The folders in `parent`, in name order; none when it cannot be read.
fn children(parent: &Path) -> Vec<PathBuf> {
    let mut folders: Vec<PathBuf> =
        fs::read_dir(parent).into_iter().flatten().flatten().map(|entry| entry.path()).collect();
    order::sort(&mut folders);
    folders
}

fn unique(folders: impl IntoIterator<Item = PathBuf>) -> Vec<PathBuf> {
    let mut seen = HashSet::new();
    folders.into_iter().filter(|folder| seen.insert(folder.clone())).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tests_support::program;

    #[test]
    fn path_comes_first_and_relative_entries_do_not_count() {
        let dir = tempfile::tempdir().unwrap();
        let first = program(&dir.path().join("a/tool"), "");
        let second = program(&dir.path().join("b/tool"), "");
        fs::write(dir.path().join("a/text"), "not executable").unwrap();
        let path = std::env::join_paths([Path::new("b"), &dir.path().join("a"), &dir.path().join("b")]).unwrap();
        let places = Places::new(&path, None).path_only();
        assert_eq!(places.candidates("tool").collect::<Vec<_>>(), [first, second]);
        assert_eq!(places.candidates("text").count(), 0);
    }

    #[test]
    fn the_usual_prefixes_of_images_and_version_managers_are_known() {
        let dir = tempfile::tempdir().unwrap();
        let (root, home) = (dir.path().join("root"), dir.path().join("home"));
        for folder in [
            "root/usr/local/bin",
            "root/opt/conda/bin",
            "root/opt/java/openjdk/bin",
            "root/usr/lib/jvm/jdk-21/bin",
            "home/.pyenv/shims",
            "home/miniconda3/bin",
            "home/.nvm/versions/node/v9.11.2/bin",
            "home/.nvm/versions/node/v20.1.0/bin",
            "home/.nvm/versions/node/v20.11.0/bin",
            "home/.nvm/versions/node/v22.0.0/bin",
        ] {
            fs::create_dir_all(dir.path().join(folder)).unwrap();
        }
        let under = |folders: Vec<PathBuf>, base: &Path| -> Vec<String> {
            let under = folders.iter().filter_map(|folder| folder.strip_prefix(base).ok());
            under.map(|folder| folder.display().to_string()).collect()
        };
        let found = usual_prefixes(&root, Some(&home));
        assert_eq!(
            under(found.clone(), &root),
            ["usr/local/bin", "opt/conda/bin", "usr/lib/jvm/jdk-21/bin", "opt/java/openjdk/bin"]
        );
        assert_eq!(under(found, &home), [".pyenv/shims", ".nvm/versions/node/v22.0.0/bin", "miniconda3/bin"]);

        fs::create_dir_all(home.join(".nvm/alias")).unwrap();
        fs::write(home.join(".nvm/alias/default"), "20\n").unwrap();
        let found = under(usual_prefixes(&root, Some(&home)), &home);
        assert!(found.contains(&".nvm/versions/node/v20.11.0/bin".to_owned()), "{found:?}");
    }
}
