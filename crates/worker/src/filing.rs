//! Filing: the logs of ended executions become versions of their actions' log artifacts, and files that an action
//! registered get their sizes.
//!
//! ```text
//!   execution_<id>/stdout.log ─► clerk: one call to storage for all that wait ─► <action>/stdout/log/v<n>.txt
//! ```
//!
//! While one call is under way others gather and go with the next one, so that many short executions share their calls and
//! a single one waits for nobody. A live file goes away only when the file of its version is complete: what could not be
//! filed stays, and is filed when storage is back or by the next life of the worker.

use std::collections::{HashMap, HashSet, VecDeque};
use std::panic::AssertUnwindSafe;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use attune_lifecycle::CancellationToken;
use attune_model::ExecutionId;
use attune_model::activity::Observer;
use attune_model::chain;
use attune_model::measure::Measure;
use attune_store::{Decision, EndedLog, FiledLogs, LogStore, LogStream, LogVersion, RegisteredFile, StoreError};
use futures_util::FutureExt as _;
use thiserror::Error;
use tokio::sync::{Semaphore, SemaphorePermit, mpsc, oneshot};
use tokio::time::timeout;

use crate::expired::Expired;
use crate::files::{FileError, Files, below};
use crate::logs::{LogOwner, Logs};
use crate::refused::Refused;

/// Most executions whose logs are filed in one call.
const AT_ONCE: usize = 64;
/// Most executions whose files are under way to the API. Each of them holds a file in memory and a connection.
const UPLOADS_AT_ONCE: usize = 4;
/// How long files wait for that; then they stay where they are until there is time.
const TURN_LIMIT: Duration = Duration::from_secs(5);

/// Why logs are not filed.
#[derive(Debug, Clone, Error)]
#[error("logs could not be filed: {cause}")]
pub(crate) struct FilingError {
    /// Whether it may be possible later.
    pub(crate) decision: Decision,
    cause: Arc<str>,
}

/// One execution's part in a call.
#[derive(Debug)]
struct Job {
    logs: Vec<EndedLog>,
    execution: ExecutionId,
    reply: oneshot::Sender<Result<Filed, FilingError>>,
}

impl From<&StoreError> for FilingError {
    fn from(error: &StoreError) -> Self {
        Self { decision: error.decision(), cause: chain(error).into() }
    }
}

#[derive(Debug)]
struct Filed {
    versions: Vec<LogVersion>,
    registered: Vec<RegisteredFile>,
}

/// Versions that exist and whose files are still to come.
#[derive(Debug, Default)]
#[must_use = "their files are not in their places yet"]
pub(crate) struct Entered {
    logs: Vec<(PathBuf, LogVersion)>,
    registered: Vec<RegisteredFile>,
    /// What is known of sizes already, by version.
    sizes: Vec<(i64, u64)>,
    /// Where standard error will be, as the result tells it.
    pub(crate) stderr_log: Option<PathBuf>,
}

/// What became of the files of an execution.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Placed {
    /// Nothing is left to be done.
    Completely,
    /// Something is tried again later.
    InPart,
    /// … and others need not be tried now: the API is away, or storage.
    NothingGoes,
}

impl From<&FileError> for Placed {
    fn from(error: &FileError) -> Self {
        if error.is_general() { Self::NothingGoes } else { Self::InPart }
    }
}

/// Files logs.
#[derive(Debug)]
pub(crate) struct Filing {
    logs: Logs,
    files: Arc<dyn Files>,
    store: Arc<dyn LogStore>,
    jobs: mpsc::UnboundedSender<Job>,
    something_is_left: AtomicBool,
    placing: Placing,
    uploads: Semaphore,
    /// Files that nobody needs and that are still there.
    expired: Expired,
    refused: Refused,
    observer: Arc<dyn Observer>,
    /// Held by who looks for files that were left.
    pub(crate) looking: tokio::sync::Mutex<()>,
}

/// Executions whose files are being brought to their places.
#[derive(Debug, Clone, Default)]
struct Placing(Arc<Mutex<HashSet<ExecutionId>>>);

