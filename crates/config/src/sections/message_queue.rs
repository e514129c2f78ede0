//! `message_queue.*`: the connection to RabbitMQ.

use attune_model::Secret;

use crate::key::{Described, Key, variable_of};
use crate::kinds::SecretText;
use crate::reader::Reader;

/// The broker that the platform assumes when its section names none.
const PLATFORM_DEFAULT: &str = "amqp://guest:guest@localhost:5672/%2f";

/// The variable that sensors learn the broker from. The agent hands it on; on its own it uses the section.
pub(crate) const SENSORS_VARIABLE: &str = "ATTUNE_MQ_URL";

/// A valid `message_queue` section.
#[derive(Debug, Clone)]
pub struct MessageQueueConfig {
    /// Where it is, with user and password.
    pub url: Secret,
}

const URL: Key<SecretText> = Key {
    path: "message_queue.url",
    kind: SecretText { least_characters: 1, schemes: &["amqp", "amqps"] },
    default: "",
    doc: "Where RabbitMQ is. The section must exist; every other key of it is ignored.",
    reason: "a section without it means `amqp://guest:guest@localhost:5672/%2f`",
};

/// Every key of the section.
pub(crate) const KEYS: &[&dyn Described] = &[&URL];

/// Reads the section.
pub(crate) fn read(reader: &mut Reader<'_>) -> MessageQueueConfig {
    let url = reader.optional(&URL);
    if url.is_none() && !reader.has_section("message_queue") {
        reader.problem(URL.path, format!("is required: set {}, or {} in a file", variable_of(URL.path), URL.path));
    }
    MessageQueueConfig { url: url.unwrap_or_else(|| Secret::new(PLATFORM_DEFAULT.to_owned())) }
}

/// What sensors are told: the variable, else what the agent uses itself.
pub(crate) fn for_sensors(reader: &mut Reader<'_>, own: &MessageQueueConfig) -> Secret {
    reader.variable(SENSORS_VARIABLE).map_or_else(|| own.url.clone(), Secret::new)
}
