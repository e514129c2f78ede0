//! From a runtime row and an entry point to the exact program, arguments, folder and variables.
//!
//! [`Planner::choose`] decides configuration, version and environment folder; the environment is then made ready;
//! [`Chosen::launch`] resolves the interpreter against it. What cannot be met is an error that names what was missing:
//! nothing runs on a version that its author excluded.

mod choose;
mod code;
mod environments;
mod error;
mod interpreter;
mod launch;
#[cfg(test)]
mod tests;
mod version_choice;

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsString;
use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;

use attune_model::execution_config::ExecutionConfig;
use attune_model::order;
use attune_model::rows::{Action, Runtime, RuntimeVersion, Sensor};
use attune_model::{RuntimeId, RuntimeVersionId};

use crate::advertise::Advertised;
use crate::environment::InUse;
use crate::host::Host;

pub use code::{Builtin, Code};
pub use error::PlanError;

/// Actions and sensors differ in folder names, working directory and what an unknown machine means.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Kind {
    /// Of a pack's `actions/`.
    Action,
    /// Of a pack's `sensors/`.
    Sensor,
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Action => "action",
            Self::Sensor => "sensor",
        })
    }
}

/// What is to be run.
#[derive(Debug, Clone, Copy)]
pub struct PlanRequest<'a> {
    /// Action or sensor.
    pub kind: Kind,
    /// Its ref, `pack.name`.
    pub owner_ref: &'a str,
    /// Its pack's ref.
    pub pack_ref: &'a str,
    /// File in the pack's folder, or shell text of an action.
    pub entrypoint: &'a str,
    /// Whether the action was made by hand and has no file.
    pub is_adhoc: bool,
    /// What runs it.
    pub runtime: &'a Runtime,
    /// The versions of that runtime.
    pub versions: &'a [RuntimeVersion],
    /// Which of them will do.
    pub constraint: Option<&'a str>,
}

impl<'a> PlanRequest<'a> {
    /// For an action, with the runtime that it names or that its file extension chose.
    pub fn action(action: &'a Action, runtime: &'a Runtime, versions: &'a [RuntimeVersion]) -> Self {
        Self {
            kind: Kind::Action,
            owner_ref: &action.r#ref,
            pack_ref: &action.pack_ref,
            entrypoint: &action.entrypoint,
            is_adhoc: action.is_adhoc,
            runtime,
            versions,
            constraint: action.runtime_version_constraint.as_deref(),
        }
    }

    /// For a sensor; one without a pack is refused by [`Planner::choose`].
    pub fn sensor(sensor: &'a Sensor, runtime: &'a Runtime, versions: &'a [RuntimeVersion]) -> Self {
        Self {
            kind: Kind::Sensor,
            owner_ref: &sensor.r#ref,
            pack_ref: sensor.pack_ref.as_deref().unwrap_or_default(),
            entrypoint: &sensor.entrypoint,
            is_adhoc: false,
            runtime,
            versions,
            constraint: sensor.runtime_version_constraint.as_deref(),
        }
    }

    /// The pack whose environments are used. Mixed fleets share them, so the name is the platform's.
    fn env_pack(&self) -> &'a str {
        match self.kind {
            Kind::Action => self.owner_ref.split('.').next().unwrap_or_default(),
            Kind::Sensor => self.pack_ref,
        }
    }

    /// Folder name of the environment without a version; for Node.js the two kinds differ, as on the platform.
    fn base_label(&self) -> String {
        let name = self.runtime.name.to_lowercase();
        let last = self.runtime.r#ref.rsplit('.').next().filter(|last| !last.is_empty());
        match (self.kind, last) {
            (Kind::Sensor, Some(last)) => last.to_owned(),
            _ => name,
        }
    }
}

