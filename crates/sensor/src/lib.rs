//! The sensor host: dispatcher (the world) and supervisor (one sensor).
//!
//! ```text
//!   bus ── listener ─┐ look again                     ┌── supervisor ── process ── logs
//!   clock ───────────┴─► dispatcher ── wishes (watch) ┼── supervisor ── process ── logs
//!   store ── desired sensors ─┘                       └── …
//! ```
//!
//! Where the platform shares no folder with the host, the logs go on from there through its API, and packs come that way.
//!
//! A wish is a value, not an event: a supervisor always sees the latest one, and a process is replaced only when what it
//! was started with has changed. Nothing that a message says is trusted; the store is read again.

mod alert;
mod alerting;
mod cause;
mod config;
mod context;
mod control;
mod courier;
mod deadline;
mod delay;
mod dispatcher;
mod excerpt;
mod files;
mod heartbeat;
mod host;
mod lease;
mod listener;
mod log;
mod notify;
mod packs;
mod process;
mod record;
mod recorder;
mod registrations;
mod registry;
mod renewal;
mod rundir;
mod start;
mod supervisor;
mod target;
mod token;
mod tokens;
mod variables;
mod vitals;

pub use attune_http::Transport;
pub use config::{LogDelivery, LogLimits, PackFetching, SensorConfig, SensorPaths, SensorTiming};
pub use control::{CONTROL_SOCKET, ControlError, ControlReply, ControlRequest, SensorView, ask as ask_host};
pub use host::{BuildError, SensorHost, Started};
pub use vitals::{Overview, SensorLook};
