//! `attune-agents dev`: the whole system in one process, on embedded storage and an in-process bus.
//!
//! The services are the same that an installation runs; what is embedded is decided here and nowhere else.
//!
//! ```text
//!   detect ─► data folder ─► store, bus ─► hub ─► packs ─► worker, sensor host ─► ready
//!                                                  ▲                               │
//!                                                  └───── a file changed ◄─────────┘
//! ```

mod console;
mod data;
mod packs;
mod reload;
mod system;
mod tap;
mod watch;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use argh::FromArgs;
use attune_config::{Problem, Source, child_env, health_listen};
use attune_health::Parts;
use attune_hub::Hub;
use attune_lifecycle::{Lifecycle, Stop, Tasks};
use attune_model::activity::Both;
use attune_model::listen::Listen;
use attune_model::runtime_name::NATIVE;
use attune_model::{JsonMap, Secret};
use attune_runtime::Advertised;
use serde_json::json;
use tokio::time::timeout;
use tracing::level_filters::LevelFilter;

use crate::applets::agent::Role;
use crate::applets::detect::Detection;
use crate::applets::host;
use crate::applets::machine;
use crate::applets::user_code;
use crate::applets::vitals::{self, Service};
use crate::call::Call;
use crate::exit::{Exit, Failure};
use crate::rt;
use crate::telemetry::{LogFormat, Telemetry};

use self::console::{Console, Kind, Line, Style};
use self::data::{Data, DataError};
use self::packs::PackSet;
use self::reload::Loader;
use self::system::{Agents, Ground, Machine};

pub(crate) use self::system::hub_failed;

use self::tap::Tap;
use self::watch::{Change, Watch};

/// How long running actions may take to finish after the first Ctrl-C.
const GRACE: Duration = Duration::from_secs(10);

/// How long the last lines may take after everything has ended.
const LAST_LINES_LIMIT: Duration = Duration::from_secs(2);

/// How long descendants that left their group are looked for at the end.
pub(crate) const STRAYS_LIMIT: Duration = Duration::from_secs(2);

/// Life of the token for people; a longer session gets a new one at its next start.
const TOKEN_LIFETIME: Duration = Duration::from_hours(30 * 24);

/// Runs packs on this machine, with nothing else installed, and shows what happens.
#[derive(Debug, FromArgs)]
struct DevArguments {
    /// packs or folders of packs (default: packs)
    #[argh(positional)]
    packs: Vec<PathBuf>,
    /// folder for the database, environments and logs (default: .attune)
    #[argh(option, default = "PathBuf::from(\".attune\")")]
    data: PathBuf,
    /// address of the HTTP API (default: 127.0.0.1 and a free port)
    #[argh(option, default = "SocketAddr::from(([127, 0, 0, 1], 0))")]
    listen: SocketAddr,
    /// tell health and metrics at an address, `unix:/path` or `unix:@name` (default: `$ATTUNE__HEALTH__LISTEN`, then off)
    #[argh(option)]
    health: Option<Listen>,
    /// stop by itself after this time, for example 30s or 5m
    #[argh(option, long = "for", from_str_fn(attune_config::parse_duration))]
    limit: Option<Duration>,
    /// print one JSON object a line
    #[argh(switch)]
    json: bool,
    /// how log lines look on standard error: json or text (default: text, unless `ATTUNE_LOG_FORMAT` says so)
    #[argh(option)]
    log_format: Option<LogFormat>,
}

/// Runs it.
pub(crate) fn run(call: Call) -> Result<Exit, Failure> {
    call.with(|mut arguments: DevArguments| {
        let prepared = host::prepare();
        let environment = prepared.environment;
        // Facts are on standard output; the log has what goes wrong underneath.
        Telemetry::start(&environment, arguments.log_format, LevelFilter::WARN)?;
        prepared.log();
        host::end_remains();
        if arguments.packs.is_empty() {
            arguments.packs.push(PathBuf::from("packs"));
        }
        if arguments.health.is_none() {
            let problem = |problem: Problem| Failure::message(Exit::Configuration, problem.to_string());
            arguments.health = health_listen(&environment).map_err(problem)?;
        }
        let data = Data::open(&arguments.data).map_err(unusable)?;
        let machine = Machine::here(&environment, &Detection::of(&environment))?;
        let ended = rt::service()?.block_on(live(arguments, &environment, machine, Arc::new(data)));
        attune_process::end_all_strays(STRAYS_LIMIT);
        ended
    })
}

