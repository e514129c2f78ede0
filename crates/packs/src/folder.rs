//! Folders and files: which are packs, which files belong to them, and their text. Nothing here knows a field.

use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use attune_model::order;
use attune_yaml::{Problem, Report};

/// The file that makes a folder a pack.
pub(crate) const MANIFEST: &str = "pack.yaml";

/// Larger files are refused: none that a person wrote comes near.
const MAX_FILE_BYTES: u64 = 4 * 1024 * 1024;

/// The pack folders that `path` means: itself, or the packs directly in it.
pub(crate) fn packs_in(path: &Path) -> Result<Vec<PathBuf>, Vec<Problem>> {
    if is_pack(path) {
        return Ok(vec![path.to_owned()]);
    }
    let folders = subfolders(path).map_err(|error| about(path, &reason(&error)))?;
    let packs: Vec<PathBuf> = folders.into_iter().filter(|folder| is_pack(folder)).collect();
    if packs.is_empty() {
        return Err(about(
            path,
            &format!("neither a pack nor a folder of packs: no {MANIFEST} here or one level below"),
        ));
    }
    Ok(packs)
}

/// Whether `path` is meant to be a pack: a manifest that cannot be read is an error to be told, not a reason to pass it over.
pub(crate) fn is_pack(path: &Path) -> bool {
    path.join(MANIFEST).symlink_metadata().is_ok()
}

fn subfolders(path: &Path) -> io::Result<Vec<PathBuf>> {
    let mut folders = Vec::new();
    for entry in std::fs::read_dir(path)? {
        let path = entry?.path();
        if path.is_dir() && !is_hidden(&path) {
            folders.push(path);
        }
    }
    order::sort(&mut folders);
    Ok(folders)
}

/// The YAML files directly in `folder`, sorted; a folder that does not exist has none.
pub(crate) fn yaml_files(folder: &Path) -> Result<Vec<PathBuf>, Vec<Problem>> {
    let entries = match std::fs::read_dir(folder) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(about(folder, &reason(&error))),
    };
    let mut files = Vec::new();
    for entry in entries {
        let path = entry.map_err(|error| about(folder, &reason(&error)))?.path();
        let is_yaml = path.extension().is_some_and(|extension| extension == "yaml" || extension == "yml");
        if is_yaml && !is_hidden(&path) {
            files.push(path);
        }
    }
    order::sort(&mut files);
    Ok(files)
}

/// Editors leave hidden copies beside the file they write.
fn is_hidden(path: &Path) -> bool {
    path.file_name().is_some_and(|name| name.as_encoded_bytes().starts_with(b"."))
}

/// The text of a file; what prevents it becomes an error of `report`.
pub(crate) fn read(report: &Report) -> Option<String> {
    let read = || -> io::Result<Vec<u8>> {
        // Opening a pipe would wait for its writer, and some devices never end.
        if !std::fs::metadata(report.file())?.is_file() {
            return Err(io::Error::other("not a file"));
        }
        let mut bytes = Vec::new();
        File::open(report.file())?.take(MAX_FILE_BYTES + 1).read_to_end(&mut bytes)?;
        if u64::try_from(bytes.len()).is_ok_and(|length| length > MAX_FILE_BYTES) {
            return Err(io::Error::other(format!("larger than the {MAX_FILE_BYTES} bytes that are allowed")));
        }
        Ok(bytes)
    };
    let bytes = read().map_err(|error| report.error(0, "", reason(&error))).ok()?;
    let text = String::from_utf8(bytes);
    text.map_err(|error| {
        let valid = &error.as_bytes()[..error.utf8_error().valid_up_to()];
        let lines = valid.split(|byte| *byte == b'\n').count();
        let line = u32::try_from(lines).unwrap_or(u32::MAX);
        report.error(line, "", "the file is not UTF-8");
    })
    .ok()
}

fn reason(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::NotFound => "no such file or folder".to_owned(),
        io::ErrorKind::PermissionDenied => "reading it is not permitted".to_owned(),
        io::ErrorKind::NotADirectory => "not a folder".to_owned(),
        _ => error.to_string(),
    }
}

fn about(path: &Path, message: &str) -> Vec<Problem> {
    let report = Report::new(path);
    report.error(0, "", message);
    report.into_problems()
}
