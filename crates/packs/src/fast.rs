//! One action, without reading anything that it does not need.

use std::path::{Path, PathBuf};

use attune_store::{NewAction, NewPack, NewRuntime};
use attune_yaml::Problem;

use crate::builtin;
use crate::check;
use crate::component::Declared;
use crate::content::PackContent;
use crate::folder;
use crate::load::{Loaded, Reader, has_errors, read_manifest};
use crate::world::World;

/// Why an action could not be loaded.
#[derive(Debug, thiserror::Error)]
pub enum FindActionError {
    /// The text is no ref.
    #[error("{0:?} is not an action: write pack.name")]
    NotARef(String),
    /// No folder has the pack.
    #[error("no pack {pack:?} in {}", shown(.paths))]
    NoPack {
        /// The pack's ref.
        pack: String,
        /// Where it was looked for.
        paths: Vec<PathBuf>,
    },
    /// The pack does not have the action.
    #[error("the pack in {} has no action {action:?}; it has {}", .folder.display(), names(.known))]
    NoAction {
        /// The ref.
        action: String,
        /// The pack's folder.
        folder: PathBuf,
        /// The actions that it has.
        known: Vec<String>,
    },
    /// The action or what it needs is not usable.
    #[error("{}", lines(.0))]
    Broken(Vec<Problem>),
}

fn shown(paths: &[PathBuf]) -> String {
    paths.iter().map(|path| path.display().to_string()).collect::<Vec<_>>().join(", ")
}

fn names(known: &[String]) -> String {
    if known.is_empty() { "none".to_owned() } else { known.join(", ") }
}

fn lines(problems: &[Problem]) -> String {
    problems.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n")
}

/// Loads the pack of `action_ref` with this one action and its runtimes, and the core runtimes. The result is what
/// [`crate::load()`] gives, with everything else left out; its problems are warnings.
pub fn load_action(paths: &[PathBuf], action_ref: &str) -> Result<Loaded, FindActionError> {
    let mut parts = action_ref.split('.');
    let (Some(pack_ref), Some(name), None) = (parts.next(), parts.next(), parts.next()) else {
        return Err(FindActionError::NotARef(action_ref.to_owned()));
    };
    let (folder, pack, mut problems) = find_pack(paths, pack_ref)?;
    let mut reader = Reader::new(&folder, pack_ref);
    let runtimes: Vec<NewRuntime> = reader.components();
    let action = find_action(&mut reader, &folder, (name, action_ref))?;
    let Reader { problems: found, sources, .. } = reader;
    problems.extend(found);
    let pack = NewPack { runtimes, actions: vec![action], ..pack };
    let mut packs = vec![PackContent { path: folder, pack, sources }];
    if pack_ref != builtin::CORE {
        packs.insert(0, core_runtimes(paths, &mut problems)?);
    }
    let world = World::new(&packs, std::collections::BTreeSet::new());
    let mut linked = Vec::new();
    for content in &packs {
        let (content, found) = check::link(content, &world);
        linked.push(content);
        problems.extend(found);
    }
    if has_errors(&problems) {
        return Err(FindActionError::Broken(problems));
    }
    Ok(Loaded { packs: linked, problems })
}

type FoundPack = (PathBuf, NewPack, Vec<Problem>);

/// A folder called like the pack is tried before others, because that is how packs are installed.
fn find_pack(paths: &[PathBuf], pack_ref: &str) -> Result<FoundPack, FindActionError> {
    let mut candidates = Vec::new();
    for path in paths {
        if folder::is_pack(path) {
            candidates.push(path.clone());
        } else if folder::is_pack(&path.join(pack_ref)) {
            candidates.push(path.join(pack_ref));
        } else {
            candidates.extend(folder::packs_in(path).unwrap_or_default());
        }
    }
    let mut broken = Vec::new();
    for candidate in candidates {
        let named_like_it = candidate.file_name().is_some_and(|name| name == pack_ref);
        match read_manifest(&candidate) {
            (Some(pack), problems) if pack.r#ref == pack_ref && !has_errors(&problems) => {
                return Ok((candidate, pack, problems));
            }
            (Some(pack), problems) if pack.r#ref == pack_ref => broken.extend(problems),
            (None, problems) if named_like_it => broken.extend(problems),
            _ => {}
        }
    }
    if broken.is_empty() {
        return Err(FindActionError::NoPack { pack: pack_ref.to_owned(), paths: paths.to_vec() });
    }
    Err(FindActionError::Broken(broken))
}

fn find_action(
    reader: &mut Reader<'_>,
    folder: &Path,
    (name, action_ref): (&str, &str),
) -> Result<NewAction, FindActionError> {
    let actions = folder.join(NewAction::KIND.folder());
    for extension in ["yaml", "yml"] {
        let file = actions.join(name).with_extension(extension);
        if !file.is_file() {
            continue;
        }
        match reader.file::<NewAction>(&file) {
            Some(action) if action.r#ref == action_ref => return Ok(action),
            _ if has_errors(&reader.problems) => {
                return Err(FindActionError::Broken(std::mem::take(&mut reader.problems)));
            }
            _ => {}
        }
    }
    let mut all = Reader::new(folder, action_ref.split('.').next().unwrap_or_default());
    let found: Vec<NewAction> = all.components();
    let known = found.iter().map(|action| action.r#ref.clone()).collect();
    match found.into_iter().find(|action| action.r#ref == action_ref) {
        Some(action) => {
            reader.sources.extend(all.sources);
            Ok(action)
        }
        None if has_errors(&all.problems) => Err(FindActionError::Broken(all.problems)),
        None => Err(FindActionError::NoAction { action: action_ref.to_owned(), folder: folder.to_owned(), known }),
    }
}

/// The runtimes of the core pack in one of the folders, else the built-in ones.
fn core_runtimes(paths: &[PathBuf], problems: &mut Vec<Problem>) -> Result<PackContent, FindActionError> {
    let (folder, pack, found) = match find_pack(paths, builtin::CORE) {
        Ok(found) => found,
        Err(FindActionError::NoPack { .. }) => return Ok(builtin::core()),
        Err(error) => return Err(error),
    };
    problems.extend(found);
    let mut reader = Reader::new(&folder, builtin::CORE);
    let runtimes: Vec<NewRuntime> = reader.components();
    let Reader { problems: found, sources, .. } = reader;
    problems.extend(found);
    Ok(PackContent { path: folder, pack: NewPack { runtimes, ..pack }, sources })
}
