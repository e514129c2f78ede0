//! Storage that loses calls: before they do anything, or after, so that only the answer is lost.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use attune_lifecycle::CancellationToken;
use attune_model::rows::{Action, Execution, Pack, Runtime, RuntimeVersion, Worker};
use attune_model::status::{ExecutionStatus, WorkerStatus};
use attune_model::{ExecutionId, JsonMap, PackEnvironmentId, RuntimeVersionId, WorkerId};
use attune_store::{
    AgentStore, Claim, DetectedRuntime, EndedLog, EnvironmentOutcome, EnvironmentRow, EnvironmentStore,
    EnvironmentTarget, Fence, FiledLogs, LogArtifact, LogStore, LogVersion, SecretValue, SensorFile, StoreError,
    WorkerRegistration, WorkerStore,
};
use chrono::{DateTime, Utc};
use serde_json::Value;

/// What is lost of one call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Lost {
    /// The call: nothing happens.
    Call,
    /// The answer: it happens.
    Answer,
    /// Nothing, but storage refuses it.
    Refused,
    /// Nothing, but it takes until [`Flaky::release`].
    Time,
    /// Nothing, but the answer comes after [`Flaky::release`].
    AnswerInTime,
    /// The call: nothing happens, and after [`Flaky::release`] that is known.
    CallLater,
    /// The answer: it happens, and after [`Flaky::release`] it is known that no answer comes.
    AnswerLater,
    /// The call, and the one who makes it: a bug.
    Caller,
    /// The answer, and the one who waits for it: a bug.
    CallerLater,
}

/// Real storage behind a connection that fails as planned.
#[derive(Debug, Clone)]
pub struct Flaky {
    store: Arc<dyn WorkerStore>,
    claims: Arc<Mutex<VecDeque<Lost>>>,
    finishes: Arc<Mutex<VecDeque<Lost>>>,
    filings: Arc<Mutex<VecDeque<Lost>>>,
    released: CancellationToken,
    is_silent: Arc<AtomicBool>,
}

impl Flaky {
    /// The next claims and finishes fail like this, later ones work.
    pub fn new(store: Arc<dyn WorkerStore>, claims: &[Lost], finishes: &[Lost]) -> Self {
        let plan = |losses: &[Lost]| Arc::new(Mutex::new(losses.iter().copied().collect()));
        let (claims, finishes) = (plan(claims), plan(finishes));
        Self {
            store,
            claims,
            finishes,
            filings: Arc::default(),
            released: CancellationToken::new(),
            is_silent: Arc::default(),
        }
    }

    /// The next filings of logs fail like this as well.
    pub fn filing(self, filings: &[Lost]) -> Self {
        self.filings.lock().unwrap().extend(filings);
        self
    }

    /// From now on it does not say what is unfinished.
    pub fn fall_silent(&self) {
        self.is_silent.store(true, Ordering::Relaxed);
    }

    /// Lets every call go on.
    pub fn release(&self) {
        self.released.cancel();
    }

    async fn through<T>(
        &self,
        plan: &Mutex<VecDeque<Lost>>,
        call: impl Future<Output = Result<T, StoreError>>,
    ) -> Result<T, StoreError> {
        let lost = plan.lock().unwrap().pop_front();
        let operation = "test".to_owned();
        match lost {
            None => call.await,
            Some(Lost::Call) => Err(StoreError::Unavailable { operation, source: "the connection is gone".into() }),
            Some(Lost::Answer) => {
                call.await?;
                Err(StoreError::Unavailable { operation, source: "the connection went away".into() })
            }
            Some(Lost::Refused) => Err(StoreError::Refused { operation, source: "too large".into() }),
            Some(Lost::Time) => {
                self.released.cancelled().await;
                call.await
            }
            Some(Lost::AnswerInTime) => {
                let answer = call.await;
                self.released.cancelled().await;
                answer
            }
            Some(Lost::CallLater) => {
                self.released.cancelled().await;
                Err(StoreError::Unavailable { operation, source: "the connection is gone".into() })
            }
            Some(Lost::AnswerLater) => {
                call.await?;
                self.released.cancelled().await;
                Err(StoreError::Unavailable { operation, source: "the connection went away".into() })
            }
            Some(Lost::Caller) => panic!("on purpose, before the call"),
            Some(Lost::CallerLater) => {
                call.await?;
                panic!("on purpose, after the call")
            }
        }
    }

    /// Whether everything that was planned has happened.
    pub fn is_over(&self) -> bool {
        self.claims.lock().unwrap().is_empty() && self.finishes.lock().unwrap().is_empty()
    }
}

#[async_trait]
impl WorkerStore for Flaky {
    async fn claim_execution(
        &self,
        id: ExecutionId,
        worker: WorkerId,
        scheduled_at: Option<DateTime<Utc>>,
    ) -> Result<Claim, StoreError> {
        self.through(&self.claims, self.store.claim_execution(id, worker, scheduled_at)).await
    }

