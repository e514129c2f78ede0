//! A policy tried out before a program of somebody else needs it.

use std::future::pending;
use std::sync::Arc;
use std::time::Duration;

use crate::child::{Purpose, start_for};
use crate::command::Command;
use crate::policy::Policy;
use crate::report::Outcome;
use crate::start_error::StartError;

/// The agent's own binary answers within milliseconds.
const LIMIT: Duration = Duration::from_secs(10);

/// What of `policy` is not to be had here, and why, in the words of [`crate::Report::notes`]; the error says that no child with
/// it can start at all. Starts a child, or the applet, which sets all of it up and ends.
///
/// # Panics
///
/// Outside a tokio runtime with I/O and time enabled.
pub async fn refused(policy: &Policy) -> Result<Vec<String>, Arc<StartError>> {
    let mut command = Command::new(&policy.launcher.program);
    command.policy = Some(policy.clone());
    let report = start_for(Purpose::Trial, command)?.supervise(Some(LIMIT), pending()).await;
    match report.outcome {
        Outcome::NotStarted(error) => Err(error),
        _ => Ok(report.notes),
    }
}
