//! Files that sensors have registered with the API and written themselves, below the folder of artifacts of this host.
//!
//! They go to the platform when a process of their sensor has ended, and stay here: the next process may go on with them.
//! Each is on its way by itself, read while it is sent, and sent again only when it has changed. The platform does not say of
//! which time its copy is, so a file that this process has not written is sent only when nobody has delivered it, and one that
//! another host has delivered while ours waited stays as it is.

use std::collections::{BTreeMap, HashMap};
use std::fs::File;
use std::io;
use std::path::Path;
use std::time::{Duration, SystemTime};

use attune_http::UPLOAD_LIMIT_BYTES;
use attune_lifecycle::{Backoff, CancellationToken, spawn_blocking};
use attune_model::chain;
use attune_store::SensorFile;
use chrono::{DateTime, Utc};
use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;
use tokio::time::{Instant, sleep, sleep_until};

use super::marks::{self, Times};
use super::outbox::Outbox;
use super::{Courier, Trouble};

/// File systems date changes a little earlier than clocks say.
const COARSE: Duration = Duration::from_secs(1);
/// Files under way at once.
const AT_ONCE: usize = 4;

/// What tells one state of a file from another.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Stamp {
    modified: SystemTime,
    size: u64,
}

/// A file that is to be delivered.
#[derive(Debug, Clone)]
pub(super) struct OwnFile {
    owner: String,
    id: i64,
    /// What the platform had when it was looked at.
    there: Option<u64>,
    turn: Turn,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Turn {
    Waits,
    UnderWay,
    /// It has changed meanwhile.
    UnderWayAndWaits,
}

/// What is known about such files.
#[derive(Debug)]
pub(super) struct OwnFiles {
    /// When this life began.
    born: SystemTime,
    /// Since when something may be owed: what is marked on the disk, by sensor.
    owed: Times,
    /// Processes that run, and since when.
    running: Times,
    /// Processes that have ended, and since when they may have written.
    ended: Times,
    is_looking: bool,
    /// By path.
    waiting: BTreeMap<String, OwnFile>,
    /// What this life has delivered, by sensor and path.
    sent: HashMap<String, HashMap<String, Stamp>>,
}

impl OwnFiles {
    /// What earlier lives owe, until now.
    pub(super) fn owed(owed: Times, now: SystemTime) -> Self {
        Self {
            born: now,
            ended: owed.clone(),
            owed,
            running: Times::new(),
            is_looking: false,
            waiting: BTreeMap::new(),
            sent: HashMap::new(),
        }
    }

    pub(super) fn is_delivered(&self) -> bool {
        self.ended.is_empty() && !self.is_looking && self.waiting.is_empty()
    }

    fn end(&mut self, sensor_ref: String, began: SystemTime) {
        let known = self.ended.entry(sensor_ref).or_insert(began);
        *known = began.min(*known);
    }

    /// Its file has changed: it waits, once.
    fn enter(&mut self, path: String, file: OwnFile) {
        let is_under_way = self.waiting.get(&path).is_some_and(|known| known.turn != Turn::Waits);
        let turn = if is_under_way { Turn::UnderWayAndWaits } else { Turn::Waits };
        self.waiting.insert(path, OwnFile { turn, ..file });
    }

    /// Whether what is owed of it is to be marked anew.
    fn settle(&mut self, sensor_ref: &str) -> bool {
        let is_owed = self.ended.contains_key(sensor_ref) || self.waiting.values().any(|file| file.owner == sensor_ref);
        if is_owed {
            return false;
        }
        let since = self.running.get(sensor_ref).copied();
        let marked = match since {
            Some(since) => self.owed.insert(sensor_ref.to_owned(), since),
            None => self.owed.remove(sensor_ref),
        };
        marked != since
    }
}

/// A process runs and may write files of its own; dropped, it has ended.
#[derive(Debug)]
pub(crate) struct Attended {
    outbox: Outbox,
    sensor_ref: String,
    began: SystemTime,
}

impl Drop for Attended {
    fn drop(&mut self) {
        let mut state = self.outbox.state();
        state.own.running.remove(&self.sensor_ref);
        state.own.end(std::mem::take(&mut self.sensor_ref), self.began);
        drop(state);
        self.outbox.say_ended();
    }
}

impl Outbox {
    /// A process of the sensor begins now. Blocks for a moment.
    pub(crate) fn attend(&self, sensor_ref: &str, now: DateTime<Utc>) -> Attended {
        let began = SystemTime::from(now);
        let mut state = self.state();
        state.own.running.insert(sensor_ref.to_owned(), began);
        let is_marked = state.own.owed.contains_key(sensor_ref);
        state.own.owed.entry(sensor_ref.to_owned()).or_insert(began);
        drop(state);
        if !is_marked {
            self.mark(sensor_ref);
        }
        Attended { outbox: self.clone(), sensor_ref: sensor_ref.to_owned(), began }
    }

