//! What is on its way to the platform. Writers say what they have written, the courier what has arrived.
//!
//! Bounded however long the API is away: of each log only so many versions wait as its retention keeps. Those are the files
//! here; nothing of them is in memory.

use std::collections::{BTreeSet, HashMap, VecDeque};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use attune_store::LogVersion;
use tokio::sync::Notify;
use tokio::time::Instant;

use super::adopt::Hold;
use super::own_files::OwnFiles;
use super::parcel::{CHUNK_BYTES, Parcel, Step};

/// Beside a file: how many bytes before it never arrived.
pub(super) const MISSING: &str = "missing";

/// Clones are the same.
#[derive(Debug, Clone)]
pub(crate) struct Outbox {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    /// Where the files are.
    folder: PathBuf,
    /// That it is ours.
    _hold: Option<Hold>,
    state: Mutex<State>,
    /// Held by who writes into the ledger on the disk.
    writing: Mutex<()>,
    /// A log has something to be sent.
    ready: Notify,
    /// A process has ended.
    ended: Notify,
    /// A file that it wrote is to be sent.
    waiting: Notify,
    /// There are sizes to be stored.
    sized: Notify,
}

#[derive(Debug)]
pub(super) struct State {
    /// By the folder of their versions.
    pub(super) logs: HashMap<String, Log>,
    /// Those of which something is to be sent, each once, and since when: the first for the longest.
    ready: VecDeque<(Instant, String)>,
    /// Sizes of versions that are complete there.
    pub(super) sizes: Vec<(i64, u64)>,
    /// What sensors write themselves.
    pub(super) own: OwnFiles,
}

/// Whose move it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
enum Turn {
    /// The writer's.
    #[default]
    Rests,
    /// It waits for the courier.
    Waits,
    /// The courier has it; nobody else takes it.
    Taken,
}

/// One stream of one sensor.
#[derive(Debug, Default)]
pub(super) struct Log {
    /// Versions that are not complete there, the oldest first; only that one is sent.
    pub(super) parcels: VecDeque<Parcel>,
    turn: Turn,
    /// Files that retention has removed and that the platform may have.
    outdated: BTreeSet<String>,
    /// Whether an earlier life has left it, and it is not known yet what the store has of that.
    pub(super) is_left: bool,
    /// For how many reasons nothing is to be sent now.
    pub(super) holds: u32,
    /// The last version that is complete there: its file stays for people on this host until there is another one.
    pub(super) kept: Option<String>,
    /// Bytes that never arrived, until a version of which nothing was sent yet can tell.
    carried: u64,
}

impl Log {
    /// What an earlier life has left, before it is known what the store has of it.
    pub(super) fn left(parcels: VecDeque<Parcel>) -> Self {
        Self { parcels, is_left: true, holds: 1, ..Self::default() }
    }

    /// Whether there is something to be done for it now.
    fn has_something(&self) -> bool {
        let front = self.parcels.front().filter(|_| self.holds == 0);
        front.is_some_and(|parcel| parcel.step() != Step::Wait) || !self.outdated.is_empty()
    }

    /// Lets somebody tell what is missing.
    fn hand_on(&mut self) -> Option<(String, u64)> {
        if self.carried == 0 {
            return None;
        }
        let teller = self.parcels.iter_mut().find(|parcel| !parcel.has_begun())?;
        teller.missing += std::mem::take(&mut self.carried);
        Some((teller.path.clone(), teller.missing))
    }
}

/// What is to be done with files here when versions have changed.
#[derive(Debug, Default)]
pub(super) struct Aftermath {
    /// These go.
    pub(super) gone: Vec<String>,
    /// This one tells how many bytes are missing before it.
    pub(super) told: Option<(String, u64)>,
}

/// What a writer says about its version; dropped, nothing more is written.
#[derive(Debug)]
pub(crate) struct Addressed {
    outbox: Outbox,
    path: String,
}

impl Addressed {
    /// The file is so long now.
    pub(crate) fn holds(&self, size: u64) {
        self.outbox.change(&self.path, |parcel| parcel.size = size);
    }
}

impl Drop for Addressed {
    fn drop(&mut self) {
        self.outbox.change(&self.path, |parcel| parcel.is_closed = true);
    }
}

/// The log that a version belongs to.
pub(super) fn log_of(path: &str) -> &str {
    path.rsplit_once('/').map_or("", |(folder, _)| folder)
}

/// The name of the file that says what is missing.
fn missing_beside(file: &Path) -> PathBuf {
    file.with_added_extension(MISSING)
}

