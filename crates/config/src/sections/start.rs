//! `startup_timeout`: how patient a start is.

use std::time::Duration;

use crate::key::{Described, Key};
use crate::kinds::Seconds;
use crate::reader::Reader;

const STARTUP_TIMEOUT: Key<Seconds> = Key {
    path: "startup_timeout",
    kind: Seconds(0..=3600),
    default: "60",
    doc: "How long a start waits for database and broker before it gives up with exit code 69.",
    reason: "orchestrators start everything at once, and start again what gave up",
};

/// Every key of the section.
pub(crate) const KEYS: &[&dyn Described] = &[&STARTUP_TIMEOUT];

/// Reads it.
pub(crate) fn read(reader: &mut Reader<'_>) -> Duration {
    reader.value(&STARTUP_TIMEOUT)
}
