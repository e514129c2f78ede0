//! The log path: what a child writes, through redaction into a log file and into memory up to a cap, beside a bare read loop of
//! a pipe.

use std::fs::{self, File};
use std::io::{Read as _, Write as _};
use std::process::{Command as StdCommand, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use attune_process::{Command, Keep, Outcome, Redactor, Sink, Stream, start};
use tokio::runtime::Builder;

use crate::figure::{Figure, Goal, median};

const BYTES: u64 = 1 << 30;
/// Odd, so that the median is one of them.
const ROUNDS: usize = 5;
/// The log path has to take this much.
const LEAST_MB_PER_SECOND: u64 = 200;
/// What the agent may need for it beside the part that is kept.
const MOST_GROWTH_BYTES: u64 = 8 << 20;
const KEPT_BYTES: usize = 1 << 20;

/// Lines as programs log them; `yes` and `head` write faster than anybody reads.
const SCRIPT: &str = "yes '2026-08-21T10:15:30.123Z INFO request 4711 of user alice took 35 ms, status 200, path /api/v1/events' | head -c 1073741824";

/// Measures both in alternating rounds.
pub(crate) fn run() -> Result<Vec<Figure>, String> {
    let secrets =
        ["s3cr3t-token-of-the-user", "postgresql://user:pass word@host/name", "line one of a key\nline two of a key"];
    let redactor = Arc::new(Redactor::new(secrets));
    let runtime = Builder::new_multi_thread().worker_threads(1).enable_all().build();
    let runtime = runtime.map_err(|error| format!("no runtime: {error}"))?;
    let folder = std::env::temp_dir().join(format!("attune-bench-capture-{}", std::process::id()));
    fs::create_dir(&folder).map_err(|error| format!("{}: {error}", folder.display()))?;
    let (mut ours, mut floor) = (Vec::new(), Vec::new());
    let measured = (|| -> Result<u64, String> {
        let mut growth = 0;
        for _ in 0..ROUNDS {
            floor.push(bare()?);
            let file = File::create(folder.join("stdout.log")).map_err(|error| format!("no log file: {error}"))?;
            let before = forget_peak()?;
            ours.push(runtime.block_on(captured(&redactor, file))?);
            growth = growth.max(peak_bytes()?.saturating_sub(before));
        }
        Ok(growth)
    })();
    fs::remove_dir_all(&folder).map_err(|error| format!("{}: {error}", folder.display()))?;
    let growth = measured?;
    if growth >= MOST_GROWTH_BYTES {
        return Err(format!("capture: memory grew by {growth} bytes, and {MOST_GROWTH_BYTES} are too many"));
    }
    let (ours, floor) = (median(ours), median(floor));
    Ok(vec![Figure {
        name: "capture",
        what: format!("1 GiB redacted into a log file, {} MB/s, memory +{} KiB,", rate(ours), growth >> 10),
        ours,
        floor_is: format!("read from a pipe and forgotten, {} MB/s,", rate(floor)),
        floor,
        goal: Goal::Time(Duration::from_millis(BYTES / 1000 / LEAST_MB_PER_SECOND)),
        rounds: ROUNDS,
    }])
}

struct Log(File);

impl Sink for Log {
    fn write(&mut self, chunk: &[u8]) {
        if let Err(error) = self.0.write_all(chunk) {
            panic!("the log file cannot be written: {error}");
        }
    }
}

async fn captured(redactor: &Arc<Redactor>, file: File) -> Result<Duration, String> {
    let mut command = Command::new("/bin/sh");
    command.args = vec!["-c".into(), SCRIPT.into()];
    command.env = vec![("PATH".into(), "/usr/bin:/bin".into())];
    command.stdout = Stream::keep(Keep::Head { limit_bytes: KEPT_BYTES }).to(Log(file)).without(redactor);
    let begun = Instant::now();
    let child = start(command).map_err(|error| error.to_string())?;
    let report = child.supervise(None, std::future::pending()).await;
    let came = report.stdout.bytes.len() as u64 + report.stdout.dropped_bytes;
    match report.outcome {
        Outcome::Exited(0) if came == BYTES => Ok(begun.elapsed()),
        outcome => Err(format!("capture: the writer ended with {outcome:?} after {came} bytes")),
    }
}

#[expect(clippy::disallowed_methods, reason = "the floor")]
fn bare() -> Result<Duration, String> {
    let begun = Instant::now();
    let mut command = StdCommand::new("/bin/sh");
    command.args(["-c", SCRIPT]).stdin(Stdio::null()).stdout(Stdio::piped());
    let mut child = command.spawn().map_err(|error| format!("/bin/sh does not start: {error}"))?;
    let mut pipe = child.stdout.take().ok_or("no pipe")?;
    let mut chunk = vec![0; 64 * 1024];
    let mut came = 0;
    loop {
        match pipe.read(&mut chunk) {
            Ok(0) => break,
            Ok(count) => came += count as u64,
            Err(error) => return Err(format!("the pipe cannot be read: {error}")),
        }
    }
    let status = child.wait().map_err(|error| format!("/bin/sh cannot be waited for: {error}"))?;
    if status.success() && came == BYTES { Ok(begun.elapsed()) } else { Err(format!("{status} after {came} bytes")) }
}

fn rate(time: Duration) -> u64 {
    u64::try_from(u128::from(BYTES) / time.as_micros().max(1)).unwrap_or(0)
}

/// From now on the peak is that of what follows; returns what is in memory now.
fn forget_peak() -> Result<u64, String> {
    fs::write("/proc/self/clear_refs", "5").map_err(|error| format!("/proc/self/clear_refs: {error}"))?;
    status_bytes("VmRSS:")
}

fn peak_bytes() -> Result<u64, String> {
    status_bytes("VmHWM:")
}

fn status_bytes(name: &str) -> Result<u64, String> {
    let status = fs::read_to_string("/proc/self/status").map_err(|error| format!("/proc/self/status: {error}"))?;
    let line = status.lines().find_map(|line| line.strip_prefix(name));
    let kibibytes = line.and_then(|line| line.split_whitespace().next()?.parse::<u64>().ok());
    kibibytes.map(|kibibytes| kibibytes << 10).ok_or_else(|| format!("/proc/self/status has no {name}"))
}
