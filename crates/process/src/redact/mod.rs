//! Takes secrets out of what a child writes, while it is written.
//!
//! Every byte that belongs to an occurrence of a secret, in one of the shapes of [`shapes`], is masked; each run of masked
//! bytes becomes one [`MASK`]. Occurrences may overlap, and chunks may end anywhere.
//!
//! Invariants: what comes out does not depend on how the input was cut; a byte is held back only while it may still turn out
//! to be part of a secret, and never more bytes than the longest shape has.

mod shapes;

use std::borrow::Cow;
use std::fmt;
use std::ops::Range;
use std::sync::{Arc, OnceLock};

use shapes::{has_shapes, shapes_of};

/// What stands in the place of a secret.
pub const MASK: &str = "[redacted]";

/// Shorter secrets, and shorter lines of longer ones, are left alone: they would mask ordinary words. White space around them
/// does not count.
pub const MIN_SECRET_BYTES: usize = 6;

/// Shapes are looked up by their first bytes; every shape has as many.
const KEY_BYTES: usize = 4;
const _: () = assert!(KEY_BYTES <= MIN_SECRET_BYTES);

/// The secrets to look for. Made once for a child and shared by its streams.
pub struct Redactor {
    secrets: Vec<Box<[u8]>>,
    /// Made when there is something to look at: a child that prints nothing does not cost these ten kilobytes.
    index: OnceLock<Index>,
}

/// How the secrets are found.
struct Index {
    /// Ordered by key, the longest first among equal keys.
    shapes: Vec<Box<[u8]>>,
    keys: Keys,
}

impl fmt::Debug for Redactor {
    /// The number of secrets only.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Redactor({})", self.secrets.len())
    }
}

impl Redactor {
    /// Looks for every one of `secrets` that has at least [`MIN_SECRET_BYTES`].
    pub fn new<S: AsRef<[u8]>>(secrets: impl IntoIterator<Item = S>) -> Self {
        let secrets = secrets.into_iter().filter(|secret| has_shapes(secret.as_ref()));
        Self { secrets: secrets.map(|secret| secret.as_ref().into()).collect(), index: OnceLock::new() }
    }

    fn index(&self) -> &Index {
        self.index.get_or_init(|| Index::new(&self.secrets))
    }

    /// Whether there is nothing to look for.
    pub fn is_empty(&self) -> bool {
        self.secrets.is_empty()
    }

    /// `text` without the secrets.
    pub fn redact<'a>(&self, text: &'a str) -> Cow<'a, str> {
        match self.redact_bytes(text.as_bytes()) {
            Cow::Borrowed(_) => Cow::Borrowed(text),
            // A secret that is no UTF-8 may have been part of a character.
            Cow::Owned(bytes) => Cow::Owned(String::from_utf8_lossy(&bytes).into_owned()),
        }
    }

    /// `bytes` without the secrets.
    pub fn redact_bytes<'a>(&self, bytes: &'a [u8]) -> Cow<'a, [u8]> {
        let mut clean = Vec::new();
        let mut scan = Scan::default();
        scan.run(self.index(), bytes, Ending::Here, &mut |part| {
            clean.extend_from_slice(part);
        });
        if clean == bytes { Cow::Borrowed(bytes) } else { Cow::Owned(clean) }
    }
}

impl Index {
    fn new(secrets: &[Box<[u8]>]) -> Self {
        let mut shapes: Vec<Box<[u8]>> =
            secrets.iter().flat_map(|secret| shapes_of(secret)).map(Vec::into_boxed_slice).collect();
        shapes.sort_by(|a, b| (a[..KEY_BYTES].cmp(&b[..KEY_BYTES])).then(b.len().cmp(&a.len())).then(a.cmp(b)));
        shapes.dedup();
        Self { keys: Keys::new(&shapes), shapes }
    }

