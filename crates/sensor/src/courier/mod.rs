//! Logs of sensors on their way to a platform that shares no folder with this host.
//!
//! ```text
//!   LogWriter ─► file here ─► Outbox (how much of which file) ─► Courier ─► PATCH /api/v1/internal/files/…
//! ```
//!
//! The files here are the truth, in a folder that only this host uses: `_pending/sensors/<its row>` below the folder of
//! artifacts. One task sends what is new, a piece at a time; nobody waits for it but the end of the host, and that not for
//! long. Files that a sensor wrote itself follow when it has ended. A file of a log goes from here when the platform has all of it, and its version gets its size: what has none is sent by the
//! next life of this host.

mod leftovers;
mod outbox;
mod own_files;
mod parcel;

use std::io::SeekFrom;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use attune_http::{Decision, HttpError, PlatformApi, Problem};
use attune_lifecycle::{Backoff, CancellationToken};
use attune_model::{WorkerId, chain};
use attune_store::{LogStore, SensorFile};
use thiserror::Error;
use tokio::fs::File;
use tokio::io::{AsyncReadExt as _, AsyncSeekExt as _};
use tokio::task::spawn_blocking;
use tokio::time::{sleep, timeout};

use self::outbox::Aftermath;
use self::parcel::{Append, Arrived, Step};
use crate::config::LogDelivery;
use crate::context::STORE_LIMIT;

pub(crate) use self::outbox::{Addressed, Outbox};
pub(crate) use self::own_files::Attended;

/// Steps for one log before it is another one's turn.
const STEPS: usize = 64;
/// What is left when the host ends may take so long.
const LAST_LIMIT: Duration = Duration::from_secs(3);

/// Why nothing more is delivered now.
#[derive(Debug, Error)]
enum Trouble {
    /// The API is away, or does not take anything from this host.
    #[error("the API does not take logs of sensors")]
    Api(#[source] HttpError),
    /// The store is away.
    #[error("the store does not say or take anything about logs: {0}")]
    Store(String),
    /// The file system of this host.
    #[error("a log cannot be read: {0}")]
    Read(std::io::Error),
}

impl Trouble {
    /// Whether other logs would have it as well.
    fn is_general(&self) -> bool {
        const UNAUTHORIZED: u16 = 401;
        match self {
            Self::Api(error) => error.status().is_none_or(|status| status == UNAUTHORIZED),
            Self::Store(_) => true,
            Self::Read(_) => false,
        }
    }
}

/// Brings logs to the platform.
#[derive(Debug)]
pub(crate) struct Courier {
    /// For pieces.
    api: PlatformApi,
    /// For whole files.
    uploads: PlatformApi,
    artifacts: PathBuf,
    store: Arc<dyn LogStore>,
    outbox: Outbox,
    delivery: LogDelivery,
    is_in_trouble: bool,
    /// Whether anything was delivered since the last trouble.
    has_delivered: bool,
}

/// The folder of a host, below that of artifacts.
pub(crate) fn folder(artifacts_dir: &Path, worker: WorkerId) -> PathBuf {
    artifacts_dir.join("_pending/sensors").join(worker.to_string())
}

impl Courier {
    pub(crate) fn new(
        uploads: PlatformApi,
        store: Arc<dyn LogStore>,
        (outbox, artifacts): (Outbox, PathBuf),
        delivery: LogDelivery,
    ) -> Self {
        let api = uploads.clone().with_call_limit(delivery.call_limit);
        Self { api, uploads, artifacts, store, outbox, delivery, is_in_trouble: false, has_delivered: false }
    }

    /// Until the host has no sensors any more, as `done` says, and all that they left is delivered or had its time.
    pub(crate) async fn run(mut self, done: CancellationToken) {
        let outbox = self.outbox.clone();
        let out_of_time = async {
            done.cancelled().await;
            sleep(LAST_LIMIT).await;
        };
        tokio::select! {
            () = self.work(&done) => {}
            () = out_of_time => {}
        }
        if !outbox.is_idle() {
            tracing::warn!(
                "not all of the sensors' logs has reached the platform; the next life of this host sends the rest"
            );
        }
    }

