//! Logs of sensors on their way to a platform that shares no folder with this host.
//!
//! ```text
//!   LogWriter ─► file here ─► Outbox (how much of which file) ─► Courier ─► PATCH /api/v1/internal/files/…
//! ```
//!
//! The files here are the truth, in a folder that only this host uses: `_pending/sensors/<its row>` below the folder of
//! artifacts. One task sends what is new, several logs side by side and of each one piece after another; nobody waits for it
//! but the end of the host, and that not for long. Files that a sensor wrote itself follow when it has ended. A file of a log
//! goes from here when the platform has all of it, and its version gets its size: what has none is sent by the next life of
//! this host.

mod adopt;
mod lanes;
mod ledger;
mod leftovers;
mod outbox;
mod own_files;
mod parcel;
mod stamp;

use std::convert::Infallible;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use std::time::Duration;

use attune_http::{HttpError, PlatformApi};
use attune_lifecycle::{Backoff, CancellationToken, spawn_blocking};
use attune_model::{WorkerId, chain};
use attune_store::{LogStore, SensorFile};
use thiserror::Error;
use tokio::time::{sleep, timeout};

use self::outbox::Aftermath;
use crate::config::LogDelivery;
use crate::context::STORE_LIMIT;
use crate::deadline::Deadline;

pub(crate) use self::adopt::adopt;
pub(crate) use self::outbox::{Addressed, Outbox};
pub(crate) use self::own_files::Attended;

/// Folders of hosts, below that of artifacts.
const HOSTS: &str = "_pending/sensors";
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
    /// Whether other logs would most likely have it as well.
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
    /// How many pieces of logs have arrived.
    arrived: AtomicUsize,
}

/// The folder of a host, below that of artifacts.
pub(crate) fn folder(artifacts_dir: &Path, worker: WorkerId) -> PathBuf {
    artifacts_dir.join(HOSTS).join(worker.to_string())
}

impl Courier {
    pub(crate) fn new(
        uploads: PlatformApi,
        store: Arc<dyn LogStore>,
        (outbox, artifacts): (Outbox, PathBuf),
        delivery: LogDelivery,
    ) -> Self {
        let api = uploads.clone().with_call_limit(delivery.call_limit);
        Self { api, uploads, artifacts, store, outbox, delivery, arrived: AtomicUsize::new(0) }
    }

    /// Until the host has no sensors any more, as `done` says, and all that they left is delivered or had its time.
    pub(crate) async fn run(self, done: CancellationToken, deadline: Deadline) {
        let out_of_time = async {
            done.cancelled().await;
            sleep(LAST_LIMIT).await;
        };
        tokio::select! {
            () = self.work(&done) => {}
            () = out_of_time => {}
            () = deadline.passed() => {}
        }
        if !self.outbox.is_delivered() {
            tracing::warn!(
                "not all of the sensors' logs has reached the platform; the next life of this host sends the rest"
            );
        }
    }

    async fn work(&self, done: &CancellationToken) {
        let senders = async { tokio::join!(self.deliver_logs(done), self.deliver_own_files(done)) };
        tokio::select! {
            _ = senders => {}
            never = self.keep_rows() => match never {},
        }
        // The last ones.
        if let Err(trouble) = self.store_sizes().await {
            tracing::warn!(error = chain(&trouble), "sizes of logs were not recorded");
        }
    }

    /// Asks the store what it has of that which an earlier life has left, and tells it the sizes of what is complete.
    async fn keep_rows(&self) -> Infallible {
        let mut backoff = self.backoff();
        let mut is_told = false;
        loop {
            let kept = async {
                self.know_leftovers().await?;
                self.store_sizes().await
            };
            match kept.await {
                Ok(()) => {
                    backoff.reset();
                    is_told = false;
                    self.outbox.version_sized().await;
                }
                Err(trouble) => {
                    if !std::mem::replace(&mut is_told, true) {
                        tracing::warn!(error = chain(&trouble), "rows of logs wait");
                    }
                    sleep(backoff.next_delay()).await;
                }
            }
        }
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

    /// Cancel-safe: they are kept until they are stored.
    async fn store_sizes(&self) -> Result<(), Trouble> {
        let sizes = self.outbox.sizes();
        if sizes.is_empty() {
            return Ok(());
        }
        match timeout(STORE_LIMIT, self.store.set_log_sizes(&sizes)).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) if error.decision() == attune_store::Decision::Fail => {
                tracing::warn!(error = chain(&error), "sizes of logs were not recorded");
            }
            Ok(Err(error)) => return Err(Trouble::Store(chain(&error))),
            Err(_elapsed) => return Err(Trouble::Store(format!("no answer within {STORE_LIMIT:?}"))),
        }
        self.outbox.forget_sizes(sizes.len());
        Ok(())
    }

    fn backoff(&self) -> Backoff {
        Backoff::new(self.delivery.backoff.0, self.delivery.backoff.1)
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
}
