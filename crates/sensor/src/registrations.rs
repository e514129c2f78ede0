//! Packs of a shared folder that were registered anew.
//!
//! While nobody says so, only the files that a sensor is known to consist of count. With a registration the whole folder does, as
//! on the platform; a pack that is the same as before starts nothing again. A message tells of a registration, or the row of the
//! pack does.

use std::collections::{BTreeMap, HashMap, HashSet};
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

#[derive(Debug, Default)]
struct Folder {
    /// Rises with each registration of something else.
    generation: u64,
    /// None as long as nobody has looked.
    files: Option<Fingerprint>,
    /// Of the row of the pack, likewise.
    stamp: Option<String>,
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

    /// The rows of the packs have these stamps. Another one than before is as good as a message, which may be lost.
    pub(crate) fn follow(&self, stamps: &BTreeMap<String, String>) {
        for (pack_ref, known) in &mut *self.packs() {
            let stamp = stamps.get(pack_ref);
            let before = stamp.and_then(|stamp| known.stamp.replace(stamp.clone()));
            if before.is_some() && before.as_ref() != stamp {
                self.tell(pack_ref);
            }
        }
    }

    /// Which one of the pack is there, as far as messages told of it.
    pub(crate) fn generation(&self, pack_ref: &str) -> u64 {
        let mut packs = self.packs();
        if let Some(known) = packs.get(pack_ref) {
            return known.generation;
        }
        packs.entry(pack_ref.to_owned()).or_default().generation
    }

    /// Looks at the folders that messages told of. Blocks.
    pub(crate) fn look(&self, root: &Path) {
        for pack_ref in mem::take(&mut *self.told()) {
            // Of one that no sensor here has come from nothing runs.
            if !self.packs().contains_key(&pack_ref) {
                continue;
            }
            let files = fingerprint_of_folder(&root.join(&pack_ref));
            let mut packs = self.packs();
            let known = packs.entry(pack_ref.clone()).or_default();
            if known.files.replace(files) != Some(files) {
                known.generation += 1;
                tracing::info!(pack.ref = pack_ref, "the pack was registered with other files: its sensors start again");
            }
        }
    }

    /// Whether there are folders that nobody has looked at.
    pub(crate) fn has_unseen(&self) -> bool {
        self.packs().values().any(|folder| folder.files.is_none())
    }

    /// Looks at those. Blocks.
    pub(crate) fn look_at_unseen(&self, root: &Path) {
        let unseen = |(pack_ref, folder): (&String, &Folder)| folder.files.is_none().then(|| pack_ref.clone());
        let unseen: Vec<String> = self.packs().iter().filter_map(unseen).collect();
        for pack_ref in unseen {
            let files = fingerprint_of_folder(&root.join(&pack_ref));
            self.packs().entry(pack_ref).or_default().files.get_or_insert(files);
        }
    }
}
