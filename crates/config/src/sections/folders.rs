//! Folders that agents share with each other and with the platform.

use std::path::PathBuf;

use crate::key::{Described, Key};
use crate::kinds::Folder;
use crate::reader::Reader;

/// The variable that names the packs folder of a sensor agent.
pub(crate) const PACKS_VARIABLE: &str = "ATTUNE_PACKS_BASE_DIR";

/// The variable that names the environments folder of a sensor agent.
pub(crate) const ENVIRONMENTS_VARIABLE: &str = "ATTUNE_RUNTIME_ENVS_DIR";

/// The folders; all are absolute.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Folders {
    /// One folder per pack.
    pub packs: PathBuf,
    /// Virtual environments and installed dependencies.
    pub runtime_envs: PathBuf,
    /// Files that executions and sensors leave behind.
    pub artifacts: PathBuf,
}

const PACKS: Key<Folder> = Key {
    path: "packs_base_dir",
    kind: Folder,
    default: "/opt/attune/packs",
    doc: "Packs, one folder each.",
    reason: "where deployments mount the shared volume",
};

const RUNTIME_ENVS: Key<Folder> = Key {
    path: "runtime_envs_dir",
    kind: Folder,
    default: "/opt/attune/runtime_envs",
    doc: "Virtual environments and installed dependencies, shared by all agents.",
    reason: "where deployments mount the shared volume",
};

const ARTIFACTS: Key<Folder> = Key {
    path: "artifacts_dir",
    kind: Folder,
    default: "/opt/attune/artifacts",
    doc: "Files and logs that executions and sensors leave behind.",
    reason: "where deployments mount the shared volume",
};

/// Every key at the top of a file.
pub(crate) const KEYS: &[&dyn Described] = &[&PACKS, &RUNTIME_ENVS, &ARTIFACTS];

/// What a worker uses.
pub(crate) fn for_worker(reader: &mut Reader<'_>) -> Folders {
    Folders {
        packs: reader.folder(&PACKS),
        runtime_envs: reader.folder(&RUNTIME_ENVS),
        artifacts: reader.folder(&ARTIFACTS),
    }
}

/// What a sensor agent uses: two variables outside the scheme are stronger.
pub(crate) fn for_sensor(reader: &mut Reader<'_>) -> Folders {
    Folders {
        packs: reader.folder_or_variable(PACKS_VARIABLE, &PACKS),
        runtime_envs: reader.folder_or_variable(ENVIRONMENTS_VARIABLE, &RUNTIME_ENVS),
        artifacts: reader.folder(&ARTIFACTS),
    }
}
