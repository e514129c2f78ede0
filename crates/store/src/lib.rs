//! What worker, sensor host and hub need from storage, as one small trait per role.
//!
//! Implementations: `attune-store-sqlite` (embedded); PostgreSQL on the platform's schema. Both pass the contract tests
//! of `attune-testkit`. Every method is one unit of work: nothing is left half-written when it fails, and no transaction
//! is open while anything outside the store is awaited. Times in rows come from the store's clock, never the caller's.

mod agent;
mod artifact;
mod environment;
mod error;
mod hub;
mod lease;
mod log;
mod sensor;
mod worker;

pub use agent::{AgentStore, DetectedRuntime, WorkerRegistration};
pub use artifact::{
    AddedVersion, ArtifactChange, ArtifactStore, NewArtifact, NewVersion, VersionContent, VersionNumber, artifact_path,
};
pub use environment::{EnvironmentOutcome, EnvironmentRow, EnvironmentStore, EnvironmentTarget};
pub use error::{Decision, StoreError};
pub use hub::{
    Cancel, Candidate, Decide, Enforced, EventSource, ExecutionFilter, ExecutionGuard, ExecutionView, HubStore, Intake,
    KeyOwner, NewAction, NewEnforcement, NewEvent, NewExecution, NewKey, NewPack, NewRule, NewRuntime,
    NewRuntimeVersion, NewSensor, NewTrigger, Orphan, Overdue, PackChanges, PackRemoval, Page, PageRequest,
    PlacementOverride, RuleChange, RuleTarget, Schedulable, Skipped, TokenSubject,
};
pub use lease::{Beginning, HostProcess, HostSession, LeaseStore, Renewal, Runner, UNLEASED_LIFE};
pub use log::{EndedLog, FiledLogs, LogArtifact, LogStore, LogStream, LogVersion, RegisteredFile, SensorFile};
pub use sensor::{DesiredSensor, ProcessChange, ProcessEnd, ProcessRecord, SensorStore};
pub use worker::{
    CANCELLED_TEXT, Claim, ClaimedExecution, Fence, KeyRow, SecretValue, WorkerStore, cancelled_result,
    cancelled_status,
};
