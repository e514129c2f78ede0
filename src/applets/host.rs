//! What every applet does first that runs other people's programs.

use std::time::Duration;

use attune_config::{ProcessEnvironment, forget_process_env, process_env};

/// How long the remains of agents that were killed are looked for. A look takes a few milliseconds.
const REMAINS_LIMIT: Duration = Duration::from_secs(2);

/// A process that is fit to run other people's programs.
#[derive(Debug)]
pub(crate) struct Prepared {
    /// With what it was started; its secrets are nowhere else.
    pub(crate) environment: ProcessEnvironment,
    /// What the container forbids; the agent works without it.
    limits: Vec<String>,
}

/// To be called before anything else, while there is one thread.
pub(crate) fn prepare() -> Prepared {
    let environment = process_env();
    let forgotten = forget_process_env();
    let mut limits = attune_process::prepare();
    if let Err(error) = forgotten {
        limits.push(format!("the variables of the agent stay readable in /proc: {error}"));
    }
    Prepared { environment, limits }
}

impl Prepared {
    /// As soon as there is a log.
    pub(crate) fn log(&self) {
        for limit in &self.limits {
            tracing::warn!("{limit}");
        }
    }
}

/// Ends what agents left here that were killed themselves: two of a sensor would be one too many.
pub(crate) fn end_remains() {
    let ended = attune_process::end_remains(REMAINS_LIMIT);
    if ended > 0 {
        tracing::warn!(processes = ended, "ended what an agent left here that was killed");
    }
}