impl Placing {
    fn all(&self) -> MutexGuard<'_, HashSet<ExecutionId>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The files of one execution, on their way until this is dropped.
#[derive(Debug)]
pub(crate) struct OnTheirWay {
    execution: ExecutionId,
    placing: Placing,
}

impl Drop for OnTheirWay {
    fn drop(&mut self) {
        self.placing.all().remove(&self.execution);
    }
}

/// Does what [`Filing`] asks for. Its task ends when that is dropped.
#[derive(Debug)]
pub(crate) struct Clerk {
    store: Arc<dyn LogStore>,
    jobs: mpsc::UnboundedReceiver<Job>,
}

impl Filing {
    /// What has to outlive this process is kept in `folder`.
    pub(crate) fn new(
        logs: Logs,
        files: Arc<dyn Files>,
        store: Arc<dyn LogStore>,
        (folder, observer): (&Path, Arc<dyn Observer>),
    ) -> (Self, Clerk) {
        let (jobs, waiting) = mpsc::unbounded_channel();
        let (something_is_left, placing) = (AtomicBool::new(false), Placing::default());
        let (uploads, looking) = (Semaphore::new(UPLOADS_AT_ONCE), tokio::sync::Mutex::default());
        let (expired, refused) = (Expired::read(folder.join("expired")), Refused::new(folder.join("refused")));
        let clerk = Clerk { store: store.clone(), jobs: waiting };
        let filing =
            Self { logs, files, store, jobs, something_is_left, placing, uploads, expired, refused, observer, looking };
        (filing, clerk)
    }

    /// The live files.
    pub(crate) fn logs(&self) -> &Logs {
        &self.logs
    }

    /// Whether a file gets its place so quickly that a result can wait for it.
    pub(crate) fn is_instant(&self) -> bool {
        self.files.is_instant()
    }

    /// Enters the logs of an execution into storage.
    pub(crate) async fn enter(&self, owner: &LogOwner) -> Result<Entered, FilingError> {
        self.try_to_enter(owner).await.inspect_err(|error| {
            let (execution, error) = (owner.execution(), chain(error));
            // Said the first time.
            if owner.is_again() {
                tracing::debug!(execution.id = %execution, error, "logs stay where they are still");
            } else {
                tracing::warn!(execution.id = %execution, error, "logs stay where they are");
            }
            self.leave();
        })
    }

