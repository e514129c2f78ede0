//! Files beside an environment that builders of one group write in turns, whoever made them and whatever its umask was.

use std::fs::{File, OpenOptions, Permissions};
use std::io::{self, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::Path;

/// Builders may run as different users of one group.
const MODE: u32 = 0o664;

/// Opens the file for writing as it is, or makes it.
pub(super) fn open(path: &Path) -> io::Result<File> {
    let file = OpenOptions::new().create(true).truncate(false).write(true).mode(MODE).open(path)?;
    // The umask has taken bits from the mode. Only the owner can put them back, and has done so when it was not us.
    if let Err(error) = file.set_permissions(Permissions::from_mode(MODE)) {
        tracing::debug!(path = %path.display(), %error, "the mode of the file is left as it is");
    }
    Ok(file)
}

/// Replaces its content.
pub(super) fn write(path: &Path, content: &[u8]) -> io::Result<()> {
    let mut file = open(path)?;
    file.set_len(0)?;
    file.write_all(content)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_group_may_write_the_file_whatever_the_umask_is() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log");
        write(&path, b"the longer text").unwrap();
        assert_eq!(path.metadata().unwrap().permissions().mode() & 0o777, 0o664);
        write(&path, b"short").unwrap();
        assert_eq!(std::fs::read(&path).unwrap(), b"short");
    }
}
