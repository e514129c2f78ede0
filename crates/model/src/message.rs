//! Envelope and payloads of the platform's messages (a fact of the platform; golden files in `tests/`).

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use uuid::Uuid;

use crate::{ActionId, EnforcementId, EventId, ExecutionId, JsonMap, PackId, RuleId, SensorId, TriggerId, WorkerId};

/// Version of the envelope that we write.
pub const ENVELOPE_VERSION: &str = "1.0";

/// The durable exchanges of the platform.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Exchange {
    /// `event.*`, `rule.*`, `pack.*`.
    Events,
    /// `enforcement.*`, `execution.*`, `inquiry.*`.
    Executions,
    /// What was rejected or waited too long, under the key it was published with. A direct exchange: keys match literally.
    DeadLetters,
}

impl Exchange {
    /// Its name on the broker.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Events => "attune.events",
            Self::Executions => "attune.executions",
            Self::DeadLetters => "attune.dlx",
        }
    }
}

/// What is around every payload.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Envelope {
    /// Random.
    #[serde(default = "Uuid::new_v4", deserialize_with = "uuid_or_random")]
    pub message_id: Uuid,
    /// Equal to `message_id` unless it answers something.
    #[serde(default = "Uuid::new_v4", deserialize_with = "uuid_or_random")]
    pub correlation_id: Uuid,
    /// Which payload.
    pub message_type: MessageType,
    /// Of the envelope.
    #[serde(default = "default_version")]
    pub version: String,
    /// When it was made.
    pub timestamp: DateTime<Utc>,
    /// Bookkeeping.
    #[serde(default)]
    pub headers: Headers,
    /// See the payload types of this module.
    pub payload: Value,
}

fn default_version() -> String {
    ENVELOPE_VERSION.to_owned()
}

fn uuid_or_random<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Uuid, D::Error> {
    Ok(Option::<Uuid>::deserialize(deserializer)?.unwrap_or_else(Uuid::new_v4))
}

/// Headers inside the envelope; unknown keys are kept.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct Headers {
    /// How often it was tried before.
    #[serde(default)]
    pub retry_count: u32,
    /// Which service sent it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source_service: Option<String>,
    /// For tracing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub trace_id: Option<Uuid>,
    /// Anything else that came along.
    #[serde(flatten)]
    pub other: JsonMap,
}

/// `message_type`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum MessageType {
    /// [`EventCreated`].
    EventCreated,
    /// [`EnforcementCreated`].
    EnforcementCreated,
    /// [`ExecutionRequested`] to the executor, [`ExecutionDispatch`] to a worker: one name for both.
    ExecutionRequested,
    /// [`ExecutionStatusChanged`].
    ExecutionStatusChanged,
    /// [`ExecutionCompleted`].
    ExecutionCompleted,
    /// [`ExecutionCancelRequested`].
    ExecutionCancelRequested,
    /// Not used by agents.
    InquiryCreated,
    /// Not used by agents.
    InquiryResponded,
    /// [`RuleCreated`].
    RuleCreated,
    /// [`RuleEnabled`].
    RuleEnabled,
    /// [`RuleDisabled`].
    RuleDisabled,
    /// [`PackRegistered`].
    PackRegistered,
    /// [`PackDeleted`].
    PackDeleted,
    /// Not used by agents.
    NotificationCreated,
}

/// A payload that knows its type and its way.
pub trait Payload: Serialize {
    /// The envelope's `message_type`.
    const TYPE: MessageType;
    /// The exchange it is published to.
    const EXCHANGE: Exchange;

    /// The routing key.
    fn routing_key(&self) -> String;

    /// Wraps the payload for sending.
    fn envelope(&self, source_service: &str, now: DateTime<Utc>) -> Result<Envelope, serde_json::Error> {
        let message_id = Uuid::new_v4();
        Ok(Envelope {
            message_id,
            correlation_id: message_id,
            message_type: Self::TYPE,
            version: default_version(),
            timestamp: now,
            headers: Headers { source_service: Some(source_service.to_owned()), ..Headers::default() },
            payload: serde_json::to_value(self)?,
        })
    }
}

