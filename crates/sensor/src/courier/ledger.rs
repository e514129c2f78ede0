//! What is known about files of their own that sensors wrote, beyond the life of this process: `own/<sensor>` in the folder of the
//! host. Its first line says whose it is and since when something may be owed, each further line which state of a file is settled.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use attune_http::form_encoded;
use serde::{Deserialize, Serialize};

use super::stamp::Stamp;

const FOLDER: &str = "own";
/// Beside the folder, and not a name of a sensor.
const UNFINISHED: &str = "own.new";

/// By sensor.
pub(super) type Ledger = BTreeMap<String, Account>;

/// What is known about the files of one sensor.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Account {
    /// A process that began then may have written what the platform does not have.
    pub(super) owed_since: Option<SystemTime>,
    /// By path.
    pub(super) settled: BTreeMap<String, Settled>,
}

/// A state of a file that nothing more is to be done for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Settled {
    pub(super) stamp: Stamp,
    /// How long the file is that the platform got from here last; none when another host's took its place.
    pub(super) ours: Option<u64>,
    /// The API does not take it. Another life may have more luck.
    pub(super) is_refused: bool,
}

#[derive(Serialize, Deserialize)]
struct Head {
    sensor: String,
    owed_since: Option<SystemTime>,
}

#[derive(Serialize, Deserialize)]
struct Entry {
    path: String,
    stamp: Stamp,
    ours: Option<u64>,
}

impl Account {
    /// Adds what another host knew about the same files and this one does not.
    fn add(&mut self, other: Self) {
        self.owed_since = self.owed_since.into_iter().chain(other.owed_since).min();
        for (path, settled) in other.settled {
            self.settled.entry(path).or_insert(settled);
        }
    }

    fn kept(&self) -> impl Iterator<Item = (&String, &Settled)> {
        self.settled.iter().filter(|(_, settled)| !settled.is_refused)
    }

    fn is_worth_keeping(&self) -> bool {
        self.owed_since.is_some() || self.kept().next().is_some()
    }

    fn to_lines(&self, sensor_ref: &str) -> serde_json::Result<String> {
        let head = Head { sensor: sensor_ref.to_owned(), owed_since: self.owed_since };
        let mut lines = serde_json::to_string(&head)? + "\n";
        for (path, &Settled { stamp, ours, .. }) in self.kept() {
            lines += &serde_json::to_string(&Entry { path: path.clone(), stamp, ours })?;
            lines.push('\n');
        }
        Ok(lines)
    }

    fn parse(text: &str) -> serde_json::Result<(String, Self)> {
        let (head, entries) = text.split_once('\n').unwrap_or((text, ""));
        let head: Head = serde_json::from_str(head)?;
        let entry = |line: &str| {
            let Entry { path, stamp, ours } = serde_json::from_str(line)?;
            Ok((path, Settled { stamp, ours, is_refused: false }))
        };
        let settled = entries.lines().map(entry).collect::<serde_json::Result<_>>()?;
        Ok((head.sensor, Self { owed_since: head.owed_since, settled }))
    }
}

/// Keeps the account of a sensor, if there is anything in it. Blocks, and only one caller at a time is allowed.
pub(super) fn keep(folder: &Path, sensor_ref: &str, account: &Account) {
    let file = file(folder, sensor_ref);
    let kept =
        if account.is_worth_keeping() { write(folder, &file, sensor_ref, account) } else { fs::remove_file(&file) };
    match kept {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            tracing::warn!(file = %file.display(), %error, "what is known about a sensor's own files is forgotten with this process");
        }
        Ok(()) | Err(_) => {}
    }
}

fn file(folder: &Path, sensor_ref: &str) -> PathBuf {
    folder.join(FOLDER).join(form_encoded(sensor_ref))
}

