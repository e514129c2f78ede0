//! Why an environment could not be made ready.

use std::fmt;
use std::io;
use std::path::PathBuf;
use std::time::Duration;

use attune_process::StartError;
use attune_store::StoreError;
use thiserror::Error;

/// One command of a build.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// `create_command`.
    Create,
    /// `install_command`.
    Install,
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Create => "environment creation",
            Self::Install => "dependency installation",
        })
    }
}

/// Why an environment could not be made ready.
#[derive(Debug, Error)]
pub enum EnvironmentError {
    /// The runtime has environments but does not say how to make one.
    #[error("{runtime} has an environment but no create_command")]
    NoCreateCommand {
        /// Ref of the runtime.
        runtime: String,
    },
    /// A command whose program is not in this image.
    #[error("{step} of {}: {program} is not in this image; install it or use an image that has it", env_dir.display())]
    NoProgram {
        /// Which command.
        step: Step,
        /// The environment.
        env_dir: PathBuf,
        /// The program, as configured.
        program: String,
    },
    /// A command that could not be started.
    #[error("{step} of {} could not be started", env_dir.display())]
    Start {
        /// Which command.
        step: Step,
        /// The environment.
        env_dir: PathBuf,
        /// Why.
        #[source]
        source: StartError,
    },
    /// A command that failed.
    #[error("{step} failed ({how}): {output} (log: {})", log.display())]
    Failed {
        /// Which command.
        step: Step,
        /// Exit code, signal or time limit.
        how: String,
        /// The last lines of its standard error.
        output: String,
        /// All of its output.
        log: PathBuf,
    },
    /// A create command that succeeded and left nothing usable.
    #[error("environment creation ended well, but there is no {}", path.display())]
    Incomplete {
        /// What it should have made.
        path: PathBuf,
    },
    /// A complete environment of another kind of image.
    #[error("environment {} does not fit this image: {reason}; it is left as it is, remove it to have it rebuilt here", env_dir.display())]
    Unfit {
        /// The environment.
        env_dir: PathBuf,
        /// Why.
        reason: String,
    },
    /// The file system refused something.
    #[error("cannot {what} {}", path.display())]
    Io {
        /// What was attempted.
        what: &'static str,
        /// With what.
        path: PathBuf,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// The table of environments could not be used.
    #[error("cannot coordinate the build of {}", env_dir.display())]
    Store {
        /// The environment.
        env_dir: PathBuf,
        /// Why.
        #[source]
        source: StoreError,
    },
    /// Another builder did not come to an end.
    #[error("another builder has been busy with {} for more than {} s", env_dir.display(), limit.as_secs())]
    Waited {
        /// The environment.
        env_dir: PathBuf,
        /// How long was waited.
        limit: Duration,
    },
    /// The build that was waited for failed.
    #[error("another build of {} failed: {cause}", env_dir.display())]
    FailedMeanwhile {
        /// The environment.
        env_dir: PathBuf,
        /// Why it failed.
        cause: String,
    },
    /// The own claim ran out or was taken while building.
    #[error("the claim on {} was lost while building", env_dir.display())]
    ClaimLost {
        /// The environment.
        env_dir: PathBuf,
    },
    /// The build was asked to stop.
    #[error("the build of {} was cancelled", env_dir.display())]
    Cancelled {
        /// The environment.
        env_dir: PathBuf,
    },
}
