//! What tells the states of a file from each other.

use std::fs::File;
use std::io;
use std::path::Path;
use std::time::{Duration, SystemTime};

/// File systems date changes a little earlier than clocks say.
const COARSE: Duration = Duration::from_secs(1);

/// What tells one state of a file from another.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Stamp {
    pub(super) modified: SystemTime,
    pub(super) size: u64,
}

impl Stamp {
    /// Whether nobody has delivered it, as far as that can be known: a process wrote it that began at `since`, and what the
    /// platform has there is not as long as what an earlier life than this, `born` then, may have delivered.
    pub(super) fn is_newer(self, since: SystemTime, born: SystemTime, there: Option<u64>) -> bool {
        let is_after = |time: SystemTime| self.modified >= time.checked_sub(COARSE).unwrap_or(time);
        there.is_none_or(|there| is_after(since) && (is_after(born) || there != self.size))
    }
}

/// None when there is no such file.
pub(super) fn opened(artifacts: &Path, path: &str) -> io::Result<Option<(File, Stamp)>> {
    let file = match attune_sys::open_beneath(artifacts, Path::new(path)) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        file => file?,
    };
    let metadata = file.metadata()?;
    let stamp = Stamp { modified: metadata.modified()?, size: metadata.len() };
    Ok(metadata.is_file().then_some((file, stamp)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_copy_is_newer_when_its_process_wrote_it_or_nobody_has_delivered_any() {
        let at = |seconds| SystemTime::UNIX_EPOCH + Duration::from_secs(seconds);
        let is_newer = |modified, since, there| {
            let stamp = Stamp { modified: at(modified), size: 5 };
            stamp.is_newer(at(since), at(100), there)
        };
        assert!(is_newer(10, 200, None), "nobody has it");
        assert!(!is_newer(10, 200, Some(7)), "an old copy, of whatever size");
        assert!(is_newer(300, 200, Some(5)) && is_newer(300, 200, Some(7)), "of now");
        assert!(is_newer(60, 50, Some(7)), "an earlier life owes it");
        assert!(!is_newer(60, 50, Some(5)), "an earlier life has delivered it");
    }
}