    async fn try_to_enter(&self, owner: &LogOwner) -> Result<Entered, FilingError> {
        let live = self.logs.live(owner);
        let mut known = if owner.is_again() { self.known(owner).await? } else { HashMap::new() };
        let fresh = live.iter().map(|log| (owner.artifact(log.stream), log.size_bytes));
        let fresh = fresh.filter(|(artifact, _)| !known.contains_key(&artifact.r#ref));
        let logs = fresh.map(|(artifact, size_bytes)| EndedLog { artifact, size_bytes }).collect();
        let (reply, answer) = oneshot::channel();
        let job = Job { logs, execution: owner.execution(), reply };
        let gone = || FilingError { decision: Decision::Fail, cause: "the clerk gave them up".into() };
        self.jobs.send(job).map_err(|_job| gone())?;
        let Filed { versions, registered } = answer.await.map_err(|_closed| gone())??;
        if !self.is_instant() {
            // Their versions are gone; should this process go before its turn with the API, nobody would know of them.
            let mut expired = versions.iter().flat_map(|version| &version.expired_files);
            let _no_room_for_more = expired.all(|file_path| self.expired.remember(file_path));
        }
        let mut versions = versions.into_iter();
        let mut entered = Entered { registered, ..Entered::default() };
        for log in live {
            let version = match known.remove(&owner.artifact(log.stream).r#ref) {
                Some(version) => {
                    entered.sizes.push((version.id, log.size_bytes));
                    version
                }
                None => versions.next().ok_or_else(incomplete)?,
            };
            if log.stream == LogStream::Stderr && !log.is_blank() {
                entered.stderr_log = Some(self.logs.folder().join(&version.file_path));
            }
            entered.logs.push((log.path, version));
        }
        Ok(entered)
    }

    /// What an earlier attempt has entered, by the ref of the artifact.
    async fn known(&self, owner: &LogOwner) -> Result<HashMap<String, LogVersion>, FilingError> {
        let known = self.store.log_versions(owner.execution()).await;
        let known = known.map_err(|error| FilingError::from(&error))?;
        Ok(known.into_iter().collect())
    }

    /// Sees to it that nobody else files the logs of this execution; none when somebody does.
    pub(crate) fn begin(&self, execution: ExecutionId) -> Option<OnTheirWay> {
        let placing = self.placing.clone();
        let is_first = placing.all().insert(execution);
        is_first.then_some(OnTheirWay { execution, placing })
    }

    /// Brings the files of entered logs to their places, and measures what the action registered. What takes until
    /// `given_up` is left as if it had failed.
    pub(crate) async fn place(&self, owner: &LogOwner, entered: Entered, given_up: &CancellationToken) -> Placed {
        let execution = owner.execution();
        let Entered { logs, registered, mut sizes, stderr_log: _ } = entered;
        let mut placed = match unless(given_up, self.turn()).await {
            Ok(_turn) => self.place_all(execution, (logs, registered), &mut sizes, given_up).await,
            Err(error) => {
                tracing::warn!(execution.id = %execution, error = chain(&error), "files stay where they are for now");
                Placed::from(&error)
            }
        };
        if !sizes.is_empty()
            && let Err(error) = self.store.set_log_sizes(&sizes).await
        {
            tracing::warn!(execution.id = %execution, error = chain(&error), "sizes could not be stored");
            placed = Placed::NothingGoes;
        }
        if placed == Placed::Completely {
            self.logs.remove_folder(execution);
        } else {
            self.leave();
        }
        placed
    }

    async fn place_all(
        &self,
        execution: ExecutionId,
        (logs, registered): (Vec<(PathBuf, LogVersion)>, Vec<RegisteredFile>),
        sizes: &mut Vec<(i64, u64)>,
        given_up: &CancellationToken,
    ) -> Placed {
        let mut placed = Placed::Completely;
        let mut note = |id, local: Option<&Path>, file: &str, done: Result<Option<u64>, FileError>| match done {
            Ok(size) => sizes.extend(size.map(|size| (id, size))),
            Err(error) if error.is_final() => {
                self.put_aside((execution, id), local, file, &error);
                // Its version would promise what nobody can read.
                sizes.push((id, 0));
            }
            Err(error) => {
                tracing::warn!(execution.id = %execution, file, error = chain(&error), "file stays where it is for now");
                placed = placed.max(Placed::from(&error));
            }
        };
        for (live, version) in logs {
            for expired in version.expired_files {
                self.remove(&expired, given_up).await;
            }
            // An artifact that was deleted and made anew counts from 1 again.
            self.expired.forget(&version.file_path);
            // Its size was entered with it. It keeps its number while its file is late: the result may name it.
            let moved = unless(given_up, self.files.place(&live, &version.file_path)).await;
            note(version.id, Some(&live), &version.file_path, moved.map(|()| None));
        }
        for file in registered {
            let size = unless(given_up, self.measure(&file)).await;
            let local = below(self.logs.folder(), &file.file_path).ok();
            note(file.id, local.as_deref(), &file.file_path, size.map(Some));
        }
        placed
    }

    /// What is never taken is not offered again, and somebody has to look.
    fn put_aside(&self, (execution, version): (ExecutionId, i64), local: Option<&Path>, file: &str, error: &FileError) {
        self.observer.measure(Measure::FileRefused);
        let error = chain(error);
        let aside = local.map(|local| self.refused.put_aside(execution, version, local)).transpose();
        let aside = aside.unwrap_or_else(|error| {
            tracing::warn!(execution.id = %execution, file, %error, "file could not be put aside");
            None
        });
        let kept_as = aside.unwrap_or_default();
        tracing::error!(execution.id = %execution, file, error, kept_as = %kept_as.display(), "file will never be where it belongs");
    }

    /// The right to use the API; none of it is needed for a folder that is shared.
    async fn turn(&self) -> Result<Option<SemaphorePermit<'_>>, FileError> {
        if self.is_instant() {
            return Ok(None);
        }
        match timeout(TURN_LIMIT, self.uploads.acquire()).await {
            Ok(Ok(permit)) => Ok(Some(permit)),
            Ok(Err(_)) | Err(_) => Err(FileError::Busy),
        }
    }

    /// Whether something was left.
    pub(crate) fn has_left(&self) -> bool {
        self.something_is_left.load(Ordering::Relaxed)
    }

    /// Whoever looks for what was left finds all of it until now.
    pub(crate) fn begin_to_look(&self) {
        self.something_is_left.store(false, Ordering::Relaxed);
    }

    /// Somebody has to look again.
    pub(crate) fn leave(&self) {
        self.something_is_left.store(true, Ordering::Relaxed);
    }

    /// 0 for a file that was never written: its version goes.
    async fn measure(&self, file: &RegisteredFile) -> Result<u64, FileError> {
        match self.files.settle(&file.file_path).await? {
            Some(size) => Ok(size),
            None => self.files.remove(&file.file_path).await.map(|()| 0),
        }
    }

    /// Says whether that need not be tried again.
    async fn remove(&self, expired: &str, given_up: &CancellationToken) -> bool {
        if let Err(error) = unless(given_up, self.files.remove(expired)).await {
            tracing::warn!(file = expired, error = chain(&error), "expired log could not be removed");
            if !error.is_final() && self.expired.remember(expired) {
                self.leave();
                return false;
            }
        }
        self.expired.forget(expired);
        true
    }

    /// Removes what could not be removed when it expired, until that fails again.
    pub(crate) async fn remove_expired(&self, given_up: &CancellationToken) {
        while let Some(expired) = self.expired.next()
            && self.remove(&expired, given_up).await
        {}
    }
}

async fn unless<T>(
    given_up: &CancellationToken,
    work: impl Future<Output = Result<T, FileError>>,
) -> Result<T, FileError> {
    tokio::select! {
        biased;
        done = work => done,
        () = given_up.cancelled() => Err(FileError::GivenUp),
    }
}

impl Clerk {
    /// Works until nobody can ask any more.
    pub(crate) async fn work(mut self) {
        let mut waiting = Vec::with_capacity(AT_ONCE);
        while self.jobs.recv_many(&mut waiting, AT_ONCE).await > 0 {
            // A bug costs the logs of these executions a while, and no others.
            let filed = AssertUnwindSafe(self.file(std::mem::take(&mut waiting))).catch_unwind().await;
            if filed.is_err() {
                tracing::error!("filing logs panicked; this is a bug of the worker");
            }
        }
    }

