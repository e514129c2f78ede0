//! The least that anybody needs to start so many programs: one `posix_spawn` after another.

use std::os::unix::process::CommandExt as _;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use super::site::Site;
use crate::words::Context as _;

/// Time until all of them run. They are ended afterwards.
#[expect(clippy::disallowed_methods, reason = "the start of processes is what is measured")]
pub(crate) fn start_all(site: &mut Site) -> Result<Duration, String> {
    site.forget_the_living()?;
    let begun = Instant::now();
    let mut children = Vec::new();
    for _ in 0..site.count() {
        let mut command = Command::new(site.program());
        // With its pipes and its group, as a sensor has them.
        command.env_clear().stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).process_group(0);
        children.push(command.spawn().context("a program of the floor")?);
    }
    let ran = site.wait_for_living(site.count())?;
    for child in &mut children {
        child.kill().context("the end of the floor")?;
    }
    for mut child in children {
        child.wait().context("the end of the floor")?;
    }
    Ok(ran.saturating_duration_since(begun))
}
