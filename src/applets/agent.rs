//! The start that worker and sensor agent share: logging, detection, configuration, then the services.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::pin::pin;
use std::str::FromStr;
use std::time::Duration;

use argh::FromArgs;
use attune_config::{
    LogLevel, PlatformConfig, ProcessEnvironment, SENSOR_RUNTIMES, Sources, WORKER_RUNTIMES, working_folder,
};
use attune_health::Health;
use attune_lifecycle::{Lifecycle, Stop, Tasks};
use attune_model::JsonMap;
use attune_model::placement::Taint;
use attune_runtime::Advertised;
use serde_json::{Value, json};
use tokio::runtime::Runtime;
use tokio::time::timeout;
use tracing::level_filters::LevelFilter;

use crate::applet::VERSION;
use crate::applets::detect::{self, Detecting, Style};
use crate::applets::dev::STRAYS_LIMIT;
use crate::applets::host;
use crate::applets::machine;
use crate::applets::platform::Platform;
use crate::applets::vitals::{self, Service};
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

/// How long a start may go on that nobody wants any more.
const BEGIN_LIMIT: Duration = Duration::from_secs(2);

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

/// An agent that may read its configuration: the command line is understood, logs are written, runtimes are looked for.
#[derive(Debug)]
pub(crate) struct Start {
    role: Role,
    /// Variables of this process.
    pub(crate) environment: ProcessEnvironment,
    name: Option<String>,
    file: Option<String>,
    folder: PathBuf,
    telemetry: Telemetry,
    detection: Detecting,
}

/// Begins; none when the command line asked for a report, which is printed then.
pub(crate) fn begin(role: Role, arguments: AgentArguments) -> Result<Option<Start>, Failure> {
    let AgentArguments { config, name, detect_only, json, log_format, .. } = arguments;
    let prepared = host::prepare();
    let environment = prepared.environment;
    let telemetry = Telemetry::start(&environment, log_format, LevelFilter::INFO)?;
    prepared.log();
    match (detect_only, json) {
        (true, true) => return detect::report(role, Style::Json).map(|_| None),
        (true, false) => return detect::report(role, Style::Text).map(|_| None),
        (false, true) => return Err(Failure::usage("--json needs --detect-only")),
        (false, false) => {}
    }
    let name = name.map(|name| not_blank("--name", name)).transpose()?;
    let file = config.map(|file| not_blank("--config", file)).transpose()?;
    host::end_remains();
    let detection = Detecting::begin(&environment, role)?;
    Ok(Some(Start { role, environment, name, file, folder: working_folder(), telemetry, detection }))
}

impl Start {
    /// Where the configuration is read from.
    pub(crate) fn sources(&self) -> Sources<'_> {
        Sources { environment: &self.environment, file: self.file.as_deref().map(Path::new), folder: &self.folder }
    }

    /// `--name`.
    pub(crate) fn name(&self) -> Option<String> {
        self.name.clone()
    }

    /// Logs as it is configured from now on.
    pub(crate) fn log_as(&self, platform: &PlatformConfig) {
        self.telemetry.set_level(level(platform.log_level));
    }

    /// Decides which runtimes this agent offers, as soon as they are known.
    pub(crate) async fn offer(self, platform: &PlatformConfig, capabilities: &JsonMap) -> Result<Advertised, Failure> {
        let advertised = self.detection.answer().await?.advertise(self.role, capabilities);
        for warning in &advertised.warnings {
            tracing::warn!("{warning}");
        }
        tracing::info!(environment = platform.environment, "runtimes offered: {}", advertised.runtimes.join(", "));
        Ok(advertised)
    }
}

/// Connects to the platform, while `prepare` goes on, starts the service with both, and runs it until it is asked to stop.
/// Its health is told from before the first connection.
pub(crate) fn live<T>(
    runtime: Runtime,
    service: Service<'_>,
    config: &PlatformConfig,
    grace: Duration,
    prepare: impl Future<Output = Result<T, Failure>>,
    start: impl AsyncFnOnce(&Platform, T, &Health, (&Stop, &Tasks)) -> Result<(), Failure>,
) -> Result<Exit, Failure> {
    let ended = runtime.block_on(async {
        let mut lifecycle = Lifecycle::new().map_err(|error| Failure::new(Exit::OperatingSystem, error))?;
        let (stop, tasks) = (lifecycle.stop().clone(), lifecycle.tasks().clone());
        let listen = config.health.listen_of(service.role, service.name, &machine::process_space());
        let (health, _address) = vitals::begin(service, &listen, (&stop, &tasks)).await?;
        // A setting that cannot work ends the start at once, a server that cannot be reached when the rest is told.
        let connect = async { Ok(Platform::connect(config, service.name).await) };
        let beginning = async { tokio::try_join!(connect, prepare) };
        let Some((platform, prepared)) = lifecycle.starting(beginning).await.transpose()? else {
            return Ok(Exit::Success);
        };
        let platform = platform?;
        vitals::watch_bus(&health, platform.bus.state(), &tasks);
        let begun = started(&mut lifecycle, start(&platform, prepared, &health, (&stop, &tasks))).await;
        match &begun {
            Ok(()) => health.started(),
            Err(_) => stop.ask(),
        }
        let stopped = lifecycle.run(grace).await;
        platform.close().await;
        begun?;
        stopped.map(|()| Exit::Success).map_err(|error| Failure::new(Exit::Internal, error))
    });
    // With it go its children, so that nothing of theirs comes later.
    drop(runtime);
    attune_process::end_all_strays(STRAYS_LIMIT);
    ended
}

/// Starts the service. One that is asked to stop meanwhile gets to its end, if that comes soon: it may have said that it is
/// there, and only a service that was started takes that back.
async fn started(lifecycle: &mut Lifecycle, start: impl Future<Output = Result<(), Failure>>) -> Result<(), Failure> {
    let mut start = pin!(start);
    match lifecycle.starting(&mut start).await {
        Some(begun) => begun,
        None => timeout(BEGIN_LIMIT, start).await.unwrap_or(Ok(())),
    }
}

/// What an agent says about itself besides its runtimes: how it is deployed, what it is placed by, and whatever else was
/// configured, which is stronger than what is built in (keys: facts of the platform).
pub(crate) fn capabilities(
    program: &str,
    labels: &BTreeMap<String, String>,
    taints: &[Taint],
    configured: &JsonMap,
) -> JsonMap {
    let mut capabilities = JsonMap::new();
    let mut say = |key: &str, value: Value| capabilities.insert(key.to_owned(), value);
    say("agent_mode", true.into());
    say("agent_binary_name", program.into());
    say("agent_binary_version", VERSION.into());
    if !labels.is_empty() {
        say("labels", json!(labels));
    }
    if !taints.is_empty() {
        say("taints", json!(taints));
    }
    capabilities.extend(configured.clone());
    capabilities
}

/// How much the log has.
pub(crate) fn level(level: LogLevel) -> LevelFilter {
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
