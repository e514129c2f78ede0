//! `attune-agents packs`: checks pack folders, shows what is in them, or loads them into an installation.
//!
//! What is wrong with a pack is the answer of `packs check` and goes to standard output.

mod copy;
mod load;

use std::path::PathBuf;

use argh::FromArgs;
use attune_packs::{Loaded, PackContent, Severity};
use serde_json::{Value, json};

use crate::call::Call;
use crate::exit::{Exit, Failure};
use crate::output::Output;

/// Checks pack folders, shows what is in them, or loads them into an installation.
#[derive(Debug, FromArgs)]
struct PacksArguments {
    #[argh(subcommand)]
    command: PacksCommand,
}

#[derive(Debug, FromArgs)]
#[argh(subcommand)]
enum PacksCommand {
    Check(CheckArguments),
    Show(ShowArguments),
    Load(load::LoadArguments),
}

/// Reports every problem with file, line and field; exit code 1 if one of them is an error.
#[derive(Debug, FromArgs)]
#[argh(subcommand, name = "check")]
struct CheckArguments {
    /// a pack, or a folder of packs
    #[argh(positional, arg_name = "DIR")]
    folders: Vec<PathBuf>,
}

/// Shows what is in packs.
#[derive(Debug, FromArgs)]
#[argh(subcommand, name = "show")]
struct ShowArguments {
    /// print one JSON object
    #[argh(switch)]
    json: bool,
    /// a pack, or a folder of packs
    #[argh(positional, arg_name = "DIR")]
    folders: Vec<PathBuf>,
}

/// Runs it.
pub(crate) fn run(call: Call) -> Result<Exit, Failure> {
    call.with(|PacksArguments { command }| match command {
        PacksCommand::Check(CheckArguments { folders }) => check(&read(&folders)?),
        PacksCommand::Show(ShowArguments { json: true, folders }) => show_json(&read(&folders)?),
        PacksCommand::Show(ShowArguments { json: false, folders }) => show(&read(&folders)?),
        PacksCommand::Load(arguments) => {
            let loaded = read(&arguments.folders)?;
            load::run(arguments, &loaded)
        }
    })
}

fn read(folders: &[PathBuf]) -> Result<Loaded, Failure> {
    if folders.is_empty() {
        return Err(Failure::usage("no folder given: name a pack or a folder of packs"));
    }
    Ok(attune_packs::load(folders))
}

/// The core runtimes that are built in are nobody's folder.
fn packs(loaded: &Loaded) -> impl Iterator<Item = &PackContent> {
    loaded.packs.iter().filter(|content| !content.is_builtin())
}

fn verdict(loaded: &Loaded) -> Exit {
    if loaded.has_errors() { Exit::Failed } else { Exit::Success }
}

fn check(loaded: &Loaded) -> Result<Exit, Failure> {
    let mut output = Output::open()?;
    print_problems(&mut output, loaded)?;
    let errors = loaded.problems.iter().filter(|problem| problem.severity == Severity::Error).count();
    let warnings = loaded.problems.len() - errors;
    let good = packs(loaded).count();
    output.line(&format!(
        "{} good, {}, {}",
        counted(good, "pack"),
        counted(errors, "error"),
        counted(warnings, "warning")
    ))?;
    Ok(verdict(loaded))
}

fn print_problems(output: &mut Output, loaded: &Loaded) -> Result<(), Failure> {
    for problem in &loaded.problems {
        output.text(&format!("{problem}\n"))?;
    }
    Ok(())
}

fn counted(count: usize, what: &str) -> String {
    let plural = if count == 1 { "" } else { "s" };
    format!("{count} {what}{plural}")
}

fn show(loaded: &Loaded) -> Result<Exit, Failure> {
    let mut output = Output::open()?;
    for content in packs(loaded) {
        output.text(&describe(content))?;
    }
    print_problems(&mut output, loaded)?;
    output.flush()?;
    Ok(verdict(loaded))
}

