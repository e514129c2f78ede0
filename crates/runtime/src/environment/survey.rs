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
    /// Where the one is that all images share; the same, unless this one is for images of one kind.
    pub shared: PathBuf,
    /// The runtime that it is for, folded, as the name of the folder tells.
    pub runtime: String,
    /// What this image can do with it.
    pub state: State,
}

/// What an image can do with an environment, as far as that is seen without its manifest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum State {
    /// Use it.
    Fit,
    /// Leave it alone, for this reason: it is another image's.
    Unfit(String),
    /// Build it anew, for this reason.
    Broken(String),
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
    let state = match (elsewhere, interpreter) {
        (Some(reason), _) => State::Unfit(reason),
        (None, None) => State::Fit,
        (None, Some(interpreter)) => match present(&interpreter, &folder).and_then(|_| fit(&interpreter, &folder)) {
            Err(Condition::Unfit(reason)) => State::Unfit(reason),
            Err(Condition::Missing(reason)) => State::Broken(reason),
            Ok(()) | Err(Condition::Ready(_)) => State::Fit,
        },
    };
    let label = env_dir.file_name().unwrap_or_default().to_string_lossy();
    let name = label.split_once(FOR).map_or(&*label, |(name, _)| name);
    Surveyed { shared: env_dir.with_file_name(name), runtime: runtime_of(name), folder: env_dir, state }
}

/// `python` of `python` and `python-3.12`.
fn runtime_of(name: &str) -> String {
    let ends = |at: &usize| name[at + 1..].starts_with(|first: char| first.is_ascii_digit());
    let end = name.match_indices('-').map(|(at, _)| at).find(ends).unwrap_or(name.len());
    fold(&name[..end])
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
    fn the_name_of_an_environment_tells_its_runtime_and_whose_it_is() {
        for (label, shared, runtime) in [
            ("python", "python", "python"),
            ("Python-3.12", "Python-3.12", "python"),
            ("python-3.12.for-0a1b2c3d", "python-3.12", "python"),
            ("node.js-20", "node.js-20", "node"),
            ("node.for-0a1b2c3d", "node", "node"),
            ("my-tool-2", "my-tool-2", "my-tool"),
            ("my-tool", "my-tool", "my-tool"),
        ] {
            let pack = Path::new("/nowhere/pack");
            let surveyed = look(pack.join(label), &[]);
            assert_eq!((surveyed.shared, surveyed.runtime.as_str()), (pack.join(shared), runtime), "{label}");
        }
    }
}
