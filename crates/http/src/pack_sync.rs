//! Packs of an installation without a shared folder: fetched from the API, and replaced as a whole.
//!
//! ```text
//!   GET …/packs/demo/archive ─► .demo.<n>.new/demo ─► demo      an older demo ─► .demo.<n>.old ─► removed
//! ```
//!
//! An archive is unpacked beside its place and renamed into it, so that nobody sees half a pack and what vanished from the
//! archive vanishes here. Nothing in it can reach outside: absolute paths, `..`, links that lead out, devices and archives
//! that are too large are refused.

use std::collections::HashMap;
use std::ffi::OsStr;
use std::fs::{self, DirBuilder, Permissions};
use std::io::{self, BufReader, Read, Seek as _};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt as _, PermissionsExt};
use std::path::{Component, Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, LazyLock, Mutex, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use attune_model::is_plain_name;
use flate2::read::GzDecoder;
use tar::{Archive, EntryType};
use thiserror::Error;

use crate::same_files::same_files;
use crate::{HttpError, PlatformApi, Sink};

/// What the API leaves in a folder of packs that it shares.
const SENTINEL: &str = ".attune-packs-sentinel";

/// Largest archive of a pack that is taken.
const ARCHIVE_LIMIT_BYTES: u64 = 256 * 1024 * 1024;

/// Most bytes that an archive may have unpacked, and most entries.
const LIMIT_BYTES: u64 = 1024 * 1024 * 1024;
const LIMIT_ENTRIES: usize = 100_000;

const FOLDER_MODE: u32 = 0o755;

/// No pack is on its way for so long.
const REST_AGE: Duration = Duration::from_hours(1);

/// Why a pack was not fetched.
#[derive(Debug, Error)]
pub enum PackError {
    /// Its ref is no folder name.
    #[error("{0:?} is no name of a pack")]
    Name(String),
    /// The API does not have it.
    #[error("the API has no pack {0}")]
    Unknown(String),
    /// The API did not give it.
    #[error("pack could not be fetched")]
    Fetch(#[from] HttpError),
    /// An entry that may not be in the archive of a pack.
    #[error("archive refused: {entry:?} {problem}")]
    Entry {
        /// Its name.
        entry: String,
        /// What is wrong with it.
        problem: &'static str,
    },
    /// It is too large.
    #[error("archive refused: it has more than {0}")]
    TooLarge(String),
    /// It cannot be read or written.
    #[error("failed to {what}")]
    Io {
        /// What was attempted.
        what: &'static str,
        /// Why.
        #[source]
        source: io::Error,
    },
}

fn io_error(what: &'static str) -> impl FnOnce(io::Error) -> PackError {
    move |source| PackError::Io { what, source }
}

/// Whether the API shares the folder of packs.
pub fn shares_packs(packs_dir: &Path) -> bool {
    packs_dir.join(SENTINEL).exists()
}

/// Fetches packs into a local folder.
#[derive(Debug)]
pub struct PackSync {
    packs_dir: PathBuf,
    api: PlatformApi,
    /// One at a time per pack; whoever waited finds it there.
    locks: Mutex<HashMap<String, Arc<tokio::sync::Mutex<()>>>>,
}

impl PackSync {
    /// Into `packs_dir`, from `api`.
    pub fn new(packs_dir: &Path, api: PlatformApi) -> Self {
        Self { packs_dir: packs_dir.to_owned(), api, locks: Mutex::default() }
    }

    /// Removes what was left beside the places of packs by processes that were killed. What is younger may be another's work.
    /// Nothing where the folder is shared. Blocks.
    pub fn sweep(&self) -> io::Result<()> {
        if self.is_shared() {
            return Ok(());
        }
        for entry in fs::read_dir(&self.packs_dir)?.flatten() {
            // What has gone meanwhile was removed by another agent.
            let changed = entry.metadata().and_then(|metadata| metadata.modified());
            let is_old = changed.is_ok_and(|at| at.elapsed().is_ok_and(|age| age > REST_AGE));
            if is_rest(&entry.file_name())
                && is_old
                && let Err(error) = remove_all(&entry.path())
            {
                tracing::warn!(path = %entry.path().display(), %error, "rest of a pack could not be removed");
            }
        }
        Ok(())
    }

    /// Fetches a pack that is not here. One that is stays as it is.
    pub async fn ensure(&self, pack_ref: &str) -> Result<(), PackError> {
        if self.has(pack_ref) {
            return Ok(());
        }
        let lock = self.lock(pack_ref);
        let _alone = lock.lock().await;
        if self.has(pack_ref) { Ok(()) } else { self.replace(pack_ref).await }
    }

    /// Fetches a pack, whether or not it is here.
    pub async fn fetch(&self, pack_ref: &str) -> Result<(), PackError> {
        let lock = self.lock(pack_ref);
        let _alone = lock.lock().await;
        self.replace(pack_ref).await
    }

    /// Removes a pack.
    pub async fn remove(&self, pack_ref: &str) -> Result<(), PackError> {
        let place = self.place(pack_ref)?;
        let lock = self.lock(pack_ref);
        let _alone = lock.lock().await;
        let old = self.beside(pack_ref, "old");
        match fs::rename(&place, &old) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            renamed => renamed.and_then(|()| remove_all(&old)).map_err(io_error("remove the pack")),
        }
    }

    /// Whether a pack is here.
    pub fn has(&self, pack_ref: &str) -> bool {
        is_plain_name(pack_ref) && self.packs_dir.join(pack_ref).is_dir()
    }

    /// Whether the API has left its mark in the folder.
    pub fn is_shared(&self) -> bool {
        shares_packs(&self.packs_dir)
    }

    fn place(&self, pack_ref: &str) -> Result<PathBuf, PackError> {
        if is_plain_name(pack_ref) && !pack_ref.starts_with('.') {
            Ok(self.packs_dir.join(pack_ref))
        } else {
            Err(PackError::Name(pack_ref.to_owned()))
        }
    }

    fn lock(&self, pack_ref: &str) -> Arc<tokio::sync::Mutex<()>> {
        let mut locks = self.locks.lock().unwrap_or_else(PoisonError::into_inner);
        // Nobody waits for a lock that only this map holds.
        locks.retain(|_, lock| Arc::strong_count(lock) > 1);
        locks.entry(pack_ref.to_owned()).or_default().clone()
    }

    fn beside(&self, pack_ref: &str, what: &str) -> PathBuf {
        // The same small process id belongs to other processes in other containers, and to those of earlier lives.
        static NEXT: LazyLock<AtomicU64> = LazyLock::new(|| {
            let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
            AtomicU64::new(u64::try_from(now.as_nanos()).unwrap_or_default())
        });
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        self.packs_dir.join(format!(".{pack_ref}.{}.{number}.{what}", std::process::id()))
    }

    async fn replace(&self, pack_ref: &str) -> Result<(), PackError> {
        let staged = self.stage(pack_ref).await?;
        blocking(move || staged.put()).await
    }

    /// Fetches a pack, and leaves it to the caller when it takes its place.
    pub async fn stage(&self, pack_ref: &str) -> Result<StagedPack, PackError> {
        let place = self.place(pack_ref)?;
        let beside = self.beside(pack_ref, "new");
        let archive = Arc::new(blocking(move || nameless(&beside)).await?);
        let sink = Sink { file: archive.clone(), limit_bytes: ARCHIVE_LIMIT_BYTES };
        if !self.api.pack_archive(pack_ref, sink).await? {
            return Err(PackError::Unknown(pack_ref.to_owned()));
        }
        let staged = StagedPack {
            name: pack_ref.to_owned(),
            new: self.beside(pack_ref, "new"),
            old: self.beside(pack_ref, "old"),
            place,
        };
        blocking(move || {
            let mut archive = &*archive;
            archive.rewind().map_err(io_error("read the archive"))?;
            unpack(BufReader::new(archive), &staged.name, &staged.new).map(|()| staged)
        })
        .await
    }
}

/// A file that nobody else can open, and that is gone with the last who has it open, whatever ends this process.
fn nameless(path: &Path) -> Result<fs::File, PackError> {
    let mut builder = DirBuilder::new();
    let folder = builder.mode(FOLDER_MODE).recursive(true).create(path.parent().unwrap_or(path));
    folder.map_err(io_error("make a folder"))?;
    let file = fs::OpenOptions::new().read(true).write(true).create_new(true).mode(0o600).open(path);
    let file = file.map_err(io_error("make a file for the archive"))?;
    fs::remove_file(path).map_err(io_error("make a file for the archive"))?;
    Ok(file)
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, PackError> + Send + 'static,
) -> Result<T, PackError> {
    let done = attune_lifecycle::spawn_blocking(work).await;
    done.unwrap_or_else(|panicked| Err(io_error("unpack the archive")(io::Error::other(panicked))))
}

/// A pack that is unpacked beside its place. Dropped, it is removed.
#[derive(Debug)]
pub struct StagedPack {
    name: String,
    /// Holds a folder of that name.
    new: PathBuf,
    /// Where its predecessor goes.
    old: PathBuf,
    place: PathBuf,
}

impl StagedPack {
    /// Whether the same is in its place already, but for what interpreters leave there. Blocks.
    pub fn is_in_place(&self) -> bool {
        // What cannot be compared is replaced.
        same_files(&self.new.join(&self.name), &self.place).unwrap_or(false)
    }

    /// Takes its place. Blocks.
    pub fn put(self) -> Result<(), PackError> {
        swap(&self.new.join(&self.name), &self.place, &self.old)
    }
}

impl Drop for StagedPack {
    fn drop(&mut self) {
        // Both are rests now.
        for rest in [&self.new, &self.old] {
            if let Err(error) = remove_all(rest) {
                tracing::warn!(path = %rest.display(), %error, "rest of a pack could not be removed");
            }
        }
    }
}

/// Puts the new folder in its place. For a moment there is none: a name cannot be exchanged atomically everywhere.
fn swap(new: &Path, place: &Path, old: &Path) -> Result<(), PackError> {
    match fs::rename(place, old) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(io_error("move the old pack away")(error)),
        _ => {}
    }
    fs::rename(new, place).map_err(io_error("put the pack in its place")).inspect_err(|_| {
        if let Err(error) = fs::rename(old, place) {
            tracing::warn!(path = %place.display(), %error, "the old pack could not be put back");
        }
    })
}