/// A data folder that somebody else uses is not available now; one that cannot be written never will be.
fn unusable(error: DataError) -> Failure {
    let exit = match &error {
        DataError::Locked { .. } => Exit::Unavailable,
        DataError::Unusable { .. } => Exit::OperatingSystem,
    };
    Failure::new(exit, error)
}

impl Machine {
    fn here(environment: &dyn Source, detection: &Detection) -> Result<Self, Failure> {
        Ok(Self {
            host: machine::host_name(),
            program: machine::program()?,
            passed: child_env(environment, &[]),
            temp: std::env::temp_dir(),
            worker: offered(detection, Role::Worker),
            sensor: offered(detection, Role::Sensor),
        })
    }
}

/// Without an operator who chose, native code of one's own packs may run.
fn offered(detection: &Detection, role: Role) -> Advertised {
    let mut advertised = detection.advertise(role, &JsonMap::new());
    for warning in &advertised.warnings {
        tracing::warn!("{warning}");
    }
    if !detection.is_overridden(role) {
        advertised.runtimes.push(NATIVE.to_owned());
        advertised.handed_on = Some(advertised.runtimes.join(","));
    }
    advertised
}

async fn live(
    arguments: DevArguments,
    environment: &dyn Source,
    machine: Machine,
    data: Arc<Data>,
) -> Result<Exit, Failure> {
    let mut lifecycle = Lifecycle::new().map_err(|error| Failure::new(Exit::OperatingSystem, error))?;
    let (stop, tasks) = (lifecycle.stop().clone(), lifecycle.tasks().clone());
    let style = if arguments.json { Style::Json } else { Style::Text };
    let no_color = environment.get("NO_COLOR").is_some_and(|value| !value.is_empty());
    let (console, written) = Console::start(style, no_color, stop.clone())?;
    // Lines are written until the very end, so their tasks are not among those that the drain waits for.
    let lines = Tasks::default();
    let ground = Ground::open(&data).await?;
    let start = Start { arguments, machine, data, ground: &ground, console: console.clone(), lines: lines.clone() };
    let begun = lifecycle.starting(Box::pin(start.run(&stop, &tasks))).await.unwrap_or(Ok(()));
    if begun.is_ok() {
        tasks.spawn(announce_stop(console, stop.clone()));
    } else {
        drop(console);
        stop.ask();
    }
    let stopped = lifecycle.run(GRACE).await;
    ground.close().await;
    // Whoever still holds the console after its limit has nothing to say any more.
    let written = timeout(LAST_LINES_LIMIT, written).await;
    begun?;
    stopped.map_err(|error| Failure::new(Exit::Internal, error))?;
    match written {
        Ok(Ok(result)) => result.map(|()| Exit::Success),
        Ok(Err(error)) => Err(Failure::new(Exit::Internal, error)),
        Err(_elapsed) => Ok(Exit::Success),
    }
}

async fn announce_stop(console: Console, stop: Stop) {
    stop.soft().cancelled().await;
    let text = format!("running actions have {} s to finish; Ctrl-C again stops at once", GRACE.as_secs());
    console.say(Line::new(Kind::Ready, "dev", "stopping").text(text)).await;
}

/// Everything that the start needs.
struct Start<'a> {
    arguments: DevArguments,
    machine: Machine,
    data: Arc<Data>,
    ground: &'a Ground,
    console: Console,
    lines: Tasks,
}