    /// What begins with the first byte of `rest`.
    fn look(&self, rest: &[u8], ending: Ending) -> Found {
        let Some(key) = rest.first_chunk::<KEY_BYTES>() else {
            let may_follow = ending == Ending::MoreFollows && self.shapes.iter().any(|shape| shape.starts_with(rest));
            return if may_follow { Found::Undecided } else { Found::Nothing };
        };
        if !self.keys.may_contain(*key) {
            return Found::Nothing;
        }
        for shape in &self.shapes[self.with_key(*key)] {
            if rest.starts_with(shape) {
                return Found::Secret(shape.len());
            }
            if ending == Ending::MoreFollows && shape.starts_with(rest) {
                return Found::Undecided;
            }
        }
        Found::Nothing
    }

    /// The next place from `at` on where something may begin or where there are too few bytes to say.
    fn skip(&self, bytes: &[u8], at: usize) -> usize {
        let may_begin = |key: &[u8]| key.first_chunk().is_some_and(|key| self.keys.may_contain(*key));
        let clean = bytes[at..].windows(KEY_BYTES).position(may_begin);
        clean.map_or(bytes.len().saturating_sub(KEY_BYTES - 1).max(at), |clean| at + clean)
    }

    fn with_key(&self, key: [u8; KEY_BYTES]) -> Range<usize> {
        let first = self.shapes.partition_point(|shape| shape[..KEY_BYTES] < key[..]);
        let count = self.shapes[first..].partition_point(|shape| shape.starts_with(&key));
        first..first + count
    }
}

/// Whether more bytes may come after the ones at hand.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Ending {
    MoreFollows,
    Here,
}

enum Found {
    Nothing,
    /// The longest one, with its length.
    Secret(usize),
    /// Something longer may be there; more bytes are needed to tell.
    Undecided,
}

/// Says of most places that no shape begins there, from one bit.
struct Keys(Box<[u64; 1024]>);

impl Keys {
    fn new(shapes: &[Box<[u8]>]) -> Self {
        let mut bits = Box::new([0; 1024]);
        for key in shapes.iter().filter_map(|shape| shape.first_chunk()) {
            let (word, bit) = Self::place(*key);
            bits[word] |= bit;
        }
        Self(bits)
    }

    fn may_contain(&self, key: [u8; KEY_BYTES]) -> bool {
        let (word, bit) = Self::place(key);
        self.0[word] & bit != 0
    }

    /// Sixteen bits of a multiplicative hash: ten choose the word and six the bit.
    fn place(key: [u8; KEY_BYTES]) -> (usize, u64) {
        let hash = u32::from_le_bytes(key).wrapping_mul(0x9E37_79B1) >> 16;
        ((hash >> 6) as usize, 1 << (hash & 63))
    }
}

/// Where a scan is between two chunks.
#[derive(Default)]
struct Scan {
    /// From the next byte on, this many belong to a secret that was found already.
    masked: usize,
    /// The last byte was masked, so its mask has been written.
    in_mask: bool,
}

impl Scan {
    /// Hands what is clean of `bytes` to `emit`, and returns how many bytes are decided.
    fn run(&mut self, index: &Index, bytes: &[u8], ending: Ending, emit: &mut dyn FnMut(&[u8])) -> usize {
        let mut masked_to = self.masked;
        let mut clean_from = 0;
        let mut at = 0;
        while at < bytes.len() {
            if !self.in_mask {
                // Nearly all there is, so it has to be fast.
                at = index.skip(bytes, at);
            }
            match index.look(&bytes[at..], ending) {
                Found::Undecided => break,
                Found::Secret(length) => {
                    masked_to = masked_to.max(at + length);
                    if !self.in_mask {
                        emit(&bytes[clean_from..at]);
                        emit(MASK.as_bytes());
                        self.in_mask = true;
                    }
                }
                Found::Nothing if self.in_mask && at >= masked_to => {
                    self.in_mask = false;
                    clean_from = at;
                }
                Found::Nothing => {}
            }
            at += 1;
        }
        if !self.in_mask && clean_from < at {
            emit(&bytes[clean_from..at]);
        }
        self.masked = masked_to.saturating_sub(at);
        at
    }
}

/// The redaction of one stream.
pub(crate) struct RedactedStream {
    redactor: Arc<Redactor>,
    scan: Scan,
    undecided: Vec<u8>,
}

