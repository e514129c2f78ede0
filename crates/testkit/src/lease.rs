//! A file that nobody can open.

use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};

/// Holds a lease until its standard input ends. The kernel tells it of whoever waits by a signal.
const HOLD: &str = "
import fcntl, os, signal, sys
signal.signal(signal.SIGIO, signal.SIG_IGN)
fcntl.fcntl(os.open(sys.argv[1], os.O_RDONLY), fcntl.F_SETLEASE, fcntl.F_WRLCK)
print('held', flush=True)
sys.stdin.read()
";

/// Whoever opens the file, or executes it, waits until this is dropped, at most for 45 s: as on a volume that hangs.
#[derive(Debug)]
pub struct Held {
    holder: Child,
}

impl Held {
    /// Holds the file at `path`, which nobody has open. None without Python.
    ///
    /// # Panics
    ///
    /// When the kernel refuses it.
    #[expect(clippy::disallowed_methods, reason = "tests start their helpers themselves")]
    pub fn new(path: &Path) -> Option<Self> {
        let mut command = Command::new("python3");
        command.args(["-c", HOLD]).arg(path).stdin(Stdio::piped()).stdout(Stdio::piped());
        let Ok(mut holder) = command.spawn() else {
            crate::lacking("leases", "install python3");
            return None;
        };
        let mut said = String::new();
        BufReader::new(holder.stdout.take().expect("a pipe")).read_line(&mut said).expect("an answer");
        assert_eq!(said, "held\n");
        Some(Self { holder })
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        drop(self.holder.stdin.take());
        self.holder.wait().expect("a child");
    }
}
