//! `worker.capabilities`: what the worker says about itself, and what a scheduler goes by.

use attune_model::JsonMap;
use attune_model::rows::{Runtime, RuntimeVersion};
use attune_runtime::advertise::Tier;
use attune_runtime::{Advertised, verify};
use attune_store::StoreError;
use serde_json::{Value, json};

use crate::logs::chain;
use crate::shared::Shared;

/// `given` with everything else that a worker has to say.
pub(crate) fn complete(given: &JsonMap, advertised: &Advertised, slots: u16) -> JsonMap {
    let mut all = JsonMap::new();
    let mut say = |key: &str, value: Value| all.insert(key.to_owned(), value);
    say("max_concurrent_executions", slots.into());
    say("worker_version", env!("CARGO_PKG_VERSION").into());
    say("runtimes", json!(advertised.runtimes));
    say("runtime_versions", json!(advertised.runtime_versions));
    say("detected_interpreters", json!(advertised.detected_interpreters));
    all.extend(given.clone());
    all
}

/// Which versions are looked at.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Verify<'a> {
    /// Those of runtimes with these lower-case names.
    Named(&'a [String]),
    /// All, and where nothing else says what this host can run, the runtimes themselves.
    Everything,
}

/// Lets runtimes and versions prove that they are here, and says so. What it cannot find out stays as it was.
///
/// Slow: every proof is a program that runs. Dropping the future leaves the row as it is.
pub(crate) async fn verify(shared: &Shared, what: Verify<'_>) {
    if let Err(error) = try_verify(shared, what).await {
        tracing::warn!(error = chain(&error), "capabilities could not be refreshed");
    }
}

async fn try_verify(shared: &Shared, what: Verify<'_>) -> Result<(), StoreError> {
    let runtimes = shared.store.runtimes().await?;
    let mut versions = shared.store.runtime_versions().await?;
    if let Verify::Named(names) = what {
        versions.retain(|version| is_named(version, &runtimes, names));
        if versions.is_empty() {
            return Ok(());
        }
    }
    let before = shared.executor.advertised();
    let mut advertised = Advertised::clone(&before);
    let host = shared.executor.host.clone();
    let proof = tokio::task::spawn_blocking(move || {
        if advertised.tier == Tier::Database {
            advertised = advertised.verified(verify::runtimes(&runtimes, &host));
        }
        advertised.add_versions(verify::versions(&versions, &host));
        advertised
    });
    let advertised = match proof.await {
        Ok(advertised) if advertised != *before => advertised,
        Ok(_) => return Ok(()),
        Err(error) => {
            tracing::error!(%error, "verifying runtimes panicked; this is a bug of the worker");
            return Ok(());
        }
    };
    let capabilities = complete(&shared.given_capabilities, &advertised, shared.slot_count);
    tracing::info!(versions = ?advertised.runtime_versions, "this host can run");
    shared.executor.set_advertised(advertised);
    shared.store.set_capabilities(shared.id, &capabilities).await
}

fn is_named(version: &RuntimeVersion, runtimes: &[Runtime], names: &[String]) -> bool {
    let runtime = runtimes.iter().find(|runtime| runtime.id == version.runtime);
    runtime.is_some_and(|runtime| names.contains(&runtime.name.to_lowercase()))
}
