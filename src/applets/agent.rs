//! The start that worker and sensor agent share: logging, detection, configuration, then the services.

use std::path::Path;
use std::str::FromStr;

use argh::FromArgs;
use attune_config::{
    Loaded, LogLevel, Note, PlatformConfig, Rejected, SENSOR_RUNTIMES, Sources, WORKER_RUNTIMES, load_sensor,
    load_worker, process_env, working_folder,
};
use attune_model::JsonMap;
use tracing::level_filters::LevelFilter;

use crate::applets::detect::{self, Detection, Style};
use crate::applets::dev::log_limits;
use crate::exit::{Exit, Failure};
use crate::telemetry::{LogFormat, Telemetry};

/// Runs until it is asked to stop with SIGTERM or SIGINT. Settings come from a YAML file and from the environment.
#[derive(Debug, FromArgs)]
pub(crate) struct AgentArguments {
    /// take on the duties of process 1 for the agent: forward signals, reap orphans (always done as process 1)
    #[expect(dead_code, reason = "taken off the command line before, see `init`; here for --help")]
    #[argh(switch)]
    init: bool,
    #[argh(option, short = 'c', description = "configuration file (default: $ATTUNE_CONFIG, then ./config.yaml)")]
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
    #[argh(option, description = "log lines on standard error: json or text (default: $ATTUNE_LOG_FORMAT, then text)")]
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

impl Role {
    /// Its word.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Worker => "worker",
            Self::Sensor => "sensor",
        }
    }

    /// The name of an agent that nobody gave one.
    pub(crate) fn default_name(self, host: &str) -> String {
        format!("{}-{host}", self.as_str())
    }

    /// The variable that overrides what this agent detects.
    pub(crate) fn runtimes_variable(self) -> &'static str {
        match self {
            Self::Worker => WORKER_RUNTIMES,
            Self::Sensor => SENSOR_RUNTIMES,
        }
    }
}

impl FromStr for Role {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "worker" => Ok(Self::Worker),
            "sensor" => Ok(Self::Sensor),
            _ => Err("expected `worker` or `sensor`"),
        }
    }
}

/// Starts the agent and runs it until it is asked to stop.
pub(crate) fn run(role: Role, arguments: AgentArguments) -> Result<Exit, Failure> {
    let AgentArguments { config, name, detect_only, json, log_format, .. } = arguments;
    let environment = process_env();
    let limits = attune_process::prepare();
    let telemetry = Telemetry::start(&environment, log_format, LevelFilter::INFO)?;
    log_limits(&limits);
    match (detect_only, json) {
        (true, true) => return detect::report(role, Style::Json),
        (true, false) => return detect::report(role, Style::Text),
        (false, true) => return Err(Failure::usage("--json needs --detect-only")),
        (false, false) => {}
    }
    let name = name.map(|name| not_blank("--name", name)).transpose()?;
    let config = config.map(|file| not_blank("--config", file)).transpose()?;
    let detection = Detection::of(&environment);
    let folder = working_folder();
    let sources = Sources { environment: &environment, file: config.as_deref().map(Path::new), folder: &folder };
    match role {
        Role::Worker => {
            let config = accept(load_worker(sources, name))?;
            prepare(role, &telemetry, &config.platform, &detection, &config.worker.capabilities);
        }
        Role::Sensor => {
            let config = accept(load_sensor(sources, name))?;
            prepare(role, &telemetry, &config.platform, &detection, &config.sensor.capabilities);
        }
    }
    Err(Failure::message(
        Exit::Unavailable,
        "this build has the embedded storage and message bus only: it cannot reach PostgreSQL and RabbitMQ; \
         use `attune-agents dev` to run packs without them",
    ))
}

/// Logs how the configuration came about, and hands it on when it is valid.
pub(crate) fn accept<T>(result: Result<Loaded<T>, Rejected>) -> Result<T, Failure> {
    let (notes, result) = match result {
        Ok(Loaded { config, notes }) => (notes, Ok(config)),
        Err(Rejected { problems, notes }) => (notes, Err(Rejected { problems, notes: Vec::new() })),
    };
    for note in notes {
        match note {
            Note::Info(text) => tracing::info!("{text}"),
            Note::Warning(text) => tracing::warn!("{text}"),
        }
    }
    result.map_err(|rejected| Failure::new(Exit::Configuration, rejected))
}

/// Logs at the configured level from now on, and says which runtimes this agent offers.
fn prepare(
    role: Role,
    telemetry: &Telemetry,
    platform: &PlatformConfig,
    detection: &Detection,
    capabilities: &JsonMap,
) {
    telemetry.set_level(level(platform.log_level));
    let advertised = detection.advertise(role, capabilities);
    for warning in &advertised.warnings {
        tracing::warn!("{warning}");
    }
    tracing::info!(environment = platform.environment, "runtimes offered: {}", advertised.runtimes.join(", "));
}

fn level(level: LogLevel) -> LevelFilter {
    match level {
        LogLevel::Trace => LevelFilter::TRACE,
        LogLevel::Debug => LevelFilter::DEBUG,
        LogLevel::Info => LevelFilter::INFO,
        LogLevel::Warn => LevelFilter::WARN,
        LogLevel::Error => LevelFilter::ERROR,
    }
}

/// The value of an option; an empty one is a variable of a script that was not set.
pub(crate) fn not_blank(option: &str, value: String) -> Result<String, Failure> {
    if value.trim().is_empty() { Err(Failure::usage(format!("{option} must not be empty"))) } else { Ok(value) }
}
