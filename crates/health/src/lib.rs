//! Liveness, readiness, status and metrics of an agent, and the two ends of the connection that asks for them.
//!
//! ```text
//!   services ── conditions, sections ──► Health ──► server ◄── probes, Prometheus, `attune-agents health`
//!           └── measures (Observer) ──► Metrics ──┘    └── notify ──► systemd
//! ```
//!
//! Conditions and sections are asked for when somebody asks us, so that an answer is never older than the question. Label
//! sets are closed: every series exists from the start and none is added, whatever the agent runs.

mod answer;
mod client;
mod health;
mod listener;
mod metrics;
mod notify;
mod server;

pub use client::{Answer, AskError, Question, Target, ask};
pub use health::{About, Health};
pub use metrics::{Metrics, Parts};
pub use notify::NotifyConfig;
pub use server::{ServeError, serve};
