//! Files that sensors have registered with the API and written themselves, below the folder of artifacts of this host.
//!
//! They go to the platform when a process of their sensor has ended, each as a whole and only when it has changed. They stay
//! here: the next process may go on with them.

use std::collections::BTreeMap;
use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use attune_http::UPLOAD_LIMIT_BYTES;
use attune_lifecycle::CancellationToken;
use attune_model::chain;
use attune_store::SensorFile;
use chrono::{DateTime, Utc};
use tokio::task::spawn_blocking;
use tokio::time::sleep;

use super::outbox::Outbox;
use super::{Courier, Trouble};

/// File systems date changes a little earlier than clocks say.
const COARSE: Duration = Duration::from_secs(1);

/// Processes that have ended: since when their sensor may have written. By sensor.
pub(super) type Ended = BTreeMap<String, SystemTime>;

/// A process runs and may write files of its own; dropped, it has ended.
#[derive(Debug)]
pub(crate) struct Attended {
    outbox: Outbox,
    sensor_ref: String,
    began: SystemTime,
}

impl Drop for Attended {
    fn drop(&mut self) {
        self.outbox.ended([(std::mem::take(&mut self.sensor_ref), self.began)].into());
    }
}

impl Outbox {
    /// A process of the sensor begins now.
    pub(crate) fn attend(&self, sensor_ref: &str, now: DateTime<Utc>) -> Attended {
        Attended { outbox: self.clone(), sensor_ref: sensor_ref.to_owned(), began: SystemTime::from(now) }
    }
}

impl Courier {
    /// What the sensors that ended have written. Until `done`, and one attempt then.
    pub(super) async fn deliver_own_files(&self, done: &CancellationToken) {
        let mut backoff = self.backoff();
        loop {
            let ends = done.is_cancelled();
            match self.send_own_files().await {
                Ok(()) => {
                    backoff.reset();
                    if ends {
                        return;
                    }
                    tokio::select! {
                        () = done.cancelled() => {}
                        () = self.outbox.process_ended() => {}
                    }
                }
                Err(trouble) => {
                    tracing::warn!(error = chain(&trouble), "files that sensors wrote themselves wait");
                    if ends {
                        return;
                    }
                    tokio::select! {
                        () = done.cancelled() => {}
                        () = sleep(backoff.next_delay()) => {}
                    }
                }
            }
        }
    }

    async fn send_own_files(&self) -> Result<(), Trouble> {
        let ended = self.outbox.take_ended();
        let Some(earliest) = ended.values().min().copied() else { return Ok(()) };
        let sent = self.send_changed(ended.keys().cloned().collect(), earliest).await;
        if sent.is_err() {
            self.outbox.ended(ended);
        }
        sent
    }

    async fn send_changed(&self, owners: Vec<String>, earliest: SystemTime) -> Result<(), Trouble> {
        for file in self.files_of(&owners).await? {
            if self.outbox.is_log(&file.file_path) {
                continue;
            }
            let (artifacts, SensorFile { id, file_path, size_bytes }) = (self.artifacts.clone(), file);
            let path = file_path.clone();
            let since = earliest.checked_sub(COARSE).unwrap_or(earliest);
            let read = spawn_blocking(move || changed(&artifacts, &PathBuf::from(path), size_bytes, since)).await;
            let content = match read.unwrap_or_else(|error| Err(std::io::Error::other(error))) {
                Ok(Some(content)) => content,
                Ok(None) => continue,
                Err(error) => {
                    tracing::warn!(file_path, %error, "a file of a sensor cannot be read");
                    continue;
                }
            };
            let size = content.len() as u64;
            match self.uploads.put_file(&file_path, content).await {
                Ok(()) => self.outbox.add_size((id, size)),
                Err(error) if error.is_refusal() => {
                    tracing::warn!(file_path, error = chain(&error), "the API refuses a file of a sensor");
                }
                Err(error) => return Err(Trouble::Api(error)),
            }
        }
        Ok(())
    }
}

/// What is in the file; none when it is not there, is empty, or is what the platform has already.
fn changed(
    artifacts: &Path,
    path: &Path,
    known_size: Option<u64>,
    since: SystemTime,
) -> std::io::Result<Option<Vec<u8>>> {
    let file = match attune_sys::open_beneath(artifacts, path) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        file => file?,
    };
    let metadata = file.metadata()?;
    let is_known = known_size == Some(metadata.len()) && metadata.modified()? < since;
    if !metadata.is_file() || metadata.len() == 0 || is_known {
        return Ok(None);
    }
    if metadata.len() > UPLOAD_LIMIT_BYTES {
        let problem = format!("it has {} bytes; the API takes at most {UPLOAD_LIMIT_BYTES}", metadata.len());
        return Err(std::io::Error::other(problem));
    }
    let mut content = Vec::new();
    file.take(UPLOAD_LIMIT_BYTES).read_to_end(&mut content)?;
    Ok(Some(content))
}
