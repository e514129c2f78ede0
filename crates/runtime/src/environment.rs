//! Shared environments.
use std::path::PathBuf;

/// A state in which code can be started.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Environment {
    /// The runtime has none.
    NotNeeded,
    /// Complete, and fit for this image.
    Ready {
        /// The interpreter inside it; none when the runtime's environments have none.
        interpreter: Option<PathBuf>,
    },
}
