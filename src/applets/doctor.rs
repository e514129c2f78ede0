//! `attune-agents doctor`: what is right and wrong with the place where an agent runs, each finding with what to do.
//!
//! Nothing is changed: what has to be tried is tried with something of its own that is gone afterwards. An agent whose start
//! fails tells the findings that matter by itself, see [`tell`].

mod finding;
mod folders;
mod kernel;
mod limits;
mod mounts;
mod runtimes;
mod servers;

use std::path::Path;
use std::time::Duration;

use argh::FromArgs;
use attune_config::{
    ChildConfig, Loaded, Note, PlatformConfig, Rejected, Sources, load_sensor, load_worker, process_env, working_folder,
};
use attune_store_postgres::Role as StoreRole;
use serde_json::json;
use tokio::time::timeout;

use crate::applets::agent::{Role, not_blank};
use crate::applets::detect::Detection;
use crate::applets::dev::STRAYS_LIMIT;
use crate::call::Call;
use crate::exit::{Exit, Failure};
use crate::output;
use crate::rt;
use finding::{Finding, Findings};

/// What an agent tells about a failed start must not keep it from ending.
const TELL_LIMIT: Duration = Duration::from_secs(8);

/// Looks at everything that an agent needs here: kernel, container, folders, interpreters, servers. Exit code 0: nothing is in
/// its way; 1: it runs, with less than it could have; else the code with which it would end.
#[derive(Debug, FromArgs)]
struct DoctorArguments {
    /// whose needs: worker (default) or sensor
    #[argh(positional, default = "Role::Worker")]
    agent: Role,
    #[argh(option, short = 'c', description = "configuration file (default: $ATTUNE_CONFIG, then ./config.yaml)")]
    config: Option<String>,
    /// print JSON
    #[argh(switch)]
    json: bool,
    /// leave out what is right
    #[argh(switch)]
    short: bool,
}

/// Runs it.
pub(crate) fn run(call: Call) -> Result<Exit, Failure> {
    call.with(|DoctorArguments { agent, config, json, short }| {
        let file = config.map(|file| not_blank("--config", file)).transpose()?;
        let findings = look(agent, file.as_deref().map(Path::new))?;
        let exit = findings.exit();
        let shown = findings.shown(short);
        let text = if json {
            let values: Vec<_> = shown.iter().map(|finding| finding.json()).collect();
            format!("{:#}\n", json!({ "agent": agent.as_str(), "findings": values, "exit_code": exit.number() }))
        } else {
            shown.iter().map(ToString::to_string).collect()
        };
        output::print(&text)?;
        Ok(exit)
    })
}

/// What `role` needs of its configuration.
struct Needs {
    platform: PlatformConfig,
    child: ChildConfig,
}

fn look(role: Role, file: Option<&Path>) -> Result<Findings, Failure> {
    let (environment, folder) = (process_env(), working_folder());
    let sources = Sources { environment: &environment, file, folder: &folder };
    let mut findings = Findings::default();
    for limit in attune_process::prepare() {
        let remedy = "let the container's seccomp profile allow it";
        findings.add(Finding::warning("children", limit, remedy));
    }
    let needs = configured(role, sources, &mut findings);
    findings.extend(kernel::look(needs.as_ref().map(|needs| &needs.child), &environment));
    let detection = Detection::of(&environment);
    findings.extend(runtimes::detected(role, &detection));
    if let Some(Needs { platform, .. }) = needs {
        findings.extend(folders::look(&platform));
        findings.extend(runtimes::environments(&platform.folders.runtime_envs, role, &detection));
        findings.extend(rt::one_thread()?.block_on(servers::look(store_role(role), &platform)));
    }
    attune_process::end_all_strays(STRAYS_LIMIT);
    Ok(findings)
}

fn configured(role: Role, sources: Sources<'_>, findings: &mut Findings) -> Option<Needs> {
    let loaded = match role {
        Role::Worker => load_worker(sources, None)
            .map(|Loaded { config, notes }| (Needs { platform: config.platform, child: config.worker.child }, notes)),
        Role::Sensor => load_sensor(sources, None)
            .map(|Loaded { config, notes }| (Needs { platform: config.platform, child: config.sensor.child }, notes)),
    };
    let (needs, notes) = match loaded {
        Ok((needs, notes)) => (Some(needs), notes),
        Err(Rejected { problems, notes }) => {
            for problem in problems {
                let remedy = "correct it; docs/configuration.md and `attune-agents config --markdown` list all keys";
                findings.add(Finding::problem("configuration", Exit::Configuration, problem.to_string(), remedy));
            }
            (None, notes)
        }
    };
    for note in notes {
        findings.add(match note {
            Note::Info(text) => Finding::fine("configuration", text),
            Note::Warning(text) => {
                Finding::warning("configuration", text, "correct the name, or take it out if nothing needs it")
            }
        });
    }
    needs
}

fn store_role(role: Role) -> StoreRole {
    match role {
        Role::Worker => StoreRole::Worker,
        Role::Sensor => StoreRole::Sensor,
    }
}

/// An agent whose start failed.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Patient<'a> {
    /// Which.
    pub(crate) role: Role,
    /// What it shares with the other.
    pub(crate) platform: &'a PlatformConfig,
    /// What its children are given.
    pub(crate) child: &'a ChildConfig,
}

/// What else is wrong here, in the log, if a start has failed. Says nothing when nothing is.
pub(crate) fn tell(patient: Patient<'_>, failure: &Failure) {
    // That one is about this program.
    if failure.exit() == Exit::Internal {
        return;
    }
    let Patient { role, platform, child } = patient;
    let Ok(runtime) = rt::one_thread() else { return };
    let mut findings = Findings::default();
    findings.extend(kernel::look(Some(child), &process_env()));
    findings.extend(folders::look(platform));
    let servers = async { timeout(TELL_LIMIT, servers::look(store_role(role), platform)).await };
    findings.extend(runtime.block_on(servers).unwrap_or_default());
    for finding in findings.shown(true) {
        tracing::warn!("doctor: {}", finding.line());
    }
}
