//! Control of a running host: one request and one answer, each a line of JSON, over a socket that only its user can open.

mod client;
mod server;

use std::path::PathBuf;

use serde::{Deserialize, Serialize};
use tokio::sync::oneshot;

pub use client::{ControlError, ask};
pub(crate) use server::serve;

/// Name of the socket in the run folder.
pub const CONTROL_SOCKET: &str = "control.sock";

/// What is asked for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "command", content = "sensor")]
pub enum ControlRequest {
    /// Every enabled sensor, as this host sees it.
    List,
    /// Starts a sensor that was stopped.
    Start(String),
    /// Stops a sensor until it is started, or the host is.
    Stop(String),
    /// Starts a sensor again, at once.
    Restart(String),
}

/// What comes back.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ControlReply {
    /// The sensors.
    Sensors(Vec<SensorView>),
    /// It is being done.
    Accepted,
    /// It will be done; what for and why not now.
    Later(String),
    /// It cannot be done.
    Refused(String),
}

/// One sensor on this host.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SensorView {
    /// Its ref.
    pub sensor: String,
    /// `running`, `starting`, `backoff`, `waiting` (another host has it), `stopped`, or `idle` (nothing waits for it, or it
    /// does not fit this host).
    pub state: String,
    /// While it runs.
    pub pid: Option<u32>,
    /// Whether it said that it is ready; false for one that says nothing.
    pub ready: bool,
    /// What it says about itself.
    pub status: Option<String>,
    /// Failures in a row.
    pub failures: i32,
    /// Enabled rules that it serves.
    pub rules: i32,
    /// Why it does not run.
    pub reason: Option<String>,
    /// Where its standard output goes, once there is any.
    pub stdout: Option<PathBuf>,
    /// Where its standard error goes, once there is any.
    pub stderr: Option<PathBuf>,
}

/// A request on its way to the dispatcher.
#[derive(Debug)]
pub(crate) struct Command {
    pub(crate) request: ControlRequest,
    pub(crate) reply: oneshot::Sender<ControlReply>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_are_readable_lines() {
        let text = serde_json::to_string(&ControlRequest::Restart("core.timer".to_owned())).unwrap();
        assert_eq!(text, r#"{"command":"restart","sensor":"core.timer"}"#);
        assert_eq!(serde_json::from_str::<ControlRequest>(r#"{"command":"list"}"#).unwrap(), ControlRequest::List);
        assert!(serde_json::from_str::<ControlRequest>(r#"{"command":"explode"}"#).is_err());
    }
}
