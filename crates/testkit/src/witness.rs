//! Sensors that testify about their own lives, for tests of what must never run twice.
//!
//! Each process of a sensor writes its id and the machine's time every few milliseconds that it lives, as one line each, into a
//! file that all processes of that sensor share: a process that writes while another one still does is what must not happen.

#![expect(clippy::missing_panics_doc, reason = "a test whose witnesses contradict each other ends here")]

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;

/// The sensor, for Python. It writes into the folder `facts` beside the one of the artifacts. TERM ends it at once, unless
/// `STUBBORN` is set: then only KILL does.
pub const WITNESS: &str = r#"
import os, signal, time
signal.signal(signal.SIGTERM, lambda *_: None if os.environ.get("STUBBORN") else os._exit(0))
facts = os.path.join(os.path.dirname(os.environ["ATTUNE_ARTIFACTS_DIR"]), "facts")
out = os.open(os.path.join(facts, os.environ["ATTUNE_SENSOR_REF"]), os.O_WRONLY | os.O_CREAT | os.O_APPEND)
while True:
    os.write(out, b"%d %d\n" % (os.getpid(), time.clock_gettime_ns(time.CLOCK_BOOTTIME) // 1000))
    time.sleep(0.004)
"#;

/// What all of them wrote.
#[derive(Debug, Clone)]
pub struct Testimonies {
    facts: PathBuf,
}

impl Testimonies {
    /// In this folder.
    pub fn in_folder(facts: impl Into<PathBuf>) -> Self {
        Self { facts: facts.into() }
    }

    /// Process id and time in microseconds, in the order of the file.
    fn of(&self, sensor: &str) -> Vec<(u32, u64)> {
        let text = fs::read_to_string(self.facts.join(sensor)).unwrap_or_default();
        // A line that is being written is no fact yet.
        let whole = text.rfind('\n').map_or("", |end| &text[..end]);
        let read = |line: &str| {
            let (pid, time) = line.split_once(' ')?;
            Some((pid.parse().ok()?, time.parse().ok()?))
        };
        whole.lines().filter_map(read).collect()
    }

    /// The processes of a sensor, one after another.
    pub fn runners(&self, sensor: &str) -> Vec<u32> {
        let mut pids: Vec<u32> = self.of(sensor).into_iter().map(|(pid, _)| pid).collect();
        pids.dedup();
        pids
    }

    /// Waits until more than `before` processes of a sensor have lived; returns all of them.
    pub async fn another_runner(&self, sensor: &str, before: usize) -> Vec<u32> {
        let what = format!("runner {} of {sensor}", before + 1);
        crate::eventually(&what, async || Some(self.runners(sensor)).filter(|pids| pids.len() > before)).await
    }

    /// Every process wrote everything before the next one wrote anything. Returns the longest time without a process.
    pub fn assert_no_overlap(&self, sensor: &str) -> std::time::Duration {
        let mut spans: BTreeMap<u32, (u64, u64)> = BTreeMap::new();
        for (pid, time) in self.of(sensor) {
            let span = spans.entry(pid).or_insert((time, time));
            *span = (span.0.min(time), span.1.max(time));
        }
        let mut spans: Vec<_> = spans.into_iter().map(|(pid, (first, last))| (first, last, pid)).collect();
        spans.sort_unstable();
        assert!(!spans.is_empty(), "{sensor} never ran");
        for pair in spans.windows(2) {
            assert!(pair[0].1 < pair[1].0, "{sensor}: two at once: {spans:?}");
        }
        let gaps = spans.windows(2).map(|pair| pair[1].0 - pair[0].1);
        std::time::Duration::from_micros(gaps.max().unwrap_or_default())
    }
}
