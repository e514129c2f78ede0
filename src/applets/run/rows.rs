//! The rows of one action, made from the files of its pack.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use attune_model::rows::{Action, Pack, Runtime, RuntimeVersion};
use attune_model::runtime_name::names_of;
use attune_model::{ActionId, JsonMap, PackId, RuntimeId, RuntimeVersionId};
use attune_packs::{FindActionError, load_action};
use attune_runtime::advertise::Sources;
use attune_runtime::{Advertised, Host, advertise, detect, verify};
use attune_store::{NewAction, NewPack, NewRuntime};

use crate::exit::{Exit, Failure};

/// An action with all that is needed to run it.
#[derive(Debug)]
pub(super) struct Loaded {
    /// The folder that holds the pack's folder.
    pub(super) base: PathBuf,
    /// The pack.
    pub(super) pack: Pack,
    /// The action.
    pub(super) action: Action,
    /// What runs it.
    pub(super) runtime: Option<Runtime>,
    /// The versions of that.
    pub(super) versions: Vec<RuntimeVersion>,
}

/// Reads the action from the first of `paths` that has its pack.
pub(super) fn load(paths: &[PathBuf], action_ref: &str) -> Result<Loaded, Failure> {
    let loaded = load_action(paths, action_ref).map_err(|error| {
        let exit = match &error {
            FindActionError::Broken(_) => Exit::Configuration,
            FindActionError::NotARef(_) | FindActionError::NoPack { .. } | FindActionError::NoAction { .. } => {
                Exit::Usage
            }
        };
        Failure::new(exit, error)
    })?;
    for problem in &loaded.problems {
        tracing::warn!("{problem}");
    }
    let pack_ref = action_ref.split('.').next().unwrap_or_default();
    let content = loaded.packs.iter().find(|content| content.pack.r#ref == pack_ref && !content.is_builtin());
    let missing = || Failure::message(Exit::Internal, format!("pack {pack_ref} was found and then was not there"));
    let content = content.ok_or_else(missing)?;
    let new_action = content.pack.actions.iter().find(|action| action.r#ref == action_ref).ok_or_else(missing)?;
    let runtimes: Vec<&NewRuntime> = loaded.packs.iter().flat_map(|content| &content.pack.runtimes).collect();
    let rows: Vec<Runtime> = runtimes.iter().enumerate().map(|(index, new)| runtime_row(index, new)).collect();
    let runtime = match &new_action.runtime_ref {
        Some(wanted) => rows.iter().find(|row| row.r#ref == *wanted),
        None => attune_worker::runtime_of_file(&rows, &new_action.entrypoint),
    };
    let new_runtime = runtime.and_then(|row| runtimes.iter().find(|new| new.r#ref == row.r#ref));
    let versions = new_runtime.map(|new| version_rows(new, runtime.map_or(RuntimeId(0), |row| row.id)));
    Ok(Loaded {
        base: base_of(&content.path, pack_ref)?,
        pack: pack_row(&content.pack),
        action: action_row(&content.pack, new_action, runtime),
        versions: versions.unwrap_or_default(),
        runtime: runtime.cloned(),
    })
}

/// Agents find packs by their ref, so the folder has to be called like it.
fn base_of(folder: &Path, pack_ref: &str) -> Result<PathBuf, Failure> {
    let wrong_name = || {
        let folder = folder.display();
        Failure::usage(format!(
            "the folder {folder} holds pack {pack_ref}; agents look for it in a folder of that name"
        ))
    };
    let folder = std::path::absolute(folder).map_err(|error| Failure::new(Exit::OperatingSystem, error))?;
    match (folder.file_name(), folder.parent()) {
        (Some(name), Some(base)) if name == pack_ref => Ok(base.to_owned()),
        _ => Err(wrong_name()),
    }
}

/// What this machine has, as far as it decides which version is used: interpreters are asked only where versions exist.
pub(super) fn advertised(loaded: &Loaded, env: Vec<(OsString, OsString)>) -> Advertised {
    let Loaded { action, runtime, versions, .. } = loaded;
    let matters = !versions.is_empty() || action.runtime_version_constraint.is_some();
    let names = runtime.as_ref().map(names_of).unwrap_or_default();
    let host = Host::new(env);
    let detected = if matters { detect::detect_only(&host, |name| names.contains(name)) } else { Vec::new() };
    let configured = JsonMap::new();
    let mut advertised =
        advertise(&Sources { variable: "", override_value: None, detected: &detected, configured: &configured });
    // Not everything was looked for, so children are not told that this is all.
    advertised.handed_on = None;
    if matters {
        advertised.add_versions(verify::versions(versions, &host));
    }
    advertised
}

fn pack_row(new: &NewPack) -> Pack {
    Pack {
        id: PackId(1),
        r#ref: new.r#ref.clone(),
        label: new.label.clone(),
        description: new.description.clone(),
        version: new.version.clone(),
        conf_schema: new.conf_schema.clone(),
        config: new.config.clone(),
        meta: new.meta.clone(),
        tags: new.tags.clone(),
        runtime_deps: new.runtime_deps.clone(),
        dependencies: new.dependencies.clone(),
        is_standard: new.is_standard,
    }
}

fn action_row(pack: &NewPack, new: &NewAction, runtime: Option<&Runtime>) -> Action {
    Action {
        id: ActionId(1),
        r#ref: new.r#ref.clone(),
        pack: PackId(1),
        pack_ref: pack.r#ref.clone(),
        label: new.label.clone(),
        description: new.description.clone(),
        entrypoint: new.entrypoint.clone(),
        runtime: runtime.map(|runtime| runtime.id),
        param_schema: new.param_schema.clone(),
        out_schema: new.out_schema.clone(),
        parameter_delivery: new.parameter_delivery,
        parameter_format: new.parameter_format,
        output_format: new.output_format,
        is_adhoc: false,
        timeout_seconds: new.timeout_seconds,
        runtime_version_constraint: new.runtime_version_constraint.clone(),
        required_worker_runtimes: new.required_worker_runtimes.clone(),
        placement: new.placement.clone(),
        default_execution_permission_set_refs: new.default_execution_permission_set_refs.clone(),
        log_retention: new.log_retention,
    }
}

fn runtime_row(index: usize, new: &NewRuntime) -> Runtime {
    Runtime {
        id: RuntimeId(number(index)),
        r#ref: new.r#ref.clone(),
        pack: None,
        pack_ref: None,
        description: new.description.clone(),
        name: new.name.clone(),
        aliases: new.aliases.clone(),
        distributions: new.distributions.clone(),
        execution_config: new.execution_config.clone(),
    }
}

fn version_rows(new: &NewRuntime, runtime: RuntimeId) -> Vec<RuntimeVersion> {
    let row = |(index, version): (usize, &attune_store::NewRuntimeVersion)| RuntimeVersion {
        id: RuntimeVersionId(number(index)),
        runtime,
        runtime_ref: new.r#ref.clone(),
        version: version.version.clone(),
        execution_config: version.execution_config.clone(),
        distributions: version.distributions.clone(),
        is_default: version.is_default,
        available: true,
    };
    new.versions.iter().enumerate().map(row).collect()
}

/// Ids only have to differ.
fn number(index: usize) -> i64 {
    i64::try_from(index).unwrap_or(i64::MAX).saturating_add(1)
}