/// One paragraph a pack: a heading, then one line for each component.
fn describe(content: &PackContent) -> String {
    let pack = &content.pack;
    let mut text = format!("{} {} ({})\n", pack.r#ref, pack.version, content.path.display());
    let mut row = |kind: &str, name: &str, about: String| {
        text.push_str(format!("  {kind:<8} {name:<36} {about}").trim_end());
        text.push('\n');
    };
    for runtime in &pack.runtimes {
        let versions: Vec<&str> = runtime.versions.iter().map(|version| version.version.as_str()).collect();
        let versions = if versions.is_empty() { String::new() } else { format!(", versions {}", versions.join(" ")) };
        row("runtime", &runtime.r#ref, format!("{}{versions}", runtime.name));
    }
    for trigger in &pack.triggers {
        row("trigger", &trigger.r#ref, switched_off(trigger.enabled).to_owned());
    }
    for sensor in &pack.sensors {
        let about = format!("{} emits {}", sensor.runtime_ref, sensor.trigger_refs.join(" "));
        row("sensor", &sensor.r#ref, format!("{about}{}", switched_off(sensor.enabled)));
    }
    for action in &pack.actions {
        let runtime = action.runtime_ref.as_deref().unwrap_or("any runtime");
        let input = format!("{} {}", action.parameter_delivery, action.parameter_format);
        row("action", &action.r#ref, format!("{runtime}, in {input}, out {}", action.output_format));
    }
    for rule in &pack.rules {
        let about = format!("{} -> {}", rule.trigger_ref, rule.action_ref);
        row("rule", &rule.r#ref, format!("{about}{}", switched_off(rule.enabled)));
    }
    text
}

fn switched_off(enabled: bool) -> &'static str {
    if enabled { "" } else { " (switched off)" }
}

fn show_json(loaded: &Loaded) -> Result<Exit, Failure> {
    let problems: Vec<Value> = loaded
        .problems
        .iter()
        .map(|problem| {
            let severity = if problem.severity == Severity::Error { "error" } else { "warning" };
            json!({
                "file": problem.file.to_string_lossy(), "line": problem.line, "field": problem.field,
                "message": problem.message, "severity": severity,
            })
        })
        .collect();
    let packs: Vec<Value> = packs(loaded).map(pack_json).collect();
    let mut output = Output::open()?;
    output.line(&json!({ "packs": packs, "problems": problems }).to_string())?;
    Ok(verdict(loaded))
}

fn pack_json(content: &PackContent) -> Value {
    let pack = &content.pack;
    let runtimes: Vec<Value> = pack
        .runtimes
        .iter()
        .map(|runtime| {
            let versions: Vec<&str> = runtime.versions.iter().map(|version| version.version.as_str()).collect();
            json!({ "ref": runtime.r#ref, "name": runtime.name, "aliases": runtime.aliases, "versions": versions })
        })
        .collect();
    json!({
        "ref": pack.r#ref, "label": pack.label, "version": pack.version, "path": content.path.to_string_lossy(),
        "runtimes": runtimes,
        "triggers": pack.triggers.iter().map(|trigger| json!({
            "ref": trigger.r#ref, "enabled": trigger.enabled, "parameters": trigger.param_schema,
        })).collect::<Vec<_>>(),
        "sensors": pack.sensors.iter().map(|sensor| json!({
            "ref": sensor.r#ref, "runtime": sensor.runtime_ref, "entry_point": sensor.entrypoint,
            "triggers": sensor.trigger_refs, "enabled": sensor.enabled,
        })).collect::<Vec<_>>(),
        "actions": pack.actions.iter().map(|action| json!({
            "ref": action.r#ref, "runtime": action.runtime_ref, "entry_point": action.entrypoint,
            "parameter_delivery": action.parameter_delivery, "parameter_format": action.parameter_format,
            "output_format": action.output_format, "parameters": action.param_schema,
        })).collect::<Vec<_>>(),
        "rules": pack.rules.iter().map(|rule| json!({
            "ref": rule.r#ref, "trigger": rule.trigger_ref, "action": rule.action_ref, "enabled": rule.enabled,
        })).collect::<Vec<_>>(),
    })
}
