//! `database.*`: the connection to PostgreSQL.

use std::time::Duration;

use attune_model::Secret;

use crate::key::{Described, Key};
use crate::kinds::{Seconds, SecretText, Text, Whole};
use crate::reader::Reader;

/// A valid `database` section.
#[derive(Debug, Clone)]
pub struct DatabaseConfig {
    /// Where it is, with user and password.
    pub url: Secret,
    /// The schema that holds the platform's tables.
    pub schema: String,
    /// Most connections at a time.
    pub max_connections: u32,
    /// Connections that are kept open.
    pub min_connections: u32,
    /// How long getting a connection may take.
    pub connect_timeout: Duration,
    /// How long an unused connection is kept.
    pub idle_timeout: Duration,
    /// What an agent holds that is stopped in the middle of a unit of work is free for others after so long. Follows from what
    /// others wait for; nobody configures it.
    pub unit_limit: Duration,
}

/// Nobody is in the middle of one for so long.
const UNIT_LIMIT: Duration = Duration::from_secs(10);

impl DatabaseConfig {
    /// For hosts whose leases hold for `lease_time`. They renew after a third of it and end their sensors when less than two
    /// thirds are over: whoever waits for the row of one that is frozen has to get it in between.
    pub(crate) fn follow_leases(&mut self, lease_time: Duration) {
        self.unit_limit = self.unit_limit.min(lease_time / 4);
    }
}

const URL: Key<SecretText> = Key {
    path: "database.url",
    kind: SecretText { least_characters: 1, schemes: &["postgresql", "postgres"] },
    default: "postgresql://postgres:postgres@localhost:5432/attune",
    doc: "Where PostgreSQL is.",
    reason: "the platform's own default, for development on one machine",
};

const SCHEMA: Key<Text> = Key {
    path: "database.schema",
    kind: Text,
    default: "attune",
    doc: "Schema of the platform's tables: letters, digits and `_`, at most 63.",
    reason: "where the platform's migrations put them",
};

const MAX_CONNECTIONS: Key<Whole<u32>> = Key {
    path: "database.max_connections",
    kind: Whole(1..=1000),
    default: "50",
    doc: "Most connections at a time.",
    reason: "the platform's default; connections are opened on demand",
};

const MIN_CONNECTIONS: Key<Whole<u32>> = Key {
    path: "database.min_connections",
    kind: Whole(0..=1000),
    default: "5",
    doc: "Connections that stay open once they were needed.",
    reason: "the platform's default",
};

const CONNECT_TIMEOUT: Key<Seconds> = Key {
    path: "database.connect_timeout",
    kind: Seconds(1..=3600),
    default: "30",
    doc: "How long a free connection is waited for; making a new one takes 5 seconds at most.",
    reason: "the platform's default",
};

const IDLE_TIMEOUT: Key<Seconds> = Key {
    path: "database.idle_timeout",
    kind: Seconds(1..=86_400),
    default: "600",
    doc: "How long an unused connection is kept.",
    reason: "the platform's default",
};

/// Every key of the section.
pub(crate) const KEYS: &[&dyn Described] =
    &[&URL, &SCHEMA, &MAX_CONNECTIONS, &MIN_CONNECTIONS, &CONNECT_TIMEOUT, &IDLE_TIMEOUT];

/// Reads the section.
pub(crate) fn read(reader: &mut Reader<'_>) -> DatabaseConfig {
    let config = DatabaseConfig {
        url: reader.value(&URL),
        schema: reader.value(&SCHEMA),
        max_connections: reader.value(&MAX_CONNECTIONS),
        min_connections: reader.value(&MIN_CONNECTIONS),
        connect_timeout: reader.value(&CONNECT_TIMEOUT),
        idle_timeout: reader.value(&IDLE_TIMEOUT),
        unit_limit: UNIT_LIMIT,
    };
    let letters = config.schema.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_');
    if !letters || !(1..=63).contains(&config.schema.len()) {
        let place = reader.place_of(&SCHEMA);
        reader.problem(place, "must be 1 to 63 letters, digits or `_`");
    }
    if config.min_connections > config.max_connections {
        let place = reader.place_of(&MIN_CONNECTIONS);
        let (least, most) = (config.min_connections, config.max_connections);
        reader.problem(place, format!("{least} is more than {} of {most}", MAX_CONNECTIONS.path));
    }
    config
}
