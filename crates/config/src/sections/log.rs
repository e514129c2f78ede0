//! `log.*`: how much is logged.

use crate::key::{Described, Key};
use crate::kinds::Choice;
use crate::reader::Reader;

/// How much is logged.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum LogLevel {
    /// Bytes.
    Trace,
    /// Decisions.
    Debug,
    /// Life events of processes and executions.
    Info,
    /// What was recovered from.
    Warn,
    /// What somebody must look at.
    Error,
}

const LEVEL: Key<Choice<LogLevel>> = Key {
    path: "log.level",
    kind: Choice(&[
        ("trace", LogLevel::Trace),
        ("debug", LogLevel::Debug),
        ("info", LogLevel::Info),
        ("warn", LogLevel::Warn),
        ("error", LogLevel::Error),
    ]),
    default: "info",
    doc: "How much is logged. `RUST_LOG` is stronger.",
    reason: "life events of processes and executions are what operators look for",
};

const FORMAT: Key<Choice<()>> = Key {
    path: "log.format",
    kind: Choice(&[("json", ()), ("pretty", ())]),
    default: "json",
    doc: "Checked and not used: `--log-format` or `ATTUNE_LOG_FORMAT` decide.",
    reason: "logging starts before the configuration is read, so that problems in it are logged alike",
};

/// Every key of the section.
pub(crate) const KEYS: &[&dyn Described] = &[&LEVEL, &FORMAT];

/// Reads the section.
pub(crate) fn read(reader: &mut Reader<'_>) -> LogLevel {
    let () = reader.value(&FORMAT);
    reader.value(&LEVEL)
}