impl Outbox {
    /// With what an earlier life has left. None of it is sent until it is known what the store has of it.
    pub(super) fn new(folder: PathBuf, left: HashMap<String, Log>, (own, hold): (OwnFiles, Option<Hold>)) -> Self {
        let state = Mutex::new(State { logs: left, ready: VecDeque::new(), sizes: Vec::new(), own });
        let [ready, ended, waiting, sized] = std::array::from_fn(|_| Notify::new());
        Self {
            shared: Arc::new(Shared {
                folder,
                _hold: hold,
                state,
                writing: Mutex::default(),
                ready,
                ended,
                waiting,
                sized,
            }),
        }
    }

    /// Where the files are.
    pub(crate) fn folder(&self) -> &Path {
        &self.shared.folder
    }

    /// Begins a version; of its log at most `keep` wait. What goes for it goes here, too. Blocks.
    pub(crate) fn begin(&self, version: &LogVersion, keep: usize) -> Addressed {
        let path = version.file_path.clone();
        let aftermath = self.state().begin(version, keep);
        self.shared.sized.notify_one();
        self.clear_up(&aftermath);
        let mut state = self.state();
        if let Some(log) = state.logs.get_mut(log_of(&path)) {
            log.holds -= 1;
        }
        drop(state);
        Addressed { outbox: self.clone(), path }
    }

    /// Blocks.
    pub(super) fn clear_up(&self, Aftermath { gone, told }: &Aftermath) {
        for path in gone {
            let file = self.shared.folder.join(path);
            for file in [missing_beside(&file), file] {
                match fs::remove_file(&file) {
                    Err(error) if error.kind() != io::ErrorKind::NotFound => {
                        tracing::warn!(file = %file.display(), %error, "a file of a log could not be removed");
                    }
                    Ok(()) | Err(_) => {}
                }
            }
        }
        if let Some((teller, missing)) = told {
            let file = missing_beside(&self.shared.folder.join(teller));
            if let Err(error) = fs::write(&file, missing.to_string()) {
                tracing::warn!(file = %file.display(), %error, "what is missing from a log is forgotten with this process");
            }
        }
    }

    /// A log may have become ready. One permit is kept, so that a change between a look and the wait is not missed.
    pub(super) async fn log_ready(&self) {
        self.shared.ready.notified().await;
    }

    pub(super) fn say_ready(&self) {
        self.shared.ready.notify_one();
    }

    /// The same about processes that have ended.
    pub(super) async fn process_ended(&self) {
        self.shared.ended.notified().await;
    }

    pub(super) fn say_ended(&self) {
        self.shared.ended.notify_one();
    }

    /// The same about files that they have written.
    pub(super) async fn file_waits(&self) {
        self.shared.waiting.notified().await;
    }

    pub(super) fn say_file_waits(&self) {
        self.shared.waiting.notify_one();
    }

    /// The same about sizes.
    pub(super) async fn version_sized(&self) {
        self.shared.sized.notified().await;
    }

    pub(super) fn say_sized(&self) {
        self.shared.sized.notify_one();
    }

    /// Whether the platform and the store have everything.
    pub(super) fn is_delivered(&self) -> bool {
        let state = self.state();
        let waits = |log: &Log| log.is_left || log.has_something();
        state.sizes.is_empty() && state.own.is_delivered() && !state.logs.values().any(waits)
    }

    /// Since when the first of the logs that wait does so.
    pub(super) fn waits_since(&self) -> Option<Instant> {
        self.state().ready.front().map(|(since, _)| *since)
    }

    /// Takes the log that has waited for the longest time, if that began before. It is nobody else's until it is given back.
    pub(super) fn take(&self, before: Instant) -> Option<String> {
        let mut state = self.state();
        let (_, name) = state.ready.pop_front_if(|(since, _)| *since <= before)?;
        if let Some(log) = state.logs.get_mut(&name) {
            log.turn = Turn::Taken;
        }
        Some(name)
    }

    /// Takes this log, whether it waits or has nothing to wait for. False when somebody has it, or there is none.
    pub(super) fn take_back(&self, name: &str) -> bool {
        let mut state = self.state();
        let Some(log) = state.logs.get_mut(name).filter(|log| log.turn != Turn::Taken) else { return false };
        log.turn = Turn::Taken;
        state.ready.retain(|(_, ready)| ready != name);
        true
    }

    /// It waits again if there is more of it.
    pub(super) fn give_back(&self, name: &str) {
        let mut state = self.state();
        let Some(log) = state.logs.get_mut(name) else { return };
        log.turn = Turn::Rests;
        if log.has_something() {
            state.make_ready(name);
        }
    }

    /// What is to be done next for a log, and for which of its versions. A piece counts as being sent from now on. When
    /// there is no `hurry`, an open version waits for more than it has.
    pub(super) fn step(&self, log: &str, hurry: bool) -> Option<(String, Step)> {
        let mut state = self.state();
        let log = state.logs.get_mut(log).filter(|log| log.holds == 0)?;
        let parcel = log.parcels.front_mut()?;
        let step = parcel.step();
        match &step {
            Step::Wait => return None,
            Step::Append(append) if !hurry && !append.is_closed && append.count < CHUNK_BYTES => return None,
            Step::Append(_) => parcel.sending(),
            Step::Measure | Step::Remove | Step::Finish => {}
        }
        Some((parcel.path.clone(), step))
    }