/// Whether it is called as in [`PackSync::beside`].
fn is_rest(name: &OsStr) -> bool {
    let name = name.to_string_lossy();
    let parts: Vec<&str> = name.rsplitn(4, '.').collect();
    let is_number = |part: &str| part.parse::<u64>().is_ok();
    matches!(*parts, ["new" | "old", number, process, pack] if is_number(number) && is_number(process) && pack.starts_with('.'))
}

fn remove_all(folder: &Path) -> io::Result<()> {
    match fs::remove_dir_all(folder) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) if error.kind() == io::ErrorKind::NotADirectory => fs::remove_file(folder),
        removed => removed,
    }
}

/// Unpacks `archive` into the new folder `target`, where afterwards is a folder `pack_ref` and nothing else.
fn unpack(archive: impl Read, pack_ref: &str, target: &Path) -> Result<(), PackError> {
    let mut builder = DirBuilder::new();
    builder.mode(FOLDER_MODE);
    let base = target.parent().unwrap_or(target);
    // Only the last two are ours alone.
    let made = builder.recursive(true).create(base);
    let made = made.and_then(|()| builder.recursive(false).create(target));
    made.and_then(|()| builder.create(target.join(pack_ref))).map_err(io_error("make a folder"))?;
    let bounded = GzDecoder::new(archive).take(LIMIT_BYTES + 1);
    let mut archive = Archive::new(bounded);
    let mut bytes = 0_u64;
    for (count, entry) in archive.entries().map_err(io_error("read the archive"))?.enumerate() {
        let mut entry = entry.map_err(io_error("read the archive"))?;
        bytes = bytes.saturating_add(entry.size());
        if bytes > LIMIT_BYTES {
            return Err(PackError::TooLarge(format!("{LIMIT_BYTES} bytes")));
        }
        if count >= LIMIT_ENTRIES {
            return Err(PackError::TooLarge(format!("{LIMIT_ENTRIES} entries")));
        }
        if let Some(inside) = checked(&entry, pack_ref)? {
            put(&mut entry, &target.join(pack_ref), &inside)?;
        }
    }
    Ok(())
}

