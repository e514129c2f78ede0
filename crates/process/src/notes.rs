//! Tells the notes of a child that sets itself up, or of `__exec`, from what the program writes.
//!
//! Notes are lines at the very start of standard error that begin with a token which was made up for this child; the first
//! byte that does not fit belongs to the program, and so does everything after it.

use std::hash::{BuildHasher as _, Hasher as _, RandomState};
use std::io;

/// A longer line is no note.
const MAX_NOTE_BYTES: usize = 4096;

/// How a note begins that says that the program was not started.
const REFUSED: &str = "not started: ";

/// How a note begins about what the launcher went on without.
const LEFT_OUT: &str = "left out: ";

/// Why the program was not started, and the step that was refused; empty stands for executing the program.
pub(crate) fn read_refusal(note: &str) -> Option<(io::Error, &str)> {
    let (number, step) = note.strip_prefix(REFUSED)?.split_once(' ')?;
    Some((io::Error::from_raw_os_error(number.parse().ok()?), step))
}

/// A note in words: the launcher knows errors by number only.
fn in_words(note: &str) -> String {
    let left_out = note.strip_prefix(LEFT_OUT).and_then(|rest| rest.split_once(' '));
    let known = left_out.and_then(|(number, what)| Some((number.parse().ok()?, what)));
    known.map_or_else(
        || note.to_owned(),
        |(number, what)| format!("{what} was not set: {}", io::Error::from_raw_os_error(number)),
    )
}

/// A token that nobody else uses.
pub(crate) fn new_token() -> String {
    // A control character first, which programs hardly begin with, so that their first bytes are not held back.
    format!("\u{1e}{:016x} ", RandomState::new().build_hasher().finish())
}

pub(crate) struct NoteFilter {
    token: Vec<u8>,
    held: Vec<u8>,
    notes: Vec<String>,
    is_over: bool,
}

impl NoteFilter {
    pub(crate) fn new(token: &str) -> Self {
        Self { token: token.as_bytes().to_vec(), held: Vec::new(), notes: Vec::new(), is_over: false }
    }

    /// Hands on what belongs to the program.
    pub(crate) fn accept(&mut self, chunk: &[u8], emit: &mut dyn FnMut(&[u8])) {
        if self.is_over {
            return emit(chunk);
        }
        self.held.extend_from_slice(chunk);
        while self.take_note() {}
        let known = self.held.len().min(self.token.len());
        let may_be_note = self.held[..known] == self.token[..known];
        if !may_be_note || self.held.len() > MAX_NOTE_BYTES {
            self.is_over = true;
            emit(&self.held);
            self.held = Vec::new();
        }
    }

    fn take_note(&mut self) -> bool {
        if !self.held.starts_with(&self.token) {
            return false;
        }
        let Some(end) = self.held.iter().position(|byte| *byte == b'\n') else {
            return false;
        };
        let text = &self.held[self.token.len()..end];
        self.notes.push(in_words(&String::from_utf8_lossy(text)));
        self.held.drain(..=end);
        true
    }

    /// Nothing follows: hands on what was held back, and returns the notes.
    pub(crate) fn finish(self, emit: &mut dyn FnMut(&[u8])) -> Vec<String> {
        if !self.held.is_empty() {
            emit(&self.held);
        }
        self.notes
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn notes_and_the_rest_are_told_apart_however_they_are_cut(
            notes in prop::collection::vec("[a-z ]{0,8}", 0..4),
            rest in "[a-c#\\n]{0,20}",
            cuts in prop::collection::vec(1_usize..6, 0..20),
        ) {
            let token = "#ab ";
            prop_assume!(!rest.starts_with(token));
            let mut all = String::new();
            for note in &notes {
                all.extend([token, note, "\n"]);
            }
            all.push_str(&rest);
            let mut filter = NoteFilter::new(token);
            let mut seen = Vec::new();
            let mut left = all.as_bytes();
            for cut in cuts {
                let (chunk, after) = left.split_at(cut.min(left.len()));
                filter.accept(chunk, &mut |part| seen.extend_from_slice(part));
                left = after;
            }
            filter.accept(left, &mut |part| seen.extend_from_slice(part));
            let found = filter.finish(&mut |part| seen.extend_from_slice(part));
            prop_assert_eq!(found, notes);
            prop_assert_eq!(seen, rest.into_bytes());
        }
    }

    #[test]
    fn a_line_without_end_is_not_held_for_ever() {
        let mut filter = NoteFilter::new("#");
        let mut seen = 0;
        for _ in 0..100 {
            filter.accept(&[b'#'; 100], &mut |part| seen += part.len());
        }
        assert_eq!(seen, 10_000);
    }

    #[test]
    fn a_refusal_is_read_as_it_was_written() {
        for step in ["", "become user 7"] {
            let (error, found) =
                read_refusal(&format!("not started: 8 {step}")).map(|(e, s)| (e, s.to_owned())).unwrap();
            assert_eq!((error.raw_os_error(), &found[..]), (Some(8), step));
        }
        assert!(read_refusal("left out: 13 the OOM score").is_none());
    }

    #[test]
    fn what_was_left_out_is_told_in_words() {
        assert_eq!(
            in_words("left out: 13 the OOM score"),
            "the OOM score was not set: Permission denied (os error 13)"
        );
        assert_eq!(in_words("left out: many"), "left out: many");
    }

    #[test]
    fn tokens_differ() {
        assert_ne!(new_token(), new_token());
    }
}
