//! What files of their own sensors may owe, beyond the life of this process: `own/<sensor>` in the folder of the host, with the
//! time since when.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use attune_http::form_encoded;
use attune_model::order;

/// By sensor.
pub(super) type Times = BTreeMap<String, SystemTime>;

const FOLDER: &str = "own";

/// Marks a sensor, or takes its mark away. Blocks.
pub(super) fn set(folder: &Path, sensor_ref: &str, since: Option<SystemTime>) {
    let file = folder.join(FOLDER).join(form_encoded(sensor_ref));
    let done = match since {
        Some(since) => write(&file, sensor_ref, since),
        None => fs::remove_file(&file),
    };
    match done {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            tracing::warn!(file = %file.display(), %error, "what a sensor writes itself is forgotten with this process");
        }
        Ok(()) | Err(_) => {}
    }
}

fn write(file: &PathBuf, sensor_ref: &str, since: SystemTime) -> io::Result<()> {
    fs::create_dir_all(file.parent().unwrap_or(file))?;
    let since = since.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    fs::write(file, format!("{} {sensor_ref}", since.as_millis()))
}

/// All marks. Blocks.
pub(super) fn all(folder: &Path) -> Times {
    let Ok(entries) = fs::read_dir(folder.join(FOLDER)) else { return Times::new() };
    // One that was being written when its process died is of a sensor that had not begun.
    let marks = entries.flatten().filter_map(|entry| fs::read_to_string(entry.path()).ok());
    order::map(marks.filter_map(|text| parse(&text)))
}

fn parse(text: &str) -> Option<(String, SystemTime)> {
    let (since, sensor_ref) = text.split_once(' ')?;
    let since = SystemTime::UNIX_EPOCH.checked_add(Duration::from_millis(since.parse().ok()?))?;
    Some((sensor_ref.to_owned(), since))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn marks_are_found_again_until_they_are_taken_away() {
        let folder = tempfile::tempdir().unwrap();
        assert!(all(folder.path()).is_empty());
        let at = |seconds| SystemTime::UNIX_EPOCH + Duration::from_secs(seconds);
        set(folder.path(), "demo.one", Some(at(7)));
        set(folder.path(), "demo.a/../b", Some(at(8)));
        set(folder.path(), "demo.one", Some(at(9)));
        fs::write(folder.path().join("own/torn"), "12").unwrap();
        assert_eq!(all(folder.path()), [("demo.a/../b".to_owned(), at(8)), ("demo.one".to_owned(), at(9))].into());
        set(folder.path(), "demo.one", None);
        set(folder.path(), "demo.gone", None);
        assert_eq!(all(folder.path()).len(), 1);
    }
}