    fn begin_look(&self) -> Times {
        let own = &mut self.state().own;
        own.is_looking = true;
        std::mem::take(&mut own.ended)
    }

    fn end_look(&self, ended: Times, found: Result<Vec<(String, OwnFile)>, Trouble>) -> Result<(), Trouble> {
        let own = &mut self.state().own;
        own.is_looking = false;
        match found {
            Ok(changed) => changed.into_iter().for_each(|(path, file)| own.enter(path, file)),
            Err(trouble) => {
                for (sensor_ref, since) in ended {
                    own.end(sensor_ref, since);
                }
                return Err(trouble);
            }
        }
        self.say_file_waits();
        Ok(())
    }

    /// Marks what is owed of it by now: whoever comes last knows the most. Blocks.
    fn mark(&self, sensor_ref: &str) {
        let _alone = self.marking();
        let since = self.state().own.owed.get(sensor_ref).copied();
        marks::set(self.folder(), sensor_ref, since);
    }

    async fn settle(&self, sensor_ref: &str) {
        if !self.state().own.settle(sensor_ref) {
            return;
        }
        let (outbox, sensor_ref) = (self.clone(), sensor_ref.to_owned());
        // Should this not be done, the next life looks in vain.
        drop(spawn_blocking(move || outbox.mark(&sensor_ref)).await);
    }

    /// Takes the next file whose turn it may be.
    fn take_file(&self, may: impl Fn(&str) -> bool) -> Option<(String, OwnFile)> {
        let mut state = self.state();
        let mut waiting = state.own.waiting.iter_mut();
        let (path, file) = waiting.find(|(path, file)| file.turn == Turn::Waits && may(path))?;
        file.turn = Turn::UnderWay;
        Some((path.clone(), file.clone()))
    }

    /// It is not under way any more, and whether it is `over`.
    fn end_file(&self, path: &str, over: bool) {
        let mut state = self.state();
        let Some(file) = state.own.waiting.get_mut(path) else { return };
        if over && file.turn == Turn::UnderWay {
            state.own.waiting.remove(path);
        } else {
            file.turn = Turn::Waits;
        }
    }

    fn sent_as(&self, owner: &str, path: &str) -> Option<Stamp> {
        self.state().own.sent.get(owner)?.get(path).copied()
    }

    fn is_sent(&self, owner: &str, path: &str, stamp: Stamp) {
        self.state().own.sent.entry(owner.to_owned()).or_default().insert(path.to_owned(), stamp);
    }
}

impl Courier {
    /// What the sensors that ended have written. Until `done`, and one attempt then.
    pub(super) async fn deliver_own_files(&self, done: &CancellationToken) {
        let looked = CancellationToken::new();
        let look = async {
            self.look_for_changes(done).await;
            looked.cancel();
        };
        tokio::join!(look, self.send_own_files(&looked));
    }

    async fn look_for_changes(&self, done: &CancellationToken) {
        let mut backoff = self.backoff();
        loop {
            let ends = done.is_cancelled();
            let looked = self.look().await;
            let wait = match looked {
                Ok(()) => {
                    backoff.reset();
                    None
                }
                Err(trouble) => {
                    if backoff.attempts() == 0 {
                        tracing::warn!(error = chain(&trouble), "files that sensors wrote themselves wait");
                    }
                    Some(backoff.next_delay())
                }
            };
            if ends {
                return;
            }
            let again = async {
                match wait {
                    Some(wait) => sleep(wait).await,
                    None => self.outbox.process_ended().await,
                }
            };
            tokio::select! {
                () = done.cancelled() => {}
                () = again => {}
            }
        }
    }

    /// Finds out what processes that have ended have left.
    async fn look(&self) -> Result<(), Trouble> {
        let ended = self.outbox.begin_look();
        let found = self.changed_files(&ended).await;
        let sensors: Vec<String> = ended.keys().cloned().collect();
        self.outbox.end_look(ended, found)?;
        for sensor_ref in sensors {
            self.outbox.settle(&sensor_ref).await;
        }
        Ok(())
    }

