//! Files that sensors have registered with the API and written themselves, below the folder of artifacts of this host.
//!
//! They go to the platform when a process of their sensor has ended, and stay here: the next process may go on with them.
//! Each is on its way by itself, read while it is sent, and sent again only when it has changed, which is known over the lives of
//! this host. The platform does not say of which time its copy is, so a file that this process has not written is sent only
//! when nobody has delivered it, and one that another host has delivered while ours waited stays as it is, however often it is
//! looked at.

mod delivery;

use std::collections::{BTreeMap, HashSet};
use std::time::SystemTime;

use attune_lifecycle::spawn_blocking;
use attune_model::order;
use chrono::{DateTime, Utc};

use super::Trouble;
use super::ledger::{self, Account, Ledger, Settled};
use super::outbox::{Outbox, State};
use super::stamp::Stamp;

/// A file that is to be delivered.
#[derive(Debug, Clone)]
pub(super) struct OwnFile {
    owner: String,
    id: i64,
    /// What it was when it was looked at.
    stamp: Stamp,
    /// What the platform had then.
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

/// Since when, by sensor.
type Times = BTreeMap<String, SystemTime>;

/// What is known about such files.
#[derive(Debug)]
pub(super) struct OwnFiles {
    /// What is kept on the disk.
    ledger: Ledger,
    /// Sensors whose account there is an older one.
    unwritten: HashSet<String>,
    /// Processes that run, and since when.
    running: Times,
    /// Processes that have ended, and since when they may have written.
    ended: Times,
    is_looking: bool,
    /// By path.
    waiting: BTreeMap<String, OwnFile>,
}

impl OwnFiles {
    /// What earlier lives have settled, and what they owe.
    pub(super) fn known(ledger: Ledger) -> Self {
        let owed = |(sensor_ref, account): (&String, &Account)| Some((sensor_ref.clone(), account.owed_since?));
        Self {
            ended: order::map(ledger.iter().filter_map(owed)),
            ledger,
            unwritten: HashSet::new(),
            running: Times::new(),
            is_looking: false,
            waiting: BTreeMap::new(),
        }
    }

    pub(super) fn is_delivered(&self) -> bool {
        self.ended.is_empty() && !self.is_looking && self.waiting.is_empty()
    }

    fn end(&mut self, sensor_ref: String, began: SystemTime) {
        let known = self.ended.entry(sensor_ref).or_insert(began);
        *known = began.min(*known);
    }

    /// Its file may have changed: it waits, once. Whether it has is not known before: files are settled while others are
    /// looked at.
    fn enter(&mut self, path: String, file: OwnFile) {
        let known = self.waiting.get(&path);
        // What was there when that was new tells whether another host delivers meanwhile.
        let waits = known.is_some_and(|known| known.stamp == file.stamp);
        let is_settled = self.settled(&file.owner, &path).is_some_and(|settled| settled.stamp == file.stamp);
        if waits || is_settled {
            return;
        }
        let is_under_way = known.is_some_and(|known| known.turn != Turn::Waits);
        let turn = if is_under_way { Turn::UnderWayAndWaits } else { Turn::Waits };
        self.waiting.insert(path, OwnFile { turn, ..file });
    }

    /// How long a file is that was delivered by a life of this host that ended before the store knew.
    fn untold_size(&self, path: &str, file: &OwnFile) -> Option<(i64, u64)> {
        let settled = self.settled(&file.owner, path).filter(|settled| settled.stamp == file.stamp)?;
        settled.ours.filter(|_| file.there.is_none()).map(|size| (file.id, size))
    }

    fn settled(&self, owner: &str, path: &str) -> Option<Settled> {
        self.ledger.get(owner)?.settled.get(path).copied()
    }

    /// Changes what is kept about a sensor.
    fn note(&mut self, sensor_ref: &str, change: impl FnOnce(&mut Account)) {
        let before = self.ledger.remove(sensor_ref).unwrap_or_default();
        let mut account = before.clone();
        change(&mut account);
        if account != before {
            self.unwritten.insert(sensor_ref.to_owned());
        }
        if account != Account::default() {
            self.ledger.insert(sensor_ref.to_owned(), account);
        }
    }

    /// Whether its account is to be written.
    fn settle(&mut self, sensor_ref: &str) -> bool {
        let is_owed = self.ended.contains_key(sensor_ref) || self.waiting.values().any(|file| file.owner == sensor_ref);
        if !is_owed {
            let since = self.running.get(sensor_ref).copied();
            self.note(sensor_ref, |account| account.owed_since = since);
        }
        self.unwritten.contains(sensor_ref)
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
        state.own.note(sensor_ref, |account| account.owed_since = account.owed_since.or(Some(began)));
        let is_unwritten = state.own.unwritten.contains(sensor_ref);
        drop(state);
        if is_unwritten {
            self.keep(sensor_ref);
        }
        Attended { outbox: self.clone(), sensor_ref: sensor_ref.to_owned(), began }
    }

