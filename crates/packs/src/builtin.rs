//! The core runtimes, built in: a pack can be run where the core pack is not at hand.

use std::path::{Path, PathBuf};

use attune_store::{NewPack, NewRuntime};
use attune_yaml::Report;

use crate::content::PackContent;
use crate::load::Reader;
use crate::manifest;

/// The pack that declares the runtimes everybody uses.
pub(crate) const CORE: &str = "core";

const MANIFEST: &str = include_str!("../../../packs/core/pack.yaml");

const RUNTIMES: [(&str, &str); 9] = [
    ("go.yaml", include_str!("../../../packs/core/runtimes/go.yaml")),
    ("java.yaml", include_str!("../../../packs/core/runtimes/java.yaml")),
    ("native.yaml", include_str!("../../../packs/core/runtimes/native.yaml")),
    ("nodejs.yaml", include_str!("../../../packs/core/runtimes/nodejs.yaml")),
    ("perl.yaml", include_str!("../../../packs/core/runtimes/perl.yaml")),
    ("python.yaml", include_str!("../../../packs/core/runtimes/python.yaml")),
    ("r.yaml", include_str!("../../../packs/core/runtimes/r.yaml")),
    ("ruby.yaml", include_str!("../../../packs/core/runtimes/ruby.yaml")),
    ("shell.yaml", include_str!("../../../packs/core/runtimes/shell.yaml")),
];

/// The core pack with its runtimes and nothing else.
pub(crate) fn core() -> PackContent {
    let report = Report::new("core/pack.yaml");
    let root = report.parse(MANIFEST).expect("a test reads the built-in pack.yaml");
    let fields = report.fields(&root, manifest::KEYS).expect("a test reads the built-in pack.yaml");
    let pack = manifest::read(&fields, Path::new(CORE)).expect("a test reads the built-in pack.yaml");
    let mut reader = Reader::new(Path::new(""), CORE);
    let read = |(name, text): (&str, &str)| -> Option<NewRuntime> {
        reader.text(&Report::new(Path::new("core/runtimes").join(name)), text)
    };
    let runtimes = RUNTIMES.into_iter().filter_map(read).collect();
    PackContent { path: PathBuf::new(), pack: NewPack { runtimes, ..pack }, sources: reader.sources }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_built_in_runtime_can_be_read() {
        let core = core();
        assert_eq!(core.pack.runtimes.len(), RUNTIMES.len());
        assert!(core.is_builtin());
    }
}
