//! Where files of the folder of artifacts are. Their folders are opened one after the other and no link is followed, so
//! that nobody who can write there leads the hub elsewhere, not even between two steps.

use std::ffi::OsStr;
use std::fmt;
use std::fs::{DirBuilder, File, Permissions};
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use attune_sys::{Opening, folder_in, make_folder_in, open_in, remove_in, rename_in};

use super::{FOLDER_MODE, FileProblem, Folders, io_error};

const FILE_MODE: u32 = 0o664;

impl Folders {
    /// The place of a file whose folders exist; none when one of them does not, or is a link.
    pub(crate) fn place(&self, path: &FilePath) -> Result<Option<Place>, FileProblem> {
        let Some(root) = found(File::open(&self.artifacts_dir), || self.artifacts_dir.clone())? else {
            return Ok(None);
        };
        let mut folder = OwnedFd::from(root);
        for part in path.folders() {
            match found(folder_in(folder.as_fd(), OsStr::new(part)), || self.path(path))? {
                Some(below) => folder = below,
                None => return Ok(None),
            }
        }
        Ok(Some(Place { folder, name: path.name().to_owned(), path: self.path(path) }))
    }

    /// The place of a file; makes its folders, with the shared mode whatever the umask is.
    pub(crate) fn make_place(&self, path: &FilePath) -> Result<Place, FileProblem> {
        let root = &self.artifacts_dir;
        DirBuilder::new().recursive(true).mode(FOLDER_MODE).create(root).map_err(io_error("make", root))?;
        let mut folder = OwnedFd::from(File::open(root).map_err(io_error("open", root))?);
        for part in path.folders() {
            folder = make_below(&folder, OsStr::new(part)).map_err(|error| match error.kind() {
                // Something else has the name, maybe a link.
                io::ErrorKind::NotADirectory => FileProblem::Path(path.to_string()),
                _ => io_error("make the folders of", &self.path(path))(error),
            })?;
        }
        Ok(Place { folder, name: path.name().to_owned(), path: self.path(path) })
    }

    /// For people: nothing is opened by it.
    fn path(&self, path: &FilePath) -> PathBuf {
        self.artifacts_dir.join(path.to_string())
    }
}

/// Where a file is below the folder of artifacts: names of folders and of the file, none of which leads elsewhere.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct FilePath(Vec<String>);

impl FilePath {
    /// As it is stored.
    pub(crate) fn plain(text: &str) -> Result<Self, FileProblem> {
        Self::of(text, |segment| Some(segment.to_owned()))
    }

    /// As it stands in an address.
    pub(crate) fn encoded(text: &str) -> Result<Self, FileProblem> {
        Self::of(text, decoded)
    }

    fn of(text: &str, name: impl Fn(&str) -> Option<String>) -> Result<Self, FileProblem> {
        let leads_elsewhere = |name: &String| matches!(&**name, "" | "." | "..") || name.contains(['/', '\0']);
        let names: Option<Vec<String>> =
            text.split('/').map(|segment| name(segment).filter(|name| !leads_elsewhere(name))).collect();
        names.map(Self).ok_or_else(|| FileProblem::Path(text.to_owned()))
    }

    fn folders(&self) -> impl Iterator<Item = &String> {
        self.0.iter().rev().skip(1).rev()
    }

    fn name(&self) -> &str {
        self.0.last().map_or("", String::as_str)
    }
}

impl fmt::Display for FilePath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.join("/"))
    }
}

/// The open folder that a file is in, and its name there. Nobody can put another folder in its place.
#[derive(Debug)]
pub(crate) struct Place {
    folder: OwnedFd,
    name: String,
    path: PathBuf,
}

impl Place {
    /// For people.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// The file and its size; none when there is no file of that name.
    pub(crate) fn open(&self) -> Result<Option<(File, u64)>, FileProblem> {
        let opened = open_in(self.folder.as_fd(), OsStr::new(&self.name), Opening::Read, 0);
        let Some(file) = found(opened, || self.path.clone())? else { return Ok(None) };
        let metadata = file.metadata().map_err(io_error("look at", &self.path))?;
        Ok(metadata.is_file().then_some((file, metadata.len())))
    }