impl Start<'_> {
    /// Starts everything and says that it is ready.
    async fn run(self, stop: &Stop, tasks: &Tasks) -> Result<(), Failure> {
        let listen = self.arguments.health.clone().unwrap_or(Listen::Off);
        let this = Service { role: "dev", name: &self.machine.host, parts: Parts::BOTH };
        let (health, health_address) = vitals::begin(this, &listen, (stop, tasks)).await?;
        let hub = system::build_hub(self.arguments.listen, self.ground, &self.data).await?;
        let api = system::api_url(hub.local_addr());
        self.write_token(&hub)?;
        let artifacts = self.data.artifacts();
        let tap = Tap::build(&*self.ground.bus, self.ground.hub_store(), self.console.clone(), artifacts).await;
        let tap = tap.map_err(|error| Failure::new(Exit::Internal, error))?;
        self.lines.spawn(tap.run());
        let handle = hub.handle();
        hub.spawn(stop, tasks);

        // Changes are noticed from before the first look, so that none falls between the two.
        let watch = Watch::start(&self.arguments.packs, self.data.root());
        let mut loader = Loader {
            packs: PackSet::new(self.arguments.packs.clone()),
            data: self.data.clone(),
            hub: handle,
            console: self.console.clone(),
        };
        self.load(&mut loader).await?;

        let places = (self.ground, &*self.data);
        let observer = Arc::new(Both(Arc::new(self.console.clone()), health.metrics()));
        let mut agents = Agents::start(&self.machine, &api, places, observer, (stop, tasks)).await?;
        let (worker, sensors) = agents.overviews();
        vitals::watch_worker(&health, worker);
        vitals::watch_sensors(&health, sensors);
        user_code::tell_limits(user_code::unconfigured(), &health, tasks);
        health.started();
        match watch {
            Ok(watch) => drop(tasks.spawn(loader.follow(watch, stop.clone()))),
            Err(error) => self.say_blind(&error).await,
        }
        if agents.ready().await {
            self.console.say(self.ready_line(&api, &health_address)).await;
        }
        if let Some(limit) = self.arguments.limit {
            tasks.spawn(end_after(limit, stop.clone()));
        }
        Ok(())
    }

    async fn load(&self, loader: &mut Loader) -> Result<(), Failure> {
        self.data.clear_links().map_err(unusable)?;
        loader.apply(&Change::Unknown).await;
        if loader.packs.is_idle() {
            let text = "no pack could be loaded: name a pack or a folder of packs, and see the problems above";
            return Err(Failure::message(Exit::Failed, text));
        }
        let store = self.ground.hub_store();
        for pack_ref in system::remove_unused(&loader.hub, &*store, |pack_ref| loader.packs.uses(pack_ref)).await? {
            let text = "not among the packs of this start; its events and executions stay in the database";
            self.console.say(Line::new(Kind::Pack, pack_ref, "removed").text(text)).await;
        }
        Ok(())
    }

    async fn say_blind(&self, error: &notify::Error) {
        let text = format!("changes of packs are not noticed: {error}");
        self.console.say(Line::new(Kind::Error, "packs", "unwatched").text(&text).field("message", text)).await;
    }

    fn ready_line(&self, api: &str, health: &Listen) -> Line {
        let described = |advertised: &Advertised| {
            let versions = |name: &String| advertised.runtime_versions.get(name).and_then(|known| known.first());
            let words = advertised.runtimes.iter().map(|name| match versions(name) {
                Some(version) => format!("{name} {version}"),
                None => name.clone(),
            });
            words.collect::<Vec<_>>().join(", ")
        };
        let data = self.arguments.data.display();
        Line::new(Kind::Ready, "dev", "ready")
            .text(format!("{api}  runtimes: {}  data: {data}", described(&self.machine.worker)))
            .field("address", api)
            .field("health", health.to_string())
            .field("runtimes", json!(self.machine.worker.runtimes))
            .field("interpreters", json!(self.machine.worker.detected_interpreters))
            .field("data", data.to_string())
    }

    fn write_token(&self, hub: &Hub) -> Result<(), Failure> {
        let token: Secret = hub.handle().access_token(TOKEN_LIFETIME).map_err(hub_failed)?;
        self.data.write_token(&token).map_err(unusable)
    }
}

async fn end_after(limit: Duration, stop: Stop) {
    tokio::select! {
        () = tokio::time::sleep(limit) => stop.ask(),
        () = stop.soft().cancelled() => {}
    }
}
