//! The hub on a real store and a real bus, over real sockets. One program: each would be linked with everything for itself.
#![expect(clippy::unwrap_used, reason = "tests")]

mod agent;
mod api;
mod artifacts;
mod executions;
mod files;
mod golden;
mod monitors;
mod rules;
mod scheduling;
mod sensors;
mod support;
