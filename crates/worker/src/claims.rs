//! Who coordinates the building of environments with other hosts.

use attune_model::{PackId, WorkerId};
use attune_runtime::environment::Coordination;
use attune_store::EnvironmentStore;

/// Where builders on other hosts see that an environment is being built here. Without it there are no others.
#[derive(Debug, Clone, Copy)]
pub struct Claims<'a> {
    /// Where claims are.
    pub store: &'a dyn EnvironmentStore,
    /// Who claims.
    pub worker: WorkerId,
}

impl<'a> Claims<'a> {
    pub(crate) fn of_pack(self, pack: PackId) -> Coordination<'a> {
        Coordination { store: self.store, worker: self.worker, pack }
    }
}
