//! Runs every script of the repository's packs with real interpreters, as an agent would.
#![expect(clippy::unwrap_used, reason = "tests")]

mod api;
mod child;
mod core;
mod demo;
