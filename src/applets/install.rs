//! `attune-agents install`: the init container's job. Needs no shell, no interpreter, no configuration.

use std::fs::File;
use std::path::{Path, PathBuf};

use argh::FromArgs;
use attune_artefact::{Facts, InstallError, Installed, Machine, Order, Outcome, facts, verify};
use serde_json::json;

use crate::call::Call;
use crate::exit::{Exit, Failure};
use crate::output::{self, Output};

/// Where every deployment mounts the volume of the agents.
pub(crate) const DEFAULT_FOLDER: &str = "/opt/attune/agent";

/// The running file itself, also after its name went to another one.
const OWN_FILE: &str = "/proc/self/exe";

/// Copies this program and its links into a folder from which other containers run it. Safe to repeat, beside another
/// install and beside running agents.
#[derive(Debug, FromArgs)]
struct InstallArguments {
    /// change nothing: report what in the folder is not as an install of this program would leave it; exit code 1 if so
    #[argh(switch)]
    verify: bool,
    /// print one JSON object
    #[argh(switch)]
    json: bool,
    /// install this file instead of the running one
    #[argh(option, arg_name = "FILE")]
    from: Option<PathBuf>,
    #[argh(
        option,
        arg_name = "ARCH",
        description = "architecture of the file: x86_64 or aarch64 (default: this machine's)"
    )]
    arch: Option<String>,
    #[argh(positional, arg_name = "DIR", description = "the folder (default: /opt/attune/agent)")]
    folder: Option<PathBuf>,
}

/// Runs it.
pub(crate) fn run(call: Call) -> Result<Exit, Failure> {
    call.with(|InstallArguments { verify, json, from, arch, folder }| {
        let folder = folder.unwrap_or_else(|| PathBuf::from(DEFAULT_FOLDER));
        let source = from.unwrap_or_else(|| PathBuf::from(OWN_FILE));
        let machine = machine(arch.as_deref())?;
        if verify {
            return check(&folder, &source, machine, json);
        }
        let order = Order { folder: &folder, source: &source, machine, sha256: None };
        let installed = attune_artefact::install(&order).map_err(failure)?;
        output::print(&said(&installed, json))
    })
}

/// The architecture of this name; without a name that of this machine.
pub(crate) fn machine(name: Option<&str>) -> Result<Machine, Failure> {
    match name {
        Some("amd64") => Ok(Machine::X86_64),
        Some(name) => name.parse().map_err(|error| Failure::usage(format!("--arch: {error}"))),
        None => Machine::own().ok_or_else(|| Failure::usage("--arch: there is no agent for this machine")),
    }
}

/// What was done, for people or programs.
pub(crate) fn said(installed: &Installed, json: bool) -> String {
    let Installed { path, outcome, facts } = installed;
    let written = *outcome == Outcome::Written;
    if json {
        let machine = facts.machine.as_ref().map(|machine| machine.as_str()).ok();
        let object = json!({
            "path": path.to_string_lossy(), "written": written, "size_bytes": facts.size, "sha256": facts.sha256,
            "version": facts.version, "arch": machine,
        });
        return format!("{object}\n");
    }
    let version = facts.version.as_deref().unwrap_or("of unknown version");
    let done = if written { "installed" } else { "unchanged" };
    format!("{}: {done}, {version}, {} bytes, sha256 {}\n", path.display(), facts.size, facts.sha256)
}

/// The exit code of an error.
pub(crate) fn failure(error: InstallError) -> Failure {
    let exit = match &error {
        InstallError::Source { .. } => Exit::NoInput,
        InstallError::NotAProgram { .. }
        | InstallError::Stranger(_)
        | InstallError::WrongMachine { .. }
        | InstallError::Checksum { .. } => Exit::Data,
        InstallError::Busy(_) => Exit::Unavailable,
        InstallError::Place(_) => Exit::CannotCreate,
    };
    Failure::new(exit, error)
}

fn check(folder: &Path, source: &Path, machine: Machine, json: bool) -> Result<Exit, Failure> {
    let unreadable = |error| failure(InstallError::Source { path: source.to_owned(), source: error });
    let wanted: Facts = File::open(source).and_then(|mut file| facts(&mut file)).map_err(unreadable)?;
    attune_artefact::check(source, &wanted, machine, None).map_err(failure)?;
    let findings = verify(folder, &wanted, machine);
    let mut output = Output::open()?;
    if json {
        let findings: Vec<_> =
            findings.iter().map(|found| json!({ "name": found.name, "problem": found.problem })).collect();
        let object = json!({ "folder": folder.to_string_lossy(), "sha256": wanted.sha256, "problems": findings });
        output.line(&object.to_string())?;
    } else {
        for finding in &findings {
            output.text(&format!("{finding}\n"))?;
        }
        let count = findings.len();
        let verdict = if count == 0 { "as this program installs it".to_owned() } else { format!("{count} problems") };
        output.line(&format!("{}: {verdict}", folder.display()))?;
    }
    Ok(if findings.is_empty() { Exit::Success } else { Exit::Failed })
}
