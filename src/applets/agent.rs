//! The start that worker and sensor host share: logging, detection, configuration.

use argh::FromArgs;
use attune_config::process_env;
use tracing::level_filters::LevelFilter;

use crate::exit::{Exit, Failure};
use crate::telemetry::{LogFormat, Telemetry};

/// Runs until it is asked to stop with SIGTERM or SIGINT. Settings come from a YAML file and from the environment.
#[derive(Debug, FromArgs)]
pub(crate) struct AgentArguments {
    /// configuration file (default: $ATTUNE_CONFIG, then ./config.yaml)
    #[argh(option, short = 'c')]
    config: Option<String>,
    /// name under which this agent registers
    #[argh(option, short = 'n')]
    name: Option<String>,
    /// report the runtimes found on this system and exit
    #[argh(switch)]
    detect_only: bool,
    /// with --detect-only: as JSON
    #[argh(switch)]
    json: bool,
    /// how log lines look on standard error: json or text (default: $ATTUNE_LOG_FORMAT, then text)
    #[argh(option)]
    log_format: Option<LogFormat>,
}

/// Which of the two agents.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Role {
    /// Takes executions.
    Worker,
    /// Keeps sensors alive.
    Sensor,
}

/// Starts the agent and runs it until it is asked to stop.
pub(crate) fn run(role: Role, arguments: AgentArguments) -> Result<Exit, Failure> {
    let environment = process_env();
    let AgentArguments { config, name, detect_only, json, log_format } = arguments;
    let telemetry = Telemetry::start(&environment, log_format, LevelFilter::INFO)?;
    drop((role, config, name, detect_only, json, telemetry));
    Err(Failure::message(
        Exit::Unavailable,
        "this build has the embedded storage only and cannot reach PostgreSQL and RabbitMQ; \
         `attune-agents dev` runs packs without them",
    ))
}
