//! The agents' binary as a file: what it is, and how it gets into a folder.
//!
//! Three parts of the program handle such files: `install` puts its own into a volume, `fetch` one from the network, and
//! the hub hands them out. What they must agree on is here: names, architectures, checksum, the version inside, and that
//! a file with a final name is always whole.

#![forbid(unsafe_code)]

mod elf;
mod facts;
mod install;
mod layout;
mod machine;
mod staged;
mod verify;

pub use elf::{NotAProgram, machine_of};
pub use facts::{Facts, Scanner, facts, hex};
pub use install::{InstallError, Installed, Order, Outcome, check, install, install_from};
pub use layout::{AGENT, AGENTS, LINKS, PROGRAM, SENSOR_AGENT, TIMER_SENSOR, agent_for, version_file};
pub use machine::{Machine, UnknownMachine};
pub use staged::{PlaceError, Staged};
pub use verify::{Finding, verify};

/// What stands before the version in every binary of this project.
pub const MARKER_PREFIX: &str = "attune-agents-version=";

/// What stands after it.
pub const MARKER_END: u8 = b';';
