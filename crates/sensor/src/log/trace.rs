//! What sensors print, in our own log, in the words of the platform's service.
//!
//! That log is written line by line, by the thread that also renews the leases, and whoever reads it may be slow. So a sensor
//! that prints without end is not let through: its lines are in its own log.

use std::time::Duration;

use attune_store::LogStream;
use tokio::time::Instant;

/// Most lines of one stream in a second.
const MOST_LINES: u32 = 100;
const SECOND: Duration = Duration::from_secs(1);
/// How much of a line.
const MOST_BYTES: usize = 2_000;

/// The lines of one stream.
#[derive(Debug)]
pub(super) struct Trace {
    since: Instant,
    lines: u32,
    left_out: u64,
}

impl Trace {
    pub(super) fn new() -> Self {
        Self { since: Instant::now(), lines: 0, left_out: 0 }
    }

    pub(super) fn say(&mut self, sensor: &str, stream: LogStream, lines: &[u8]) {
        if !tracing::enabled!(tracing::Level::WARN) {
            return;
        }
        if self.since.elapsed() >= SECOND {
            self.say_left_out(sensor, stream);
            (self.since, self.lines) = (Instant::now(), 0);
        }
        for line in lines.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()) {
            if self.lines == MOST_LINES {
                self.left_out += 1;
                continue;
            }
            self.lines += 1;
            put(sensor, stream, &String::from_utf8_lossy(&line[..line.len().min(MOST_BYTES)]));
        }
    }

    /// How many lines are in the log of the stream only.
    pub(super) fn say_left_out(&mut self, sensor: &str, stream: LogStream) {
        if self.left_out > 0 {
            put(sensor, stream, &format!("[attune: {} more lines, in its own log only]", self.left_out));
            self.left_out = 0;
        }
    }
}

fn put(sensor: &str, stream: LogStream, text: &str) {
    match stream {
        LogStream::Stdout => tracing::info!("Sensor {sensor} stdout: {text}"),
        LogStream::Stderr => tracing::warn!("Sensor {sensor} stderr: {text}"),
    }
}