    async fn finish_execution(
        &self,
        fence: &Fence,
        status: ExecutionStatus,
        result: &Value,
        secrets: &[SecretValue],
    ) -> Result<Option<ExecutionStatus>, StoreError> {
        let finish = self.store.finish_execution(fence, status, result, secrets);
        self.through(&self.finishes, finish).await
    }

    async fn execution_status(&self, id: ExecutionId) -> Result<Option<ExecutionStatus>, StoreError> {
        self.store.execution_status(id).await
    }

    async fn unfinished_executions(&self, worker: WorkerId) -> Result<Vec<(Fence, Execution)>, StoreError> {
        if self.is_silent.load(Ordering::Relaxed) {
            std::future::pending::<()>().await;
        }
        self.store.unfinished_executions(worker).await
    }

    async fn scheduled_executions(&self, worker: WorkerId) -> Result<Vec<ExecutionId>, StoreError> {
        self.store.scheduled_executions(worker).await
    }

    async fn ended_executions(&self, worker: WorkerId, ids: &[ExecutionId]) -> Result<Vec<Execution>, StoreError> {
        self.store.ended_executions(worker, ids).await
    }

    async fn packs_with_actions(&self, pack_ref: Option<&str>) -> Result<Vec<(Pack, Vec<Action>)>, StoreError> {
        self.store.packs_with_actions(pack_ref).await
    }
}

#[async_trait]
impl AgentStore for Flaky {
    async fn now(&self) -> Result<DateTime<Utc>, StoreError> {
        self.store.now().await
    }

    async fn register_worker(&self, registration: &WorkerRegistration) -> Result<Worker, StoreError> {
        self.store.register_worker(registration).await
    }

    async fn heartbeat(&self, worker: WorkerId, status: WorkerStatus) -> Result<bool, StoreError> {
        self.store.heartbeat(worker, status).await
    }

    async fn set_worker_status(&self, worker: WorkerId, status: WorkerStatus) -> Result<(), StoreError> {
        self.store.set_worker_status(worker, status).await
    }

    async fn set_capabilities(&self, worker: WorkerId, capabilities: &JsonMap) -> Result<(), StoreError> {
        self.store.set_capabilities(worker, capabilities).await
    }

    async fn runtimes(&self) -> Result<Vec<Runtime>, StoreError> {
        self.store.runtimes().await
    }

    async fn runtime_versions(&self) -> Result<Vec<RuntimeVersion>, StoreError> {
        self.store.runtime_versions().await
    }

    async fn add_detected_runtime(&self, runtime: &DetectedRuntime) -> Result<bool, StoreError> {
        self.store.add_detected_runtime(runtime).await
    }

    async fn set_verified_versions(&self, versions: &[(RuntimeVersionId, bool)]) -> Result<(), StoreError> {
        self.store.set_verified_versions(versions).await
    }
}

#[async_trait]
impl LogStore for Flaky {
    async fn add_log_version(&self, artifact: &LogArtifact) -> Result<LogVersion, StoreError> {
        self.store.add_log_version(artifact).await
    }

    async fn file_logs(&self, logs: &[EndedLog], executions: &[ExecutionId]) -> Result<FiledLogs, StoreError> {
        self.through(&self.filings, self.store.file_logs(logs, executions)).await
    }

    async fn log_versions(&self, id: ExecutionId) -> Result<Vec<(String, LogVersion)>, StoreError> {
        self.store.log_versions(id).await
    }

    async fn sensor_files(&self, sensor_refs: &[String]) -> Result<Vec<SensorFile>, StoreError> {
        self.store.sensor_files(sensor_refs).await
    }

    async fn set_log_sizes(&self, sizes: &[(i64, u64)]) -> Result<(), StoreError> {
        self.store.set_log_sizes(sizes).await
    }
}

#[async_trait]
impl EnvironmentStore for Flaky {
    async fn upsert_environment(&self, target: &EnvironmentTarget) -> Result<EnvironmentRow, StoreError> {
        self.store.upsert_environment(target).await
    }

    async fn environment(&self, id: PackEnvironmentId) -> Result<Option<EnvironmentRow>, StoreError> {
        self.store.environment(id).await
    }

    async fn claim_environment(
        &self,
        id: PackEnvironmentId,
        worker: WorkerId,
        lifetime: Duration,
    ) -> Result<bool, StoreError> {
        self.store.claim_environment(id, worker, lifetime).await
    }

    async fn renew_environment_claim(
        &self,
        id: PackEnvironmentId,
        worker: WorkerId,
        lifetime: Duration,
    ) -> Result<bool, StoreError> {
        self.store.renew_environment_claim(id, worker, lifetime).await
    }

    async fn mark_environment_outdated(&self, id: PackEnvironmentId) -> Result<(), StoreError> {
        self.store.mark_environment_outdated(id).await
    }

    async fn finish_environment(
        &self,
        id: PackEnvironmentId,
        worker: WorkerId,
        outcome: &EnvironmentOutcome,
    ) -> Result<bool, StoreError> {
        self.store.finish_environment(id, worker, outcome).await
    }
}
