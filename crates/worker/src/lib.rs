//! The action worker: the dispatcher knows the world, the executor knows one execution.
//!
//! ```text
//!   queue ─► dispatcher ─► course ─► executor ─► child
//!                            │          └ prepare: parameters, secrets, runtime, environment, variables, delivery
//!                            └ claim, ack … finish, publish
//! ```
//!
//! Shapes and texts that others observe (queues, messages, variables, encodings, result) are facts of the platform.

mod announce;
mod cancellations;
mod capabilities;
mod claims;
mod config;
mod course;
mod detected;
mod dispatcher;
mod endings;
mod environment;
mod executor;
mod expired;
mod files;
mod filing;
mod heartbeat;
mod inline;
mod intake;
mod log_folders;
mod logs;
mod namesakes;
mod output;
mod pack_events;
mod packs;
mod parameters;
mod patience;
mod prepare;
mod readiness;
mod refused;
mod result;
#[cfg(test)]
mod result_tests;
mod room;
mod running;
mod runtimes;
mod scratch;
mod secrets;
mod shared;
mod spool;
mod subscription;
mod time_limit;
mod transport;
mod untold;

pub use attune_http::Transport;
pub use claims::Claims;
pub use config::{
    CHILD_GRACE, DEFAULT_OUTPUT_LIMIT, DEFAULT_TIME_LIMIT, ExecutorConfig, PackFolders, Transports, WorkerConfig,
};
pub use dispatcher::{BuildError, Worker};
pub use executor::{Control, Executor, ExecutorError, Sinks};
pub use result::{CapturedText, Conclusion, Ending, Kind, Ran};
pub use running::{Overview, RunningExecution};
pub use runtimes::runtime_of_file;
