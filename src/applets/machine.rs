//! What is the same for every service of this binary: the host's name, this program, programs that are built in.

use std::path::PathBuf;

use attune_config::{Source as _, process_env};
use attune_http::Transport;
use attune_runtime::plan::Builtin;
use attune_store_postgres::system_roots;

use crate::exit::{Exit, Failure};

/// What is running here and in every child until it has become its program.
const OWN_BINARY: &str = "/proc/self/exe";

/// Rows of agents that have no name of their own are found again by it.
pub(crate) fn host_name() -> String {
    let name = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    if name.trim().is_empty() { "localhost".to_owned() } else { name.trim().to_owned() }
}

/// The number of the container that this process is in, as far as processes are concerned: of its PID namespace. What is
/// started inside the container, such as a health check, has the same.
pub(crate) fn process_space() -> String {
    let link = std::fs::read_link("/proc/self/ns/pid").unwrap_or_default();
    link.to_string_lossy().chars().filter(char::is_ascii_digit).collect()
}

/// The file that this process was started from.
pub(crate) fn program() -> Result<PathBuf, Failure> {
    std::env::current_exe()
        .map_err(|error| Failure::message(Exit::OperatingSystem, format!("failed to find this program: {error}")))
}

/// How files of executions and logs of sensors travel, as configured.
pub(crate) fn artifacts_way(configured: attune_config::Transport) -> Transport {
    match configured {
        attune_config::Transport::Auto => Transport::Auto,
        attune_config::Transport::Volume => Transport::Folder,
        attune_config::Transport::Api => Transport::Api,
    }
}

/// Certificates that may vouch for the API besides the roots built in: those that the environment names, else the system's. They
/// are looked at only where there is something to vouch for.
pub(crate) fn api_ca_file(url: &str) -> Option<PathBuf> {
    if !url.starts_with("https://") {
        return None;
    }
    process_env().text("SSL_CERT_FILE").map(PathBuf::from).or_else(system_roots)
}

/// The core pack's native sensor is an applet of this program: it needs no file in the pack, and none of this program, which
/// may be replaced or missing while it runs.
pub(crate) fn builtins() -> Vec<Builtin> {
    vec![Builtin {
        name: "core/attune-core-timer-sensor".to_owned(),
        program: OWN_BINARY.into(),
        args: vec!["timer-sensor".into()],
        stand_in: include_bytes!("../../packs/core/sensors/attune-core-timer-sensor"),
    }]
}