    /// Changes what is known about a version that still waits.
    pub(super) fn tell(&self, path: &str, change: impl FnOnce(&mut Parcel)) {
        self.state().tell(path, change);
    }

    /// The oldest version of a log is finished, if it is still this one: a new version may have taken its place.
    pub(super) fn finish(&self, log: &str, path: &str) -> Aftermath {
        let mut state = self.state();
        let State { logs, sizes, .. } = &mut *state;
        let finished = |parcel: &mut Parcel| parcel.path == path;
        let Some((log, parcel)) =
            logs.get_mut(log).and_then(|log| log.parcels.pop_front_if(finished).map(|parcel| (log, parcel)))
        else {
            return Aftermath::default();
        };
        sizes.extend(parcel.version.map(|version| (version, parcel.there())));
        self.shared.sized.notify_one();
        log.carried += parcel.lost();
        let told = log.hand_on();
        if log.parcels.is_empty() {
            log.kept = Some(parcel.path);
            return Aftermath { gone: Vec::new(), told };
        }
        Aftermath { gone: vec![parcel.path], told }
    }

    /// A file of a log that the platform should not have any more.
    pub(super) fn next_outdated(&self, log: &str) -> Option<String> {
        self.state().logs.get(log)?.outdated.first().cloned()
    }

    /// The platform does not have it.
    pub(super) fn is_removed(&self, path: &str) {
        if let Some(log) = self.state().logs.get_mut(log_of(path)) {
            log.outdated.remove(path);
        }
    }

    /// Whether the file is a version of a log.
    pub(super) fn is_log(&self, path: &str) -> bool {
        self.state().logs.contains_key(log_of(path))
    }

    /// Sizes to be stored, the oldest first.
    pub(super) fn sizes(&self) -> Vec<(i64, u64)> {
        self.state().sizes.clone()
    }

    /// So many of them are.
    pub(super) fn forget_sizes(&self, count: usize) {
        self.state().sizes.drain(..count);
    }

    /// … and another one.
    pub(super) fn add_size(&self, size: (i64, u64)) {
        self.state().sizes.push(size);
        self.say_sized();
    }

    pub(super) fn writing(&self) -> MutexGuard<'_, ()> {
        self.shared.writing.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn state(&self) -> MutexGuard<'_, State> {
        self.shared.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn change(&self, path: &str, change: impl FnOnce(&mut Parcel)) {
        let mut state = self.state();
        state.tell(path, change);
        let is_new = state.make_ready(log_of(path));
        drop(state);
        if is_new {
            self.say_ready();
        }
    }
}

impl State {
    /// Takes the log out of circulation until that is done which is to be done.
    fn begin(&mut self, version: &LogVersion, keep: usize) -> Aftermath {
        let Self { logs, sizes, .. } = self;
        let log = logs.entry(log_of(&version.file_path).to_owned()).or_default();
        log.holds += 1;
        let mut gone: Vec<String> = log.kept.take().into_iter().collect();
        for path in &version.expired_files {
            let waiting = log.parcels.iter().position(|parcel| parcel.path == *path);
            let parcel = waiting.and_then(|at| log.parcels.remove(at));
            log.carried += parcel.as_ref().map_or(0, Parcel::lost);
            if parcel.is_none_or(|parcel| parcel.has_begun()) {
                log.outdated.insert(path.clone());
            }
            gone.push(path.clone());
        }
        // Retention by time is not ours, and does not bound anything.
        while log.parcels.len() >= keep.max(1)
            && let Some(parcel) = log.parcels.pop_front()
        {
            sizes.extend(parcel.version.map(|version| (version, parcel.there())));
            log.carried += parcel.lost();
            gone.push(parcel.path);
        }
        log.parcels.push_back(Parcel::new(version.file_path.clone(), version.id));
        Aftermath { gone, told: log.hand_on() }
    }

    fn tell(&mut self, path: &str, change: impl FnOnce(&mut Parcel)) {
        let log = self.logs.get_mut(log_of(path));
        if let Some(parcel) = log.and_then(|log| log.parcels.iter_mut().rev().find(|parcel| parcel.path == path)) {
            change(parcel);
        }
    }

    /// Says whether it was not ready before.
    pub(super) fn make_ready(&mut self, name: &str) -> bool {
        let Some(log) = self.logs.get_mut(name).filter(|log| log.turn == Turn::Rests) else { return false };
        log.turn = Turn::Waits;
        self.ready.push_back((Instant::now(), name.to_owned()));
        true
    }
}
