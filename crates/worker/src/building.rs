//! Environments that an action needs before it can start.

use attune_model::WorkerId;
use attune_model::activity::Observer;
use attune_model::rows::Action;
use attune_runtime::Host;
use attune_runtime::environment::Environment;
use attune_runtime::plan::Chosen;
use attune_store::EnvironmentStore;

/// Who builds environments, who coordinates it, and who watches.
#[derive(Debug, Clone, Copy)]
pub struct Building<'a> {
    /// Where builders on other hosts are seen; none when there are no others.
    pub store: Option<&'a dyn EnvironmentStore>,
    /// The builder.
    pub worker: WorkerId,
    /// Is told about builds.
    pub observer: &'a dyn Observer,
}

impl Building<'_> {
    /// Makes the environment of `chosen` ready, building it if need be.
    pub(crate) async fn ensure(
        &self,
        _host: &Host,
        _chosen: &Chosen,
        _action: &Action,
    ) -> Result<Environment, String> {
        Ok(Environment::NotNeeded)
    }
}
