//! Writes the rows of all sensors of this host: what comes while one call is under way, or shortly after it, goes together with
//! the next one. After a start of the host that is a few calls instead of hundreds side by side, each on a connection of its own.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use attune_lifecycle::CancellationToken;
use attune_model::{WorkerId, chain};
use attune_store::{Decision, HostProcess, ProcessChange, ProcessRecord, SensorStore, StoreError};
use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, sleep};
use uuid::Uuid;

use crate::context::STORE_LIMIT;
use crate::deadline::Deadline;
use crate::target::Target;

/// Most rows of one call.
const AT_ONCE: usize = 256;

/// While one call follows the other, each waits so long for more rows. A change by itself does not.
const GATHERING: Duration = Duration::from_millis(25);

/// One change, and who wants to know whether it is written.
#[derive(Debug)]
pub(crate) struct Job {
    target: Arc<Target>,
    change: ProcessChange,
    reply: oneshot::Sender<Result<(), Unwritten>>,
}

/// A change is not in its row.
#[derive(Debug, Clone)]
pub(crate) enum Unwritten {
    /// The store takes none; that is said once, here.
    Away,
    /// It does not take this one.
    Refused(String),
}

/// Ready when a change was written or not. Bounded by the limits of the recorder. Dropped, it is written or not.
#[derive(Debug)]
pub(crate) struct Written(oneshot::Receiver<Result<(), Unwritten>>);

impl Future for Written {
    type Output = Result<(), Unwritten>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        // An error says that the host has stopped.
        Pin::new(&mut self.0).poll(context).map(|answer| answer.unwrap_or(Err(Unwritten::Away)))
    }
}

/// Where changes are handed in. Clones are the same.
#[derive(Debug, Clone)]
pub(crate) struct Changes {
    jobs: mpsc::UnboundedSender<Job>,
}

/// Writes them.
#[derive(Debug)]
pub(crate) struct Recorder {
    jobs: mpsc::UnboundedReceiver<Job>,
    store: Arc<dyn SensorStore>,
    host: (WorkerId, String, Uuid),
    deadline: Deadline,
    /// Whether it was said that the store takes no rows. It would be said for hundreds of them every other second.
    is_told: bool,
}

impl Changes {
    /// Has a change written.
    pub(crate) fn hand_in(&self, target: Arc<Target>, change: ProcessChange) -> Written {
        let (reply, answer) = oneshot::channel();
        drop(self.jobs.send(Job { target, change, reply }));
        Written(answer)
    }
}

impl Recorder {
    pub(crate) fn new(
        store: Arc<dyn SensorStore>,
        host: (WorkerId, String, Uuid),
        deadline: Deadline,
    ) -> (Self, Changes) {
        let (sender, jobs) = mpsc::unbounded_channel();
        (Self { jobs, store, host, deadline, is_told: false }, Changes { jobs: sender })
    }

    /// Until nobody hands anything in any more, as `done` says.
    pub(crate) async fn run(mut self, done: CancellationToken) {
        let mut waiting = Vec::with_capacity(AT_ONCE);
        let mut written: Option<Instant> = None;
        loop {
            tokio::select! {
                biased;
                count = self.jobs.recv_many(&mut waiting, AT_ONCE) => if count == 0 { return },
                () = done.cancelled() => return,
            }
            if written.is_some_and(|written| written.elapsed() < GATHERING) {
                sleep(GATHERING).await;
                while waiting.len() < AT_ONCE
                    && let Ok(job) = self.jobs.try_recv()
                {
                    waiting.push(job);
                }
            }
            // Who does not wait any more hands in something newer.
            waiting.retain(|job| !job.reply.is_closed());
            self.write(std::mem::take(&mut waiting)).await;
            written = Some(Instant::now());
        }
    }

    async fn write(&mut self, jobs: Vec<Job>) {
        if jobs.is_empty() {
            return;
        }
        let together = self.attempt(&jobs).await;
        self.tell(&together);
        for job in jobs {
            let written = match &together {
                // One of them is to blame, and the others are not to wait for it.
                Err(failure) if failure.is_final => self.attempt(std::slice::from_ref(&job)).await,
                together => together.clone(),
            };
            let refused = |failure: Failure| {
                if failure.is_final { Unwritten::Refused(failure.problem) } else { Unwritten::Away }
            };
            // Whoever asked may be gone.
            drop(job.reply.send(written.map_err(refused)));
        }
    }

    fn tell(&mut self, written: &Result<(), Failure>) {
        match written {
            Err(failure) if !failure.is_final && !std::mem::replace(&mut self.is_told, true) => {
                tracing::warn!(error = failure.problem, "states of sensors cannot be recorded; trying again");
            }
            Ok(()) if std::mem::take(&mut self.is_told) => tracing::info!("states of sensors are recorded again"),
            _ => {}
        }
    }

    async fn attempt(&self, jobs: &[Job]) -> Result<(), Failure> {
        let record = |job| {
            let Job { target, change, .. }: &Job = job;
            ProcessRecord { sensor: &target.sensor, active_rules: Some(target.active_rules), change }
        };
        let records: Vec<_> = jobs.iter().map(record).collect();
        let (worker, worker_name, id) = &self.host;
        let host = HostProcess { worker: *worker, worker_name, id: *id };
        let write = self.store.record_processes(host, &records);
        match self.deadline.within(STORE_LIMIT, write).await {
            Ok(written) => written.map_err(Failure::from),
            Err(late) => Err(Failure { is_final: false, problem: late.to_string() }),
        }
    }
}

/// Why nothing was written.
#[derive(Debug, Clone)]
struct Failure {
    /// It would be the same again.
    is_final: bool,
    problem: String,
}

impl From<StoreError> for Failure {
    fn from(error: StoreError) -> Self {
        Self { is_final: error.decision() == Decision::Fail, problem: chain(&error) }
    }
}
