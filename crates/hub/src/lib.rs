//! The small control plane: packs, HTTP API, rule matching, scheduling, monitors.
//!
//! In a full installation the platform's own services take its place. It knows storage and bus by their traits only.
//! The rows are the truth: every step is one guarded unit of work in storage, messages are hints that are published
//! after the commit, and what a lost hint would have started is found again by a slow sweep.

#![forbid(unsafe_code)]

mod config;
mod core;
mod error;
mod events;
mod expression;
mod folders;
mod http;
mod hub;
mod monitor;
mod outbox;
mod packs;
mod rules;
mod scheduling;
mod vitals;

pub use config::{AgentDownloads, HubConfig};
pub use error::HubError;
pub use expression::{Expression, ExpressionError};
pub use folders::{DEFAULT_UPLOAD_LIMIT_BYTES, Folders};
pub use hub::{Hub, HubHandle};
pub use outbox::SOURCE_SERVICE;
pub use packs::PackRegistry;
