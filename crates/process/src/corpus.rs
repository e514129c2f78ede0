//! Cases by hand, each a file in `tests/corpus/<kind>`: input and what is to come of it, in parts with a line `--` between them.
//! What a property test or somebody in the field finds is kept there for good.

use std::fs;
use std::path::PathBuf;

/// The cases of a kind, at least `least` of them, with their files.
pub(crate) fn cases(kind: &str, least: usize) -> Vec<(PathBuf, Vec<Vec<u8>>)> {
    let folder = format!("{}/tests/corpus/{kind}", env!("CARGO_MANIFEST_DIR"));
    let cases: Vec<_> = fs::read_dir(&folder)
        .unwrap()
        .map(|entry| {
            let path = entry.unwrap().path();
            let parts = split(&fs::read(&path).unwrap(), b"\n--\n");
            (path, parts)
        })
        .collect();
    assert!(cases.len() >= least, "only {} cases in {folder}", cases.len());
    cases
}

/// A text in the pieces in which it comes: a sign of scissors is where it is cut.
pub(crate) fn pieces(text: &[u8]) -> Vec<Vec<u8>> {
    split(text, "\u{2702}".as_bytes())
}

/// The parts between `at`.
pub(crate) fn split(bytes: &[u8], at: &[u8]) -> Vec<Vec<u8>> {
    let mut parts = Vec::new();
    let mut rest = bytes;
    while let Some(found) = rest.windows(at.len()).position(|window| window == at) {
        parts.push(rest[..found].to_vec());
        rest = &rest[found + at.len()..];
    }
    parts.push(rest.to_vec());
    parts
}
