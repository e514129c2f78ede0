//! Bytes into lines of bounded length. Bytes, not text: what a sensor prints need not be UTF-8.

/// A longer line is split: somebody who prints without newlines must not fill the memory.
pub(crate) const LONGEST_LINE: usize = 64 * 1024;

/// Collects the line that is not complete yet.
#[derive(Debug, Default)]
pub(crate) struct LineSplitter {
    partial: Vec<u8>,
}

impl LineSplitter {
    /// The lines that `bytes` completes, each with its newline, one after another.
    pub(crate) fn push(&mut self, bytes: &[u8]) -> Vec<u8> {
        let mut lines = Vec::with_capacity(self.partial.len() + bytes.len());
        for piece in bytes.split_inclusive(|byte| *byte == b'\n') {
            self.add(piece, &mut lines);
        }
        lines
    }

    /// The line that will not be completed any more.
    pub(crate) fn finish(&mut self) -> Vec<u8> {
        let mut line = std::mem::take(&mut self.partial);
        if !line.is_empty() {
            line.push(b'\n');
        }
        line
    }

    fn add(&mut self, piece: &[u8], lines: &mut Vec<u8>) {
        let (mut content, ended) = match piece.strip_suffix(b"\n") {
            Some(content) => (content, true),
            None => (piece, false),
        };
        while self.partial.len() + content.len() > LONGEST_LINE {
            let (now, later) = content.split_at(LONGEST_LINE - self.partial.len());
            lines.append(&mut self.partial);
            lines.extend_from_slice(now);
            lines.push(b'\n');
            content = later;
        }
        self.partial.extend_from_slice(content);
        if ended {
            lines.append(&mut self.partial);
            lines.push(b'\n');
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_come_out_whole_whatever_the_chunks() {
        let text = b"one\ntwo\n\nthree";
        for size in 1..=text.len() {
            let mut splitter = LineSplitter::default();
            let mut out = Vec::new();
            for chunk in text.chunks(size) {
                let lines = splitter.push(chunk);
                assert!(lines.is_empty() || lines.ends_with(b"\n"));
                out.extend(lines);
            }
            out.extend(splitter.finish());
            assert_eq!(out, b"one\ntwo\n\nthree\n");
        }
    }

    #[test]
    fn a_line_without_end_is_split_and_not_kept() {
        let mut splitter = LineSplitter::default();
        let out = splitter.push(&vec![b'x'; LONGEST_LINE * 3 + 5]);
        assert_eq!(out.len(), (LONGEST_LINE + 1) * 3);
        assert_eq!(splitter.partial.len(), 5);
    }

    #[test]
    fn a_line_of_exactly_the_limit_stays_one_line() {
        let mut line = vec![b'x'; LONGEST_LINE];
        line.push(b'\n');
        let mut splitter = LineSplitter::default();
        assert_eq!(splitter.push(&line), line);
        assert!(splitter.finish().is_empty());
    }
}
