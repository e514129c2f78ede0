//! How files and packs travel: decided once, at the start.

use std::sync::Arc;

use attune_http::{
    AgentToken, BuildError, Client, ClientConfig, PackSync, PlatformApi, shares_artifacts, shares_packs,
};
use attune_model::clock::Clock;
use attune_security::Agent;

use crate::config::Transports;
use crate::executor::Executor;
use crate::files::{Files, SharedFolder, Uploads};

/// The ways that were chosen.
#[derive(Debug)]
pub(crate) struct Transport {
    pub(crate) files: Arc<dyn Files>,
    /// None where the folder of packs is shared.
    pub(crate) packs: Option<PackSync>,
}

impl Transport {
    pub(crate) fn new(
        transports: &Transports,
        executor: &Executor,
        clock: &Arc<dyn Clock>,
    ) -> Result<Self, BuildError> {
        let config = executor.config();
        let packs_dir = config.packs.first();
        let files_by_api = transports.artifacts.is_api(|| shares_artifacts(&config.artifacts_dir));
        let packs_by_api = packs_dir.filter(|folder| transports.packs.is_api(|| shares_packs(folder)));
        let shared = || Arc::new(SharedFolder::new(&config.artifacts_dir));
        if !files_by_api && packs_by_api.is_none() {
            return Ok(Self { files: shared(), packs: None });
        }
        let client = Client::build(&ClientConfig { ca_file: transports.ca_file.clone(), ..ClientConfig::default() })?;
        let token = AgentToken::new(Agent::Worker, executor.tokens.clone(), clock.clone());
        let api = PlatformApi::new(client, &transports.api_url, token);
        tracing::info!(
            files_by_api,
            packs_by_api = packs_by_api.is_some(),
            api = transports.api_url,
            "no shared folder"
        );
        Ok(Self {
            files: if files_by_api { Arc::new(Uploads::new(&config.artifacts_dir, api.clone())) } else { shared() },
            packs: packs_by_api.map(|folder| PackSync::new(folder, api)),
        })
    }
}