    /// The file to add to, and its size; made when there is none.
    pub(crate) fn append(&self) -> Result<(File, u64), FileProblem> {
        let opened = open_in(self.folder.as_fd(), OsStr::new(&self.name), Opening::Append, FILE_MODE);
        let file = opened.map_err(|error| self.refused("open", error))?;
        let metadata = file.metadata().map_err(io_error("look at", &self.path))?;
        if !metadata.is_file() {
            return Err(FileProblem::Path(self.name.clone()));
        }
        share(&file).map_err(io_error("set the mode of", &self.path))?;
        Ok((file, metadata.len()))
    }

    /// Begins a file that gets its name when it is complete.
    pub(crate) fn upload(self) -> Result<Upload, FileProblem> {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let beside = format!(".upload-{}-{number}", std::process::id());
        let made = open_in(self.folder.as_fd(), OsStr::new(&beside), Opening::CreateNew, FILE_MODE);
        let file = made.map_err(io_error("make", &self.path))?;
        Ok(Upload { file, place: self, beside: Some(beside) })
    }

    /// Removes it; one that is not there is no error.
    pub(crate) fn remove(&self) -> Result<(), FileProblem> {
        match remove_in(self.folder.as_fd(), OsStr::new(&self.name)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(self.refused("remove", error)),
            _ => Ok(()),
        }
    }

    /// What has the name is no file: a link, or a folder.
    fn refused(&self, what: &'static str, error: io::Error) -> FileProblem {
        use io::ErrorKind as K;
        match error.kind() {
            K::IsADirectory | K::NotADirectory => FileProblem::Path(self.name.clone()),
            _ => io_error(what, &self.path)(error),
        }
    }
}

/// A file that is being written. Dropped before it is published it is gone.
#[derive(Debug)]
pub(crate) struct Upload {
    /// To write to.
    pub(crate) file: File,
    place: Place,
    beside: Option<String>,
}

impl Upload {
    /// For people.
    pub(crate) fn path(&self) -> &Path {
        &self.place.path
    }

    /// Gives the complete file its name.
    pub(crate) fn publish(mut self) -> Result<(), FileProblem> {
        share(&self.file).map_err(io_error("set the mode of", &self.place.path))?;
        if let Some(beside) = &self.beside {
            rename_in(self.place.folder.as_fd(), OsStr::new(beside), OsStr::new(&self.place.name))
                .map_err(|error| self.place.refused("name", error))?;
        }
        self.beside = None;
        Ok(())
    }
}

impl Drop for Upload {
    fn drop(&mut self) {
        if let Some(beside) = &self.beside
            && let Err(error) = remove_in(self.place.folder.as_fd(), OsStr::new(beside))
        {
            tracing::debug!(path = %self.place.path.display(), %error, "nothing to remove");
        }
    }
}

/// The folder `name` in `folder`; made when there is none.
fn make_below(folder: &OwnedFd, name: &OsStr) -> io::Result<OwnedFd> {
    match make_folder_in(folder.as_fd(), name, FOLDER_MODE) {
        Ok(()) => {
            let made = File::from(folder_in(folder.as_fd(), name)?);
            made.set_permissions(Permissions::from_mode(FOLDER_MODE))?;
            Ok(made.into())
        }
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => folder_in(folder.as_fd(), name),
        Err(error) => Err(error),
    }
}

/// Gives a file the mode that the group needs.
fn share(file: &File) -> io::Result<()> {
    file.set_permissions(Permissions::from_mode(FILE_MODE))
}

/// None when there is nothing of that name, or only a link to something.
fn found<T>(opened: io::Result<T>, path: impl Fn() -> PathBuf) -> Result<Option<T>, FileProblem> {
    use io::ErrorKind as K;
    match opened {
        Ok(opened) => Ok(Some(opened)),
        Err(error) if matches!(error.kind(), K::NotFound | K::NotADirectory) => Ok(None),
        Err(error) => Err(io_error("open", &path())(error)),
    }
}

