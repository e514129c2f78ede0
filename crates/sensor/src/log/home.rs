//! Where the logs of a host are written, and whether somebody brings them on from there.

use std::path::PathBuf;

use attune_http::UPLOAD_LIMIT_BYTES;
use attune_model::status::RetentionPolicy;
use attune_store::LogArtifact;

use crate::config::LogLimits;
use crate::courier::Outbox;

/// A line that makes a file a little longer than its limit, and what is said before the first one, fit as well.
const LARGEST_UPLOAD: u64 = UPLOAD_LIMIT_BYTES - 1024 * 1024;

/// The logs of one host.
#[derive(Debug, Clone)]
pub(crate) struct LogHome {
    /// Paths of versions are below it.
    pub(crate) root: PathBuf,
    /// Limits of files.
    pub(crate) limits: LogLimits,
    /// Where versions go from here; none where the folder is shared with the platform.
    pub(crate) outbox: Option<Outbox>,
}

impl LogHome {
    /// Files in the folder of artifacts stay where they are.
    pub(crate) fn shared(artifacts_dir: PathBuf, limits: LogLimits) -> Self {
        Self { root: artifacts_dir, limits, outbox: None }
    }

    /// Files go through the API, which takes only so much of one.
    pub(crate) fn sent(outbox: Outbox, limits: LogLimits) -> Self {
        let limits = match limits.max_files {
            0 => LogLimits { max_bytes: LARGEST_UPLOAD, ..LogLimits::default() },
            _ => LogLimits { max_bytes: limits.max_bytes.min(LARGEST_UPLOAD), ..limits },
        };
        Self { root: outbox.folder().to_owned(), limits, outbox: Some(outbox) }
    }

    /// How many versions of a log may wait here.
    pub(crate) fn most_versions(&self, artifact: &LogArtifact) -> usize {
        let limit = match artifact.retention_policy {
            RetentionPolicy::Versions => artifact.retention_limit.unsigned_abs(),
            _ => self.limits.max_files,
        };
        usize::try_from(limit.max(1)).unwrap_or(usize::MAX)
    }
}
