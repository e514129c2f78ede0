//! One log file: made with the modes that the platform's other services need, kept open, appended to.

use std::fs::{self, DirBuilder, File, OpenOptions, Permissions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt as _, PermissionsExt};
use std::path::{Component, Path, PathBuf};

/// Readable and writable by the group that shares the volume.
const FILE_MODE: u32 = 0o664;
/// The group of a folder is handed on to what is made in it.
const DIR_MODE: u32 = 0o2775;

/// An open log file. All its methods block.
#[derive(Debug)]
pub(crate) struct Segment {
    file: File,
    path: PathBuf,
    size: u64,
}

impl Segment {
    /// Opens `relative` below `root`, making folders and file.
    pub(crate) fn open(root: &Path, relative: &Path) -> io::Result<Self> {
        let path = inside(root, relative)?;
        make_folders(root, relative.parent().unwrap_or(Path::new("")))?;
        let file = OpenOptions::new().create(true).append(true).open(&path)?;
        set_mode(&path, FILE_MODE);
        let size = file.metadata()?.len();
        Ok(Self { file, path, size })
    }

    /// Appends.
    pub(crate) fn append(&mut self, bytes: &[u8]) -> io::Result<()> {
        let written = self.file.write_all(bytes);
        // A failed write may have written something.
        self.size = match &written {
            Ok(()) => self.size + bytes.len() as u64,
            Err(_) => self.file.metadata().map_or(self.size, |metadata| metadata.len()),
        };
        written
    }

    /// Bytes in the file.
    pub(crate) fn size(&self) -> u64 {
        self.size
    }

    /// Whether somebody has removed it.
    pub(crate) fn is_removed(&self) -> bool {
        self.file.metadata().is_ok_and(|metadata| metadata.nlink() == 0)
    }

    /// Where it is.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }
}

/// `relative` below `root`; refuses what would lead outside.
pub(crate) fn inside(root: &Path, relative: &Path) -> io::Result<PathBuf> {
    if relative.components().all(|component| matches!(component, Component::Normal(_))) {
        Ok(root.join(relative))
    } else {
        let problem = format!("{} does not stay inside {}", relative.display(), root.display());
        Err(io::Error::new(io::ErrorKind::InvalidInput, problem))
    }
}

/// Moves `file` to `file.1`, `file.1` to `file.2` and so on; the one behind `keep` is removed.
pub(crate) fn rotate(file: &Path, keep: u32) -> io::Result<()> {
    let numbered = |number: u32| {
        let mut name = file.as_os_str().to_owned();
        if number > 0 {
            name.push(format!(".{number}"));
        }
        PathBuf::from(name)
    };
    for number in (0..keep).rev() {
        match fs::rename(numbered(number), numbered(number + 1)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            Ok(()) | Err(_) => {}
        }
    }
    Ok(())
}

fn make_folders(root: &Path, relative: &Path) -> io::Result<()> {
    let mut path = root.to_owned();
    if !path.is_dir() {
        fs::create_dir_all(&path)?;
        set_mode(&path, DIR_MODE);
    }
    for component in relative.components() {
        path.push(component);
        match DirBuilder::new().mode(DIR_MODE).create(&path) {
            Ok(()) => set_mode(&path, DIR_MODE),
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// Past the umask. Somebody else's file keeps its mode: it was made with this one already.
fn set_mode(path: &Path, mode: u32) {
    if let Err(error) = fs::set_permissions(path, Permissions::from_mode(mode)) {
        tracing::debug!(path = %path.display(), %error, "mode not changed");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_and_folders_get_the_shared_modes() {
        let root = tempfile::tempdir().unwrap();
        let mut segment = Segment::open(root.path(), Path::new("sensor/demo/s/stderr/v1.txt")).unwrap();
        segment.append(b"hello\n").unwrap();
        assert_eq!(segment.size(), 6);
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o7777;
        assert_eq!(mode(segment.path()), FILE_MODE);
        assert_eq!(mode(&root.path().join("sensor/demo")), DIR_MODE);
        let again = Segment::open(root.path(), Path::new("sensor/demo/s/stderr/v1.txt")).unwrap();
        assert_eq!(again.size(), 6);
    }

    #[test]
    fn a_path_that_leads_outside_is_refused() {
        let root = tempfile::tempdir().unwrap();
        assert!(Segment::open(root.path(), Path::new("../x")).is_err());
        assert!(Segment::open(root.path(), Path::new("/etc/x")).is_err());
    }

    #[test]
    fn rotation_keeps_as_many_as_asked() {
        let root = tempfile::tempdir().unwrap();
        let file = root.path().join("stderr.log");
        for content in ["1", "2", "3", "4"] {
            fs::write(&file, content).unwrap();
            rotate(&file, 2).unwrap();
        }
        assert_eq!(fs::read_to_string(root.path().join("stderr.log.1")).unwrap(), "4");
        assert_eq!(fs::read_to_string(root.path().join("stderr.log.2")).unwrap(), "3");
        assert!(!root.path().join("stderr.log.3").exists());
    }
}
