//! What an earlier life of this host has left to be sent.

use std::collections::{BTreeSet, HashMap};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use attune_store::SensorFile;

use super::adopt::hold;
use super::ledger;
use super::outbox::{Aftermath, Log, MISSING, Outbox, State};
use super::own_files::OwnFiles;
use super::parcel::Parcel;

/// Logs without versions, which the store refuses and the platform never gets.
const PLAIN_LOGS: &str = "sensors";
/// So long people may want to read them.
const PLAIN_LOGS_KEPT: Duration = Duration::from_hours(7 * 24);

/// Where files of logs that have versions begin (a fact of the platform).
const LOGS: &str = "sensor";

impl Outbox {
    /// With what is in `folder`. Blocks.
    pub(crate) fn open(folder: PathBuf) -> Self {
        let mut left = HashMap::new();
        if let Err(error) = walk(&folder, LOGS, &mut left) {
            tracing::warn!(folder = %folder.display(), %error, "logs that an earlier life has left are not looked at");
        }
        let now = SystemTime::now();
        remove_plain_logs(&folder.join(PLAIN_LOGS), now);
        let ledger = ledger::read(&folder);
        let hold = hold(&folder).unwrap_or_else(|error| {
            tracing::debug!(folder = %folder.display(), %error, "no hold on the folder");
            None
        });
        if hold.is_none() {
            tracing::warn!(folder = %folder.display(), "another host of this name on this machine may use the folder of our logs");
        }
        Self::new(folder, left, (OwnFiles::known(ledger), hold))
    }

    /// Of which sensors.
    pub(super) fn owners(&self) -> Vec<String> {
        let state = self.state();
        let left = state.logs.iter().filter(|(_, log)| log.is_left);
        let owners: BTreeSet<String> = left.filter_map(|(log, _)| owner(log)).collect();
        owners.into_iter().collect()
    }

    /// What is left and has a version without a size is sent. Returns what has to go from here.
    pub(super) fn know(&self, files: &[SensorFile]) -> Aftermath {
        let rows: HashMap<&str, &SensorFile> = files.iter().map(|file| (file.file_path.as_str(), file)).collect();
        let mut state = self.state();
        let names: Vec<String> = state.logs.keys().cloned().collect();
        let gone = names.iter().flat_map(|name| know(&mut state, name, &rows)).collect();
        drop(state);
        self.say_ready();
        Aftermath { gone, told: None }
    }
}

fn know(state: &mut State, name: &str, rows: &HashMap<&str, &SensorFile>) -> Vec<String> {
    let mut gone = Vec::new();
    let Some(log) = state.logs.get_mut(name) else { return gone };
    // Also when new versions have pushed out all that was left: it is on hold until then.
    if !std::mem::take(&mut log.is_left) {
        return gone;
    }
    let mut complete = None;
    for mut parcel in std::mem::take(&mut log.parcels) {
        let row = rows.get(parcel.path.as_str()).copied();
        match (parcel.version, row) {
            (None, None) => gone.push(parcel.path),
            (None, Some(SensorFile { size_bytes: Some(_), .. })) => gone.extend(complete.replace(parcel.path)),
            (None, Some(row)) => {
                parcel.version = Some(row.id);
                log.parcels.push_back(parcel);
            }
            (Some(_), _) => log.parcels.push_back(parcel),
        }
    }
    if log.parcels.is_empty() {
        log.kept = complete;
    } else {
        gone.extend(complete);
    }
    log.holds -= 1;
    state.make_ready(name);
    gone
}

