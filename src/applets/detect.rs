//! `attune-agents detect`, and `--detect-only` of the agents: which runtimes this system has.
//!
//! Neither configuration nor any server is touched. The report is all that standard output carries.

use std::thread;
use std::time::{Duration, Instant};

use argh::FromArgs;
use attune_config::{Source, child_env, process_env};
use attune_model::JsonMap;
use attune_model::runtime_name::fold;
use attune_runtime::advertise::Sources;
use attune_runtime::report::Report;
use attune_runtime::{Advertised, Detected, Host, detect_only};
use tokio::sync::oneshot;

use crate::applets::agent::Role;
use crate::call::Call;
use crate::exit::{Exit, Failure};
use crate::output;

/// Reports the runtimes found on this system.
#[derive(Debug, FromArgs)]
struct DetectArguments {
    /// print JSON
    #[argh(switch)]
    json: bool,
    /// which agent's override to look at: worker (default) or sensor
    #[argh(option, default = "Role::Worker")]
    agent: Role,
}

/// How a report looks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Style {
    /// For people.
    Text,
    /// For programs.
    Json,
}

/// Runs it.
pub(crate) fn run(call: Call) -> Result<Exit, Failure> {
    call.with(|DetectArguments { json, agent }| report(agent, if json { Style::Json } else { Style::Text }))
}

/// A detection that goes on while the start does other things.
#[derive(Debug)]
pub(crate) struct Detecting {
    answer: oneshot::Receiver<Detection>,
}

impl Detecting {
    /// Probes what an agent of this `role` may offer: all, or what an operator chose.
    pub(crate) fn begin(environment: &dyn Source, role: Role) -> Result<Self, Failure> {
        let (host, overrides) = (Host::new(child_env(environment, &[])), Overrides::of(environment));
        let (sender, answer) = oneshot::channel();
        let probe = move || {
            let chosen = overrides.of_role(role).map(|names| names.split(',').map(fold).collect::<Vec<_>>());
            let wanted = |name: &str| chosen.as_ref().is_none_or(|chosen| chosen.iter().any(|it| it == name));
            let detection = Detection::by(overrides.clone(), || detect_only(&host, wanted));
            // Nobody waits any more when the start has failed.
            drop(sender.send(detection));
        };
        let started = thread::Builder::new().name("detect".to_owned()).spawn(probe);
        started.map_err(|error| Failure::new(Exit::OperatingSystem, error))?;
        Ok(Self { answer })
    }

    /// Waits for it.
    pub(crate) async fn answer(self) -> Result<Detection, Failure> {
        self.answer.await.map_err(|error| Failure::new(Exit::Internal, error))
    }
}

/// What the variables say.
#[derive(Debug, Clone)]
struct Overrides {
    worker: Option<String>,
    sensor: Option<String>,
}

impl Overrides {
    fn of(environment: &dyn Source) -> Self {
        // Names that are not UTF-8 name no runtime; they are warned about like other unknown ones.
        let value =
            |role: Role| environment.get(role.runtimes_variable()).map(|text| text.to_string_lossy().into_owned());
        Self { worker: value(Role::Worker), sensor: value(Role::Sensor) }
    }

    fn of_role(&self, role: Role) -> Option<&str> {
        match role {
            Role::Worker => self.worker.as_deref(),
            Role::Sensor => self.sensor.as_deref(),
        }
    }
}

/// What was found on this system, and what the variables say instead.
#[derive(Debug)]
pub(crate) struct Detection {
    detected: Vec<Detected>,
    took: Duration,
    overrides: Overrides,
}

impl Detection {
    /// Probes all interpreters side by side. Blocks for as long as the slowest of them.
    pub(crate) fn of(environment: &dyn Source) -> Self {
        let host = Host::new(child_env(environment, &[]));
        Self::by(Overrides::of(environment), || attune_runtime::detect(&host))
    }

    fn by(overrides: Overrides, detect: impl FnOnce() -> Vec<Detected>) -> Self {
        let begun = Instant::now();
        let detected = detect();
        Self { detected, took: begun.elapsed(), overrides }
    }

    /// What the agent offers, with the `capabilities` of its configuration.
    pub(crate) fn advertise(&self, role: Role, capabilities: &JsonMap) -> Advertised {
        attune_runtime::advertise(&Sources {
            variable: role.runtimes_variable(),
            override_value: self.overrides.of_role(role),
            detected: &self.detected,
            configured: capabilities,
        })
    }

    /// The interpreters of this system.
    pub(crate) fn detected(&self) -> &[Detected] {
        &self.detected
    }

    /// Whether an operator chose the runtimes.
    pub(crate) fn is_overridden(&self, role: Role) -> bool {
        self.overrides.of_role(role).is_some()
    }
}

/// Detects and prints.
pub(crate) fn report(role: Role, style: Style) -> Result<Exit, Failure> {
    let detection = Detection::of(&process_env());
    let in_force = detection.overrides.of_role(role).map(|_| detection.advertise(role, &JsonMap::new()));
    let report = Report {
        variable: role.runtimes_variable(),
        detected: &detection.detected,
        in_force: in_force.as_ref(),
        took: detection.took,
    };
    match style {
        Style::Text => output::print(&report.to_string()),
        Style::Json => output::print(&format!("{:#}\n", report.json())),
    }
}
