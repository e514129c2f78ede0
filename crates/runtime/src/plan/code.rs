//! Where the code of an action or sensor is. A file never lies outside its pack's own folder, neither by its name nor
//! through a symlink.

use std::ffi::OsString;
use std::fs;
use std::path::{Component, Path, PathBuf};

use attune_model::execution_config::InlineExecution;
use attune_model::is_plain_name;
use attune_model::runtime_name::{fold, names_of};

use super::{Kind, PlanError, PlanRequest, Planner};

/// What is run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Code {
    /// A file of the pack.
    File(PathBuf),
    /// A program of this installation.
    Builtin(Builtin),
    /// Text that the interpreter is given.
    Inline {
        /// The text.
        text: String,
        /// How it is given.
        execution: InlineExecution,
    },
}

/// A program of this installation that stands for an entry point, used when the pack has no such file, or only one that starts
/// this program.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Builtin {
    /// Pack and entry point, as `core/attune-core-timer-sensor`.
    pub name: String,
    /// The program.
    pub program: PathBuf,
    /// Its arguments.
    pub args: Vec<OsString>,
    /// The content of the file by which packs start it. It would need a file of the program, which a running agent does not.
    pub stand_in: &'static [u8],
}

impl Builtin {
    fn is_behind(&self, file: &Path) -> bool {
        // What stands there instead may be a large program.
        let is_as_long = fs::metadata(file).is_ok_and(|file| file.len() == self.stand_in.len() as u64);
        is_as_long && fs::read(file).is_ok_and(|content| content == self.stand_in)
    }
}

/// Code before the configuration is known.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Source {
    File(PathBuf),
    Builtin(Builtin),
    Text(String),
}

impl Kind {
    fn folder(self) -> &'static str {
        match self {
            Self::Action => "actions",
            Self::Sensor => "sensors",
        }
    }
}

/// Finds the code of `request`.
pub(super) fn find(request: &PlanRequest<'_>, planner: &Planner) -> Result<Source, PlanError> {
    let folder_of = |pack: &str| planner.packs_dir.join(pack).join(request.kind.folder());
    let may_be_file = !request.is_adhoc || request.pack_ref.starts_with("core");
    let own = folder_of(plain_name(request.pack_ref, request)?);
    let file = if may_be_file { inside(&own, request)? } else { None };
    let name = format!("{}/{}", request.pack_ref, request.entrypoint);
    match (planner.builtins.iter().find(|builtin| builtin.name == name), file) {
        (Some(builtin), None) => return Ok(Source::Builtin(builtin.clone())),
        (Some(builtin), Some(file)) if builtin.is_behind(&file) => return Ok(Source::Builtin(builtin.clone())),
        (_, Some(file)) => return Ok(Source::File(file)),
        (None, None) => {}
    }
    if request.kind == Kind::Action && names_of(request.runtime).contains(&fold("shell")) {
        return Ok(Source::Text(request.entrypoint.to_owned()));
    }
    let of_ref = folder_of(plain_name(request.env_pack(), request)?);
    inside(&of_ref, request)?.map(Source::File).ok_or_else(|| PlanError::NoCode {
        kind: request.kind,
        owner: request.owner_ref.to_owned(),
        expected: of_ref.join(request.entrypoint),
    })
}

/// A pack's name is one folder name.
fn plain_name<'a>(name: &'a str, request: &PlanRequest<'_>) -> Result<&'a str, PlanError> {
    if is_plain_name(name) {
        return Ok(name);
    }
    Err(PlanError::PackRef { kind: request.kind, owner: request.owner_ref.to_owned(), pack: name.to_owned() })
}

/// The file that the entry point names in `folder`; none when there is none.
fn inside(folder: &Path, request: &PlanRequest<'_>) -> Result<Option<PathBuf>, PlanError> {
    let file = folder.join(request.entrypoint);
    let is_file = fs::metadata(&file).is_ok_and(|metadata| metadata.is_file());
    if request.entrypoint.is_empty() || !is_file {
        return Ok(None);
    }
    let is_plain = |component| matches!(component, Component::Normal(_) | Component::CurDir);
    let below = Path::new(request.entrypoint);
    if below.components().all(is_plain) && (is_without_links(folder, below) || resolves_inside(&file, folder)) {
        return Ok(Some(file));
    }
    Err(PlanError::Outside {
        kind: request.kind,
        owner: request.owner_ref.to_owned(),
        entrypoint: request.entrypoint.to_owned(),
        folder: folder.to_owned(),
    })
}

/// Whether no part of the way from `folder` on is a link, as a rule: then a plain name leads nowhere else, wherever the folder is.
fn is_without_links(folder: &Path, below: &Path) -> bool {
    let mut way = folder.to_owned();
    below.components().all(|component| {
        way.push(component);
        fs::symlink_metadata(&way).is_ok_and(|part| !part.is_symlink())
    })
}

/// The kernel is asked about each part of both paths.
fn resolves_inside(file: &Path, folder: &Path) -> bool {
    match (file.canonicalize(), folder.canonicalize()) {
        (Ok(file), Ok(folder)) => file.starts_with(folder),
        _ => false,
    }
}
