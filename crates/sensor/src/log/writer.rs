//! Writes the lines of one stream of one process: versions, rotation, retention, sizes.
//!
//! Every call to the store and to the file system may fail; then it is tried again for a while, and what had to be given
//! up is counted in the log itself.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use attune_lifecycle::{Backoff, spawn_blocking};
use attune_model::chain;
use attune_model::rows::Sensor;
use attune_model::status::{OwnerType, RetentionPolicy};
use attune_store::{Decision, LogArtifact, LogStore, LogStream, LogVersion};
use serde_json::json;
use tokio::time::{Instant, timeout};

use super::home::LogHome;
use super::lines::LineSplitter;
use super::queue::{Batch, LogSource};
use super::segment::{Segment, inside, rotate};
use super::trace::Trace;
use crate::config::LogLimits;
use crate::courier::Addressed;
use crate::tokens::LaterTokens;

/// Of an artifact whose sensor names none (a fact of the platform).
const DEFAULT_RETENTION: (RetentionPolicy, i32) = (RetentionPolicy::Versions, 4);
const STORE_LIMIT: Duration = Duration::from_secs(10);
/// Tries of one write or one new version: about ten seconds, while the buffer takes what comes.
const MOST_TRIES: u32 = 6;
const RETRY_MIN: Duration = Duration::from_millis(200);
const RETRY_MAX: Duration = Duration::from_secs(5);
/// So often at most it is looked at whether a file is still there: lines may come in any number.
const LOOK_INTERVAL: Duration = Duration::from_secs(1);

/// Which stream of which sensor, and where its files belong.
#[derive(Debug, Clone)]
pub(crate) struct LogTarget {
    /// Whose.
    pub(crate) sensor_ref: String,
    /// Which.
    pub(crate) stream: LogStream,
    /// Where its files are.
    pub(crate) home: LogHome,
    /// Its artifact.
    pub(crate) artifact: LogArtifact,
}

impl LogTarget {
    /// The log of `stream` of `sensor` (names: a fact of the platform).
    pub(crate) fn new(sensor: &Sensor, stream: LogStream, home: LogHome) -> Self {
        let (sensor_ref, stream_name) = (&sensor.r#ref, stream.as_str());
        let artifact = LogArtifact {
            r#ref: format!("sensor.{sensor_ref}.{stream_name}"),
            scope: OwnerType::Sensor,
            owner: sensor_ref.clone(),
            name: format!("{sensor_ref} sensor {stream_name} log"),
            description: format!("Rotating {stream_name} log for sensor '{sensor_ref}'"),
            retention_policy: sensor.log_retention.policy.unwrap_or(DEFAULT_RETENTION.0),
            retention_limit: sensor.log_retention.limit.unwrap_or(DEFAULT_RETENTION.1),
            execution: None,
            meta: json!({ "sensor_ref": sensor_ref, "stream": stream_name }),
            created_by: "sensor",
        };
        Self { sensor_ref: sensor_ref.clone(), stream, home, artifact }
    }

    /// The file when the store takes no versions.
    fn plain_file(&self) -> PathBuf {
        Path::new("sensors").join(&self.sensor_ref).join(format!("{}.log", self.stream.as_str()))
    }
}

/// Where a stream's current file is, for whoever reports about the sensor.
pub(crate) type CurrentFile = Arc<Mutex<Option<PathBuf>>>;

/// The writer of one stream of one process.
#[derive(Debug)]
pub(crate) struct LogWriter {
    store: Arc<dyn LogStore>,
    target: LogTarget,
    source: LogSource,
    lines: LineSplitter,
    open: Option<Open>,
    /// A version whose file could not be opened yet.
    version: Option<LogVersion>,
    /// Set when the store refused a version: the rest of this process goes to the plain file.
    plain: bool,
    lost_bytes: u64,
    current_file: CurrentFile,
    hidden: LaterTokens,
    trace: Trace,
    /// Whether it was said that lines are given up.
    is_told: bool,
}

#[derive(Debug)]
struct Open {
    segment: Segment,
    kind: OpenKind,
    /// When it was last seen in its place, and how long it was.
    seen: (Instant, u64),
}

/// What an open file is.
#[derive(Debug)]
enum OpenKind {
    /// The plain file.
    Plain,
    /// That of a version (`artifact_version.id`), in its place.
    InPlace(i64),
    /// That of a version that is brought to its place, and gets its size there.
    Sent(Addressed),
}

impl Open {
    fn append(&mut self, bytes: &[u8]) -> io::Result<()> {
        let written = self.segment.append(bytes);
        if let OpenKind::Sent(addressed) = &self.kind {
            addressed.holds(self.segment.size());
        }
        written
    }
}

impl LogWriter {
    /// What is `hidden` does not reach the log.
    pub(crate) fn new(store: Arc<dyn LogStore>, target: LogTarget, source: LogSource, hidden: LaterTokens) -> Self {
        Self {
            store,
            target,
            source,
            lines: LineSplitter::default(),
            open: None,
            version: None,
            plain: false,
            lost_bytes: 0,
            current_file: CurrentFile::default(),
            hidden,
            trace: Trace::new(),
            is_told: false,
        }
    }

