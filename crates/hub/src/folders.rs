//! The folders that the hub gives files from, and the marks by which agents see whether they share them.

use std::fs::{self, DirBuilder, Permissions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::{Component, Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use attune_security::random_secret;
use chrono::{DateTime, Utc};
use flate2::Compression;
use flate2::write::GzEncoder;
use serde_json::json;

/// Largest file that is taken, unless configured otherwise. A fact of the platform.
pub const DEFAULT_UPLOAD_LIMIT_BYTES: u64 = 100 * 1024 * 1024;

/// Largest archive of a pack.
const ARCHIVE_LIMIT_BYTES: usize = 256 * 1024 * 1024;

/// The platform's services share a group.
const FOLDER_MODE: u32 = 0o2775;
const FILE_MODE: u32 = 0o664;

/// Where packs and artifacts are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Folders {
    /// Packs, each in a folder of its ref.
    pub packs_dir: PathBuf,
    /// Files of executions and sensors.
    pub artifacts_dir: PathBuf,
    /// Largest file that is taken.
    pub upload_limit_bytes: u64,
}

/// What is wrong with a file.
#[derive(Debug)]
pub(crate) enum FileProblem {
    /// It leads out of the folder, or nowhere.
    Path(String),
    /// There is too much of it.
    TooLarge(String),
    /// The file system refused.
    Io {
        /// What was attempted.
        what: &'static str,
        /// With what.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

fn io_error(what: &'static str, path: &Path) -> impl FnOnce(io::Error) -> FileProblem {
    let path = path.to_owned();
    move |source| FileProblem::Io { what, path, source }
}

impl Folders {
    /// Leaves the marks that tell agents on this host that they share the folders with this hub.
    pub(crate) fn mark(&self, api_url: &str, now: DateTime<Utc>) -> io::Result<()> {
        let instance = random_secret().map(|id| id.expose().clone()).unwrap_or_default();
        let artifacts = json!({"api_url": api_url, "instance_id": instance, "timestamp": now});
        let packs = json!({"api_url": api_url, "timestamp": now});
        for (folder, name, content) in [
            (&self.artifacts_dir, ".attune-api-sentinel", artifacts),
            (&self.packs_dir, ".attune-packs-sentinel", packs),
        ] {
            DirBuilder::new().recursive(true).mode(FOLDER_MODE).create(folder)?;
            fs::write(folder.join(name), content.to_string())?;
        }
        Ok(())
    }

    /// The file of an encoded path. Nothing that it goes through is a link.
    pub(crate) fn file(&self, encoded: &str) -> Result<PathBuf, FileProblem> {
        let refused = || FileProblem::Path(encoded.to_owned());
        let mut path = self.artifacts_dir.clone();
        for segment in encoded.split('/') {
            let name = decoded(segment).ok_or_else(refused)?;
            let mut components = Path::new(&name).components();
            let plain = matches!((components.next(), components.next()), (Some(Component::Normal(only)), None) if only == name.as_str());
            if !plain || name.contains('\0') {
                return Err(refused());
            }
            path.push(name);
            if fs::symlink_metadata(&path).is_ok_and(|metadata| metadata.is_symlink()) {
                return Err(refused());
            }
        }
        Ok(path)
    }

    /// Makes the folders above a file, with the shared mode whatever the umask is.
    pub(crate) fn make_parent(&self, path: &Path) -> Result<(), FileProblem> {
        let above = path.parent().unwrap_or(&self.artifacts_dir);
        let mut folder = self.artifacts_dir.clone();
        DirBuilder::new().recursive(true).mode(FOLDER_MODE).create(&folder).map_err(io_error("make", &folder))?;
        for part in above.strip_prefix(&self.artifacts_dir).into_iter().flat_map(Path::components) {
            folder.push(part);
            match DirBuilder::new().mode(FOLDER_MODE).create(&folder) {
                Ok(()) => fs::set_permissions(&folder, Permissions::from_mode(FOLDER_MODE))
                    .map_err(io_error("set the mode of", &folder))?,
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
                Err(error) => return Err(io_error("make", &folder)(error)),
            }
        }
        Ok(())
    }

    /// The folder of a pack.
    pub(crate) fn pack(&self, pack_ref: &str) -> Option<PathBuf> {
        let mut components = Path::new(pack_ref).components();
        let plain =
            matches!((components.next(), components.next()), (Some(Component::Normal(only)), None) if only == pack_ref);
        let folder = self.packs_dir.join(pack_ref);
        (plain && !pack_ref.starts_with('.') && folder.is_dir()).then_some(folder)
    }
}

/// A name beside a file that nobody else uses.
pub(crate) fn beside(path: &Path) -> PathBuf {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    let number = NEXT.fetch_add(1, Ordering::Relaxed);
    path.with_file_name(format!(".upload-{}-{number}", std::process::id()))
}

/// Gives a complete file its name.
pub(crate) fn publish(beside: &Path, path: &Path) -> Result<(), FileProblem> {
    share(beside)?;
    fs::rename(beside, path).map_err(io_error("name", path))
}

/// Gives a file the mode that the group needs.
pub(crate) fn share(path: &Path) -> Result<(), FileProblem> {
    fs::set_permissions(path, Permissions::from_mode(FILE_MODE)).map_err(io_error("set the mode of", path))
}

/// Its size; none when it is no file.
pub(crate) fn size(path: &Path) -> Result<Option<u64>, FileProblem> {
    match fs::symlink_metadata(path) {
        Ok(metadata) => Ok(metadata.is_file().then_some(metadata.len())),
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => Ok(None),
        Err(error) => Err(io_error("look at", path)(error)),
    }
}

/// Removes it; one that is not there is no error.
pub(crate) fn remove(path: &Path) -> Result<(), FileProblem> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(io_error("remove", path)(error)),
        _ => Ok(()),
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

/// Packs a folder as it is; links stay links.
pub(crate) fn archive(folder: &Path, pack_ref: &str) -> Result<Vec<u8>, FileProblem> {
    // The place of a pack may be a link itself: an operator's, unlike those inside.
    let folder = folder.canonicalize().map_err(io_error("look at", folder))?;
    let mut builder = tar::Builder::new(GzEncoder::new(Vec::new(), Compression::fast()));
    builder.follow_symlinks(false);
    builder.append_dir_all(pack_ref, &folder).map_err(io_error("pack", &folder))?;
    let packed = builder.into_inner().and_then(GzEncoder::finish).map_err(io_error("pack", &folder))?;
    if packed.len() > ARCHIVE_LIMIT_BYTES {
        return Err(FileProblem::TooLarge(format!("the archive would have more than {ARCHIVE_LIMIT_BYTES} bytes")));
    }
    Ok(packed)
}

#[cfg(test)]
mod tests {
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
        std::os::unix::fs::symlink("/etc", artifacts_dir.join("link")).unwrap();
        let folders = Folders { packs_dir: dir.path().join("packs"), artifacts_dir, upload_limit_bytes: 1 };
        assert_eq!(folders.file("a/b+c").unwrap(), folders.artifacts_dir.join("a/b c"));
        for bad in [
            "",
            "/",
            "/etc/passwd",
            "a//b",
            "..",
            "a/../../b",
            "%2e%2e/x",
            "a%2F..%2F..%2Fx",
            "a%00",
            "link/passwd",
            "link",
        ] {
            assert!(matches!(folders.file(bad), Err(FileProblem::Path(_))), "{bad}");
        }
        fs::create_dir_all(folders.packs_dir.join("demo")).unwrap();
        assert!(folders.pack("demo").is_some());
        for bad in ["", ".", "..", "demo/..", "/etc", "gone"] {
            assert_eq!(folders.pack(bad), None, "{bad}");
        }
    }
}
