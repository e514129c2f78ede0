//! `message_queue.*`: the connection to RabbitMQ.

use std::path::PathBuf;

use attune_model::Secret;

use crate::key::{Described, Given, Key, Kind as _, variable_of};
use crate::kinds::{FilePath, SecretText};
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
    /// Certificates that are trusted instead of the system's; matters for `amqps` only.
    pub ca_file: Option<PathBuf>,
}

const URL: Key<SecretText> = Key {
    path: "message_queue.url",
    kind: SecretText { least_characters: 1, schemes: &["amqp", "amqps"] },
    default: "",
    doc: "Where RabbitMQ is, with user, password and virtual host. The section must exist.",
    reason: "a section without it means `amqp://guest:guest@localhost:5672/%2f`",
};

const CA_FILE: Key<FilePath> = Key {
    path: "message_queue.ca_file",
    kind: FilePath,
    default: "",
    doc: "PEM certificates that may vouch for the broker of an `amqps` URL, instead of the system's.",
    reason: "without it the system's bundle counts, or the roots built in where the image has none",
};

/// Every key of the section.
pub(crate) const KEYS: &[&dyn Described] = &[&URL, &CA_FILE];

/// Reads the section.
pub(crate) fn read(reader: &mut Reader<'_>) -> MessageQueueConfig {
    let url = reader.optional(&URL).or_else(|| from_variable(reader));
    if url.is_none() && !reader.has_section("message_queue") {
        reader.problem(URL.path, format!("is required: set {}, or {} in a file", variable_of(URL.path), URL.path));
    }
    MessageQueueConfig {
        url: url.unwrap_or_else(|| Secret::new(PLATFORM_DEFAULT.to_owned())),
        ca_file: reader.optional(&CA_FILE),
    }
}

/// Deployments of sensor agents may set the variable of sensors alone.
fn from_variable(reader: &mut Reader<'_>) -> Option<Secret> {
    let url = reader.variable(SENSORS_VARIABLE)?;
    match URL.kind.read(Given::Text(&url)) {
        Ok(url) => Some(url),
        Err(problem) => {
            reader.problem(SENSORS_VARIABLE, problem);
            Some(Secret::new(PLATFORM_DEFAULT.to_owned()))
        }
    }
}

/// What sensors are told: the variable, else what the agent uses itself.
pub(crate) fn for_sensors(reader: &mut Reader<'_>, own: &MessageQueueConfig) -> Secret {
    reader.variable(SENSORS_VARIABLE).map_or_else(|| own.url.clone(), Secret::new)
}