    async fn changed_files(&self, ended: &Times) -> Result<Vec<(String, OwnFile)>, Trouble> {
        if ended.is_empty() {
            return Ok(Vec::new());
        }
        let owners: Vec<String> = ended.keys().cloned().collect();
        let mut files = self.files_of(&owners).await?;
        files.retain(|file| !self.outbox.is_log(&file.file_path));
        for (owner, sent) in self.outbox.state().own.sent.iter_mut().filter(|(owner, _)| ended.contains_key(*owner)) {
            sent.retain(|path, _| files.iter().any(|file| file.owner == *owner && file.file_path == *path));
        }
        let (outbox, artifacts, ended) = (self.outbox.clone(), self.artifacts.clone(), ended.clone());
        let look = move || {
            let born = outbox.state().own.born;
            let is_changed = |file: &SensorFile| {
                let stamp = opened(&artifacts, &file.file_path).ok().flatten().map(|(_, stamp)| stamp);
                let sent = outbox.sent_as(&file.owner, &file.file_path);
                let there = file.size_bytes;
                stamp.zip(ended.get(&file.owner)).is_some_and(|(stamp, since)| {
                    stamp.size > 0 && sent != Some(stamp) && stamp.is_newer(*since, born, there)
                })
            };
            files.retain(is_changed);
            files
        };
        let files = spawn_blocking(look).await.map_err(|error| Trouble::Read(io::Error::other(error)))?;
        let entry = |SensorFile { id, owner, file_path, size_bytes }: SensorFile| {
            (file_path, OwnFile { owner, id, there: size_bytes, turn: Turn::Waits })
        };
        Ok(files.into_iter().map(entry).collect())
    }

    /// Until `done`, and one attempt for each file then.
    async fn send_own_files(&self, done: &CancellationToken) {
        let mut sends = FuturesUnordered::new();
        let mut resting: HashMap<String, (Instant, Backoff)> = HashMap::new();
        let mut ends = false;
        loop {
            let now = Instant::now();
            let may = |path: &str| ends || resting.get(path).is_none_or(|(until, _)| *until <= now);
            while sends.len() < AT_ONCE
                && let Some((path, file)) = self.outbox.take_file(may)
            {
                let is_retry = resting.contains_key(&path);
                sends.push(self.sent_file(path, file, is_retry));
            }
            if ends && sends.is_empty() {
                return;
            }
            let wake = resting.values().map(|(until, _)| *until).filter(|until| *until > now).min();
            tokio::select! {
                () = done.cancelled(), if !ends => ends = true,
                Some((path, file, outcome)) = sends.next() => match outcome {
                    Ok(()) => {
                        resting.remove(&path);
                        self.outbox.end_file(&path, true);
                        self.outbox.settle(&file.owner).await;
                    }
                    Err(trouble) => {
                        let (until, backoff) = resting.entry(path.clone()).or_insert_with(|| (now, self.backoff()));
                        if backoff.attempts() == 0 || ends {
                            tracing::warn!(path, error = chain(&trouble), "a file that a sensor wrote itself waits");
                        }
                        *until = Instant::now() + backoff.next_delay();
                        // What fails at the end is left under way: nobody takes it again.
                        if !ends {
                            self.outbox.end_file(&path, false);
                        }
                    }
                },
                () = self.outbox.file_waits() => {}
                () = sleep_until(wake.unwrap_or(now)), if wake.is_some() => {}
            }
        }
    }

    async fn sent_file(&self, path: String, file: OwnFile, is_retry: bool) -> (String, OwnFile, Result<(), Trouble>) {
        let outcome = self.send_file(&path, &file, is_retry).await;
        (path, file, outcome)
    }

    async fn send_file(&self, path: &str, file: &OwnFile, is_retry: bool) -> Result<(), Trouble> {
        if is_retry && self.is_superseded(path, file).await? {
            tracing::warn!(
                path,
                "a file that a sensor wrote itself was delivered by another host meanwhile, or is not kept"
            );
            return Ok(());
        }
        let (artifacts, name) = (self.artifacts.clone(), path.to_owned());
        let opened = spawn_blocking(move || opened(&artifacts, &name)).await;
        let (content, stamp) = match opened.unwrap_or_else(|error| Err(io::Error::other(error))) {
            Ok(Some(opened)) => opened,
            Ok(None) => return Ok(()),
            Err(error) => {
                tracing::warn!(path, %error, "a file of a sensor cannot be read");
                return Ok(());
            }
        };
        if stamp.size > UPLOAD_LIMIT_BYTES {
            let size = stamp.size;
            tracing::warn!(path, "a file of a sensor has {size} bytes; the API takes at most {UPLOAD_LIMIT_BYTES}");
            return Ok(());
        }
        match self.uploads.put_file(path, content, stamp.size).await {
            Ok(()) => self.outbox.add_size((file.id, stamp.size)),
            Err(error) if error.is_refusal() => {
                tracing::warn!(path, error = chain(&error), "the API refuses a file of a sensor");
            }
            Err(error) => return Err(Trouble::Api(error)),
        }
        self.outbox.is_sent(&file.owner, path, stamp);
        Ok(())
    }

