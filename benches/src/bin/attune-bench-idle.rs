//! The sensor of the benchmark: says that it runs, and does nothing until it is asked to end.
//!
//! It stands in `<root>/packs/PACK/sensors/`. It adds one byte to `<root>/alive`; where `<root>/slow` exists, it takes up to a
//! second to end, depending on its process id, and where `<root>/deaf` exists it does not end at all.

use std::fs::OpenOptions;
use std::io::{self, Write as _};
use std::time::Duration;

use attune_sys::{SIGTERM, SignalSet};

fn main() -> io::Result<()> {
    let terminate = SignalSet::empty()?.with(SIGTERM)?;
    terminate.block_too()?;
    let program = std::env::current_exe()?;
    let root = program.ancestors().nth(4).ok_or_else(|| io::Error::other("this program is not in a pack"))?;
    OpenOptions::new().create(true).append(true).open(root.join("alive"))?.write_all(b".")?;
    terminate.wait()?;
    while root.join("deaf").exists() {
        terminate.wait()?;
    }
    if root.join("slow").exists() {
        std::thread::park_timeout(Duration::from_millis(100) * (std::process::id() % 11));
    }
    Ok(())
}
