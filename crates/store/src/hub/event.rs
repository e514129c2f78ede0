//! Events, the rules they reach and what those lead to.

use attune_model::rows::{Action, Event, Execution, Pack, Rule};
use attune_model::{EnforcementId, EventId, IdentityId, RuleId};
use serde_json::Value;

use super::NewExecution;
use crate::SecretValue;

/// An event to be stored.
#[derive(Debug, Clone, PartialEq)]
pub struct NewEvent {
    /// Ref of its trigger.
    pub trigger_ref: String,
    /// Settings of the trigger instance.
    pub config: Option<Value>,
    /// What happened.
    pub payload: Option<Value>,
    /// Ref of its source; `event.source` is set when a sensor has that ref.
    pub source_ref: Option<String>,
    /// The one rule it is meant for.
    pub rule: Option<RuleId>,
}

/// Which event to take in.
#[derive(Debug, Clone, PartialEq)]
pub enum EventSource<'a> {
    /// One that is not stored yet.
    New(&'a NewEvent),
    /// A row that somebody else stored.
    Stored(EventId),
}

/// An enabled rule that an event reaches.
#[derive(Debug, Clone, PartialEq)]
pub struct RuleTarget {
    /// The row.
    pub rule: Rule,
    /// The rule's pack, whose configuration templates read.
    pub pack: Pack,
    /// What it starts; none when that action is gone.
    pub action: Option<Action>,
    /// `rule.owner_identity`.
    pub owner: Option<IdentityId>,
}

/// An enforcement to be stored, with the execution it leads to.
#[derive(Debug, Clone, PartialEq)]
pub struct NewEnforcement {
    /// The rule.
    pub rule: RuleId,
    /// Its ref.
    pub rule_ref: String,
    /// Rendered parameters, secrets replaced by the marker.
    pub config: Value,
    /// The event's payload, an object.
    pub payload: Value,
    /// `rule.conditions`, as an array.
    pub conditions: Value,
    /// Encrypted parts of `config`: stored for `enforcement_config` and copied to `execution_config`.
    pub secrets: Vec<SecretValue>,
    /// Its execution, without `enforcement`, `config` and `secrets`, which come from here. None stores the enforcement
    /// as `disabled`, otherwise it is `processed` with `resolved_at`.
    pub execution: Option<NewExecution>,
}

/// Decides about an event. Called inside the unit of work, perhaps again when it is retried: must be quick and must not
/// have effects.
pub type Decide<'a> = dyn Fn(&Event, &[RuleTarget]) -> Vec<NewEnforcement> + Send + Sync + 'a;

/// What became of one enforcement.
#[derive(Debug, Clone, PartialEq)]
pub struct Enforced {
    /// `enforcement.id`.
    pub id: EnforcementId,
    /// The rule.
    pub rule: RuleId,
    /// Its ref.
    pub rule_ref: String,
    /// `enforcement.payload`.
    pub payload: Value,
    /// The execution, `requested`.
    pub execution: Option<Execution>,
}

/// What became of an event.
#[derive(Debug, Clone, PartialEq)]
pub enum Intake {
    /// Stored, with what it led to.
    Taken {
        /// The row.
        event: Box<Event>,
        /// New enforcements; one that existed before (same rule and event) is not listed.
        enforced: Vec<Enforced>,
    },
    /// There is no such trigger, nothing was stored.
    UnknownTrigger,
    /// There is no such event.
    UnknownEvent,
}
