//! `attune-agents config`: checks the configuration of an agent, or prints the reference of all keys.

use std::path::Path;

use argh::FromArgs;
use attune_config::{Note, Rejected, Sources, load_sensor, load_worker, process_env, working_folder};

use crate::applets::agent::{Role, not_blank};
use crate::call::Call;
use crate::exit::{Exit, Failure};
use crate::output::{self, Output};

/// Checks the configuration as an agent would read it here, without connecting to anything.
#[derive(Debug, FromArgs)]
struct ConfigArguments {
    /// print the reference of all keys as Markdown instead
    #[argh(switch)]
    markdown: bool,
    /// whose configuration: worker (default) or sensor
    #[argh(option, default = "Role::Worker")]
    agent: Role,
    #[argh(option, short = 'c', description = "configuration file (default: $ATTUNE_CONFIG, then ./config.yaml)")]
    config: Option<String>,
}

/// Runs it.
pub(crate) fn run(call: Call) -> Result<Exit, Failure> {
    call.with(|ConfigArguments { markdown, agent, config }| {
        if markdown {
            output::print(&attune_config::markdown())
        } else {
            let config = config.map(|file| not_blank("--config", file)).transpose()?;
            check(agent, config.as_deref().map(Path::new))
        }
    })
}

fn check(agent: Role, file: Option<&Path>) -> Result<Exit, Failure> {
    let (environment, folder) = (process_env(), working_folder());
    let sources = Sources { environment: &environment, file, folder: &folder };
    let notes = match agent {
        Role::Worker => load_worker(sources, None).map(|loaded| loaded.notes),
        Role::Sensor => load_sensor(sources, None).map(|loaded| loaded.notes),
    };
    let mut output = Output::open()?;
    let shown = match &notes {
        Ok(notes) | Err(Rejected { notes, .. }) => notes,
    };
    for note in shown {
        match note {
            Note::Info(text) => output.line(text)?,
            Note::Warning(text) => output.line(&format!("warning: {text}"))?,
        }
    }
    notes.map_err(|rejected| Failure::new(Exit::Configuration, rejected))?;
    output.line("the configuration is valid")?;
    Ok(Exit::Success)
}
