//! Interpreters: detection, versions, templates, shared environments.
//!
//! ```text
//!   Host ──► detect ──► advertise ──► worker.capabilities
//!     │
//!     └────► Planner: choose (configuration, version, folder) ──► environment::ensure ──► launch ──► LaunchPlan
//! ```
//!
//! Programs are found by a walk of our own through `PATH`; no shell and no `which` is needed. Nothing is ever taken from
//! an environment that is not complete.

pub mod advertise;
pub mod detect;
pub mod environment;
pub mod host;
pub mod image;
pub mod plan;
pub mod probe_table;
pub mod report;
pub mod tools;
pub mod verify;

mod places;
mod shim;
mod template;
#[cfg(test)]
mod tests_support;

pub use advertise::{Advertised, advertise};
pub use detect::{Detected, detect, detect_only};
pub use host::{Found, Host};