/// Where in the pack the entry belongs; none for what carries no file.
fn checked<R: Read>(entry: &tar::Entry<'_, R>, pack_ref: &str) -> Result<Option<PathBuf>, PackError> {
    let kind = entry.header().entry_type();
    if matches!(kind, EntryType::XGlobalHeader | EntryType::XHeader | EntryType::GNULongName | EntryType::GNULongLink) {
        return Ok(None);
    }
    let path = entry.path().map_err(io_error("read the name of an entry"))?;
    let refused = |problem| PackError::Entry { entry: path.display().to_string(), problem };
    let mut inside = PathBuf::new();
    for component in path.components() {
        match component {
            Component::Normal(part) => inside.push(part),
            Component::CurDir => {}
            Component::ParentDir => return Err(refused("has .. in its path")),
            Component::RootDir | Component::Prefix(_) => return Err(refused("is an absolute path")),
        }
    }
    if inside.as_os_str().is_empty() {
        return Ok(None);
    }
    let Ok(inside) = inside.strip_prefix(pack_ref) else {
        return Err(refused("lies outside the folder of the pack"));
    };
    match kind {
        EntryType::Regular | EntryType::Continuous | EntryType::Directory => Ok(Some(inside.to_owned())),
        EntryType::Symlink | EntryType::Link => {
            let target = entry.link_name().map_err(io_error("read the target of a link"))?;
            let target = target.ok_or_else(|| refused("is a link to nothing"))?;
            let stays = match kind {
                EntryType::Symlink => stays_inside(inside.parent().unwrap_or(Path::new("")), &target),
                _ => target.strip_prefix(pack_ref).is_ok_and(|target| stays_inside(Path::new(""), target)),
            };
            if stays { Ok(Some(inside.to_owned())) } else { Err(refused("is a link that leads out of the pack")) }
        }
        _ => Err(refused("is neither file, folder nor link")),
    }
}

