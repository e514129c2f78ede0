//! `worker.capabilities`: what the worker says about itself, and what a scheduler goes by.

use attune_model::JsonMap;
use attune_model::chain;
use attune_model::rows::RuntimeVersion;
use attune_model::runtime_name::fold;
use attune_runtime::advertise::Tier;
use attune_runtime::{Advertised, verify};
use attune_store::StoreError;
use serde_json::{Value, json};

use crate::shared::Shared;

/// `given` with everything else that a worker has to say. Where runtimes come from is decided already: a list that was
/// given counts only when nothing stronger does.
pub(crate) fn complete(given: &JsonMap, advertised: &Advertised, slots: u16) -> JsonMap {
    let mut all = JsonMap::new();
    let mut say = |key: &str, value: Value| all.insert(key.to_owned(), value);
    say("max_concurrent_executions", slots.into());
    say("worker_version", env!("CARGO_PKG_VERSION").into());
    say("runtime_versions", json!(advertised.runtime_versions));
    say("detected_interpreters", json!(advertised.detected_interpreters));
    all.extend(given.clone());
    all.insert("runtimes".to_owned(), json!(listed(given, advertised)));
    all
}

/// The runtimes in the spelling in which they were chosen: schedulers may compare it with aliases as they are.
fn listed(given: &JsonMap, advertised: &Advertised) -> Vec<String> {
    let chosen: Vec<&str> = match advertised.tier {
        Tier::Override => advertised.handed_on.as_deref().unwrap_or_default().split(',').collect(),
        Tier::Configured => {
            given.get("runtimes").and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_str).collect()
        }
        Tier::Detected | Tier::Database => Vec::new(),
    };
    if chosen.is_empty() {
        return advertised.runtimes.clone();
    }
    let mut listed: Vec<String> = Vec::new();
    for name in chosen.into_iter().map(|name| name.trim().to_lowercase()).filter(|name| !name.is_empty()) {
        if !listed.contains(&name) {
            listed.push(name);
        }
    }
    listed
}

/// Which news make a look at versions worth while.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Verify<'a> {
    /// Runtimes with these names, in whatever spelling.
    Named(&'a [String]),
    /// Everything, at the start: where nothing else says what this host can run, the runtimes themselves too.
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
    let before = shared.executor.advertised();
    if let Verify::Named(names) = what
        && !names.iter().any(|name| before.runtimes.contains(&fold(name)))
    {
        return Ok(());
    }
    let runtimes = shared.store.runtimes().await?;
    let versions = shared.store.runtime_versions().await?;
    let mut advertised = Advertised { tier: before.tier, ..shared.executor.config().advertised.clone() };
    let host = shared.executor.host.clone();
    let proof = attune_lifecycle::spawn_blocking(move || {
        if advertised.tier == Tier::Database {
            advertised = advertised.verified(verify::runtimes(&runtimes, &host));
        }
        let mine: Vec<RuntimeVersion> =
            versions.into_iter().filter(|version| advertised.runtimes.contains(&name_of(version))).collect();
        let here: Vec<RuntimeVersion> = verify::versions(&mine, &host).into_iter().cloned().collect();
        advertised.add_versions(&here);
        let found = mine.iter().map(|version| (version.id, here.iter().any(|here| here.id == version.id)));
        (found.collect::<Vec<_>>(), advertised)
    });
    let (found, advertised) = match proof.await {
        Ok(proof) => proof,
        Err(error) => {
            tracing::error!(%error, "verifying runtimes panicked; this is a bug of the worker");
            return Ok(());
        }
    };
    // One flag for everybody; this worker goes by what it has just found.
    shared.store.set_verified_versions(&found).await?;
    if advertised == *before {
        return Ok(());
    }
    let capabilities = complete(&shared.given_capabilities, &advertised, shared.slot_count);
    tracing::info!(versions = ?advertised.runtime_versions, "this host can run");
    shared.executor.set_advertised(advertised);
    shared.store.set_capabilities(shared.id, &capabilities).await
}

/// Asks schedulers to pass this worker over for others while it drains. It still gets what nobody else can do, which waits for
/// its next life; registering takes the request back.
pub(crate) async fn ask_to_be_passed_over(shared: &Shared) {
    let mut capabilities = complete(&shared.given_capabilities, &shared.executor.advertised(), shared.slot_count);
    let taint = json!({"key": "draining", "effect": "prefer_no_schedule"});
    match capabilities.entry("taints").or_insert_with(|| json!([])) {
        Value::Array(taints) => taints.push(taint),
        // Not for us to change.
        _ => return,
    }
    if let Err(error) = shared.store.set_capabilities(shared.id, &capabilities).await {
        tracing::debug!(error = chain(&error), "schedulers could not be asked to pass this worker over");
    }
}

/// The folded name of the runtime that a version is of.
fn name_of(version: &RuntimeVersion) -> String {
    fold(version.runtime_ref.rsplit('.').next().unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use attune_runtime::advertise::{Sources, advertise};

    use super::*;

    fn object(value: Value) -> JsonMap {
        let Value::Object(map) = value else { panic!("an object") };
        map
    }

    fn advertised(override_value: Option<&str>, configured: &JsonMap) -> Advertised {
        let variable = "ATTUNE_WORKER_RUNTIMES";
        advertise(&Sources { variable, override_value, detected: &[], configured })
    }

    #[test]
    fn runtimes_keep_the_spelling_of_the_strongest_source() {
        let given = object(json!({"runtimes": ["Python3", "Lua"], "gpu": 2, "max_concurrent_executions": 99}));
        let said = complete(&given, &advertised(Some(" NodeJS,shell,,shell"), &given), 4);
        assert_eq!(said["runtimes"], json!(["nodejs", "shell"]));
        assert_eq!((&said["gpu"], &said["max_concurrent_executions"]), (&json!(2), &json!(99)));
        let said = complete(&given, &advertised(None, &given), 4);
        assert_eq!(said["runtimes"], json!(["python3", "lua"]));
        let said = complete(&given, &advertised(Some(""), &given), 4);
        assert_eq!(said["runtimes"], json!([]));
        let said = complete(&JsonMap::new(), &advertised(None, &JsonMap::new()), 4);
        assert_eq!((&said["runtimes"], &said["max_concurrent_executions"]), (&json!([]), &json!(4)));
    }
}
