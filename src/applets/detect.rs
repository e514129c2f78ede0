//! `attune-agents detect`, and `--detect-only` of the agents: which runtimes this system has.
//!
//! Neither configuration nor any server is touched. The report is all that standard output carries.

use std::time::{Duration, Instant};

use argh::FromArgs;
use attune_config::{Source, child_env, process_env};
use attune_model::JsonMap;
use attune_runtime::advertise::Sources;
use attune_runtime::report::Report;
use attune_runtime::{Advertised, Detected, Host};

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

/// What was found on this system, and what the variables say instead.
#[derive(Debug)]
pub(crate) struct Detection {
    detected: Vec<Detected>,
    took: Duration,
    worker_override: Option<String>,
    sensor_override: Option<String>,
}

impl Detection {
    /// Probes all interpreters side by side. Blocks for as long as the slowest of them, so it comes before the runtime.
    pub(crate) fn of(environment: &dyn Source) -> Self {
        let begun = Instant::now();
        let detected = attune_runtime::detect(&Host::new(child_env(environment, &[])));
        // Names that are not UTF-8 name no runtime; they are warned about like other unknown ones.
        let value =
            |role: Role| environment.get(role.runtimes_variable()).map(|text| text.to_string_lossy().into_owned());
        Self {
            detected,
            took: begun.elapsed(),
            worker_override: value(Role::Worker),
            sensor_override: value(Role::Sensor),
        }
    }

    /// What the agent offers, with the `capabilities` of its configuration.
    pub(crate) fn advertise(&self, role: Role, capabilities: &JsonMap) -> Advertised {
        attune_runtime::advertise(&Sources {
            variable: role.runtimes_variable(),
            override_value: self.override_of(role),
            detected: &self.detected,
            configured: capabilities,
        })
    }

    /// Whether an operator chose the runtimes.
    pub(crate) fn is_overridden(&self, role: Role) -> bool {
        self.override_of(role).is_some()
    }

    fn override_of(&self, role: Role) -> Option<&str> {
        match role {
            Role::Worker => self.worker_override.as_deref(),
            Role::Sensor => self.sensor_override.as_deref(),
        }
    }
}

/// Detects and prints.
pub(crate) fn report(role: Role, style: Style) -> Result<Exit, Failure> {
    let detection = Detection::of(&process_env());
    let in_force = detection.override_of(role).map(|_| detection.advertise(role, &JsonMap::new()));
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
