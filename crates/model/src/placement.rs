//! Placement: which worker may run what.

use serde::{Deserialize, Serialize};

/// A mark on a worker that keeps work away unless tolerated.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Taint {
    /// Name.
    pub key: String,
    /// Value to compare with `equal`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub value: Option<String>,
    /// How strongly.
    #[serde(default)]
    pub effect: TaintEffect,
}

/// `effect` of a taint.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TaintEffect {
    /// Never without a toleration.
    #[default]
    NoSchedule,
    /// Rather not.
    PreferNoSchedule,
}
