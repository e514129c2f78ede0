//! Pack folders into what the hub stores, with errors that name file, line and field.
//!
//! A pack with an error yields nothing but its problems; other packs are not touched by that. Everything that can be
//! said about a pack without running it is said here, all at once. The platform has two loaders that read different
//! keys; both spellings are accepted, and what only one of them reads is warned about.

mod action;
mod builtin;
mod check;
mod component;
mod content;
mod entry_point;
mod fast;
mod folder;
mod load;
mod manifest;
mod rule;
mod runtime;
mod sensor;
mod trigger;
mod world;

pub use attune_yaml::{Problem, Severity};
pub use content::{ComponentKind, PackContent};
pub use fast::{FindActionError, load_action};
pub use load::{Loaded, load, reload};
