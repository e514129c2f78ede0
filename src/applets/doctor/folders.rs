//! The folders that an agent shares with others, and those of its own.

use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use attune_config::PlatformConfig;
use attune_process::may_write;

use super::finding::Finding;
use super::mounts::Mounts;
use crate::applets::machine;
use crate::applets::worker::SPOOL;
use crate::exit::Exit;

/// What an agent does with a folder.
struct Use {
    about: &'static str,
    /// What is not possible when it cannot be written; none for a folder that is only read.
    written_for: Option<&'static str>,
    /// What is not possible when programs in it cannot be executed.
    executed_for: Option<&'static str>,
    /// What happens without it.
    absent: &'static str,
    key: &'static str,
}

/// Looks at each.
pub(super) fn look(platform: &PlatformConfig) -> Vec<Finding> {
    let mounts = Mounts::read();
    let folders = &platform.folders;
    let packs = Use {
        about: "packs",
        written_for: None,
        executed_for: Some("actions and sensors that are programs of their own cannot run"),
        absent: "packs are fetched from the API",
        key: "packs_base_dir",
    };
    let environments = Use {
        about: "environments",
        written_for: Some("environments cannot be built here; complete ones are used"),
        executed_for: Some("environments with programs in them cannot be used"),
        absent: "no environment can be used or built",
        key: "runtime_envs_dir",
    };
    let artifacts = Use {
        about: "artifacts",
        written_for: Some("logs and files go through the API, and results cannot wait there for storage"),
        executed_for: None,
        absent: "logs and files go through the API",
        key: "artifacts_dir",
    };
    let temporary = std::env::temp_dir();
    let temp = Use {
        about: "temporary",
        written_for: Some("actions that want their parameters in a file fail"),
        executed_for: None,
        absent: "actions that want their parameters in a file fail",
        key: "TMPDIR",
    };
    let mut findings: Vec<Finding> = [
        (packs, &folders.packs),
        (environments, &folders.runtime_envs),
        (artifacts, &folders.artifacts),
        (temp, &temporary),
    ]
    .iter()
    .map(|(wanted, path)| folder(wanted, path, &mounts))
    .collect();
    findings.extend(kept(&folders.artifacts.join(SPOOL)));
    findings.push(own_file(&mounts));
    findings
}

fn folder(wanted: &Use, path: &Path, mounts: &Mounts) -> Finding {
    let Use { about, written_for, executed_for, absent, key } = wanted;
    let shown = path.display();
    let metadata = match fs::metadata(path) {
        Ok(metadata) if metadata.is_dir() => metadata,
        Ok(_) => {
            let found = format!("{shown} is no folder: {absent}");
            return Finding::problem(about, Exit::Configuration, found, format!("let {key} name a folder"));
        }
        Err(error) => {
            let found = format!("{shown} cannot be used ({error}): {absent}");
            return Finding::warning(about, found, format!("mount the volume there, or let {key} name another folder"));
        }
    };
    let owner = format!("owner {}:{}, mode {:04o}", metadata.uid(), metadata.gid(), metadata.mode() & 0o7777);
    if let Some(without) = written_for.filter(|_| !may_write(path)) {
        let why = if mounts.has(path, "ro") { "is mounted read-only" } else { "cannot be written by this user" };
        let remedy = format!("mount it writable for user {} or one of its groups", attune_process::effective_user());
        return Finding::warning(about, format!("{shown} {why} ({owner}): {without}"), remedy);
    }
    if let Err(error) = fs::read_dir(path) {
        let found = format!("{shown} cannot be read ({error}; {owner}): {absent}");
        return Finding::warning(about, found, "let this user or one of its groups read it");
    }
    match executed_for.filter(|_| mounts.has(path, "noexec")) {
        Some(without) => {
            Finding::warning(about, format!("{shown} is mounted noexec: {without}"), "mount it without noexec")
        }
        None => Finding::fine(about, format!("{shown} ({owner})")),
    }
}

/// What workers could not bring to its place, and will not by themselves.
fn kept(spool: &Path) -> Vec<Finding> {
    let files = |folder: &Path| -> Vec<PathBuf> {
        fs::read_dir(folder).into_iter().flatten().flatten().map(|entry| entry.path()).collect()
    };
    let of_workers = files(spool);
    let refused: Vec<PathBuf> = of_workers.iter().flat_map(|folder| files(&folder.join("refused"))).collect();
    let is_unreadable = |path: &PathBuf| path.extension().is_some_and(|extension| extension == "unreadable");
    let unreadable: Vec<PathBuf> = of_workers.iter().flat_map(|folder| files(folder)).filter(is_unreadable).collect();
    let about = |found: &[PathBuf], what: &str, remedy: &str| {
        let bytes: u64 = found.iter().filter_map(|path| Some(path.metadata().ok()?.len())).sum();
        let folder = found.first().and_then(|path| path.parent())?;
        let found = format!("{} {what} ({bytes} bytes), the first in {}", found.len(), folder.display());
        Some(Finding::warning("kept files", found, remedy))
    };
    let refused = about(
        &refused,
        "files of executions that the API never takes",
        "the worker's log says why (`file will never be where it belongs`); take what is wanted, and remove them",
    );
    let unreadable = about(
        &unreadable,
        "results that a worker could not read again",
        "give the worker the encryption key that they were sealed with and rename them to *.result, or remove them",
    );
    refused.into_iter().chain(unreadable).collect()
}

/// Children are started through it.
fn own_file(mounts: &Mounts) -> Finding {
    match machine::program() {
        Ok(program) if mounts.has(&program, "noexec") => Finding::warning(
            "program",
            format!("{} is on a mount with noexec, which came later than this start", program.display()),
            "mount it without noexec: children are started through it",
        ),
        Ok(program) => Finding::fine("program", program.display().to_string()),
        Err(failure) => {
            Finding::problem("program", Exit::OperatingSystem, failure.to_string(), "mount /proc: children need it")
        }
    }
}
