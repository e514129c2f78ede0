//! The whole configuration of an agent: files and variables in, one validated struct out.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use attune_model::Secret;

use crate::files::{self, DEFAULT_ENVIRONMENT, ENVIRONMENT_VARIABLE, Places};
use crate::layers::{Layers, NOT_TEXT};
use crate::problem::{Note, Problem, Rejected};
use crate::reader::Reader;
use crate::sections::agent::{self, AgentConfig};
use crate::sections::artifacts::{self, ArtifactsConfig};
use crate::sections::database::{self, DatabaseConfig};
use crate::sections::executor::{self, ExecutorConfig};
use crate::sections::folders::{self, Folders};
use crate::sections::health::{self, HealthConfig};
use crate::sections::log::{self, LogLevel};
use crate::sections::message_queue::{self, MessageQueueConfig};
use crate::sections::security::{self, SecurityConfig};
use crate::sections::sensor::{self, SensorConfig};
use crate::sections::server;
use crate::sections::start;
use crate::sections::worker::{self, WorkerConfig};
use crate::{Source, unknown};

/// Where settings come from.
#[derive(Debug, Clone, Copy)]
pub struct Sources<'a> {
    /// Variables.
    pub environment: &'a dyn Source,
    /// The file that the command line names.
    pub file: Option<&'a Path>,
    /// The working folder: files are looked for here, and relative folders are meant from here.
    pub folder: &'a Path,
}

/// A configuration that can be used.
#[derive(Debug, Clone)]
pub struct Loaded<T> {
    /// The settings.
    pub config: T,
    /// Which files were used, and what is odd.
    pub notes: Vec<Note>,
}

/// What both agents need.
#[derive(Debug, Clone)]
pub struct PlatformConfig {
    /// Name of the environment, for the log.
    pub environment: String,
    /// Where health is told.
    pub health: HealthConfig,
    /// How much is logged.
    pub log_level: LogLevel,
    /// The connection to PostgreSQL.
    pub database: DatabaseConfig,
    /// The connection to RabbitMQ.
    pub message_queue: MessageQueueConfig,
    /// How long a start waits for both.
    pub startup_timeout: Duration,
    /// Keys shared with the API.
    pub security: SecurityConfig,
    /// Base address of the API, without a slash at its end.
    pub api_url: String,
    /// Shared folders.
    pub folders: Folders,
    /// How files reach the platform.
    pub artifacts: ArtifactsConfig,
}

/// Everything that the worker needs.
#[derive(Debug, Clone)]
pub struct WorkerAgentConfig {
    /// What both agents need.
    pub platform: PlatformConfig,
    /// The worker's own section.
    pub worker: WorkerConfig,
}

/// Everything that the sensor agent needs.
#[derive(Debug, Clone)]
pub struct SensorAgentConfig {
    /// What both agents need.
    pub platform: PlatformConfig,
    /// The sensor agent's own section.
    pub sensor: SensorConfig,
    /// The broker's address that sensors are told.
    pub sensors_message_queue_url: Secret,
}

/// Everything that the hub needs.
#[derive(Debug, Clone)]
pub struct HubAgentConfig {
    /// What it shares with the agents.
    pub platform: PlatformConfig,
    /// Where it listens.
    pub listen: SocketAddr,
    /// What it does as executor.
    pub executor: ExecutorConfig,
    /// Where the agents' binary is, when it is handed out.
    pub downloads: Option<AgentConfig>,
}

/// Reads what a worker needs; `name` is what the command line calls it. Keys of the other agent are not looked at.
pub fn load_worker(sources: Sources<'_>, name: Option<String>) -> Result<Loaded<WorkerAgentConfig>, Rejected> {
    load(sources, |reader, environment| WorkerAgentConfig {
        platform: platform(reader, environment, folders::for_worker),
        worker: worker::read(reader, name),
    })
}

/// Reads what a sensor agent needs; `name` is what the command line calls it. Keys of the other agent are not looked at.
pub fn load_sensor(sources: Sources<'_>, name: Option<String>) -> Result<Loaded<SensorAgentConfig>, Rejected> {
    load(sources, |reader, environment| {
        let mut platform = platform(reader, environment, folders::for_sensor);
        let sensors_message_queue_url = message_queue::for_sensors(reader, &platform.message_queue);
        let sensor = sensor::read(reader, name);
        platform.database.follow_leases(sensor.lease_time);
        SensorAgentConfig { platform, sensor, sensors_message_queue_url }
    })
}

