//! All environments in a shared folder, held against this image; for people who ask.

use std::fs;
use std::path::{Path, PathBuf};

use attune_model::order;
use attune_model::runtime_name::fold;

use super::build::FOR;
use super::generation;
use super::inspect::{Condition, fit, present};
use super::origin::Origin;
use crate::detect::Detected;

/// Names under which an environment has its interpreter.
const INTERPRETERS: [&str; 2] = ["bin/python3", "bin/python"];

/// An environment as it looks from this image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Surveyed {
    /// Where it is.
    pub folder: PathBuf,
    /// The runtime that it is for, folded, as the name of the folder tells.
    pub runtime: String,
    /// Why this image cannot use it; none when it can, as far as that is seen without its manifest.
    pub unfit: Option<String>,
}

/// Every environment in `folder` (one folder per pack, one in it for each runtime), held against this image and the interpreters
/// that were `detected` in it. Nothing is changed.
pub fn survey(folder: &Path, detected: &[Detected]) -> Vec<Surveyed> {
    let mut found: Vec<_> = folders_in(folder).iter().flat_map(|pack| folders_in(pack)).collect();
    order::sort(&mut found);
    found.into_iter().map(|env_dir| look(env_dir, detected)).collect()
}

fn look(env_dir: PathBuf, detected: &[Detected]) -> Surveyed {
    let folder = generation::current(&env_dir).unwrap_or_else(|| env_dir.clone());
    // A dangling link is still an entry: it is what another image's interpreter looks like from here.
    let interpreter = INTERPRETERS.iter().map(|name| folder.join(name)).find(|path| path.is_symlink() || path.exists());
    let elsewhere = Origin::written(&folder).and_then(|origin| origin.misfit(&origin.here(detected)));
    let unfit = elsewhere.or_else(|| {
        let interpreter = interpreter?;
        match present(&interpreter, &folder).and_then(|_| fit(&interpreter, &folder)) {
            Err(Condition::Unfit(reason) | Condition::Missing(reason)) => Some(reason),
            Ok(()) | Err(Condition::Ready(_)) => None,
        }
    });
    Surveyed { runtime: runtime_of(&env_dir), folder: env_dir, unfit }
}

/// `python` of `python`, `python-3.12` and `python-3.12.for-0a1b2c3d`.
fn runtime_of(env_dir: &Path) -> String {
    let label = env_dir.file_name().unwrap_or_default().to_string_lossy();
    let shared = label.split_once(FOR).map_or(&*label, |(shared, _)| shared);
    let ends = |at: &usize| shared[at + 1..].starts_with(|first: char| first.is_ascii_digit());
    let end = shared.match_indices('-').map(|(at, _)| at).find(ends).unwrap_or(shared.len());
    fold(&shared[..end])
}

/// Without what is being built, kept aside or used to wait for each other.
fn folders_in(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).into_iter().flatten().filter_map(Result::ok);
    let named = entries.filter(|entry| !entry.file_name().to_string_lossy().starts_with('.'));
    named.map(|entry| entry.path()).filter(|path| path.is_dir()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_name_of_an_environment_tells_its_runtime() {
        for (label, runtime) in [
            ("python", "python"),
            ("Python-3.12", "python"),
            ("python-3.12.for-0a1b2c3d", "python"),
            ("node.js-20", "node"),
            ("node.for-0a1b2c3d", "node"),
            ("my-tool-2", "my-tool"),
            ("my-tool", "my-tool"),
        ] {
            assert_eq!(runtime_of(&Path::new("/envs/pack").join(label)), runtime, "{label}");
        }
    }
}
