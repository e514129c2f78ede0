//! The folders that the hub gives files from, and the marks by which agents see whether they share them.

mod place;

use std::fs::{self, DirBuilder};
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use attune_model::is_plain_name;
use attune_security::random_secret;
use chrono::{DateTime, Utc};
use flate2::Compression;
use flate2::write::GzEncoder;
use serde_json::json;

pub(crate) use place::{FilePath, Place};

/// Largest file that is taken, unless configured otherwise. A fact of the platform.
pub const DEFAULT_UPLOAD_LIMIT_BYTES: u64 = 100 * 1024 * 1024;

/// Largest archive of a pack.
const ARCHIVE_LIMIT_BYTES: usize = 256 * 1024 * 1024;

/// The platform's services share a group.
const FOLDER_MODE: u32 = 0o2775;

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

    /// The folder of a pack.
    pub(crate) fn pack(&self, pack_ref: &str) -> Option<PathBuf> {
        let folder = self.packs_dir.join(pack_ref);
        (is_plain_name(pack_ref) && !pack_ref.starts_with('.') && folder.is_dir()).then_some(folder)
    }
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
    fn a_pack_is_a_folder_of_the_packs_and_nothing_else() {
        let dir = tempfile::tempdir().unwrap();
        let folders = Folders {
            packs_dir: dir.path().join("packs"),
            artifacts_dir: dir.path().join("artifacts"),
            upload_limit_bytes: 1,
        };
        fs::create_dir_all(folders.packs_dir.join("demo")).unwrap();
        assert!(folders.pack("demo").is_some());
        for bad in ["", ".", "..", "demo/..", "/etc", "gone"] {
            assert_eq!(folders.pack(bad), None, "{bad}");
        }
    }
}
