//! One output stream: what is kept of it, and who else sees it.
//!
//! Invariant: memory is bounded by the limit (and one chunk for a tail), whatever the child writes.

use std::collections::VecDeque;

use crate::command::{Keep, Sink, Stream};
use crate::notes::NoteFilter;
use crate::redact::RedactedStream;
use crate::report::Captured;

pub(crate) struct Capture {
    filter: Option<NoteFilter>,
    redacted: Option<RedactedStream>,
    seen: Seen,
}

impl Capture {
    pub(crate) fn new(stream: Stream) -> Self {
        let redactor = stream.redact.filter(|redactor| !redactor.is_empty());
        Self {
            filter: None,
            redacted: redactor.map(RedactedStream::new),
            seen: Seen { kept: Kept::new(stream.keep), dropped_bytes: 0, sink: stream.sink, is_in_line: false },
        }
    }

    /// Takes the notes that begin with `token` out.
    pub(crate) fn with_notes(mut self, token: Option<&str>) -> Self {
        self.filter = token.map(NoteFilter::new);
        self
    }

    pub(crate) fn accept(&mut self, chunk: &[u8]) {
        let Self { filter, redacted, seen } = self;
        match filter {
            Some(filter) => filter.accept(chunk, &mut |part| accept_redacted(redacted, seen, part)),
            None => accept_redacted(redacted, seen, chunk),
        }
    }

    /// The stream, and the notes that came before it. Only the sink sees `remark`: the program has not written it.
    pub(crate) fn finish(self, remark: Option<&str>) -> (Captured, Vec<String>) {
        let Self { filter, mut redacted, mut seen } = self;
        let notes = filter
            .map_or_else(Vec::new, |filter| filter.finish(&mut |part| accept_redacted(&mut redacted, &mut seen, part)));
        if let Some(redacted) = redacted {
            redacted.finish(&mut |clean| seen.accept(clean));
        }
        (seen.finish(remark), notes)
    }
}

fn accept_redacted(redacted: &mut Option<RedactedStream>, seen: &mut Seen, chunk: &[u8]) {
    match redacted {
        Some(redacted) => redacted.push(chunk, &mut |clean| seen.accept(clean)),
        None => seen.accept(chunk),
    }
}

/// What may be seen of a stream.
struct Seen {
    kept: Kept,
    dropped_bytes: u64,
    sink: Option<Box<dyn Sink>>,
    /// What the sink got so far does not end with a line.
    is_in_line: bool,
}

impl Seen {
    fn accept(&mut self, chunk: &[u8]) {
        self.dropped_bytes += self.kept.accept(chunk) as u64;
        if let Some(sink) = &mut self.sink {
            sink.write(chunk);
            self.is_in_line = chunk.last().map_or(self.is_in_line, |last| *last != b'\n');
        }
    }

    fn finish(self, remark: Option<&str>) -> Captured {
        if let Some(mut sink) = self.sink {
            if let Some(remark) = remark {
                let new_line = if self.is_in_line { "\n" } else { "" };
                sink.write(format!("{new_line}{remark}").as_bytes());
            }
            sink.finish();
        }
        Captured {
            bytes: match self.kept {
                Kept::Nothing => Vec::new(),
                Kept::Head { bytes, .. } => bytes,
                Kept::Tail { bytes, .. } => bytes.into(),
            },
            dropped_bytes: self.dropped_bytes,
        }
    }
}

enum Kept {
    Nothing,
    Head { bytes: Vec<u8>, limit: usize },
    Tail { bytes: VecDeque<u8>, limit: usize },
}

impl Kept {
    fn new(keep: Keep) -> Self {
        match keep {
            Keep::Nothing => Self::Nothing,
            Keep::Head { limit_bytes } => Self::Head { bytes: Vec::new(), limit: limit_bytes },
            Keep::Tail { limit_bytes } => Self::Tail { bytes: VecDeque::new(), limit: limit_bytes },
        }
    }

    /// How many bytes did not stay.
    fn accept(&mut self, chunk: &[u8]) -> usize {
        match self {
            Self::Nothing => chunk.len(),
            Self::Head { bytes, limit } => {
                let (fits, rest) = chunk.split_at(chunk.len().min(*limit - bytes.len()));
                bytes.extend_from_slice(fits);
                rest.len()
            }
            Self::Tail { bytes, limit } => {
                bytes.extend(chunk);
                let excess = bytes.len().saturating_sub(*limit);
                bytes.drain(..excess);
                excess
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::corpus::{cases, pieces};

    #[test]
    fn the_corpus_is_told_apart_into_notes_and_output() {
        for (path, case) in cases("capture", 13) {
            let [text, notes, output] = &case[..] else { panic!("{}", path.display()) };
            let stream = Stream::keep(Keep::Head { limit_bytes: usize::MAX });
            let mut capture = Capture::new(stream).with_notes(Some("#note "));
            for piece in pieces(text) {
                capture.accept(&piece);
            }
            let (captured, found) = capture.finish(None);
            assert_eq!(found.join("\n").as_bytes(), notes, "{}", path.display());
            assert_eq!(captured.bytes, *output, "{}", path.display());
        }
    }

    fn captured(keep: Keep, chunks: &[Vec<u8>]) -> Captured {
        let mut capture = Capture::new(Stream::keep(keep));
        for chunk in chunks {
            capture.accept(chunk);
        }
        capture.finish(None).0
    }

    proptest! {
        #[test]
        fn the_head_is_the_first_bytes_and_the_tail_the_last_however_they_come(
            chunks in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..40), 0..12),
            limit_bytes in 0_usize..200,
        ) {
            let all = chunks.concat();
            let kept = all.len().min(limit_bytes);
            let dropped_bytes = (all.len() - kept) as u64;
            let head = captured(Keep::Head { limit_bytes }, &chunks);
            prop_assert_eq!(head, Captured { bytes: all[..kept].to_vec(), dropped_bytes });
            let tail = captured(Keep::Tail { limit_bytes }, &chunks);
            prop_assert_eq!(tail, Captured { bytes: all[all.len() - kept..].to_vec(), dropped_bytes });
            let nothing = captured(Keep::Nothing, &chunks);
            prop_assert_eq!(nothing, Captured { bytes: Vec::new(), dropped_bytes: all.len() as u64 });
        }
    }
}
