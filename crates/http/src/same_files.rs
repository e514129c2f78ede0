//! Whether two folders hold the same.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, BufRead as _, BufReader};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

/// What interpreters write beside code by themselves.
const BY_PRODUCT: &str = "__pycache__";

/// Whether files, folders and links below both paths have the same names, contents, targets and rights. Links are not followed.
pub(crate) fn same_files(one: &Path, other: &Path) -> io::Result<bool> {
    let (left, right) = (fs::symlink_metadata(one)?, fs::symlink_metadata(other)?);
    if left.file_type() != right.file_type() {
        return Ok(false);
    }
    if left.is_symlink() {
        return Ok(fs::read_link(one)? == fs::read_link(other)?);
    }
    if left.is_dir() {
        return same_entries(&entries(one)?, &entries(other)?);
    }
    let same_rights = left.permissions().mode() == right.permissions().mode();
    Ok(same_rights && left.len() == right.len() && same_content(one, other)?)
}

type Entries = BTreeMap<std::ffi::OsString, PathBuf>;

fn entries(folder: &Path) -> io::Result<Entries> {
    let mut entries = Entries::new();
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        if entry.file_name() != BY_PRODUCT {
            entries.insert(entry.file_name(), entry.path());
        }
    }
    Ok(entries)
}

fn same_entries(one: &Entries, other: &Entries) -> io::Result<bool> {
    if !one.keys().eq(other.keys()) {
        return Ok(false);
    }
    for (left, right) in one.values().zip(other.values()) {
        if !same_files(left, right)? {
            return Ok(false);
        }
    }
    Ok(true)
}

fn same_content(one: &Path, other: &Path) -> io::Result<bool> {
    let (mut one, mut other) = (BufReader::new(File::open(one)?), BufReader::new(File::open(other)?));
    loop {
        let (left, right) = (one.fill_buf()?, other.fill_buf()?);
        let length = left.len().min(right.len());
        if left[..length] != right[..length] {
            return Ok(false);
        }
        if length == 0 {
            return Ok(left.is_empty() && right.is_empty());
        }
        one.consume(length);
        other.consume(length);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pack(folder: &Path) {
        fs::create_dir_all(folder.join("sensors/part")).unwrap();
        for (name, text) in [("pack.yaml", "ref: demo"), ("sensors/one.sh", "exit 0"), ("sensors/part/two.py", "pass")]
        {
            fs::write(folder.join(name), text).unwrap();
        }
        std::os::unix::fs::symlink("one.sh", folder.join("sensors/link")).unwrap();
    }

    #[test]
    fn any_difference_is_seen_but_not_what_an_interpreter_leaves() {
        let dir = tempfile::tempdir().unwrap();
        let (one, other) = (dir.path().join("one"), dir.path().join("other"));
        pack(&one);
        let changes: [fn(&Path); 7] = [
            |pack| fs::write(pack.join("sensors/one.sh"), "exit 1").unwrap(),
            |pack| fs::write(pack.join("sensors/part/two.py"), "longer").unwrap(),
            |pack| fs::write(pack.join("sensors/new"), "").unwrap(),
            |pack| fs::remove_file(pack.join("pack.yaml")).unwrap(),
            |pack| fs::remove_dir_all(pack).unwrap(),
            |pack| fs::set_permissions(pack.join("pack.yaml"), fs::Permissions::from_mode(0o600)).unwrap(),
            |pack| {
                fs::remove_file(pack.join("sensors/link")).unwrap();
                std::os::unix::fs::symlink("part", pack.join("sensors/link")).unwrap();
            },
        ];
        for (number, change) in changes.into_iter().enumerate() {
            pack(&other);
            fs::create_dir(other.join("sensors/__pycache__")).unwrap();
            assert!(same_files(&one, &other).unwrap());
            change(&other);
            assert!(!same_files(&one, &other).unwrap_or(false), "change {number}");
            if other.exists() {
                fs::remove_dir_all(&other).unwrap();
            }
        }
    }
}
