//! `artifacts.*`: how files and logs reach the platform.

use crate::key::{Described, Key};
use crate::kinds::{Bytes, Choice, Whole};
use crate::reader::Reader;

/// How files reach the platform.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Transport {
    /// Through the shared folder if there is one, else through the API.
    Auto,
    /// Through the shared folder.
    Volume,
    /// Through the API.
    Api,
}

/// A valid `artifacts` section.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ArtifactsConfig {
    /// How files reach the platform.
    pub transport: Transport,
    /// A sensor's log begins a new segment at this size.
    pub sensor_log_max_bytes: u64,
    /// How many segments are kept without artifact rows; 0 means that none is ever begun.
    pub sensor_log_max_files: u32,
}

const TRANSPORT: Key<Choice<Transport>> = Key {
    path: "artifacts.transport",
    kind: Choice(&[("auto", Transport::Auto), ("volume", Transport::Volume), ("api", Transport::Api)]),
    default: "auto",
    doc: "How files reach the platform: shared folder, API, or whichever is there.",
    reason: "works in deployments with and without a shared volume",
};

const SENSOR_LOG_MAX_BYTES: Key<Bytes> = Key {
    path: "artifacts.sensor_log_max_bytes",
    kind: Bytes(1024..=1 << 30),
    default: "10485760",
    doc: "A sensor's log begins a new segment at this size.",
    reason: "the platform's default",
};

const SENSOR_LOG_MAX_FILES: Key<Whole<u32>> = Key {
    path: "artifacts.sensor_log_max_files",
    kind: Whole(0..=1000),
    default: "4",
    doc: "How many log segments of a sensor are kept where they are plain files; 0 never begins a new one.",
    reason: "the platform's default",
};

/// Every key of the section.
pub(crate) const KEYS: &[&dyn Described] = &[&TRANSPORT, &SENSOR_LOG_MAX_BYTES, &SENSOR_LOG_MAX_FILES];

/// Reads the section.
pub(crate) fn read(reader: &mut Reader<'_>) -> ArtifactsConfig {
    ArtifactsConfig {
        transport: reader.value(&TRANSPORT),
        sensor_log_max_bytes: reader.value(&SENSOR_LOG_MAX_BYTES),
        sensor_log_max_files: reader.value(&SENSOR_LOG_MAX_FILES),
    }
}