    /// Follows the file as it changes.
    pub(crate) fn current_file(&self) -> CurrentFile {
        self.current_file.clone()
    }

    /// Until the stream ends and all of it is written or given up.
    pub(crate) async fn run(mut self) {
        loop {
            let batch = self.source.take().await;
            let is_last = batch.finished;
            // Boxed, so that a sensor that prints nothing does not hold the memory for it.
            Box::pin(self.accept(batch)).await;
            if is_last {
                return Box::pin(self.close()).await;
            }
        }
    }

    async fn accept(&mut self, Batch { bytes, lost_bytes, finished }: Batch) {
        let mut lines = self.lines.push(&bytes);
        if finished || lost_bytes > 0 {
            lines.extend(self.lines.finish());
        }
        self.hidden.redact(&mut lines);
        self.trace.say(&self.target.sensor_ref, self.target.stream, &lines);
        self.write(&lines).await;
        self.lost_bytes += lost_bytes;
        self.report_loss().await;
    }

    /// Splits `lines` where a file becomes too large and writes the parts.
    async fn write(&mut self, lines: &[u8]) {
        let mut rest = lines;
        while !rest.is_empty() {
            let size = self.open.as_ref().map_or(0, |open| open.segment.size());
            let part = self.fitting(rest, size);
            if part == 0 {
                self.next_segment().await;
                continue;
            }
            let (now, later) = rest.split_at(part);
            if !self.write_part(now.to_vec()).await {
                self.lost_bytes += now.len() as u64;
            }
            rest = later;
        }
    }

    /// How many of the bytes, in whole lines, go into a file of `size`; 0 asks for another file. A line that is larger
    /// than a whole file gets one of its own.
    fn fitting(&self, lines: &[u8], size: u64) -> usize {
        let LogLimits { max_bytes, max_files } = self.target.home.limits;
        if max_files == 0 {
            return lines.len();
        }
        let mut end = 0;
        for line in lines.split_inclusive(|byte| *byte == b'\n') {
            let total = size + (end + line.len()) as u64;
            if total > max_bytes && size + end as u64 > 0 {
                break;
            }
            end += line.len();
        }
        end
    }

    /// False when the bytes had to be given up.
    async fn write_part(&mut self, bytes: Vec<u8>) -> bool {
        let mut backoff = Backoff::new(RETRY_MIN, RETRY_MAX);
        loop {
            let Some(mut open) = self.take_open(&mut backoff).await else {
                return false;
            };
            if open.seen.0.elapsed() >= LOOK_INTERVAL {
                match self.look(open).await {
                    Some(still_there) => open = still_there,
                    None => continue,
                }
            }
            let before = open.segment.size();
            let copy = bytes.clone();
            let written = spawn_blocking(move || {
                let result = open.append(&copy);
                (open, result)
            })
            .await;
            let error = match written {
                Ok((open, Ok(()))) => {
                    self.open = Some(open);
                    self.say_written();
                    return true;
                }
                Ok((open, Err(error))) => {
                    let partly = open.segment.size() > before;
                    self.open = Some(open);
                    if partly {
                        self.say_given_up(&error.to_string());
                        return false;
                    }
                    error
                }
                Err(error) => io::Error::other(error),
            };
            if !self.may_retry(&mut backoff, &error.to_string()).await {
                return false;
            }
        }
    }

    /// The open file, opened if need be; none when that was tried often enough.
    async fn take_open(&mut self, backoff: &mut Backoff) -> Option<Open> {
        loop {
            if let Some(open) = self.open.take() {
                return Some(open);
            }
            let problem = match self.open_segment().await {
                Ok(open) => {
                    *self.current_file.lock().unwrap_or_else(PoisonError::into_inner) =
                        Some(open.segment.path().to_owned());
                    return Some(open);
                }
                Err(problem) => problem,
            };
            if !self.may_retry(backoff, &problem).await {
                return None;
            }
        }
    }

    /// None when somebody has removed it: its version goes, too, and the next lines begin another one. What was written since it
    /// was last seen may have gone with it.
    async fn look(&mut self, mut open: Open) -> Option<Open> {
        let looked = spawn_blocking(move || (open.segment.is_removed(), open)).await;
        let (is_removed, looked) = looked.ok()?;
        open = looked;
        let size = open.segment.size();
        if is_removed {
            tracing::warn!(file = %open.segment.path().display(), "somebody has removed a log that is being written");
            // The courier says itself what does not arrive.
            if !matches!(open.kind, OpenKind::Sent(_)) {
                self.lost_bytes += size.saturating_sub(open.seen.1);
            }
            self.record_size(&open, 0).await;
            return None;
        }
        open.seen = (Instant::now(), size);
        Some(open)
    }

    async fn may_retry(&mut self, backoff: &mut Backoff, problem: &str) -> bool {
        let delay = backoff.next_delay();
        if backoff.attempts() >= MOST_TRIES {
            self.say_given_up(problem);
            return false;
        }
        tokio::time::sleep(delay).await;
        true
    }

