//! Size, checksum, machine and version of a binary, found in one pass with a small buffer.

use std::io::{self, Read};

use ring::digest::{Context, SHA256};

use crate::elf::HEAD_BYTES;
use crate::{MARKER_END, MARKER_PREFIX, Machine, NotAProgram, machine_of};

/// One piece of a file. Small: `install` runs in containers with little memory.
pub(crate) const PIECE_BYTES: usize = 64 * 1024;

/// Longest version that is looked for.
const MOST_VERSION_BYTES: usize = 64;

/// What is known about a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Facts {
    /// Its length.
    pub size: u64,
    /// SHA-256 in lower-case hexadecimal digits.
    pub sha256: String,
    /// What it runs on, or why it cannot be the agents' binary.
    pub machine: Result<Machine, NotAProgram>,
    /// The version that stands in it; none in programs of others.
    pub version: Option<String>,
}

/// Reads `file` to its end.
pub fn facts(file: &mut impl Read) -> io::Result<Facts> {
    let (mut scanner, mut piece) = (Scanner::new(), vec![0_u8; PIECE_BYTES]);
    loop {
        match file.read(&mut piece) {
            Ok(0) => return Ok(scanner.finish()),
            Ok(count) => scanner.update(piece.get(..count).unwrap_or_default()),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}

/// Takes a file in pieces.
pub struct Scanner {
    size: u64,
    digest: Context,
    head: Vec<u8>,
    /// The end of what was seen, where a marker may have begun.
    tail: Vec<u8>,
    version: Option<String>,
}

impl std::fmt::Debug for Scanner {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Scanner").field("size", &self.size).finish_non_exhaustive()
    }
}

impl Default for Scanner {
    fn default() -> Self {
        Self::new()
    }
}

impl Scanner {
    /// Has seen nothing yet.
    pub fn new() -> Self {
        Self { size: 0, digest: Context::new(&SHA256), head: Vec::new(), tail: Vec::new(), version: None }
    }

    /// The next piece.
    pub fn update(&mut self, piece: &[u8]) {
        self.size += u64::try_from(piece.len()).unwrap_or(u64::MAX);
        self.digest.update(piece);
        let missing = HEAD_BYTES.saturating_sub(self.head.len());
        self.head.extend(piece.iter().take(missing));
        if self.version.is_none() {
            self.look_for_version(piece);
        }
    }

    /// Everything that was found.
    pub fn finish(self) -> Facts {
        Facts {
            size: self.size,
            sha256: hex(self.digest.finish().as_ref()),
            machine: machine_of(&self.head),
            version: self.version,
        }
    }

    fn look_for_version(&mut self, piece: &[u8]) {
        self.tail.extend_from_slice(piece);
        self.version = version_in(&self.tail);
        let keep = (MARKER_PREFIX.len() + MOST_VERSION_BYTES + 1).min(self.tail.len());
        self.tail.drain(..self.tail.len() - keep);
    }
}

fn version_in(bytes: &[u8]) -> Option<String> {
    let prefix = MARKER_PREFIX.as_bytes();
    let mut rest = bytes;
    while let Some(at) = rest.windows(prefix.len()).position(|window| window == prefix) {
        rest = rest.get(at + prefix.len()..)?;
        let end = rest.iter().take(MOST_VERSION_BYTES + 1).position(|byte| *byte == MARKER_END);
        let version = end.and_then(|end| rest.get(..end)).and_then(|version| std::str::from_utf8(version).ok());
        // The prefix alone also stands in every binary: it is what is searched for here.
        if let Some(version) = version.filter(|version| is_version(version)) {
            return Some(version.to_owned());
        }
    }
    None
}

fn is_version(text: &str) -> bool {
    text.starts_with(|first: char| first.is_ascii_digit())
        && text.chars().all(|letter| letter.is_ascii_alphanumeric() || matches!(letter, '.' | '-' | '+'))
}

/// Lower-case hexadecimal digits.
pub fn hex(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let digit = |value: u8| DIGITS.get(usize::from(value)).copied().map_or('0', char::from);
    bytes.iter().flat_map(|byte| [digit(byte >> 4), digit(byte & 15)]).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_checksum_is_that_of_the_standard() {
        let found = facts(&mut &b"abc"[..]).unwrap();
        assert_eq!(found.sha256, "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
        assert_eq!((found.size, found.version), (3, None));
    }

    #[test]
    fn the_version_is_found_wherever_pieces_are_cut() {
        let text = format!("xx{MARKER_PREFIX}\0{MARKER_PREFIX}12.3.4-rc.1+b{}tail", char::from(MARKER_END));
        for size in 1..text.len() {
            let mut scanner = Scanner::new();
            text.as_bytes().chunks(size).for_each(|piece| scanner.update(piece));
            assert_eq!(scanner.finish().version.as_deref(), Some("12.3.4-rc.1+b"), "pieces of {size}");
        }
    }

    #[test]
    fn what_is_no_version_is_passed_over() {
        for odd in ["", "v1;", "1.0 beta;", "1.0", &format!("1{};", "0".repeat(80))] {
            let text = format!("{MARKER_PREFIX}{odd}");
            assert_eq!(facts(&mut text.as_bytes()).unwrap().version, None, "{odd:?}");
        }
    }
}
