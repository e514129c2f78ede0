//! What the tasks of one worker have in common.

use std::sync::Arc;

use attune_http::PackSync;
use attune_lifecycle::{Stop, Tasks};
use attune_model::activity::Observer;
use attune_model::{JsonMap, WorkerId};
use attune_store::WorkerStore;
use tokio::sync::Notify;

use crate::announce::Announcer;
use crate::cancellations::Cancellations;
use crate::claims::Claims;
use crate::executor::Executor;
use crate::filing::Filing;
use crate::namesakes::Namesakes;
use crate::patience::Patience;
use crate::readiness::Readiness;
use crate::room::Rooms;
use crate::running::Running;
use crate::runtimes::Runtimes;
use crate::spool::Spool;
use crate::untold::Untold;

/// Built once, when the worker is spawned.
#[derive(Debug)]
pub(crate) struct Shared {
    /// The worker's row.
    pub(crate) id: WorkerId,
    /// Rows.
    pub(crate) store: Arc<dyn WorkerStore>,
    /// Messages.
    pub(crate) announcer: Announcer,
    /// Who counts.
    pub(crate) observer: Arc<dyn Observer>,
    /// What runs.
    pub(crate) running: Running,
    /// Runs one action.
    pub(crate) executor: Executor,
    /// For actions that name no runtime.
    pub(crate) runtimes: Runtimes,
    /// Their logs.
    pub(crate) filing: Filing,
    /// Who else has its name.
    pub(crate) namesakes: Namesakes,
    /// Results that wait for storage.
    pub(crate) spool: Spool,
    /// Ends that are not announced yet.
    pub(crate) untold: Arc<Untold>,
    /// Where packs came from at the start, see [`Shared::pack_sync`].
    pub(crate) packs: Option<PackSync>,
    /// What the worker was told to say about itself.
    pub(crate) given_capabilities: JsonMap,
    /// What is in hand.
    pub(crate) cancellations: Cancellations,
    /// Whether work can be taken.
    pub(crate) readiness: Readiness,
    /// Told when a message was for an attempt that is over.
    pub(crate) rescheduled: Notify,
    /// How much may be in hand.
    pub(crate) rooms: Rooms,
    /// How many executions run at a time.
    pub(crate) slot_count: u16,
    /// The end.
    pub(crate) stop: Stop,
    /// How long after it something may still be tried.
    pub(crate) patience: Patience,
    /// Everything that runs.
    pub(crate) tasks: Tasks,
}

impl Shared {
    /// Where packs come from that are not here; none when their folder is shared. The API may have started later than this
    /// worker: its mark counts from then on, because what is fetched replaces what others use.
    pub(crate) fn pack_sync(&self) -> Option<&PackSync> {
        self.packs.as_ref().filter(|sync| !sync.is_shared())
    }

    /// For environments that executions need.
    pub(crate) fn claims(&self) -> Claims<'_> {
        Claims { store: &*self.store, worker: self.id }
    }
}