    /// Once, and not again for whatever follows: a disk may be full for hours.
    fn say_given_up(&mut self, problem: &str) {
        if !std::mem::replace(&mut self.is_told, true) {
            tracing::warn!(sensor.ref = %self.target.sensor_ref, stream = self.target.stream.as_str(), problem,
                "lines of a sensor's log are given up");
        }
    }

    fn say_written(&mut self) {
        if std::mem::take(&mut self.is_told) {
            tracing::info!(sensor.ref = %self.target.sensor_ref, stream = self.target.stream.as_str(),
                "the log of a sensor is written again");
        }
    }

    async fn open_segment(&mut self) -> Result<Open, String> {
        // Each new version makes an old one go: a folder that cannot be written to is not to cost them all.
        let version = match self.version.take() {
            Some(version) => Some(version),
            None if self.plain => None,
            None => self.new_version().await?,
        };
        self.version.clone_from(&version);
        let relative = match &version {
            Some(version) => PathBuf::from(&version.file_path),
            None => self.target.plain_file(),
        };
        let home = self.target.home.clone();
        let most = home.most_versions(&self.target.artifact);
        let opened = spawn_blocking(move || {
            let segment = Segment::open(&home.root, &relative)?;
            let kind = match (&version, &home.outbox) {
                (None, _) => OpenKind::Plain,
                (Some(version), Some(outbox)) => OpenKind::Sent(outbox.begin(version, most)),
                (Some(version), None) => {
                    remove_expired(&home.root, &version.expired_files);
                    OpenKind::InPlace(version.id)
                }
            };
            let seen = (Instant::now(), segment.size());
            Ok::<_, io::Error>(Open { segment, kind, seen })
        });
        let open = opened.await.map_err(|error| error.to_string())?.map_err(|error| error.to_string())?;
        self.version = None;
        Ok(open)
    }

    /// None when the store refuses versions for good.
    async fn new_version(&mut self) -> Result<Option<LogVersion>, String> {
        match timeout(STORE_LIMIT, self.store.add_log_version(&self.target.artifact)).await {
            Ok(Ok(version)) => Ok(Some(version)),
            Ok(Err(error)) if error.decision() == Decision::Fail => {
                tracing::warn!(artifact.ref = %self.target.artifact.r#ref, error = %chain(&error),
                    "the store takes no version of a log; writing to a plain file");
                self.plain = true;
                Ok(None)
            }
            Ok(Err(error)) => Err(chain(&error)),
            Err(_elapsed) => Err(format!("the store did not answer within {STORE_LIMIT:?}")),
        }
    }

    /// Ends the current file; the next write opens another.
    async fn next_segment(&mut self) {
        let Some(open) = self.take_seen().await else { return };
        if !matches!(open.kind, OpenKind::Plain) {
            return self.record_size(&open, open.segment.size()).await;
        }
        let (path, keep) = (open.segment.path().to_owned(), self.target.home.limits.max_files);
        if let Ok(Err(error)) = spawn_blocking(move || rotate(&path, keep)).await {
            tracing::warn!(sensor.ref = %self.target.sensor_ref, %error, "a log could not be rotated");
        }
    }

    async fn close(mut self) {
        self.trace.say_left_out(&self.target.sensor_ref, self.target.stream);
        if let Some(open) = self.take_seen().await {
            self.record_size(&open, open.segment.size()).await;
        }
    }

    /// The current file, if it is still there.
    async fn take_seen(&mut self) -> Option<Open> {
        let open = self.open.take()?;
        self.look(open).await
    }

    /// 0 removes the version, with its file.
    async fn record_size(&self, open: &Open, size: u64) {
        let OpenKind::InPlace(version) = open.kind else { return };
        if size == 0 {
            let file = open.segment.path().to_owned();
            // One that stays is written to by the next version of that number.
            drop(spawn_blocking(move || fs::remove_file(file)).await);
        }
        let sizes = [(version, size)];
        match timeout(STORE_LIMIT, self.store.set_log_sizes(&sizes)).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => {
                tracing::warn!(artifact.ref = %self.target.artifact.r#ref, error = %chain(&error),
                    "the size of a log was not recorded");
            }
            Err(_elapsed) => tracing::warn!(artifact.ref = %self.target.artifact.r#ref,
                "the size of a log was not recorded: the store does not answer"),
        }
    }

    /// Says in the log what is missing from it, as soon as it can be written again.
    async fn report_loss(&mut self) {
        if self.lost_bytes == 0 {
            return;
        }
        let note = format!("[attune: {} bytes of output were lost here]\n", self.lost_bytes);
        if self.write_part(note.into_bytes()).await {
            self.lost_bytes = 0;
        }
    }
}

fn remove_expired(root: &Path, files: &[String]) {
    for file in files {
        let removed = inside(root, Path::new(file)).and_then(fs::remove_file);
        match removed {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                tracing::warn!(file, %error, "an expired log file could not be removed");
            }
            Ok(()) | Err(_) => {}
        }
    }
}

#[cfg(test)]
mod tests;
