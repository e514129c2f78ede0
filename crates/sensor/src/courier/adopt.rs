//! What hosts have left that are no more: a row of a host may be deleted, and its successor of the same name, or another host on
//! this machine, has another one. Their folders become part of the folder of this host, and what is in them is sent or goes.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use attune_lifecycle::spawn_blocking;
use attune_model::{WorkerId, chain};
use attune_store::SensorStore;
use tokio::time::timeout;

use super::{HOSTS, folder, ledger};
use crate::context::STORE_LIMIT;

/// Held by the host whose folder it is in.
const LOCK: &str = "lock";

/// This host's hold on its folder, until it is dropped.
#[derive(Debug)]
pub(crate) struct Hold {
    _file: File,
}

/// Takes hold of the folder of a host; none when another process has it. Blocks.
pub(crate) fn hold(folder: &Path) -> io::Result<Option<Hold>> {
    fs::create_dir_all(folder)?;
    let file = File::options().create(true).append(true).open(folder.join(LOCK))?;
    match file.try_lock() {
        Ok(()) => Ok(Some(Hold { _file: file })),
        Err(fs::TryLockError::WouldBlock) => Ok(None),
        Err(fs::TryLockError::Error(error)) => Err(error),
    }
}

/// Takes over the folders of hosts that the store does not know any more. What goes wrong leaves them as they are.
pub(crate) async fn adopt(artifacts: &Path, worker: WorkerId, store: &dyn SensorStore) {
    let others = others(artifacts, worker);
    if others.is_empty() {
        return;
    }
    let known = match timeout(STORE_LIMIT, store.known_hosts(&others)).await {
        Ok(Ok(known)) => known,
        Ok(Err(error)) => return tracing::warn!(error = chain(&error), "logs of other hosts are not looked at"),
        Err(_elapsed) => return tracing::warn!("logs of other hosts are not looked at: the store does not answer"),
    };
    for other in others.into_iter().filter(|other| !known.contains(other)) {
        let (from, to) = (folder(artifacts, other), folder(artifacts, worker));
        let moved = spawn_blocking(move || take_over(&from, &to)).await;
        match moved.unwrap_or_else(|error| Err(io::Error::other(error))) {
            Ok(true) => tracing::info!(%other, "the logs that a deleted host has left are this one's now"),
            Ok(false) => {}
            Err(error) => tracing::warn!(%other, %error, "the logs of a deleted host stay where they are"),
        }
    }
}

fn others(artifacts: &Path, worker: WorkerId) -> Vec<WorkerId> {
    let Ok(entries) = fs::read_dir(artifacts.join(HOSTS)) else { return Vec::new() };
    let names = entries.flatten().filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    names.map(WorkerId).filter(|other| *other != worker).collect()
}

/// False when a process still has them: its row is in another database, or was deleted while it runs.
fn take_over(from: &Path, to: &Path) -> io::Result<bool> {
    let Some(_hold) = hold(from)? else { return Ok(false) };
    ledger::take_over(from, to)?;
    for file in files(from)? {
        let Ok(name) = file.strip_prefix(from) else { continue };
        let place = to.join(name);
        // The own one of a log is never older.
        if name != Path::new(LOCK) && !place.exists() {
            fs::create_dir_all(place.parent().unwrap_or(to))?;
            fs::rename(&file, &place)?;
        }
    }
    fs::remove_dir_all(from)?;
    Ok(true)
}

fn files(folder: &Path) -> io::Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            found.extend(files(&entry.path())?);
        } else {
            found.push(entry.path());
        }
    }
    Ok(found)
}
