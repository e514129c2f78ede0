//! `worker.capabilities`: what an agent says about itself (keys are facts of the platform).

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::JsonMap;

/// One interpreter that was found on an agent's host.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DetectedInterpreter {
    /// Folded runtime name such as `python`.
    pub name: String,
    /// Where it is.
    pub path: String,
    /// Its version, when it could be read.
    pub version: Option<String>,
}

/// The keys that schedulers and version choice read. Unknown keys stay in the map they came from.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct CapabilityView {
    /// Lower-case runtime names.
    pub runtimes: Vec<String>,
    /// Folded name to versions.
    pub runtime_versions: BTreeMap<String, Vec<String>>,
    /// What was found.
    pub detected_interpreters: Vec<DetectedInterpreter>,
    /// For placement.
    pub labels: BTreeMap<String, String>,
    /// For placement.
    pub taints: Vec<crate::placement::Taint>,
}

impl CapabilityView {
    /// Reads the known keys of `capabilities`; a key of the wrong shape counts as absent, as for the platform's readers.
    pub fn of(capabilities: &JsonMap) -> Self {
        fn key<T: serde::de::DeserializeOwned + Default>(map: &JsonMap, name: &str) -> T {
            map.get(name).and_then(|value| T::deserialize(value).ok()).unwrap_or_default()
        }
        Self {
            runtimes: key(capabilities, "runtimes"),
            runtime_versions: key(capabilities, "runtime_versions"),
            detected_interpreters: key(capabilities, "detected_interpreters"),
            labels: key(capabilities, "labels"),
            taints: key(capabilities, "taints"),
        }
    }
}
