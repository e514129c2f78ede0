//! `agent.*`: the binary of the agents, as the API hands it out.

use std::path::PathBuf;

use attune_model::Secret;

use crate::key::{Described, Key, variable_of};
use crate::kinds::{Folder, SecretText};
use crate::reader::Reader;

/// The name of the section: what stands in it at all asks for downloads.
const SECTION: &str = "agent";

/// A valid `agent` section.
#[derive(Debug, Clone)]
pub struct AgentConfig {
    /// The folder with the binaries; absolute.
    pub binary_dir: PathBuf,
    /// Who downloads has to know it.
    pub bootstrap_token: Secret,
}

const BINARY_DIR: Key<Folder> = Key {
    path: "agent.binary_dir",
    kind: Folder,
    default: "/opt/attune/agent",
    doc: "Folder from which a hub hands out the agents' binary: `attune-agent-<arch>`, as `attune-agents install` leaves it.",
    reason: "where deployments mount the shared volume",
};

const BOOTSTRAP_TOKEN: Key<SecretText> = Key {
    path: "agent.bootstrap_token",
    kind: SecretText { least_characters: 1, schemes: &[] },
    default: "",
    doc: "What clients of the download send in `X-Agent-Token`. Required when anything stands in this section.",
    reason: "without the section nothing is handed out; there is no safe default",
};

/// Every key of the section.
pub(crate) const KEYS: &[&dyn Described] = &[&BINARY_DIR, &BOOTSTRAP_TOKEN];

/// Reads the section; none when it is not there.
pub(crate) fn read(reader: &mut Reader<'_>) -> Option<AgentConfig> {
    if !reader.has_section(SECTION) {
        return None;
    }
    let before = reader.problems.len();
    let (binary_dir, token) = (reader.folder(&BINARY_DIR), reader.optional(&BOOTSTRAP_TOKEN));
    if token.is_none() && reader.problems.len() == before {
        let message = format!(
            "is required when there is a section `{SECTION}`: set {}, or {} with the path of a file",
            variable_of(BOOTSTRAP_TOKEN.path),
            variable_of("agent.bootstrap_token_file"),
        );
        reader.problem(BOOTSTRAP_TOKEN.path, message);
    }
    Some(AgentConfig { binary_dir, bootstrap_token: token? })
}
