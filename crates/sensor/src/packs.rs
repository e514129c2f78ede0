//! Packs of a host that shares no folder of packs with the platform: fetched from its API, and kept as they are there.
//!
//! ```text
//!   dispatcher ── the packs of the store ─► task of a pack ─► beside its place ─► in its place, generation + 1
//!       ▲                                                                                      │
//!       └────────────────────────────────── look again ────────────────────────────────────────┘
//! ```
//!
//! Each pack has a task of its own, so that one that does not come holds up no other. At the start of the host every pack is
//! fetched once; later when its row has changed, or a message says that it was registered. What is the same as before is not
//! replaced: nothing is started again for it.

mod task;

use std::collections::{BTreeMap, HashMap, HashSet};
use std::mem;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard};

use attune_http::PackSync;
use attune_lifecycle::{Stop, Tasks};
use tokio::sync::{Notify, Semaphore, watch};

use crate::config::PackFetching;

/// Archives on their way at once: each may be large.
const AT_ONCE: usize = 4;

/// Where a pack stands.
#[derive(Debug, Clone, Default)]
pub(crate) struct PackState {
    /// Rises whenever something else takes its place.
    pub(crate) generation: u64,
    pub(crate) is_here: bool,
    /// Whether what was last wanted is here, or has failed once, or takes too long to be waited for.
    pub(crate) is_settled: bool,
    /// Why what is wanted is not here.
    pub(crate) problem: Option<String>,
}

/// What is to be in the place of a pack; none when nothing is.
type Wish = Option<Wanted>;

#[derive(Debug, Clone, PartialEq, Eq)]
struct Wanted {
    stamp: String,
    /// Rises when it is to be fetched although its row is the same.
    times: u64,
}

#[derive(Debug)]
struct Entry {
    wish: watch::Sender<Wish>,
    state: Arc<watch::Sender<PackState>>,
}

/// The packs of a host.
#[derive(Debug)]
pub(crate) struct Packs {
    inner: Arc<Inner>,
    tasks: Tasks,
    entries: Mutex<HashMap<String, Entry>>,
    /// Those that a message told of.
    told: Mutex<HashSet<String>>,
}

/// What the tasks of all packs share.
#[derive(Debug)]
struct Inner {
    sync: PackSync,
    timing: PackFetching,
    at_once: Semaphore,
    /// Held for writing while a folder is replaced.
    places: RwLock<()>,
    look_again: Arc<Notify>,
    stop: Stop,
}

impl Packs {
    /// Fetches by `sync`. Says `look_again` when there is something new.
    pub(crate) fn new(
        sync: PackSync,
        timing: PackFetching,
        (look_again, stop, tasks): (Arc<Notify>, Stop, Tasks),
    ) -> Self {
        let (at_once, places) = (Semaphore::new(AT_ONCE), RwLock::default());
        let inner = Arc::new(Inner { sync, timing, at_once, places, look_again, stop });
        tasks.spawn(inner.clone().sweep());
        Self { inner, tasks, entries: Mutex::default(), told: Mutex::default() }
    }

    /// Whether the API has left its mark in the folder meanwhile: then it is shared, and nothing is fetched any more.
    pub(crate) fn is_shared(&self) -> bool {
        self.inner.sync.is_shared()
    }

    fn entries(&self) -> MutexGuard<'_, HashMap<String, Entry>> {
        self.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn told(&self) -> MutexGuard<'_, HashSet<String>> {
        self.told.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A message says that the pack is another one now. [`Packs::follow`] attends to it.
    pub(crate) fn tell(&self, pack_ref: &str) {
        self.told().insert(pack_ref.to_owned());
    }

    /// As long as it is kept, no folder of a pack is replaced: files and generations belong together. Blocks.
    pub(crate) fn hold_still(&self) -> RwLockReadGuard<'_, ()> {
        self.inner.places.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// Fetches the `needed` packs that are not here, and of all that it has ever fetched those that have changed. The packs
    /// of the store have these `stamps`.
    pub(crate) fn follow<'a>(&self, stamps: &BTreeMap<String, String>, needed: impl Iterator<Item = &'a str>) {
        let told = mem::take(&mut *self.told());
        let mut entries = self.entries();
        for pack_ref in needed.filter(|pack_ref| stamps.contains_key(*pack_ref)) {
            entries.entry(pack_ref.to_owned()).or_insert_with(|| self.begin(pack_ref));
        }
        for (pack_ref, entry) in &mut *entries {
            if let Some(stamp) = stamps.get(pack_ref) {
                let is_lost = entry.state.borrow().is_here && self.inner.is_missing(pack_ref);
                entry.want(stamp, told.contains(pack_ref) || is_lost);
            }
        }
    }

    fn begin(&self, pack_ref: &str) -> Entry {
        let is_here = self.inner.sync.has(pack_ref);
        let state = Arc::new(watch::Sender::new(PackState { is_here, ..PackState::default() }));
        let (wish, wishes) = watch::channel(None);
        let (inner, told) = (self.inner.clone(), state.clone());
        let keeping = inner.keep(pack_ref.to_owned(), wishes, told);
        self.tasks.spawn_guarded("pack", &self.inner.stop, keeping);
        Entry { wish, state }
    }

    /// What was fetched, and is not among the packs of the store any more.
    pub(crate) fn gone(&self, stamps: &BTreeMap<String, String>) -> Vec<String> {
        let is_gone =
            |(pack_ref, entry): &(&String, &Entry)| !stamps.contains_key(*pack_ref) && entry.wish.borrow().is_some();
        self.entries().iter().filter(is_gone).map(|(pack_ref, _)| pack_ref.clone()).collect()
    }

    /// Removes the pack as soon as `unused` is over, unless it is wanted anew meanwhile.
    pub(crate) fn remove(&self, pack_ref: &str, unused: impl Future<Output = ()> + Send + 'static) {
        let Some((wish, wanted)) =
            self.entries().get(pack_ref).map(|entry| (entry.wish.clone(), entry.wish.borrow().clone()))
        else {
            return;
        };
        let stop = self.inner.stop.clone();
        self.tasks.spawn(async move {
            tokio::select! {
                () = stop.soft().cancelled() => {}
                () = unused => {
                    wish.send_if_modified(|wish| *wish == wanted && wish.take().is_some());
                }
            }
        });
    }

    /// Where a pack stands; none for one that is not followed.
    pub(crate) fn state(&self, pack_ref: &str) -> Option<watch::Receiver<PackState>> {
        self.entries().get(pack_ref).map(|entry| entry.state.subscribe())
    }
}

impl Entry {
    fn want(&mut self, stamp: &str, again: bool) {
        let state = &self.state;
        self.wish.send_if_modified(|wish| {
            let times = wish.as_ref().map_or(0, |wanted| wanted.times);
            let new = Wanted { stamp: stamp.to_owned(), times: times + u64::from(again) };
            if wish.as_ref() == Some(&new) {
                return false;
            }
            // From now on, and not from when its task hears of it.
            state.send_modify(|state| state.is_settled = false);
            *wish = Some(new);
            true
        });
    }
}

impl Inner {
    fn is_missing(&self, pack_ref: &str) -> bool {
        // While it is being replaced it may be missing for a moment.
        let Ok(_still) = self.places.try_read() else { return false };
        !self.sync.has(pack_ref)
    }
}