/// One segment of a path: `%41` is `A`, and a space is `%20` or, as agents write it, `+`.
fn decoded(segment: &str) -> Option<String> {
    let mut bytes = segment.bytes();
    let mut text = Vec::with_capacity(segment.len());
    while let Some(byte) = bytes.next() {
        text.push(match byte {
            b'+' => b' ',
            b'%' => {
                let digit = |byte: Option<u8>| char::from(byte?).to_digit(16);
                let (high, low) = (digit(bytes.next())?, digit(bytes.next())?);
                u8::try_from(high * 16 + low).ok()?
            }
            other => other,
        });
    }
    String::from_utf8(text).ok()
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn segments_are_decoded_as_agents_and_others_write_them() {
        assert_eq!(decoded("my+file%2Bx%20y").as_deref(), Some("my file+x y"));
        for bad in ["%", "%4", "%zz", "%ff"] {
            assert_eq!(decoded(bad), None, "{bad}");
        }
    }

    #[test]
    fn no_path_leads_out_of_the_folder() {
        let dir = tempfile::tempdir().unwrap();
        let artifacts_dir = dir.path().join("artifacts");
        fs::create_dir(&artifacts_dir).unwrap();
        fs::write(dir.path().join("outside"), "secret").unwrap();
        std::os::unix::fs::symlink("..", artifacts_dir.join("link")).unwrap();
        let folders = Folders { packs_dir: dir.path().join("packs"), artifacts_dir, upload_limit_bytes: 1 };
        for bad in ["", "/", "/etc/passwd", "a//b", "a/", ".", "..", "a/../../b"] {
            assert!(matches!(FilePath::plain(bad), Err(FileProblem::Path(_))), "{bad}");
            assert!(matches!(FilePath::encoded(bad), Err(FileProblem::Path(_))), "{bad}");
        }
        for bad in ["%2e%2e/x", "a%2F..%2F..%2Fx", "a%00", "%"] {
            assert!(matches!(FilePath::encoded(bad), Err(FileProblem::Path(_))), "{bad}");
        }
        assert_eq!(FilePath::encoded("a/b+c").unwrap(), FilePath::plain("a/b c").unwrap());
        let behind = FilePath::plain("link/outside").unwrap();
        assert!(folders.place(&behind).unwrap().is_none());
        assert!(matches!(folders.make_place(&behind), Err(FileProblem::Path(_))));
        let itself = folders.place(&FilePath::plain("link").unwrap()).unwrap().unwrap();
        assert!(itself.open().unwrap().is_none());
        assert!(matches!(itself.append(), Err(FileProblem::Path(_))));
    }

    #[test]
    fn a_folder_that_is_exchanged_for_a_link_is_still_the_one_that_was_opened() {
        let dir = tempfile::tempdir().unwrap();
        let artifacts_dir = dir.path().join("artifacts");
        fs::create_dir(dir.path().join("outside")).unwrap();
        let folders = Folders { packs_dir: dir.path().join("packs"), artifacts_dir, upload_limit_bytes: 1 };
        let path = FilePath::plain("a/b/file").unwrap();
        let upload = folders.make_place(&path).unwrap().upload().unwrap();
        let inner = folders.artifacts_dir.join("a/b");
        fs::rename(&inner, folders.artifacts_dir.join("a/c")).unwrap();
        std::os::unix::fs::symlink(dir.path().join("outside"), &inner).unwrap();
        upload.publish().unwrap();
        assert_eq!(fs::read_dir(dir.path().join("outside")).unwrap().count(), 0);
        assert!(folders.artifacts_dir.join("a/c/file").is_file());
        assert!(folders.place(&path).unwrap().is_none());
    }

    #[test]
    fn what_is_not_published_leaves_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let folders = Folders {
            packs_dir: dir.path().join("packs"),
            artifacts_dir: dir.path().to_owned(),
            upload_limit_bytes: 1,
        };
        let place = folders.make_place(&FilePath::plain("file").unwrap()).unwrap();
        drop(place.upload().unwrap());
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
    }
}
