//! Row ids as types of their own, so that a worker id cannot be passed where an execution id is wanted.

use std::fmt;

use serde::{Deserialize, Serialize};

macro_rules! id {
    ($($(#[$doc:meta])* $name:ident),* $(,)?) => {$(
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(transparent)]
        pub struct $name(pub i64);

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }
    )*};
}

id! {
    /// `action.id`.
    ActionId,
    /// `artifact.id`.
    ArtifactId,
    /// `artifact_version.id`.
    ArtifactVersionId,
    /// `enforcement.id`.
    EnforcementId,
    /// `event.id`.
    EventId,
    /// `execution.id`.
    ExecutionId,
    /// `identity.id`; identity 1 is the system's by convention of the platform.
    IdentityId,
    /// `pack.id`.
    PackId,
    /// `pack_environment.id`.
    PackEnvironmentId,
    /// `rule.id`.
    RuleId,
    /// `runtime.id`.
    RuntimeId,
    /// `runtime_version.id`.
    RuntimeVersionId,
    /// `sensor.id`.
    SensorId,
    /// `trigger.id`.
    TriggerId,
    /// `worker.id`, of action workers and sensor hosts alike.
    WorkerId,
}