/// The outcome of [`Planner::choose`].
#[derive(Debug, Clone, PartialEq)]
pub struct Chosen {
    /// Action or sensor.
    pub kind: Kind,
    /// Its ref.
    pub owner_ref: String,
    /// The pack that the environment belongs to.
    pub pack_ref: String,
    /// The runtime.
    pub runtime: RuntimeId,
    /// Its ref.
    pub runtime_ref: String,
    /// Its lower-case display name.
    pub runtime_name: String,
    /// The row whose configuration is used instead of the runtime's own, with its text.
    pub version: Option<(RuntimeVersionId, String)>,
    /// That configuration.
    pub config: ExecutionConfig,
    /// What is run.
    pub code: Code,
    /// The pack's folder.
    pub pack_dir: PathBuf,
    /// The environment's folder, whether or not there is to be one.
    pub env_dir: PathBuf,
    /// Its last part.
    pub label: String,
    /// The interpreter outside any environment; none when the code is executed itself.
    pub interpreter: Option<PathBuf>,
    /// Its version, where that is known: of the row, else as it was detected.
    pub interpreter_version: Option<String>,
}

impl Chosen {
    /// Whether actions and sensors call the environment's folder the same, so that one row of `pack_environment` can stand
    /// for it.
    pub(crate) fn has_shared_name(&self) -> bool {
        self.kind == Kind::Action || self.version.is_some() || self.label == self.runtime_name
    }
}

/// Everything about a start but parameters and the platform's own variables.
#[derive(Debug, Clone, PartialEq)]
pub struct LaunchPlan {
    /// Absolute path.
    pub program: PathBuf,
    /// Its arguments. With [`Code::Inline`], those before the text or the file that holds it.
    pub args: Vec<OsString>,
    /// What is run.
    pub code: Code,
    /// Where; none means wherever the agent is.
    pub cwd: Option<PathBuf>,
    /// The variables of the runtime, to be set over those that were there.
    pub env: Vec<(OsString, OsString)>,
    /// The environment's folder, whether or not there is one.
    pub env_dir: PathBuf,
    /// The row of `runtime_version` that is used.
    pub version: Option<String>,
    /// To be kept for as long as the code runs: an environment that is not in use may be removed.
    pub in_use: InUse,
}

/// Plans starts on this machine.
#[derive(Debug, Clone)]
pub struct Planner {
    host: Arc<Host>,
    packs_dir: PathBuf,
    envs_dir: PathBuf,
    builtins: Vec<Builtin>,
    /// Folded name to versions, as advertised.
    versions: BTreeMap<String, Vec<String>>,
    /// Folded name to the version of the interpreter that was detected under its plain name.
    base_versions: BTreeMap<String, String>,
}

impl Planner {
    /// `packs_dir` and `envs_dir` must be absolute; `advertised` is what this agent itself found and verified.
    pub fn new(
        host: Arc<Host>,
        packs_dir: impl Into<PathBuf>,
        envs_dir: impl Into<PathBuf>,
        advertised: &Advertised,
    ) -> Self {
        let bases = advertised.detected_interpreters.iter();
        Self {
            host,
            packs_dir: packs_dir.into(),
            envs_dir: envs_dir.into(),
            builtins: Vec::new(),
            versions: advertised.runtime_versions.clone(),
            base_versions: order::map(bases.filter_map(|base| Some((base.name.clone(), base.version.clone()?)))),
        }
    }

    /// Adds programs that stand for entry points without a file.
    #[must_use]
    pub fn with_builtins(self, builtins: Vec<Builtin>) -> Self {
        Self { builtins, ..self }
    }

    /// The machine that is planned for.
    pub fn host(&self) -> &Arc<Host> {
        &self.host
    }

    fn versions_of(&self, names: &[String]) -> Vec<String> {
        let all: BTreeSet<&String> = names.iter().filter_map(|name| self.versions.get(name)).flatten().collect();
        all.into_iter().cloned().collect()
    }

    fn base_version(&self, names: &[String]) -> Option<&str> {
        names.iter().find_map(|name| self.base_versions.get(name)).map(String::as_str)
    }
}
