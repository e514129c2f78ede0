//! Packs of a shared folder that were registered anew.
//!
//! While nobody says so, only the files that a sensor is known to consist of count. With a registration the whole folder does, as
//! on the platform; a pack that is the same as before starts nothing again. A message tells of a registration, or the row of the
//! pack does.

use std::collections::{BTreeMap, HashMap};
use std::mem;
use std::path::Path;
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::files::{Fingerprint, fingerprint_of_folder};

/// What is known of the packs that sensors here have come from. Nobody holds the lock while folders are looked at.
#[derive(Debug, Default)]
pub(crate) struct Registrations(Mutex<HashMap<String, Pack>>);

#[derive(Debug, Default)]
struct Pack {
    /// Rises with each registration of other files.
    generation: u64,
    /// None as long as nobody has looked.
    files: Option<Fingerprint>,
    /// Of its row, likewise.
    stamp: Option<String>,
    /// Whether it was registered since somebody looked.
    is_told: bool,
}

impl Registrations {
    fn packs(&self) -> MutexGuard<'_, HashMap<String, Pack>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A message says that the pack was registered. From one that is not known nothing runs.
    pub(crate) fn tell(&self, pack_ref: &str) {
        if let Some(pack) = self.packs().get_mut(pack_ref) {
            pack.is_told = true;
        }
    }

    /// The rows of the packs have these stamps. Another one than before is as good as a message, which may be lost. Returns whether
    /// there is one.
    pub(crate) fn follow(&self, stamps: &BTreeMap<String, String>) -> bool {
        let mut is_news = false;
        for (pack_ref, pack) in &mut *self.packs() {
            let Some(stamp) = stamps.get(pack_ref) else { continue };
            if pack.stamp.replace(stamp.clone()).is_some_and(|before| before != *stamp) {
                pack.is_told = true;
                is_news = true;
            }
        }
        is_news
    }

    /// Which one of the pack is there, as far as it was told. Known from now on.
    pub(crate) fn generation(&self, pack_ref: &str) -> u64 {
        let mut packs = self.packs();
        match packs.get(pack_ref) {
            Some(pack) => pack.generation,
            None => packs.entry(pack_ref.to_owned()).or_default().generation,
        }
    }

    /// Looks at the folders of packs that were registered. Blocks.
    pub(crate) fn look(&self, root: &Path) {
        let told = |(pack_ref, pack): (&String, &mut Pack)| mem::take(&mut pack.is_told).then(|| pack_ref.clone());
        let told: Vec<String> = self.packs().iter_mut().filter_map(told).collect();
        for pack_ref in told {
            let files = fingerprint_of_folder(&root.join(&pack_ref));
            let mut packs = self.packs();
            let pack = packs.entry(pack_ref.clone()).or_default();
            if pack.files.replace(files) != Some(files) {
                pack.generation += 1;
                tracing::info!(pack.ref = pack_ref, "the pack was registered with other files: its sensors start again");
            }
        }
    }

    fn unseen(&self) -> Vec<String> {
        // One that was registered before anybody looked counts as changed.
        let unseen =
            |(pack_ref, pack): (&String, &Pack)| (pack.files.is_none() && !pack.is_told).then(|| pack_ref.clone());
        self.packs().iter().filter_map(unseen).collect()
    }

    /// Whether there are folders that nobody has looked at.
    pub(crate) fn has_unseen(&self) -> bool {
        !self.unseen().is_empty()
    }

    /// Looks at those. Blocks.
    pub(crate) fn look_at_unseen(&self, root: &Path) {
        for pack_ref in self.unseen() {
            let files = fingerprint_of_folder(&root.join(&pack_ref));
            self.packs().entry(pack_ref).or_default().files.get_or_insert(files);
        }
    }
}