    fn begin_look(&self) -> Times {
        let own = &mut self.state().own;
        own.is_looking = true;
        std::mem::take(&mut own.ended)
    }

    fn end_look(&self, ended: Times, found: Result<Vec<(String, OwnFile)>, Trouble>) -> Result<(), Trouble> {
        let mut state = self.state();
        let State { own, sizes, .. } = &mut *state;
        own.is_looking = false;
        match found {
            Ok(changed) => changed.into_iter().for_each(|(path, file)| {
                sizes.extend(own.untold_size(&path, &file));
                own.enter(path, file);
            }),
            Err(trouble) => {
                for (sensor_ref, since) in ended {
                    own.end(sensor_ref, since);
                }
                return Err(trouble);
            }
        }
        drop(state);
        self.say_file_waits();
        self.say_sized();
        Ok(())
    }

    /// Writes what is known about it by now: whoever comes last knows the most. Blocks.
    fn keep(&self, sensor_ref: &str) {
        let _alone = self.writing();
        let mut state = self.state();
        state.own.unwritten.remove(sensor_ref);
        let account = state.own.ledger.get(sensor_ref).cloned().unwrap_or_default();
        drop(state);
        ledger::keep(self.folder(), sensor_ref, &account);
    }

    async fn settle(&self, sensor_ref: &str) {
        if !self.state().own.settle(sensor_ref) {
            return;
        }
        let (outbox, sensor_ref) = (self.clone(), sensor_ref.to_owned());
        // Should this not be done, the next life looks in vain.
        drop(spawn_blocking(move || outbox.keep(&sensor_ref)).await);
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

    fn is_settled(&self, owner: &str, path: &str, settled: Settled) {
        self.state().own.note(owner, |account| {
            account.settled.insert(path.to_owned(), settled);
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stamp(size: u64) -> Stamp {
        Stamp { device: 1, inode: 1, changed: SystemTime::UNIX_EPOCH, size }
    }

    #[test]
    fn a_file_that_waits_is_compared_with_what_was_there_when_it_was_new() {
        let mut own = OwnFiles::known(Ledger::new());
        let file = |size, there| {
            let stamp = stamp(size);
            OwnFile { owner: "demo.one".to_owned(), id: 1, stamp, there, turn: Turn::Waits }
        };
        let mut enter = |size, there| {
            own.enter("a".to_owned(), file(size, there));
            let known = own.waiting.get_mut("a").unwrap();
            (known.there, std::mem::replace(&mut known.turn, Turn::UnderWay))
        };
        assert_eq!(enter(5, Some(7)), (Some(7), Turn::Waits));
        assert_eq!(enter(5, Some(8)), (Some(7), Turn::UnderWay), "another host has delivered, and ours is the same");
        assert_eq!(enter(6, Some(8)), (Some(8), Turn::UnderWayAndWaits));
    }

    #[test]
    fn what_is_settled_while_it_is_looked_at_does_not_wait_again() {
        let mut own = OwnFiles::known(Ledger::new());
        let stamp = stamp(5);
        let file = OwnFile { owner: "demo.one".to_owned(), id: 1, stamp, there: Some(7), turn: Turn::Waits };
        let gave_way = Settled { stamp, ours: None, is_refused: false };
        own.note("demo.one", |account| account.settled = [("a".to_owned(), gave_way)].into());
        own.enter("a".to_owned(), file.clone());
        assert!(own.waiting.is_empty());
        own.enter("a".to_owned(), OwnFile { stamp: Stamp { size: 6, ..stamp }, ..file });
        assert!(own.waiting.contains_key("a"), "it has changed");
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
        assert!(next.state().own.is_delivered() && ledger::read(dir.path()).is_empty());
        let again = next.attend("demo.one", now);
        assert_eq!(ledger::read(dir.path()).len(), 1);
        drop(again);
        assert!(!next.state().own.is_delivered());
    }

    #[tokio::test]
    async fn what_is_written_late_is_what_is_known_then() {
        let dir = tempfile::tempdir().unwrap();
        let outbox = Outbox::open(dir.path().to_owned());
        drop(outbox.attend("demo.one", Utc::now()));
        let ended = outbox.begin_look();
        outbox.end_look(ended, Ok(Vec::new())).unwrap();
        assert!(outbox.state().own.settle("demo.one"));
        // Before that was written.
        let _running = outbox.attend("demo.one", Utc::now());
        outbox.keep("demo.one");
        assert_eq!(ledger::read(dir.path()).len(), 1);
    }
}
