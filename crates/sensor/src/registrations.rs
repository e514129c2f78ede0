//! Packs of a shared folder that were registered anew.
//!
//! While nobody says so, only the files that a sensor is known to consist of count. With a registration the whole folder does, as
//! on the platform; a pack that is the same as before starts nothing again.

use std::collections::{HashMap, HashSet};
use std::mem;
use std::path::Path;
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::files::{Fingerprint, fingerprint_of_folder};

/// What is known of the folders of packs.
#[derive(Debug, Default)]
pub(crate) struct Registrations {
    packs: Mutex<HashMap<String, Folder>>,
    /// Those that a message told of.
    told: Mutex<HashSet<String>>,
}

#[derive(Debug)]
struct Folder {
    /// Rises with each registration of something else.
    generation: u64,
    files: Fingerprint,
}

impl Registrations {
    fn packs(&self) -> MutexGuard<'_, HashMap<String, Folder>> {
        self.packs.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn told(&self) -> MutexGuard<'_, HashSet<String>> {
        self.told.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A message says that the pack was registered.
    pub(crate) fn tell(&self, pack_ref: &str) {
        self.told().insert(pack_ref.to_owned());
    }

    /// Looks at the folders that messages told of. Blocks.
    pub(crate) fn look(&self, root: &Path) {
        for pack_ref in mem::take(&mut *self.told()) {
            let mut packs = self.packs();
            // Of one that no sensor here has come from nothing runs.
            let Some(known) = packs.get_mut(&pack_ref) else { continue };
            let files = fingerprint_of_folder(&root.join(&pack_ref));
            if mem::replace(&mut known.files, files) != files {
                known.generation += 1;
                tracing::info!(pack.ref = pack_ref, "the pack was registered with other files: its sensors start again");
            }
        }
    }

    /// Which one of the pack is there. Looks at the folder of one that it has not seen; blocks then.
    pub(crate) fn generation(&self, root: &Path, pack_ref: &str) -> u64 {
        if let Some(known) = self.packs().get(pack_ref) {
            return known.generation;
        }
        let files = fingerprint_of_folder(&root.join(pack_ref));
        self.packs().insert(pack_ref.to_owned(), Folder { generation: 0, files });
        0
    }
}
