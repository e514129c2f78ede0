//! One output stream: what is kept of it, and who else sees it.
//!
//! Invariant: memory is bounded by the limit (and one chunk for a tail), whatever the child writes.

use std::collections::VecDeque;

use crate::command::{Keep, Sink, Stream};
use crate::report::Captured;

pub(crate) struct Capture {
    kept: Kept,
    dropped_bytes: u64,
    sink: Option<Box<dyn Sink>>,
}

enum Kept {
    Nothing,
    Head { bytes: Vec<u8>, limit: usize },
    Tail { bytes: VecDeque<u8>, limit: usize },
}

impl Capture {
    pub(crate) fn new(stream: Stream) -> Self {
        Self {
            kept: match stream.keep {
                Keep::Nothing => Kept::Nothing,
                Keep::Head { limit_bytes } => Kept::Head {
                    bytes: Vec::new(),
                    limit: limit_bytes,
                },
                Keep::Tail { limit_bytes } => Kept::Tail {
                    bytes: VecDeque::new(),
                    limit: limit_bytes,
                },
            },
            dropped_bytes: 0,
            sink: stream.sink,
        }
    }

    pub(crate) fn accept(&mut self, chunk: &[u8]) {
        let dropped = match &mut self.kept {
            Kept::Nothing => chunk.len(),
            Kept::Head { bytes, limit } => {
                let (fits, rest) = chunk.split_at(chunk.len().min(*limit - bytes.len()));
                bytes.extend_from_slice(fits);
                rest.len()
            }
            Kept::Tail { bytes, limit } => {
                bytes.extend(chunk);
                let excess = bytes.len().saturating_sub(*limit);
                bytes.drain(..excess);
                excess
            }
        };
        self.dropped_bytes += dropped as u64;
        if let Some(sink) = &mut self.sink {
            sink.write(chunk);
        }
    }

    pub(crate) fn finish(self) -> Captured {
        if let Some(mut sink) = self.sink {
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

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn captured(keep: Keep, chunks: &[Vec<u8>]) -> Captured {
        let mut capture = Capture::new(Stream::keep(keep));
        for chunk in chunks {
            capture.accept(chunk);
        }
        capture.finish()
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
