//! `attune-agents health`: asks an agent on this machine how it is. The health check of containers that have no curl, no
//! shell and no writable folder.
//!
//! No runtime, no logging, one thread: it is started every few seconds for as long as the agent lives.

use std::path::Path;
use std::str::FromStr;
use std::time::Duration;

use argh::FromArgs;
use attune_config::{Loaded, Note, Sources, load_sensor_health, load_worker_health, process_env, working_folder};
use attune_health::{Answer, Question, Target, ask};
use attune_model::listen::Listen;

use crate::applets::agent::{Role, not_blank};
use crate::applets::hub;
use crate::applets::machine::{host_name, process_space};
use crate::call::Call;
use crate::exit::{Exit, Failure};
use crate::output;

/// An agent that is well answers within a millisecond; orchestrators give checks a few seconds.
const DEFAULT_LIMIT: Duration = Duration::from_secs(3);

/// Asks an agent on this machine how it is. Exit code 0: yes; 1: no, with the reasons; 69: nobody answers.
/// Configuration and environment are read as the agent reads them, to find out where it listens.
#[derive(Debug, FromArgs)]
struct HealthArguments {
    /// worker (default), sensor or hub
    #[argh(positional, default = "Asked::Agent(Role::Worker)")]
    service: Asked,
    #[argh(option, short = 'c', description = "configuration file (default: $ATTUNE_CONFIG, then ./config.yaml)")]
    config: Option<String>,
    /// name of the agent, if its command line gives one
    #[argh(option, short = 'n')]
    name: Option<String>,
    /// what to ask: ready (default), live, status or metrics
    #[argh(option, default = "Question::Ready")]
    ask: Question,
    /// ask at this Unix socket: a path, or @ and a name
    #[argh(option)]
    socket: Option<String>,
    /// ask at this address: http://host:port
    #[argh(option)]
    url: Option<String>,
    /// how long to wait for the answer (default: 3s)
    #[argh(option, default = "DEFAULT_LIMIT", from_str_fn(attune_config::parse_duration))]
    timeout: Duration,
}

/// Whose health.
#[derive(Debug, Clone, Copy)]
enum Asked {
    Agent(Role),
    Hub,
}

impl FromStr for Asked {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "hub" => Ok(Self::Hub),
            _ => text.parse().map(Self::Agent).map_err(|_unknown| "expected `worker`, `sensor` or `hub`"),
        }
    }
}

/// Runs it.
pub(crate) fn run(call: Call) -> Result<Exit, Failure> {
    call.with(|arguments: HealthArguments| {
        let (question, limit) = (arguments.ask, arguments.timeout);
        let target = target(arguments)?;
        let Answer { yes, text } =
            ask(&target, question, limit).map_err(|error| Failure::new(Exit::Unavailable, error))?;
        output::print(&text)?;
        Ok(if yes { Exit::Success } else { Exit::Failed })
    })
}

fn target(arguments: HealthArguments) -> Result<Target, Failure> {
    let HealthArguments { service, config, name, socket, url, .. } = arguments;
    let listen = match (socket, url) {
        (Some(_), Some(_)) => return Err(Failure::usage("--socket and --url exclude each other")),
        (None, Some(url)) => {
            return Target::of_url(&url).map_err(|problem| Failure::usage(format!("--url {problem}")));
        }
        (Some(socket), None) => {
            let place = if socket.starts_with("unix:") { socket } else { format!("unix:{socket}") };
            place.parse().map_err(|problem| Failure::usage(format!("--socket: {problem}")))?
        }
        (None, None) => configured(service, config, name)?,
    };
    Target::of(&listen).ok_or_else(|| Failure::message(Exit::Unavailable, "health.listen is off: nobody answers"))
}

/// Where an agent with this configuration listens.
fn configured(service: Asked, config: Option<String>, name: Option<String>) -> Result<Listen, Failure> {
    let name = name.map(|name| not_blank("--name", name)).transpose()?;
    let config = config.map(|file| not_blank("--config", file)).transpose()?;
    let (environment, folder) = (process_env(), working_folder());
    let sources = Sources { environment: &environment, file: config.as_deref().map(Path::new), folder: &folder };
    let loaded = match service {
        Asked::Agent(Role::Worker) | Asked::Hub => load_worker_health(sources, name),
        Asked::Agent(Role::Sensor) => load_sensor_health(sources, name),
    };
    let Loaded { config: place, notes } = loaded.map_err(|rejected| Failure::new(Exit::Configuration, rejected))?;
    // The agent has said them in its log; here they would be said every few seconds.
    drop::<Vec<Note>>(notes);
    let space = process_space();
    Ok(match service {
        Asked::Hub => place.health.listen_of("hub", hub::NAME, &space),
        Asked::Agent(role) => {
            let name = place.name.unwrap_or_else(|| role.default_name(&host_name()));
            place.health.listen_of(role.as_str(), &name, &space)
        }
    })
}