impl RedactedStream {
    pub(crate) fn new(redactor: Arc<Redactor>) -> Self {
        Self { redactor, scan: Scan::default(), undecided: Vec::new() }
    }

    /// Takes the next bytes and hands on what is decided.
    pub(crate) fn push(&mut self, chunk: &[u8], emit: &mut dyn FnMut(&[u8])) {
        if self.undecided.is_empty() {
            // The usual case: nothing is copied.
            let decided = self.scan.run(self.redactor.index(), chunk, Ending::MoreFollows, emit);
            self.undecided.extend_from_slice(&chunk[decided..]);
            return;
        }
        self.undecided.extend_from_slice(chunk);
        let decided = self.scan.run(self.redactor.index(), &self.undecided, Ending::MoreFollows, emit);
        self.undecided.drain(..decided);
    }

    /// Nothing follows: hands on the rest.
    pub(crate) fn finish(mut self, emit: &mut dyn FnMut(&[u8])) {
        if !self.undecided.is_empty() {
            self.scan.run(self.redactor.index(), &self.undecided, Ending::Here, emit);
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::corpus::{cases, pieces, split};

    fn streamed(redactor: &Arc<Redactor>, chunks: &[impl AsRef<[u8]>]) -> Vec<u8> {
        let mut stream = RedactedStream::new(Arc::clone(redactor));
        let mut clean = Vec::new();
        for chunk in chunks {
            stream.push(chunk.as_ref(), &mut |part| clean.extend_from_slice(part));
        }
        stream.finish(&mut |part| clean.extend_from_slice(part));
        clean
    }

    /// What redaction means, without any cleverness.
    fn oracle(redactor: &Redactor, bytes: &[u8]) -> Vec<u8> {
        let mut is_masked = vec![false; bytes.len()];
        for shape in &redactor.index().shapes {
            for at in 0..bytes.len() {
                if bytes[at..].starts_with(shape) {
                    is_masked[at..at + shape.len()].fill(true);
                }
            }
        }
        let mut clean = Vec::new();
        for (at, byte) in bytes.iter().enumerate() {
            match (is_masked[at], at > 0 && is_masked[at - 1]) {
                (false, _) => clean.push(*byte),
                (true, false) => clean.extend_from_slice(MASK.as_bytes()),
                (true, true) => {}
            }
        }
        clean
    }

    #[test]
    fn a_secret_is_masked_in_every_shape() {
        let redactor = Redactor::new(["pass word\"<é"]);
        for shape in [
            "pass word\"<é",
            "pass%20word%22%3C%C3%A9",
            "pass%20word%22%3c%c3%a9",
            "pass+word%22%3C%C3%A9",
            r#"pass word\"<é"#,
            r#"pass word\"<\u00e9"#,
            r#"pass word\"\u003cé"#,
        ] {
            let text = format!("before {shape} after");
            assert_eq!(redactor.redact(&text), "before [redacted] after", "{shape}");
        }
    }

    #[test]
    fn nothing_of_a_secret_that_was_encoded_together_with_other_text_stays_readable() {
        use base64::Engine as _;
        use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
        let secret = "s3cr3t?>~token";
        let redactor = Redactor::new([secret]);
        for before in ["", "u", "us", "use", "user"] {
            for after in ["", ":", "::"] {
                let text = format!("{before}{secret}{after}");
                for encoded in [STANDARD.encode(&text), URL_SAFE_NO_PAD.encode(&text)] {
                    let clean = redactor.redact(&encoded);
                    assert!(clean.contains(MASK), "{text} {encoded} {clean}");
                    // At most the two characters on each side that carry foreign bits too, and the foreign ones.
                    let left = clean.len() - MASK.len();
                    assert!(left <= (before.len() + after.len()) * 4 / 3 + 6, "{encoded} {clean}");
                }
            }
        }
    }

    #[test]
    fn every_line_of_a_multi_line_secret_is_masked_alone() {
        let redactor = Redactor::new(["-----BEGIN\r\nabcdefghij\nx\nlast line\n"]);
        assert_eq!(redactor.redact("1 abcdefghij 2 x"), "1 [redacted] 2 x");
        assert_eq!(redactor.redact("last line"), MASK);
        assert_eq!(redactor.redact("-----BEGIN\r\nabcdefghij\nx\nlast line"), MASK);
    }

    #[test]
    fn short_secrets_are_left_alone_and_clean_text_is_not_copied() {
        let redactor = Redactor::new(["12345", "", "\n\n"]);
        assert!(redactor.is_empty());
        assert!(matches!(redactor.redact("12345"), Cow::Borrowed("12345")));
    }

    #[test]
    fn overlapping_secrets_leave_no_part_of_either() {
        let redactor = Redactor::new(["abcdefgh", "efghijkl", "abcdefgh-long"]);
        assert_eq!(redactor.redact("[abcdefghijkl]"), "[[redacted]]");
        assert_eq!(redactor.redact("abcdefgh-longabcdefgh-lon"), "[redacted]-lon");
    }

    #[test]
    fn only_what_may_be_a_secret_is_held_back() {
        let redactor = Arc::new(Redactor::new(["secret-token"]));
        let mut stream = RedactedStream::new(redactor);
        let mut clean = Vec::new();
        stream.push(b"hello secret-", &mut |part| clean.extend_from_slice(part));
        assert_eq!(clean, b"hello ");
        stream.push(b"agent\n", &mut |part| clean.extend_from_slice(part));
        assert_eq!(clean, b"hello secret-agent\n");
    }

    #[test]
    fn the_corpus_comes_out_as_expected_whole_and_in_pieces() {
        for (path, case) in cases("redact", 20) {
            let [secrets, text, expected] = &case[..] else { panic!("{}", path.display()) };
            let redactor = Arc::new(Redactor::new(split(secrets, b"\n")));
            let chunks = pieces(text);
            let whole = chunks.concat();
            let shown = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
            assert_eq!(shown(&streamed(&redactor, &chunks)), shown(expected), "{}", path.display());
            assert_eq!(shown(&redactor.redact_bytes(&whole)), shown(expected), "{}", path.display());
            assert_eq!(oracle(&redactor, &whole), *expected, "{}", path.display());
        }
    }

    #[test]
    fn a_printed_redactor_shows_nothing() {
        assert!(!format!("{:?}", Redactor::new(["hush-hush"])).contains("hush"));
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(2000))]
        /// Few letters, so that secrets overlap themselves, each other and the edges of chunks.
        #[test]
        fn however_the_text_is_cut_the_result_is_that_of_the_oracle(
            secrets in prop::collection::vec("[ab]{6,9}", 1..4),
            chunks in prop::collection::vec("[ab]{0,12}|[abc]{0,12}", 0..10),
        ) {
            let redactor = Arc::new(Redactor::new(&secrets));
            let all = chunks.concat();
            let expected = oracle(&redactor, all.as_bytes());
            let chunks: Vec<&[u8]> = chunks.iter().map(String::as_bytes).collect();
            prop_assert_eq!(&streamed(&redactor, &chunks), &expected);
            let whole = redactor.redact_bytes(all.as_bytes());
            prop_assert_eq!(whole.as_ref(), &expected[..]);
        }

        #[test]
        fn a_secret_of_any_bytes_is_found_in_any_text(
            secret in prop::collection::vec(any::<u8>(), 6..40),
            before in prop::collection::vec(any::<u8>(), 0..20),
            after in prop::collection::vec(any::<u8>(), 0..20),
            cut in 0_usize..80,
        ) {
            prop_assume!(secret.trim_ascii().len() >= MIN_SECRET_BYTES);
            let redactor = Arc::new(Redactor::new([&secret]));
            let text = [&before[..], &secret, &after].concat();
            let (first, second) = text.split_at(cut.min(text.len()));
            let clean = streamed(&redactor, &[first, second]);
            prop_assert_eq!(&clean, &oracle(&redactor, &text));
            prop_assert!(!clean.windows(secret.len()).any(|window| window == secret));
        }
    }
}
