//! The names in a folder of agents; other programs look for them.
//!
//! ```text
//!   attune-agents              the one file, 0555
//!   attune-agents.sha256       its checksum, as sha256sum writes and reads it
//!   attune-agent               -> attune-agents
//!   attune-sensor-agent        -> attune-agents
//!   attune-core-timer-sensor   -> attune-agents
//!   attune-agent-<arch>        -> attune-agents     (what the platform's API looks for)
//!   <name>.version             what `<name> --version` prints
//! ```
//!
//! The links are relative and symbolic: one rename switches all names at once, and `cp` of any name copies a whole program.

use crate::Machine;

/// The one file.
pub const PROGRAM: &str = "attune-agents";

/// The worker.
pub const AGENT: &str = "attune-agent";

/// The sensor host.
pub const SENSOR_AGENT: &str = "attune-sensor-agent";

/// The core pack's timer sensor.
pub const TIMER_SENSOR: &str = "attune-core-timer-sensor";

/// The two that are entrypoints of containers.
pub const AGENTS: [&str; 2] = [AGENT, SENSOR_AGENT];

/// Every name that is a link to the one file.
pub const LINKS: [&str; 3] = [AGENT, SENSOR_AGENT, TIMER_SENSOR];

/// The name under which the platform's API looks for an architecture.
pub fn agent_for(machine: Machine) -> String {
    format!("{AGENT}-{machine}")
}

/// The file that holds what `name --version` prints.
pub fn version_file(name: &str) -> String {
    format!("{name}.version")
}

/// The file that holds the checksum of `name`.
pub(crate) fn checksum_file(name: &str) -> String {
    format!("{name}.sha256")
}

/// As `sha256sum` writes it.
pub(crate) fn checksum_line(sha256: &str, name: &str) -> String {
    format!("{sha256}  {name}\n")
}