    async fn file(&self, mut jobs: Vec<Job>) {
        let counts: Vec<usize> = jobs.iter().map(|job| job.logs.len()).collect();
        let logs: Vec<EndedLog> = jobs.iter_mut().flat_map(|job| std::mem::take(&mut job.logs)).collect();
        let executions: Vec<ExecutionId> = jobs.iter().map(|job| job.execution).collect();
        let filed = self.store.file_logs(&logs, &executions).await;
        let mut shares = match filed {
            Ok(filed) => shares(filed, &counts, &executions),
            Err(error) => {
                let error = FilingError::from(&error);
                jobs.iter().map(|_job| Err(error.clone())).collect()
            }
        };
        for job in jobs {
            let share = shares.pop_front().unwrap_or_else(|| Err(incomplete()));
            // Whoever asked may have been given up meanwhile; the next life looks after its files.
            if job.reply.send(share).is_err() {
                tracing::debug!(execution.id = %job.execution, "nobody waits for these logs any more");
            }
        }
    }
}

fn incomplete() -> FilingError {
    FilingError { decision: Decision::Fail, cause: "storage did not answer for every log".into() }
}

/// To each execution what is its own.
fn shares(filed: FiledLogs, counts: &[usize], executions: &[ExecutionId]) -> VecDeque<Result<Filed, FilingError>> {
    let FiledLogs { versions, registered } = filed;
    let mut versions = versions.into_iter();
    counts
        .iter()
        .zip(executions)
        .map(|(count, execution)| {
            let versions: Vec<LogVersion> = versions.by_ref().take(*count).collect();
            let registered = registered.iter().filter(|file| file.execution == *execution).cloned().collect();
            if versions.len() == *count { Ok(Filed { versions, registered }) } else { Err(incomplete()) }
        })
        .collect()
}