macro_rules! payload {
    ($(#[$doc:meta])* $name:ident: $kind:ident, $exchange:ident, |$self:ident| $key:expr; { $($(#[$fdoc:meta])* $field:ident: $ty:ty),* $(,)? }) => {
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
        pub struct $name {
            $($(#[$fdoc])* pub $field: $ty),*
        }

        impl Payload for $name {
            const TYPE: MessageType = MessageType::$kind;
            const EXCHANGE: Exchange = Exchange::$exchange;
            fn routing_key(&$self) -> String {
                $key
            }
        }
    };
}

payload! {
    /// An event was stored.
    EventCreated: EventCreated, Events, |self| "event.created".to_owned(); {
        /// The event.
        event_id: EventId,
        /// Its trigger.
        trigger_id: Option<TriggerId>,
        /// Its trigger's ref.
        trigger_ref: String,
        /// The sensor that sent it.
        sensor_id: Option<SensorId>,
        /// Its ref.
        sensor_ref: Option<String>,
        /// What happened.
        payload: Option<Value>,
        /// Settings of the trigger instance.
        config: Option<Value>,
    }
}

payload! {
    /// A rule matched an event.
    EnforcementCreated: EnforcementCreated, Executions, |self| "enforcement.created".to_owned(); {
        /// The enforcement.
        enforcement_id: EnforcementId,
        /// The rule.
        rule_id: Option<RuleId>,
        /// Its ref.
        rule_ref: String,
        /// The event.
        event_id: Option<EventId>,
        /// Its trigger.
        trigger_ref: String,
        /// The event's payload.
        payload: Value,
    }
}

payload! {
    /// An execution waits for a worker.
    ExecutionRequested: ExecutionRequested, Executions, |self| "execution.requested".to_owned(); {
        /// The execution.
        execution_id: ExecutionId,
        /// What is to run.
        action_id: Option<ActionId>,
        /// Its ref.
        action_ref: String,
        /// Who asked.
        parent_id: Option<ExecutionId>,
        /// Which enforcement asked.
        enforcement_id: Option<EnforcementId>,
        /// Parameters, secrets redacted.
        config: Option<Value>,
    }
}

payload! {
    /// An execution was given to a worker.
    ExecutionDispatch: ExecutionRequested, Executions, |self| format!("execution.dispatch.worker.{}", self.worker_id); {
        /// The execution.
        execution_id: ExecutionId,
        /// The worker.
        worker_id: WorkerId,
        /// What is to run.
        action_ref: String,
        /// Parameters with the schema's defaults filled in, secrets redacted.
        config: Option<Value>,
        /// `execution.updated` at that moment: a guard against stale messages.
        scheduled_attempt_updated_at: Option<DateTime<Utc>>,
    }
}

payload! {
    /// A status was written.
    ExecutionStatusChanged: ExecutionStatusChanged, Executions, |self| "execution.status.changed".to_owned(); {
        /// The execution.
        execution_id: ExecutionId,
        /// What runs.
        action_ref: String,
        /// Lower case.
        previous_status: String,
        /// Lower case.
        new_status: String,
        /// When.
        changed_at: DateTime<Utc>,
    }
}

payload! {
    /// A terminal status was written; frees the concurrency slot.
    ExecutionCompleted: ExecutionCompleted, Executions, |self| "execution.completed".to_owned(); {
        /// The execution.
        execution_id: ExecutionId,
        /// What ran; the platform requires it.
        action_id: ActionId,
        /// Its ref.
        action_ref: String,
        /// Capitalised.
        status: String,
        /// `execution.result`.
        result: Option<Value>,
        /// When.
        completed_at: DateTime<Utc>,
    }
}

payload! {
    /// Somebody wants an execution to end.
    ExecutionCancelRequested: ExecutionCancelRequested, Executions, |self| format!("execution.cancel.worker.{}", self.worker_id); {
        /// The execution.
        execution_id: ExecutionId,
        /// The worker that runs it.
        worker_id: WorkerId,
    }
}

payload! {
    /// A rule was made, perhaps disabled.
    RuleCreated: RuleCreated, Events, |self| "rule.created".to_owned(); {
        /// The rule.
        rule_id: RuleId,
        /// Its ref.
        rule_ref: String,
        /// Its trigger.
        trigger_id: Option<TriggerId>,
        /// Its trigger's ref.
        trigger_ref: String,
        /// Its action.
        action_id: Option<ActionId>,
        /// Its action's ref.
        action_ref: String,
        /// Settings for the sensor.
        trigger_params: Option<Value>,
        /// Whether it counts.
        enabled: bool,
    }
}

payload! {
    /// A rule became enabled, or changed while enabled.
    RuleEnabled: RuleEnabled, Events, |self| "rule.enabled".to_owned(); {
        /// The rule.
        rule_id: RuleId,
        /// Its ref.
        rule_ref: String,
        /// Its trigger's ref.
        trigger_ref: String,
        /// Settings for the sensor.
        trigger_params: Option<Value>,
    }
}

payload! {
    /// A rule became disabled or left its trigger.
    RuleDisabled: RuleDisabled, Events, |self| "rule.disabled".to_owned(); {
        /// The rule.
        rule_id: RuleId,
        /// Its ref.
        rule_ref: String,
        /// The trigger it left.
        trigger_ref: String,
    }
}

payload! {
    /// A pack was loaded.
    PackRegistered: PackRegistered, Events, |self| "pack.registered".to_owned(); {
        /// The pack.
        pack_id: PackId,
        /// Its ref.
        pack_ref: String,
        /// Its version.
        version: String,
        /// Lower-cased names of its actions' runtimes that have an environment or dependencies.
        runtime_names: Vec<String>,
    }
}

payload! {
    /// A pack was removed.
    PackDeleted: PackDeleted, Events, |self| "pack.deleted".to_owned(); {
        /// The pack.
        pack_id: PackId,
        /// Its ref.
        pack_ref: String,
    }
}
