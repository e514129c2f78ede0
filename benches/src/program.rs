//! The program that is measured: the release build beside this one.

use std::env;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// Finds it.
pub(crate) fn path() -> Result<PathBuf, String> {
    let own = env::current_exe().map_err(|error| format!("cannot find this program: {error}"))?;
    let program = own.with_file_name("attune-agents");
    if program.is_file() {
        Ok(program)
    } else {
        Err(format!("{} is missing: run `cargo build --release` first", program.display()))
    }
}

/// Wall time from the start of `command` to its successful end.
#[expect(clippy::disallowed_methods, reason = "the start of a process is what is measured")]
pub(crate) fn time(command: &mut Command) -> Result<Duration, String> {
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    let begun = Instant::now();
    let status = command.status().map_err(|error| format!("cannot start {}: {error}", name(command)))?;
    let took = begun.elapsed();
    if status.success() { Ok(took) } else { Err(format!("{} ended with {status}", name(command))) }
}

fn name(command: &Command) -> String {
    command.get_program().to_string_lossy().into_owned()
}