/// Reads what the hub needs. Keys of the agents are not looked at.
pub fn load_hub(sources: Sources<'_>) -> Result<Loaded<HubAgentConfig>, Rejected> {
    load(sources, |reader, environment| HubAgentConfig {
        platform: platform(reader, environment, folders::for_worker),
        listen: server::listen(reader),
        executor: executor::read(reader),
        downloads: agent::read(reader),
    })
}

/// Reads what agents and hub have in common, for commands that look after the installation.
pub fn load_platform(sources: Sources<'_>) -> Result<Loaded<PlatformConfig>, Rejected> {
    load(sources, |reader, environment| platform(reader, environment, folders::for_worker))
}

/// Reads the database's section alone: whoever makes the schema needs no other secrets.
pub fn load_database(sources: Sources<'_>) -> Result<Loaded<DatabaseConfig>, Rejected> {
    load(sources, |reader, _environment| database::read(reader))
}

/// Where an agent tells its health, and under which name.
#[derive(Debug, Clone)]
pub struct HealthPlace {
    /// The configured name.
    pub name: Option<String>,
    /// The section.
    pub health: HealthConfig,
}

/// Reads what leads to a worker's health, and nothing else: a check of health needs no secrets and no valid rest.
pub fn load_worker_health(sources: Sources<'_>, name: Option<String>) -> Result<Loaded<HealthPlace>, Rejected> {
    load(sources, |reader, _environment| HealthPlace { name: worker::name(reader, name), health: health::read(reader) })
}

/// The same for a sensor agent.
pub fn load_sensor_health(sources: Sources<'_>, name: Option<String>) -> Result<Loaded<HealthPlace>, Rejected> {
    load(sources, |reader, _environment| HealthPlace { name: sensor::name(reader, name), health: health::read(reader) })
}

/// The working folder of the process; `/` when it has none any more.
pub fn working_folder() -> PathBuf {
    std::env::current_dir().unwrap_or_else(|_gone| PathBuf::from("/"))
}

fn load<T>(sources: Sources<'_>, read: impl FnOnce(&mut Reader<'_>, String) -> T) -> Result<Loaded<T>, Rejected> {
    let mut problems = Vec::new();
    let environment = environment_name(sources.environment).unwrap_or_else(|problem| {
        problems.push(problem);
        DEFAULT_ENVIRONMENT.to_owned()
    });
    let places = Places { named: sources.file, folder: sources.folder, environment: &environment };
    let files = files::load(&places, sources.environment);
    let mut notes = files.notes;
    problems.extend(files.problems);
    let layers = Layers::new(sources.environment, files.loaded);
    let (odd, wrong) = unknown::check(&layers, sources.environment);
    notes.extend(odd);
    problems.extend(wrong);
    let mut reader = Reader::new(&layers, sources.environment, sources.folder);
    let config = read(&mut reader, environment);
    problems.append(&mut reader.problems);
    notes.append(&mut reader.notes);
    if problems.is_empty() { Ok(Loaded { config, notes }) } else { Err(Rejected { problems, notes }) }
}

fn platform(reader: &mut Reader<'_>, environment: String, folders: fn(&mut Reader<'_>) -> Folders) -> PlatformConfig {
    PlatformConfig {
        environment,
        health: health::read(reader),
        log_level: log::read(reader),
        database: database::read(reader),
        message_queue: message_queue::read(reader),
        startup_timeout: start::read(reader),
        security: security::read(reader),
        api_url: server::api_url(reader),
        folders: folders(reader),
        artifacts: artifacts::read(reader),
    }
}

/// The name becomes part of a file name, so it is one word.
fn environment_name(source: &dyn Source) -> Result<String, Problem> {
    let problem = |message: &str| Problem { place: ENVIRONMENT_VARIABLE.to_owned(), message: message.to_owned() };
    let Some(value) = source.get(ENVIRONMENT_VARIABLE).filter(|value| !value.is_empty()) else {
        return Ok(DEFAULT_ENVIRONMENT.to_owned());
    };
    let name = value.into_string().map_err(|_bytes| problem(NOT_TEXT))?;
    let word = name.chars().all(|letter| letter.is_alphanumeric() || matches!(letter, '-' | '_' | '.'));
    if word { Ok(name) } else { Err(problem("must be one word of letters, digits, `-`, `_` and `.`")) }
}
