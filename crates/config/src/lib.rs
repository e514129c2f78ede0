//! YAML and environment into one validated struct per section; the only reader of the environment.
//!
//! ```text
//!   command line ► variables ► config.<environment>.yaml ► base file ► default      (the strongest first)
//! ```
//!
//! A configuration that exists is valid. One that is not is refused with every problem at once, each with the name of the
//! variable, or with file, line and key; secrets are in [`attune_model::Secret`] and never part of a message. Each key is
//! one constant with its name, type, default and reason: reading, `docs/configuration.md` and the search for typing errors
//! work from the same ones.

mod agent;
mod child;
mod collections;
mod files;
mod key;
mod kinds;
mod layers;
mod notify;
mod problem;
mod reader;
mod reference;
mod sections;
mod source;
mod table;
mod unknown;

pub use agent::{
    HealthPlace, HubAgentConfig, Loaded, PlatformConfig, SensorAgentConfig, Sources, WorkerAgentConfig, load_database,
    load_hub, load_platform, load_sensor, load_sensor_health, load_worker, load_worker_health, working_folder,
};
pub use child::{OWN_PREFIX, PASSED_NAMES, PASSED_PREFIXES, child_env};
pub use kinds::parse_duration;
pub use notify::{ServiceManager, service_manager};
pub use problem::{Note, Problem, Rejected};
pub use reference::markdown;
pub use sections::agent::AgentConfig;
pub use sections::artifacts::{ArtifactsConfig, Transport};
pub use sections::child::{ChildConfig, RunAs};
pub use sections::database::DatabaseConfig;
pub use sections::executor::ExecutorConfig;
pub use sections::folders::Folders;
pub use sections::health::{HealthConfig, health_listen};
pub use sections::log::LogLevel;
pub use sections::message_queue::MessageQueueConfig;
pub use sections::security::SecurityConfig;
pub use sections::sensor::{SensorConfig, default_run_folder};
pub use sections::worker::WorkerConfig;
pub use source::{MapSource, ProcessEnvironment, Source, forget_process_env, process_env};
pub use table::{SENSOR_RUNTIMES, WORKER_RUNTIMES};
