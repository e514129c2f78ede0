//! All environments in a shared folder, held against this image; for people who ask.

use std::fs;
use std::path::{Path, PathBuf};

use attune_model::order;

use super::generation;
use super::inspect::{Condition, fit, present};
use super::origin::Origin;

/// Names under which an environment has its interpreter.
const INTERPRETERS: [&str; 2] = ["bin/python3", "bin/python"];

/// Every environment in `folder` (one folder per pack, one in it for each runtime), and why this image cannot use it; none when
/// it can, as far as that is seen without its manifest. Nothing is changed.
pub fn survey(folder: &Path) -> Vec<(PathBuf, Option<String>)> {
    let mut found: Vec<_> = folders_in(folder).iter().flat_map(|pack| folders_in(pack)).map(look).collect();
    order::sort(&mut found);
    found
}

fn look(env_dir: PathBuf) -> (PathBuf, Option<String>) {
    let folder = generation::current(&env_dir).unwrap_or_else(|| env_dir.clone());
    // A dangling link is still an entry: it is what another image's interpreter looks like from here.
    let interpreter = INTERPRETERS.iter().map(|name| folder.join(name)).find(|path| path.is_symlink() || path.exists());
    let elsewhere = Origin::written(&folder).and_then(|origin| origin.misfit(&origin.here()));
    let unfit = elsewhere.or_else(|| {
        let interpreter = interpreter?;
        match present(&interpreter, &folder).and_then(|_| fit(&interpreter, &folder)) {
            Err(Condition::Unfit(reason) | Condition::Missing(reason)) => Some(reason),
            Ok(()) | Err(Condition::Ready(_)) => None,
        }
    });
    (env_dir, unfit)
}

/// Without what is being built, kept aside or used to wait for each other.
fn folders_in(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).into_iter().flatten().filter_map(Result::ok);
    let named = entries.filter(|entry| !entry.file_name().to_string_lossy().starts_with('.'));
    named.map(|entry| entry.path()).filter(|path| path.is_dir()).collect()
}