/// Those of sensors that have written none for a long time. What is written is bounded by its rotation.
fn remove_plain_logs(folder: &Path, now: SystemTime) {
    let Ok(sensors) = fs::read_dir(folder) else { return };
    for sensor in sensors.flatten() {
        let changed = |entry: fs::DirEntry| entry.metadata().and_then(|metadata| metadata.modified()).ok();
        let last = fs::read_dir(sensor.path()).into_iter().flatten().flatten().filter_map(changed).max();
        let age = last.and_then(|last| now.duration_since(last).ok());
        if age.is_some_and(|age| age > PLAIN_LOGS_KEPT) {
            let removed = fs::remove_dir_all(sensor.path()).map_err(|error| error.to_string());
            tracing::warn!(folder = %sensor.path().display(), error = removed.err(),
                "old logs of a sensor go, of which the store took no version");
        }
    }
}

/// `sensor/demo/clock/stderr` belongs to `demo.clock`.
fn owner(log: &str) -> Option<String> {
    let (middle, _stream) = log.strip_prefix(LOGS)?.strip_prefix('/')?.rsplit_once('/')?;
    Some(middle.replace('/', "."))
}

fn walk(root: &Path, below: &str, left: &mut HashMap<String, Log>) -> io::Result<()> {
    let entries = match fs::read_dir(root.join(below)) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        entries => entries?,
    };
    let mut versions = Vec::new();
    for entry in entries {
        let entry = entry?;
        let Ok(name) = entry.file_name().into_string() else { continue };
        let path = format!("{below}/{name}");
        if entry.file_type()?.is_dir() {
            walk(root, &path, left)?;
            // Of a sensor that is no more. One that is not empty stays.
            drop(fs::remove_dir(entry.path()));
        } else if let Some(number) = number(&name) {
            let missing = fs::read_to_string(root.join(format!("{path}.{MISSING}"))).unwrap_or_default();
            let size = entry.metadata()?.len();
            versions.push((number, Parcel::left(path, size, missing.parse().unwrap_or_default())));
        }
    }
    if !versions.is_empty() {
        versions.sort_unstable_by_key(|(number, _)| *number);
        let parcels = versions.into_iter().map(|(_, parcel)| parcel).collect();
        left.insert(below.to_owned(), Log::left(parcels));
    }
    Ok(())
}

/// `v3.txt` is version 3.
fn number(name: &str) -> Option<i32> {
    name.strip_prefix('v')?.strip_suffix(".txt")?.parse().ok()
}

#[cfg(test)]
mod tests {
    use attune_store::LogVersion;
    use tokio::time::Instant;

    use super::super::parcel::Step;
    use super::*;

    const LOG: &str = "sensor/demo/one/stderr";

    fn left(versions: &[(&str, &str)]) -> (tempfile::TempDir, Outbox) {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir_all(dir.path().join(LOG)).unwrap();
        for (name, text) in versions {
            fs::write(dir.path().join(LOG).join(name), text).unwrap();
        }
        let outbox = Outbox::open(dir.path().to_owned());
        (dir, outbox)
    }

    fn row(number: i64, size_bytes: Option<u64>) -> SensorFile {
        let (owner, file_path) = ("demo.one".to_owned(), format!("{LOG}/v{number}.txt"));
        SensorFile { id: number, owner, file_path, size_bytes }
    }

    #[test]
    fn what_is_left_is_sent_in_order_when_its_rows_are_known() {
        let (dir, outbox) = left(&[("v10.txt", "ten"), ("v9.txt", "nine"), ("v9.txt.missing", "12"), ("notes", "x")]);
        assert_eq!(outbox.owners(), ["demo.one"]);
        assert!(outbox.step(LOG, true).is_none(), "not before");
        // A new process does not change that.
        let version =
            LogVersion { id: 11, version: 11, file_path: format!("{LOG}/v11.txt"), expired_files: Vec::new() };
        let addressed = outbox.begin(&version, 4);
        addressed.holds(6);
        assert!(outbox.step(LOG, true).is_none(), "nor then");
        let aftermath = outbox.know(&[row(9, None), row(10, None), row(11, None)]);
        assert_eq!(aftermath.gone, Vec::<String>::new());
        assert_eq!(outbox.take(Instant::now()).as_deref(), Some(LOG));
        assert_eq!(outbox.step(LOG, true), Some((format!("{LOG}/v9.txt"), Step::Measure)));
        let expected = [(9, 12, Some(9)), (10, 0, Some(10)), (11, 0, Some(11))];
        let state = outbox.state();
        let parcels = state.logs[LOG].parcels.iter();
        let waiting: Vec<_> =
            parcels.zip(9..).map(|(parcel, number)| (number, parcel.missing, parcel.version)).collect();
        assert_eq!(waiting, expected);
        drop(state);
        drop((addressed, dir));
    }

