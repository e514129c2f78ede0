//! Puts the binary and its names into a folder that other containers run it from.

use std::fs::{self, File, TryLockError};
use std::io::{self, Read, Seek};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use thiserror::Error;

use crate::facts::PIECE_BYTES;
use crate::layout::{AGENT, LINKS, PROGRAM, agent_for, checksum_file, checksum_line, version_file};
use crate::staged::{PlaceError, Staged, TEMPORARY_PREFIX, place_link, place_text, sync_folder};
use crate::{Facts, Machine, NotAProgram, Scanner, facts};

/// How long another install into the same folder is waited for. It takes a second where storage is slow.
const LOCK_LIMIT: Duration = Duration::from_mins(1);

/// Between two looks at the lock.
const LOCK_PAUSE: Duration = Duration::from_millis(20);

/// For everybody to read and execute, for nobody to change.
const MODE: u32 = 0o555;

/// What to install where.
#[derive(Debug, Clone)]
pub struct Order<'a> {
    /// The folder; it is made when it is missing.
    pub folder: &'a Path,
    /// The program to copy; what it is called in errors, where it comes from elsewhere.
    pub source: &'a Path,
    /// What the program has to be for.
    pub machine: Machine,
    /// What its checksum has to be, when that is known from elsewhere.
    pub sha256: Option<&'a str>,
}

/// Whether anything had to be written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// The file is new.
    Written,
    /// The same file was there already.
    Unchanged,
}

/// What was done.
#[derive(Debug, Clone)]
pub struct Installed {
    /// The file.
    pub path: PathBuf,
    /// Whether it was written.
    pub outcome: Outcome,
    /// What it is.
    pub facts: Facts,
}