    /// Whether the platform has something else of it than when it was looked at, and not from here; or its version is gone.
    async fn is_superseded(&self, path: &str, file: &OwnFile) -> Result<bool, Trouble> {
        let rows = self.files_of(std::slice::from_ref(&file.owner)).await?;
        let Some(row) = rows.into_iter().find(|row| row.id == file.id) else { return Ok(true) };
        let ours = self.outbox.sent_as(&file.owner, path).map(|stamp| stamp.size);
        Ok(row.size_bytes != file.there && row.size_bytes != ours)
    }
}

impl Stamp {
    /// Whether nobody has delivered it, as far as that can be known: a process wrote it that began at `since`, and what the
    /// platform has there is not as long as what an earlier life than this, `born` then, may have delivered.
    fn is_newer(self, since: SystemTime, born: SystemTime, there: Option<u64>) -> bool {
        let is_after = |time: SystemTime| self.modified >= time.checked_sub(COARSE).unwrap_or(time);
        there.is_none_or(|there| is_after(since) && (is_after(born) || there != self.size))
    }
}

/// None when there is no such file.
fn opened(artifacts: &Path, path: &str) -> io::Result<Option<(File, Stamp)>> {
    let file = match attune_sys::open_beneath(artifacts, Path::new(path)) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        file => file?,
    };
    let metadata = file.metadata()?;
    let stamp = Stamp { modified: metadata.modified()?, size: metadata.len() };
    Ok(metadata.is_file().then_some((file, stamp)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_copy_is_newer_when_its_process_wrote_it_or_nobody_has_delivered_any() {
        let at = |seconds| SystemTime::UNIX_EPOCH + Duration::from_secs(seconds);
        let is_newer = |modified, since, there| {
            let stamp = Stamp { modified: at(modified), size: 5 };
            stamp.is_newer(at(since), at(100), there)
        };
        assert!(is_newer(10, 200, None), "nobody has it");
        assert!(!is_newer(10, 200, Some(7)), "an old copy, of whatever size");
        assert!(is_newer(300, 200, Some(5)) && is_newer(300, 200, Some(7)), "of now");
        assert!(is_newer(60, 50, Some(7)), "an earlier life owes it");
        assert!(!is_newer(60, 50, Some(5)), "an earlier life has delivered it");
    }

    #[tokio::test]
    async fn what_runs_when_its_host_is_killed_is_looked_at_by_the_next_life() {
        let dir = tempfile::tempdir().unwrap();
        let now = DateTime::from_timestamp_millis(1_700_000_000_123).unwrap();
        let running = std::mem::ManuallyDrop::new(Outbox::open(dir.path().to_owned()).attend("demo.one", now));
        let next = Outbox::open(dir.path().to_owned());
        let ended = next.begin_look();
        assert_eq!(ended, [("demo.one".to_owned(), running.began)].into());
        assert!(!next.state().own.is_delivered());
        // Not owed any more when that was done, until another process runs.
        next.end_look(ended, Ok(Vec::new())).unwrap();
        next.settle("demo.one").await;
        assert!(next.state().own.is_delivered() && marks::all(dir.path()).is_empty());
        let again = next.attend("demo.one", now);
        assert_eq!(marks::all(dir.path()).len(), 1);
        drop(again);
        assert!(!next.state().own.is_delivered());
    }

    #[tokio::test]
    async fn a_mark_that_goes_late_leaves_that_of_a_process_which_has_begun_meanwhile() {
        let dir = tempfile::tempdir().unwrap();
        let outbox = Outbox::open(dir.path().to_owned());
        drop(outbox.attend("demo.one", Utc::now()));
        let ended = outbox.begin_look();
        outbox.end_look(ended, Ok(Vec::new())).unwrap();
        assert!(outbox.state().own.settle("demo.one"));
        // Before that was written.
        let _running = outbox.attend("demo.one", Utc::now());
        outbox.mark("demo.one");
        assert_eq!(marks::all(dir.path()).len(), 1);
    }
}
