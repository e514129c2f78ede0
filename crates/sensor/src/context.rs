//! What every part of a sensor host needs.

use std::sync::Arc;
use std::time::Duration;

use attune_bus::Bus;
use attune_http::PlatformApi;
use attune_lifecycle::Stop;
use attune_model::WorkerId;
use attune_model::activity::Observer;
use attune_model::clock::Clock;
use attune_process::Guard;
use attune_runtime::environment::Environments;
use attune_store::{HostProcess, SensorStore};
use tokio::sync::{Notify, Semaphore};
use uuid::Uuid;

use crate::config::SensorConfig;
use crate::deadline::Deadline;
use crate::lease::Leases;
use crate::log::LogHome;
use crate::packs::Packs;
use crate::recorder::Changes;
use crate::registrations::Registrations;
use crate::rundir::RunDir;
use crate::vitals::Vitals;

/// No call to the store waits longer.
pub(crate) const STORE_LIMIT: Duration = Duration::from_secs(10);
/// No publish waits longer.
pub(crate) const BUS_LIMIT: Duration = Duration::from_secs(5);

/// Settings and services of one host, with the row it was registered as.
#[derive(Debug)]
pub(crate) struct Context {
    pub(crate) config: SensorConfig,
    pub(crate) store: Arc<dyn SensorStore>,
    pub(crate) bus: Arc<dyn Bus>,
    pub(crate) logs: LogHome,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) observer: Arc<dyn Observer>,
    pub(crate) api: PlatformApi,
    pub(crate) worker: WorkerId,
    /// This process, of all that have ever had that row.
    pub(crate) process: Uuid,
    pub(crate) leases: Leases,
    pub(crate) changes: Changes,
    pub(crate) turns: Turns,
    pub(crate) guard: Option<Arc<Guard>>,
    pub(crate) run_dir: Option<RunDir>,
    pub(crate) vitals: Vitals,
    pub(crate) environments: Environments,
    /// None where the folder of packs is shared.
    pub(crate) packs: Option<Packs>,
    /// See [`Context::registrations`].
    pub(crate) registered: Option<Registrations>,
    /// Said when the wanted and the running sensors are to be compared.
    pub(crate) look_again: Arc<Notify>,
    pub(crate) stop: Stop,
    pub(crate) deadline: Deadline,
}

/// What only so many sensors do at once: hundreds are wanted at the start of a host, and neither the API nor this process gets
/// anything done sooner when all of them ask together.
#[derive(Debug)]
pub(crate) struct Turns {
    /// Asking for a token.
    pub(crate) token: Semaphore,
    /// Starting a process: one after the other, so that the next one is at hand when one is done.
    pub(crate) start: Semaphore,
}

impl Default for Turns {
    fn default() -> Self {
        Self { token: Semaphore::new(16), start: Semaphore::new(4) }
    }
}

impl Context {
    /// As whom this host writes about itself.
    pub(crate) fn host(&self) -> HostProcess<'_> {
        HostProcess { worker: self.worker, worker_name: &self.config.name, id: self.process }
    }

    /// What is known of the registration of packs, where the folder of packs is shared; none where nothing is started again for it.
    pub(crate) fn registrations(&self) -> Option<&Registrations> {
        self.registered.as_ref().filter(|_| self.packs.as_ref().is_none_or(Packs::is_shared))
    }

    /// Whether another process of this name has the row of this host by now, as far as the store says.
    pub(crate) async fn is_replaced(&self) -> bool {
        matches!(self.deadline.within(STORE_LIMIT, self.store.is_replaced(self.host())).await, Ok(Ok(true)))
    }
}
