//! `worker.capabilities`: what the worker says about itself, and what a scheduler goes by.

use attune_model::JsonMap;
use attune_runtime::Advertised;
use serde_json::{Value, json};

/// `given` with everything else that a worker has to say.
pub(crate) fn complete(given: JsonMap, advertised: &Advertised, slots: u16) -> JsonMap {
    let mut all = JsonMap::new();
    let mut say = |key: &str, value: Value| all.insert(key.to_owned(), value);
    say("max_concurrent_executions", slots.into());
    say("worker_version", env!("CARGO_PKG_VERSION").into());
    say("runtimes", json!(advertised.runtimes));
    say("runtime_versions", json!(advertised.runtime_versions));
    say(
        "detected_interpreters",
        json!(advertised.detected_interpreters),
    );
    all.extend(given);
    all
}