fn write(folder: &Path, file: &Path, sensor_ref: &str, account: &Account) -> io::Result<()> {
    let unfinished = folder.join(UNFINISHED);
    fs::create_dir_all(folder.join(FOLDER))?;
    fs::write(&unfinished, account.to_lines(sensor_ref)?)?;
    fs::rename(unfinished, file)
}

/// All accounts in the folder of a host. Blocks.
pub(super) fn read(folder: &Path) -> Ledger {
    let Ok(entries) = fs::read_dir(folder.join(FOLDER)) else { return Ledger::new() };
    let mut ledger = Ledger::new();
    for file in entries.flatten().map(|entry| entry.path()) {
        let account = fs::read_to_string(&file).and_then(|text| Ok(Account::parse(&text)?));
        match account {
            Ok((sensor_ref, account)) => drop(ledger.insert(sensor_ref, account)),
            Err(error) => {
                tracing::warn!(file = %file.display(), %error, "what was known about a sensor's own files is lost")
            }
        }
    }
    ledger
}

/// Adds the accounts in the folder of another host to those of this one. Blocks.
pub(super) fn take_over(from: &Path, to: &Path) -> io::Result<()> {
    let mut ours = read(to);
    for (sensor_ref, account) in read(from) {
        let our = ours.entry(sensor_ref.clone()).or_default();
        our.add(account);
        write(to, &file(to, &sensor_ref), &sensor_ref, our)?;
    }
    match fs::remove_dir_all(from.join(FOLDER)) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        removed => removed,
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn at(seconds: u64) -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::new(seconds, 123_456_789)
    }

    fn settled(inode: u64) -> Settled {
        Settled { stamp: Stamp { device: 1, inode, changed: at(inode), size: 5 }, ours: Some(5), is_refused: false }
    }

    #[test]
    fn accounts_are_found_again_until_there_is_nothing_in_them() {
        let folder = tempfile::tempdir().unwrap();
        assert!(read(folder.path()).is_empty());
        let owing = Account { owed_since: Some(at(7)), ..Account::default() };
        let gave_way = Settled { ours: None, ..settled(2) };
        let knowing = Account {
            owed_since: None,
            settled: [("a b\n".to_owned(), settled(1)), ("c".to_owned(), gave_way)].into(),
        };
        keep(folder.path(), "demo.one", &knowing);
        keep(folder.path(), "demo.one", &owing);
        keep(folder.path(), "demo.a/../b", &knowing);
        fs::write(folder.path().join("own/torn"), "{").unwrap();
        let expected = [("demo.a/../b".to_owned(), knowing), ("demo.one".to_owned(), owing)];
        assert_eq!(read(folder.path()), expected.into());
        keep(folder.path(), "demo.one", &Account::default());
        keep(folder.path(), "demo.gone", &Account::default());
        let refused = Settled { is_refused: true, ..settled(1) };
        let refused = Account { owed_since: None, settled: [("a".to_owned(), refused)].into() };
        keep(folder.path(), "demo.one", &refused);
        assert_eq!(read(folder.path()).len(), 1);
    }

    #[test]
    fn what_another_host_owes_is_owed_here() {
        let (from, to) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let account = |since, files: &[(&str, u64)]| Account {
            owed_since: since,
            settled: files.iter().map(|(path, inode)| ((*path).to_owned(), settled(*inode))).collect(),
        };
        keep(from.path(), "demo.one", &account(Some(at(1)), &[("a", 1), ("b", 2)]));
        keep(from.path(), "demo.two", &account(Some(at(2)), &[]));
        keep(to.path(), "demo.one", &account(None, &[("a", 3)]));
        take_over(from.path(), to.path()).unwrap();
        let one = account(Some(at(1)), &[("a", 3), ("b", 2)]);
        let expected = [("demo.one".to_owned(), one), ("demo.two".to_owned(), account(Some(at(2)), &[]))];
        assert_eq!(read(to.path()), expected.into());
        assert!(read(from.path()).is_empty());
    }
}
