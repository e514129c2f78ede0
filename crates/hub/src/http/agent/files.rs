//! The files in the folder of binaries. Their checksums are computed once for each file, not for each download.

use std::collections::HashMap;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use attune_artefact::{AGENT, Facts, Machine, agent_for, facts, version_file};
use attune_lifecycle::spawn_blocking;

/// Longest text that is read from a version file.
const MOST_VERSION_BYTES: u64 = 256;

/// What is told about a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Told {
    pub(crate) size: u64,
    pub(crate) sha256: String,
    pub(crate) version: Option<String>,
}

/// A file is another one when any of these changes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct Identity {
    device: u64,
    inode: u64,
    size: u64,
    modified: (i64, i64),
    changed: (i64, i64),
}

/// The last file of each architecture, and what is told about it or why nothing can be.
type Seen = HashMap<Machine, (Identity, Result<Told, String>)>;

/// Checksums of files that were seen, the last one for each architecture.
#[derive(Debug, Clone, Default)]
pub(crate) struct Known {
    seen: Arc<Mutex<Seen>>,
}

/// A file to send.
#[derive(Debug)]
pub(super) struct Opened {
    pub(super) file: tokio::fs::File,
    pub(super) known: Told,
}

/// What became of a look-up.
#[derive(Debug)]
pub(super) enum LookUp {
    /// There it is.
    Found(Opened),
    /// There is none.
    Missing,
    /// There is one that cannot be handed out, and why.
    Failed(String),
}

impl Known {
    /// Opens the binary for `machine` in `folder`.
    pub(super) async fn open(&self, folder: &Path, machine: Machine) -> LookUp {
        let (known, folder) = (self.clone(), folder.to_owned());
        // Reads the whole file when it is a new one.
        match spawn_blocking(move || known.look_up(&folder, machine)).await {
            Ok(look_up) => look_up,
            Err(error) => LookUp::Failed(error.to_string()),
        }
    }

    fn look_up(&self, folder: &Path, machine: Machine) -> LookUp {
        // Plain names mean x86_64, as they did before there were others.
        let plain = (machine == Machine::X86_64).then(|| AGENT.to_owned());
        for name in [agent_for(machine)].into_iter().chain(plain) {
            match self.try_name(folder, &name, machine) {
                Ok(opened) => return LookUp::Found(opened),
                Err(Problem::Io(error)) if error.kind() == io::ErrorKind::NotFound => {}
                Err(problem) => return LookUp::Failed(format!("{name}: {}", problem.text())),
            }
        }
        LookUp::Missing
    }

    fn try_name(&self, folder: &Path, name: &str, machine: Machine) -> Result<Opened, Problem> {
        let mut file = attune_sys::open_beneath(folder, Path::new(name)).map_err(Problem::Io)?;
        let metadata = file.metadata().map_err(Problem::Io)?;
        if !metadata.is_file() {
            return Err(Problem::Other("it is not a file".to_owned()));
        }
        let identity = Identity {
            device: metadata.dev(),
            inode: metadata.ino(),
            size: metadata.len(),
            modified: (metadata.mtime(), metadata.mtime_nsec()),
            changed: (metadata.ctime(), metadata.ctime_nsec()),
        };
        let remembered = self.lock().get(&machine).filter(|(seen, _)| *seen == identity).map(|(_, told)| told.clone());
        let told = if let Some(told) = remembered {
            told
        } else {
            let found = facts(&mut file).map_err(Problem::Io)?;
            let told = tell(found, machine);
            self.lock().insert(machine, (identity, told.clone()));
            told
        };
        let mut known = told.map_err(Problem::Other)?;
        // Not remembered: it may be written after the binary.
        known.version = known.version.or_else(|| version_beside(folder, name, machine));
        Ok(Opened { file: tokio::fs::File::from_std(file), known })
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Seen> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

enum Problem {
    Io(io::Error),
    Other(String),
}

impl Problem {
    fn text(&self) -> String {
        match self {
            Self::Io(error) => error.to_string(),
            Self::Other(text) => text.clone(),
        }
    }
}

/// A file that would not start on the machine that asks for it is not handed out.
fn tell(found: Facts, machine: Machine) -> Result<Told, String> {
    match found.machine {
        Err(why) => Err(why.to_string()),
        Ok(other) if other != machine => Err(format!("it is for {other}")),
        Ok(_) => Ok(Told { size: found.size, sha256: found.sha256, version: found.version }),
    }
}

/// The last word of `attune-agent 1.2.3`, for binaries that do not say it themselves. The plain name means `x86_64` here,
/// too.
fn version_beside(folder: &Path, name: &str, machine: Machine) -> Option<String> {
    use std::io::Read as _;
    let plain = (machine == Machine::X86_64).then(|| version_file(AGENT));
    [version_file(name)].into_iter().chain(plain).map(PathBuf::from).find_map(|name| {
        let file = attune_sys::open_beneath(folder, &name).ok()?;
        let mut text = String::new();
        file.take(MOST_VERSION_BYTES).read_to_string(&mut text).ok()?;
        text.split_whitespace().last().map(str::to_owned)
    })
}
