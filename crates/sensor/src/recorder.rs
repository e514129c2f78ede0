//! Writes the rows of all sensors of this host: what comes while one call is under way, or shortly after it, goes together with
//! the next one. After a start of the host that is a few calls instead of hundreds side by side, each on a connection of its own.

use std::sync::Arc;
use std::time::Duration;

use attune_lifecycle::CancellationToken;
use attune_model::{WorkerId, chain};
use attune_store::{Decision, ProcessChange, ProcessRecord, SensorStore, StoreError};
use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, sleep};

use crate::context::STORE_LIMIT;
use crate::deadline::Deadline;
use crate::target::Target;

/// Most rows of one call.
const AT_ONCE: usize = 256;

/// While one call follows the other, each waits so long for more rows. A change by itself does not.
const GATHERING: Duration = Duration::from_millis(10);

/// One change, and who wants to know whether it is written.
#[derive(Debug)]
pub(crate) struct Job {
    target: Arc<Target>,
    change: ProcessChange,
    reply: oneshot::Sender<Result<(), String>>,
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
    worker: (WorkerId, String),
    deadline: Deadline,
}

impl Changes {
    /// Writes a change. Bounded by the limits of the recorder. Dropped, it is written or not.
    pub(crate) async fn write(&self, target: Arc<Target>, change: ProcessChange) -> Result<(), String> {
        let (reply, answer) = oneshot::channel();
        drop(self.jobs.send(Job { target, change, reply }));
        answer.await.unwrap_or_else(|_gone| Err("the host has stopped".to_owned()))
    }
}

impl Recorder {
    pub(crate) fn new(store: Arc<dyn SensorStore>, worker: (WorkerId, String), deadline: Deadline) -> (Self, Changes) {
        let (sender, jobs) = mpsc::unbounded_channel();
        (Self { jobs, store, worker, deadline }, Changes { jobs: sender })
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

    async fn write(&self, jobs: Vec<Job>) {
        let together = self.attempt(&jobs).await;
        for job in jobs {
            let written = match &together {
                // One of them is to blame, and the others are not to wait for it.
                Err(failure) if failure.is_final => self.attempt(std::slice::from_ref(&job)).await,
                together => together.clone(),
            };
            // Whoever asked may be gone.
            drop(job.reply.send(written.map_err(|failure| failure.problem)));
        }
    }

    async fn attempt(&self, jobs: &[Job]) -> Result<(), Failure> {
        if jobs.is_empty() {
            return Ok(());
        }
        let record = |job| {
            let Job { target, change, .. }: &Job = job;
            ProcessRecord { sensor: &target.sensor, active_rules: Some(target.active_rules), change }
        };
        let records: Vec<_> = jobs.iter().map(record).collect();
        let write = self.store.record_processes((self.worker.0, &self.worker.1), &records);
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
