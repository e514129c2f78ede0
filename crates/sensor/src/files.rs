//! Which files of a pack one sensor consists of, and whether they changed.

use std::collections::HashMap;
use std::ffi::OsString;
use std::fs;
use std::hash::{DefaultHasher, Hash, Hasher as _};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use attune_model::execution_config::ExecutionConfig;
use attune_model::order;
use attune_model::rows::Sensor;

/// Shared code of a pack, which its sensors import.
const SHARED_FOLDER: &str = "lib";
/// More files than a pack's library ever has; beyond it a change of the others is not seen.
const MOST_FILES: usize = 10_000;

/// What the names, modification times and sizes of files come to.
pub(crate) type Fingerprint = u64;

/// One look at the files of all sensors: what several of them share is looked at once. Blocks.
#[derive(Debug)]
pub(crate) struct Look<'a> {
    packs: &'a Path,
    seen: HashMap<PathBuf, Fingerprint>,
}

impl<'a> Look<'a> {
    pub(crate) fn at(packs: &'a Path) -> Self {
        Self { packs, seen: HashMap::new() }
    }

    /// The script, what stands beside it in a folder of its own, the pack's library and the manifest of its environment.
    pub(crate) fn fingerprint(&mut self, sensor: &Sensor, config: Option<&ExecutionConfig>) -> Fingerprint {
        let Some(pack_ref) = &sensor.pack_ref else {
            return 0;
        };
        let pack = self.packs.join(pack_ref);
        let sensors = pack.join("sensors");
        let script = sensors.join(&sensor.entrypoint);
        let beside = script.parent().filter(|folder| *folder != sensors && folder.starts_with(&sensors));
        let beside = beside.map(|folder| self.once(folder, fingerprint_of_folder));
        let library = self.once(&pack.join(SHARED_FOLDER), fingerprint_of_folder);
        let dependencies = config.and_then(|config| config.dependencies.as_ref());
        let manifest = dependencies.map(|of| self.once(&pack.join(&of.manifest_file), |file| hash(&stamp(file))));
        let script = self.once(&script, |file| hash(&stamp(file)));
        hash(&(script, beside, library, manifest))
    }

    fn once(&mut self, path: &Path, look: impl FnOnce(&Path) -> Fingerprint) -> Fingerprint {
        if let Some(seen) = self.seen.get(path) {
            return *seen;
        }
        let seen = look(path);
        self.seen.insert(path.to_owned(), seen);
        seen
    }
}

/// All files of a folder, whoever needs them. Blocks.
pub(crate) fn fingerprint_of_folder(folder: &Path) -> Fingerprint {
    hash(&files_in(folder, MOST_FILES))
}

fn hash(what: &impl Hash) -> Fingerprint {
    let mut hasher = DefaultHasher::new();
    what.hash(&mut hasher);
    hasher.finish()
}

/// Modification time and size; none for a file that is not there.
type Stamp = Option<(SystemTime, u64)>;

fn stamp(path: &Path) -> Stamp {
    fs::metadata(path).and_then(|metadata| Ok((metadata.modified()?, metadata.len()))).ok()
}

fn files_in(folder: &Path, most: usize) -> Vec<(PathBuf, Stamp)> {
    let mut files = Vec::new();
    walk(folder, most, &mut files);
    files
}

/// All files below `folder`, without what interpreters write there themselves. Links to folders are not followed: they
/// may lead in circles.
fn walk(folder: &Path, most: usize, files: &mut Vec<(PathBuf, Stamp)>) {
    for (name, is_folder) in entries(folder, most) {
        if files.len() >= most {
            return;
        }
        let path = folder.join(name);
        if is_folder {
            walk(&path, most, files);
        } else {
            let stamp = stamp(&path);
            files.push((path, stamp));
        }
    }
}

/// The first `most` names of a folder, and which of them are folders. Sorted, because the order of a file system may change by
/// itself, and with it what the first ones are.
fn entries(folder: &Path, most: usize) -> Vec<(OsString, bool)> {
    let mut first = Vec::new();
    let Ok(entries) = fs::read_dir(folder) else {
        return first;
    };
    for entry in entries.flatten() {
        let (name, is_folder) = (entry.file_name(), entry.file_type().is_ok_and(|kind| kind.is_dir()));
        if !is_folder || (name != "__pycache__" && name != "node_modules") {
            first.push((name, is_folder));
        }
        // Of a folder without end no more is kept.
        if first.len() > most.saturating_mul(2) {
            order::sort(&mut first);
            first.truncate(most);
        }
    }
    order::sort(&mut first);
    first.truncate(most);
    first
}

#[cfg(test)]
pub(crate) mod tests {
    use attune_model::execution_config::Dependencies;
    use attune_model::rows::{RawPlacement, Retention};
    use attune_model::{RuntimeId, SensorId};

    use super::*;

    pub(crate) fn sensor(entrypoint: &str) -> Sensor {
        Sensor {
            id: SensorId(1),
            r#ref: "demo.one".to_owned(),
            pack: None,
            pack_ref: Some("demo".to_owned()),
            label: String::new(),
            description: None,
            entrypoint: entrypoint.to_owned(),
            runtime: RuntimeId(1),
            runtime_ref: "core.python".to_owned(),
            enabled: true,
            param_schema: None,
            config: None,
            runtime_version_constraint: None,
            placement: RawPlacement::default(),
            log_retention: Retention::default(),
        }
    }

    #[test]
    fn of_too_many_files_the_first_by_name_count() {
        let folder = tempfile::tempdir().unwrap();
        fs::create_dir(folder.path().join("m")).unwrap();
        let name = |number| if number % 3 == 0 { format!("m/{number:03}") } else { format!("z{number:03}") };
        let mut all: Vec<String> = (0..300).map(name).collect();
        for name in &all {
            fs::write(folder.path().join(name), "").unwrap();
        }
        all.sort();
        for most in [10, 100, 110, 299, 300, 301] {
            let files = files_in(folder.path(), most);
            let paths: Vec<&Path> = files.iter().map(|(path, _)| path.strip_prefix(folder.path()).unwrap()).collect();
            assert_eq!(paths, all.iter().take(most).map(Path::new).collect::<Vec<_>>(), "{most}");
        }
    }

    #[test]
    fn the_files_of_a_sensor_and_no_others_count() {
        let packs = tempfile::tempdir().unwrap();
        let write = |path: &str, text: &str| {
            let path = packs.path().join("demo").join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        };
        for path in ["sensors/app/main.py", "sensors/app/part.py", "sensors/other.py", "lib/a/b.py", "requirements.txt"]
        {
            write(path, "1");
        }
        let config = ExecutionConfig {
            dependencies: Some(Dependencies {
                manifest_file: "requirements.txt".to_owned(),
                install_command: Vec::new(),
            }),
            ..ExecutionConfig::default()
        };
        let now = || Look::at(packs.path()).fingerprint(&sensor("app/main.py"), Some(&config));
        let mut before = now();
        for path in ["sensors/other.py", "actions/x.py", "lib/a/__pycache__/b.pyc", "README"] {
            write(path, "longer than before");
            assert_eq!(now(), before, "{path}");
        }
        for path in ["sensors/app/main.py", "sensors/app/part.py", "lib/a/b.py", "lib/new.py", "requirements.txt"] {
            write(path, "longer than before");
            let after = now();
            assert_ne!(after, before, "{path}");
            before = after;
        }
        fs::remove_file(packs.path().join("demo/sensors/app/main.py")).unwrap();
        assert_ne!(now(), before, "a missing script is a change");
    }
}
