//! Ids, states, rows, messages and the pure rules over them. No I/O, no async.
//!
//! Names and shapes that other Attune services observe are facts of the platform; they are marked as such where they
//! are declared. Everything else in the workspace depends on this crate and it depends on nothing of ours.

pub mod activity;
pub mod capabilities;
mod chain;
pub mod clock;
pub mod condition;
pub mod execution_config;
pub mod ids;
pub mod listen;
pub mod measure;
pub mod message;
pub mod order;
mod pattern;
pub mod placement;
mod plain_name;
pub mod rows;
pub mod runtime_name;
pub mod schema;
pub mod secret;
pub mod status;
pub mod version;

pub use chain::chain;
pub use ids::{
    ActionId, ArtifactId, ArtifactVersionId, EnforcementId, EventId, ExecutionId, IdentityId, PackEnvironmentId,
    PackId, RuleId, RuntimeId, RuntimeVersionId, SensorId, TriggerId, WorkerId,
};
pub use pattern::{FirstGroup, Pattern, PatternError};
pub use plain_name::is_plain_name;
pub use secret::Secret;

/// JSON objects as the database and the messages carry them.
pub type JsonMap = serde_json::Map<String, serde_json::Value>;