    async fn work(&mut self, done: &CancellationToken) {
        let mut backoff = Backoff::new(self.delivery.backoff.0, self.delivery.backoff.1);
        let mut knows = false;
        loop {
            let delivered = if knows { self.gather(done).await } else { self.know_leftovers().await };
            match delivered {
                Ok(()) => {
                    knows = true;
                    backoff.reset();
                    self.tell_recovery();
                    if done.is_cancelled() && self.outbox.is_idle() {
                        return;
                    }
                }
                Err(trouble) => {
                    self.tell(&trouble);
                    // That was the last attempt.
                    if done.is_cancelled() {
                        return;
                    }
                    // What cannot be delivered alone does not make others wait longer and longer.
                    if std::mem::take(&mut self.has_delivered) {
                        backoff.reset();
                    }
                    tokio::select! {
                        () = done.cancelled() => {}
                        () = sleep(backoff.next_delay()) => {}
                    }
                }
            }
        }
    }

    /// Waits for something to send, and a little longer for more of it.
    async fn gather(&mut self, done: &CancellationToken) -> Result<(), Trouble> {
        let more = async {
            self.outbox.something().await;
            if !self.is_in_trouble {
                sleep(self.delivery.gather).await;
            }
        };
        tokio::select! {
            () = done.cancelled() => {}
            () = more => {}
        }
        self.round().await
    }

    async fn know_leftovers(&self) -> Result<(), Trouble> {
        let owners = self.outbox.owners();
        if owners.is_empty() {
            return Ok(());
        }
        self.clear_up(self.outbox.know(&self.files_of(&owners).await?)).await;
        Ok(())
    }

    async fn files_of(&self, sensors: &[String]) -> Result<Vec<SensorFile>, Trouble> {
        match timeout(STORE_LIMIT, self.store.sensor_files(sensors)).await {
            Ok(files) => files.map_err(|error| Trouble::Store(chain(&error))),
            Err(_elapsed) => Err(Trouble::Store(format!("no answer within {STORE_LIMIT:?}"))),
        }
    }

    /// Everything that waits now. What goes wrong with one log does not keep the others, unless it would with them as well.
    async fn round(&mut self) -> Result<(), Trouble> {
        let mut delivered = Ok(());
        // What becomes ready meanwhile is gathered for the next round.
        for _ in 0..self.outbox.ready_logs() {
            let Some(log) = self.outbox.next_log() else { break };
            let Err(trouble) = self.visit(&log).await else { continue };
            self.outbox.again(&log);
            let is_general = trouble.is_general();
            delivered = Err(trouble);
            if is_general {
                break;
            }
        }
        if delivered.is_ok() {
            delivered = self.send_own_files().await;
        }
        if delivered.is_ok() {
            delivered = self.remove_outdated().await;
        }
        self.store_sizes().await?;
        delivered
    }

    async fn remove_outdated(&self) -> Result<(), Trouble> {
        while let Some(path) = self.outbox.next_outdated() {
            if let Err(error) = self.api.delete_file(&path).await
                && !is_refusal(&error)
            {
                return Err(Trouble::Api(error));
            }
            self.outbox.is_removed(&path);
        }
        Ok(())
    }

    async fn visit(&mut self, log: &str) -> Result<(), Trouble> {
        let mut has_sent = false;
        for _ in 0..STEPS {
            let Some((path, step)) = self.outbox.step(log, !has_sent) else {
                break;
            };
            match step {
                Step::Measure => {
                    let there = self.api.file_size(&path).await.map_err(Trouble::Api)?.unwrap_or_default();
                    self.outbox.tell(&path, |parcel| parcel.measure(there));
                }
                Step::Append(append) => {
                    self.append(&path, append).await?;
                    has_sent = true;
                }
                Step::Remove => {
                    self.api.delete_file(&path).await.map_err(Trouble::Api)?;
                    self.outbox.tell(&path, |parcel| parcel.arrived = Arrived::Bytes(0));
                }
                Step::Finish => self.clear_up(self.outbox.finish(log, &path)).await,
                Step::Wait => break,
            }
        }
        if self.outbox.has_more(log) {
            self.outbox.again(log);
        }
        Ok(())
    }