/// Why nothing was installed.
#[derive(Debug, Error)]
pub enum InstallError {
    /// The program cannot be read.
    #[error("failed to read {}", path.display())]
    Source {
        /// Which file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// It is not the agents' binary.
    #[error("{} is not the agents' binary: {why}", path.display())]
    NotAProgram {
        /// Which file.
        path: PathBuf,
        /// What it is instead.
        why: NotAProgram,
    },
    /// It is somebody else's.
    #[error("{} is a program of another project: it holds no version of attune-agents", .0.display())]
    Stranger(PathBuf),
    /// It is for another architecture.
    #[error("{} is for {found}, and {wanted} is wanted", path.display())]
    WrongMachine {
        /// Which file.
        path: PathBuf,
        /// What it is for.
        found: Machine,
        /// What was asked for.
        wanted: Machine,
    },
    /// It is another file than it should be.
    #[error("{} has the checksum {found} and not {wanted}: it is damaged, or was replaced meanwhile", path.display())]
    Checksum {
        /// Which file.
        path: PathBuf,
        /// Of the file.
        found: String,
        /// What it should be.
        wanted: String,
    },
    /// Another install holds the folder.
    #[error("another install into {} did not end within {} s", .0.display(), LOCK_LIMIT.as_secs())]
    Busy(PathBuf),
    /// The folder does not take it.
    #[error(transparent)]
    Place(#[from] PlaceError),
}

/// Does it. Whatever fails, every name in the folder is what it was before or what it should become, and whole.
pub fn install(order: &Order<'_>) -> Result<Installed, InstallError> {
    let path = order.source;
    let mut file = File::open(path).map_err(|source| InstallError::Source { path: path.to_owned(), source })?;
    install_from(order, &mut file)
}

/// [`install`] of a program that is no file.
pub fn install_from(order: &Order<'_>, content: &mut (impl Read + Seek)) -> Result<Installed, InstallError> {
    let Order { folder, source, machine, sha256 } = *order;
    let unreadable = |error| InstallError::Source { path: source.to_owned(), source: error };
    let wanted = facts(content).map_err(unreadable)?;
    check(source, &wanted, machine, sha256)?;
    fs::create_dir_all(folder).map_err(|error| match error.kind() {
        io::ErrorKind::ReadOnlyFilesystem | io::ErrorKind::PermissionDenied | io::ErrorKind::StorageFull => {
            PlaceError::of(folder, "", wanted.size)(error)
        }
        _ => PlaceError::Folder(folder.to_owned(), error),
    })?;
    let locked = lock(folder)?;
    if locked.is_some() {
        sweep(folder);
    }
    let (own, name) = (Machine::own() == Some(machine), program_name(machine));
    let path = folder.join(&name);
    let outcome = if is_there(&path, &wanted) {
        // The mount may be another one than when it was written.
        if own && !attune_sys::may_execute(&path) {
            return Err(PlaceError::NoExec(folder.to_owned()).into());
        }
        Outcome::Unchanged
    } else {
        content.rewind().map_err(unreadable)?;
        copy(content, order, &wanted, (&name, own))?;
        Outcome::Written
    };
    place_if_other(folder, &checksum_file(&name), &checksum_line(&wanted.sha256, &name))?;
    if own {
        for link in LINKS {
            link_if_other(folder, link)?;
        }
        link_if_other(folder, &agent_for(machine))?;
    }
    // There is one, see `check`.
    if let Some(version) = &wanted.version {
        for (name, program) in versioned(machine, own) {
            place_if_other(folder, &version_file(&name), &format!("{program} {version}\n"))?;
        }
    }
    sync_folder(folder)?;
    drop(locked);
    Ok(Installed { path, outcome, facts: wanted })
}

/// Of the file itself. The own architecture is what containers on this machine run; another one is only handed out.
pub(crate) fn program_name(machine: Machine) -> String {
    if Machine::own() == Some(machine) { PROGRAM.to_owned() } else { agent_for(machine) }
}

/// Names with a version file, and the program that each is.
pub(crate) fn versioned(machine: Machine, own: bool) -> Vec<(String, &'static str)> {
    let here = [PROGRAM].into_iter().chain(LINKS).filter(|_| own).map(|name| (name.to_owned(), name));
    here.chain([(agent_for(machine), AGENT)]).collect()
}

/// Whether the file at `path` is the agents' program for `machine`, and the one with this checksum.
pub fn check(path: &Path, found: &Facts, machine: Machine, sha256: Option<&str>) -> Result<(), InstallError> {
    let path = path.to_owned();
    match &found.machine {
        Err(why) => return Err(InstallError::NotAProgram { path, why: why.clone() }),
        Ok(other) if *other != machine => {
            return Err(InstallError::WrongMachine { path, found: *other, wanted: machine });
        }
        Ok(_) if found.version.is_none() => return Err(InstallError::Stranger(path)),
        Ok(_) => {}
    }
    match sha256 {
        Some(wanted) if !wanted.eq_ignore_ascii_case(&found.sha256) => {
            Err(InstallError::Checksum { path, found: found.sha256.clone(), wanted: wanted.to_owned() })
        }
        _ => Ok(()),
    }
}

fn copy(
    content: &mut impl Read,
    order: &Order<'_>,
    wanted: &Facts,
    (name, own): (&str, bool),
) -> Result<(), InstallError> {
    let path = || order.source.to_owned();
    let mut staged = Staged::new(order.folder, wanted.size)?;
    let (mut scanner, mut piece) = (Scanner::new(), vec![0_u8; PIECE_BYTES]);
    loop {
        match content.read(&mut piece) {
            Ok(0) => break,
            Ok(count) => {
                let read = piece.get(..count).unwrap_or_default();
                scanner.update(read);
                staged.write(read)?;
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(source) => return Err(InstallError::Source { path: path(), source }),
        }
    }
    let found = scanner.finish();
    if found != *wanted {
        let wanted = wanted.sha256.clone();
        return Err(InstallError::Checksum { path: path(), found: found.sha256, wanted });
    }
    staged.seal(MODE)?;
    if own {
        staged.check_executable()?;
    }
    Ok(staged.place(name)?)
}

/// Whether the very file that is wanted has the name already, as a file of its own.
fn is_there(path: &Path, wanted: &Facts) -> bool {
    let Ok(metadata) = fs::symlink_metadata(path) else {
        return false;
    };
    metadata.is_file()
        && metadata.permissions().mode() & 0o7777 == MODE
        && metadata.len() == wanted.size
        && File::open(path).and_then(|mut file| facts(&mut file)).is_ok_and(|found| found == *wanted)
}

fn place_if_other(folder: &Path, name: &str, text: &str) -> Result<(), PlaceError> {
    let path = folder.join(name);
    let same = fs::symlink_metadata(&path).is_ok_and(|metadata| metadata.is_file())
        && fs::read(&path).is_ok_and(|found| found == text.as_bytes());
    if same { Ok(()) } else { place_text(folder, name, text) }
}

fn link_if_other(folder: &Path, name: &str) -> Result<(), PlaceError> {
    let same = fs::read_link(folder.join(name)).is_ok_and(|target| target == Path::new(PROGRAM));
    if same { Ok(()) } else { place_link(folder, name, PROGRAM) }
}

/// One install at a time. The folder itself is locked, so that no file stays behind and the kernel lets go of it when the
/// holder dies. None where the file system has no locks: then every name is still whole, only perhaps of two versions
/// until the last install is done.
fn lock(folder: &Path) -> Result<Option<File>, InstallError> {
    let handle = File::open(folder).map_err(PlaceError::of(folder, "", 0))?;
    let begun = Instant::now();
    loop {
        match handle.try_lock() {
            Ok(()) => return Ok(Some(handle)),
            Err(TryLockError::WouldBlock) if begun.elapsed() < LOCK_LIMIT => std::thread::park_timeout(LOCK_PAUSE),
            Err(TryLockError::WouldBlock) => return Err(InstallError::Busy(folder.to_owned())),
            Err(TryLockError::Error(_unsupported)) => return Ok(None),
        }
    }
}

/// Removes what ended installs left behind. Only under the lock: then nobody is writing there.
fn sweep(folder: &Path) {
    let Ok(entries) = fs::read_dir(folder) else {
        return;
    };
    for entry in entries.flatten() {
        if entry.file_name().to_string_lossy().starts_with(TEMPORARY_PREFIX) {
            // It was of no use to anybody; one that stays takes room and nothing else.
            drop(fs::remove_file(entry.path()));
        }
    }
}
