//! Why something cannot be run here.

use std::path::PathBuf;

use attune_model::version::ConstraintError;
use thiserror::Error;

use super::Kind;

/// Why something cannot be run here.
#[derive(Debug, Error)]
pub enum PlanError {
    /// A configuration that does not have the platform's shape.
    #[error("execution_config of {row} cannot be read")]
    Config {
        /// Which row.
        row: String,
        /// What is wrong with it.
        #[source]
        source: serde_json::Error,
    },
    /// A version constraint that is none.
    #[error("{kind} {owner} has no usable runtime version constraint")]
    Constraint {
        /// Action or sensor.
        kind: Kind,
        /// Its ref.
        owner: String,
        /// What is wrong with it.
        #[source]
        source: ConstraintError,
    },
    /// A version constraint that nothing here meets.
    #[error("{kind} {owner} needs {runtime} {constraint}, but this agent has {known}")]
    NoVersion {
        /// Action or sensor.
        kind: Kind,
        /// Its ref.
        owner: String,
        /// Ref of the runtime.
        runtime: String,
        /// What is wanted.
        constraint: String,
        /// What there is, in words.
        known: String,
    },
    /// The interpreter does not exist in this image.
    #[error("interpreter '{binary}' of {runtime} is not available for {kind} '{owner}' on this agent")]
    NoInterpreter {
        /// Action or sensor.
        kind: Kind,
        /// Its ref.
        owner: String,
        /// Ref of the runtime.
        runtime: String,
        /// As configured.
        binary: String,
    },
    /// No code.
    #[error("no executable content found for {kind} '{owner}'; expected file at: {}", expected.display())]
    NoCode {
        /// Action or sensor.
        kind: Kind,
        /// Its ref.
        owner: String,
        /// Where it was looked for.
        expected: PathBuf,
    },
    /// An entry point that leads out of the pack.
    #[error("entry point {entrypoint:?} of {kind} {owner} leads out of {}", folder.display())]
    Outside {
        /// Action or sensor.
        kind: Kind,
        /// Its ref.
        owner: String,
        /// As in the row.
        entrypoint: String,
        /// Where it has to stay.
        folder: PathBuf,
    },
    /// A pack ref that is no folder name.
    #[error("{kind} {owner} belongs to pack {pack:?}, which cannot be a folder name")]
    PackRef {
        /// Action or sensor.
        kind: Kind,
        /// Its ref.
        owner: String,
        /// The ref of its pack.
        pack: String,
    },
    /// Native code without the right to be executed.
    #[error("{} is run by itself but is not executable; make it so with chmod +x", path.display())]
    NotExecutable {
        /// The file.
        path: PathBuf,
    },
}