    async fn append(&mut self, path: &str, append: Append) -> Result<(), Trouble> {
        let before = Arrived::Bytes(append.at);
        let content = match self.read(path, &append).await {
            Ok(content) => content,
            // Somebody has removed it.
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Vec::new(),
            Err(error) => {
                self.outbox.tell(path, |parcel| parcel.arrived = before);
                return Err(Trouble::Read(error));
            }
        };
        if content.is_empty() {
            self.outbox.tell(path, |parcel| parcel.arrived = Arrived::Refused(append.at));
            return Ok(());
        }
        let after = append.at + content.len() as u64;
        let error = match self.api.append_file(path, content).await {
            Ok(()) => {
                self.has_delivered = true;
                self.outbox.tell(path, |parcel| parcel.arrived = Arrived::Bytes(after));
                return Ok(());
            }
            Err(error) => error,
        };
        if is_refusal(&error) {
            tracing::warn!(path, error = chain(&error), "the API refuses a log");
            self.outbox.tell(path, |parcel| parcel.arrived = Arrived::Refused(append.at));
            return Ok(());
        }
        let was_not_sent = matches!(error.problem, Problem::Connect(_)) || error.decision() == Decision::Fail;
        self.outbox.tell(path, |parcel| {
            if was_not_sent {
                parcel.arrived = before;
            } else {
                parcel.doubt();
            }
        });
        Err(Trouble::Api(error))
    }

    async fn read(&self, path: &str, append: &Append) -> std::io::Result<Vec<u8>> {
        let mut content = append.note.clone();
        let mut file = File::open(self.outbox.folder().join(path)).await?;
        file.seek(SeekFrom::Start(append.from)).await?;
        file.take(append.count).read_to_end(&mut content).await?;
        Ok(content)
    }

    async fn store_sizes(&self) -> Result<(), Trouble> {
        let sizes = self.outbox.take_sizes();
        if sizes.is_empty() {
            return Ok(());
        }
        let problem = match timeout(STORE_LIMIT, self.store.set_log_sizes(&sizes)).await {
            Ok(Ok(())) => return Ok(()),
            Ok(Err(error)) if error.decision() == attune_store::Decision::Fail => {
                tracing::warn!(error = chain(&error), "sizes of logs were not recorded");
                return Ok(());
            }
            Ok(Err(error)) => chain(&error),
            Err(_elapsed) => format!("no answer within {STORE_LIMIT:?}"),
        };
        self.outbox.add_sizes(sizes);
        Err(Trouble::Store(problem))
    }

    async fn clear_up(&self, aftermath: Aftermath) {
        if aftermath.gone.is_empty() && aftermath.told.is_none() {
            return;
        }
        let outbox = self.outbox.clone();
        if let Err(error) = spawn_blocking(move || outbox.clear_up(&aftermath)).await {
            tracing::error!(%error, "files of logs were not removed");
        }
    }

    fn tell(&mut self, trouble: &Trouble) {
        if !std::mem::replace(&mut self.is_in_trouble, true) {
            tracing::warn!(error = chain(trouble), "logs of sensors wait");
        }
    }

    fn tell_recovery(&mut self) {
        if std::mem::replace(&mut self.is_in_trouble, false) {
            tracing::info!("logs of sensors reach the platform again");
        }
    }
}

/// Whether the API will never take this. Everything else may be over some time, a wrong token too.
fn is_refusal(error: &HttpError) -> bool {
    matches!(error.status(), Some(400 | 413 | 422))
}