/// Whether `target`, seen from the folder `from` of the pack, is in the pack.
fn stays_inside(from: &Path, target: &Path) -> bool {
    let mut depth = from.components().count();
    let mut descended = false;
    for component in target.components() {
        match component {
            Component::Normal(_) => descended = true,
            Component::CurDir => {}
            // Behind a name that may be a link itself, `..` is not where it seems to be.
            Component::ParentDir if depth > 0 && !descended => depth -= 1,
            Component::ParentDir | Component::RootDir | Component::Prefix(_) => return false,
        }
    }
    true
}

/// Writes one entry. The folders above it are looked at first: a link that came before must not be followed.
fn put<R: Read>(entry: &mut tar::Entry<'_, R>, pack: &Path, inside: &Path) -> Result<(), PackError> {
    let mut folder = pack.to_owned();
    for part in inside.parent().into_iter().flat_map(Path::components) {
        folder.push(part);
        let metadata = fs::symlink_metadata(&folder);
        if metadata.as_ref().is_ok_and(|metadata| !metadata.is_dir()) {
            return Err(PackError::Entry {
                entry: inside.display().to_string(),
                problem: "lies behind a link or a file",
            });
        }
        if metadata.is_err() {
            DirBuilder::new().mode(FOLDER_MODE).create(&folder).map_err(io_error("make a folder"))?;
        }
    }
    let path = pack.join(inside);
    let mode = entry.header().mode().unwrap_or(0o644) & 0o777;
    match entry.header().entry_type() {
        EntryType::Directory => {
            fs::create_dir_all(&path).map_err(io_error("make a folder"))?;
            // Whatever the archive says, the agent has to be able to fill and to remove it.
            fs::set_permissions(&path, Permissions::from_mode(mode | 0o700))
                .map_err(io_error("set the mode of a folder"))
        }
        EntryType::Symlink => {
            let target = entry.link_name().map_err(io_error("read the target of a link"))?.unwrap_or_default();
            std::os::unix::fs::symlink(target, &path).map_err(io_error("make a link"))
        }
        EntryType::Link => {
            let target = entry.link_name().map_err(io_error("read the target of a link"))?.unwrap_or_default();
            let target: PathBuf = target.components().skip(1).collect();
            fs::hard_link(pack.join(target), &path).map_err(io_error("make a link"))
        }
        _ => {
            let mut file = fs::File::create_new(&path).map_err(io_error("make a file"))?;
            io::copy(entry, &mut file).map_err(io_error("write a file"))?;
            file.set_permissions(Permissions::from_mode(mode)).map_err(io_error("set the mode of a file"))
        }
    }
}

#[cfg(test)]
#[path = "pack_sync_tests.rs"]
mod tests;