    #[test]
    fn what_is_there_already_or_has_no_row_any_more_goes_and_the_last_one_stays() {
        let names = [("v1.txt", "a"), ("v2.txt", "b"), ("v3.txt", "c")];
        let (_dir, outbox) = left(&names);
        let aftermath = outbox.know(&[row(2, Some(1)), row(3, Some(1))]);
        assert_eq!(aftermath.gone, [format!("{LOG}/v1.txt"), format!("{LOG}/v2.txt")]);
        assert_eq!(outbox.state().logs[LOG].kept, Some(format!("{LOG}/v3.txt")));
        let (_dir, outbox) = left(&names);
        let aftermath = outbox.know(&[row(1, Some(1)), row(2, None)]);
        assert_eq!(aftermath.gone, [format!("{LOG}/v3.txt"), format!("{LOG}/v1.txt")]);
        assert_eq!(outbox.state().logs[LOG].parcels.len(), 1);
    }

    #[test]
    fn a_log_whose_leftovers_were_pushed_out_by_new_versions_is_sent_all_the_same() {
        let (_dir, outbox) = left(&[("v1.txt", "a")]);
        let version = LogVersion { id: 2, version: 2, file_path: format!("{LOG}/v2.txt"), expired_files: Vec::new() };
        outbox.begin(&version, 1).holds(6);
        assert!(outbox.step(LOG, true).is_none(), "the store was not asked");
        assert_eq!(outbox.owners(), ["demo.one"]);
        outbox.know(&[row(2, None)]);
        assert!(outbox.step(LOG, true).is_some());
        assert!(outbox.owners().is_empty());
    }

    #[test]
    fn only_the_version_that_is_meant_is_finished() {
        let (_dir, outbox) = left(&[]);
        let version = LogVersion { id: 1, version: 1, file_path: format!("{LOG}/v1.txt"), expired_files: Vec::new() };
        let _addressed = outbox.begin(&version, 4);
        outbox.finish(LOG, &format!("{LOG}/v0.txt"));
        assert_eq!(outbox.state().logs[LOG].parcels.len(), 1);
        outbox.finish(LOG, &version.file_path);
        assert!(outbox.state().logs[LOG].parcels.is_empty());
    }

    #[test]
    fn old_logs_without_versions_and_empty_folders_go() {
        let dir = tempfile::tempdir().unwrap();
        let log = |sensor: &str| dir.path().join("sensors").join(sensor).join("stderr.log");
        for (sensor, days) in [("demo.old", 8), ("demo.new", 6)] {
            fs::create_dir_all(log(sensor).parent().unwrap()).unwrap();
            let written = SystemTime::now() - Duration::from_hours(24 * days);
            fs::File::create(log(sensor)).unwrap().set_modified(written).unwrap();
        }
        fs::create_dir_all(dir.path().join(LOG)).unwrap();
        let _outbox = Outbox::open(dir.path().to_owned());
        assert!(!log("demo.old").parent().unwrap().exists() && log("demo.new").exists());
        assert!(!dir.path().join("sensor/demo").exists());
    }

    #[test]
    fn folders_say_whose_a_log_is() {
        assert_eq!(owner("sensor/demo/one/stderr").as_deref(), Some("demo.one"));
        assert_eq!(owner("sensor/demo/a/b/stdout").as_deref(), Some("demo.a.b"));
        assert_eq!(owner("sensor/stdout"), None);
    }
}
