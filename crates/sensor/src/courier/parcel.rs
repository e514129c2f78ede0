//! One version of a log on its way: a file here, and as much of it as the platform has.
//!
//! What the platform has is always the beginning of what is to be there. Whether a call that was not answered did something is
//! not known; then the file there is measured. Such a call may still be done when nobody thinks of it any more, so that a file
//! is measured once more whenever it should be complete, and sent anew when it is not.

/// Most bytes of one call.
pub(super) const CHUNK_BYTES: u64 = 1024 * 1024;

/// What the platform has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Arrived {
    /// Nothing was ever sent.
    Nothing,
    /// So many bytes.
    Bytes(u64),
    /// So many at least; a call has not ended, or ended without an answer.
    Unknown(u64),
    /// Something else.
    Wrong,
    /// So many, and it takes no more.
    Refused(u64),
}

/// What is to be done next.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Step {
    /// Ask how long the file is there.
    Measure,
    /// Add to it.
    Append(Append),
    /// Remove it there, to begin again.
    Remove,
    /// Nothing: it is complete, or nothing more of it can be delivered.
    Finish,
    /// Nothing, until more is written.
    Wait,
}

/// The next piece.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Append {
    /// What is sent before the file's own bytes.
    pub(super) note: Vec<u8>,
    /// Where in the file here.
    pub(super) from: u64,
    /// How many bytes of the file here.
    pub(super) count: u64,
    /// How long the file there is before.
    pub(super) at: u64,
    /// Whether nothing more will be written.
    pub(super) is_closed: bool,
}

/// One version.
#[derive(Debug)]
pub(super) struct Parcel {
    /// Below the folder here, and below the folder of artifacts there.
    pub(super) path: String,
    /// Its row, as soon as it is known.
    pub(super) version: Option<i64>,
    /// Bytes of the file here.
    pub(super) size: u64,
    /// Whether nothing more will be written.
    pub(super) is_closed: bool,
    /// Bytes of output before this version that never arrived.
    pub(super) missing: u64,
    pub(super) arrived: Arrived,
    /// Whether a call for it was not answered.
    is_doubted: bool,
    /// How long the file there was when it was last measured.
    measured: Option<u64>,
}

impl Parcel {
    /// A version of which nothing is written.
    pub(super) fn new(path: String, version: i64) -> Self {
        Self {
            path,
            version: Some(version),
            size: 0,
            is_closed: false,
            missing: 0,
            arrived: Arrived::Nothing,
            is_doubted: false,
            measured: None,
        }
    }

    /// A version of an earlier life, which may have ended in the middle of a call.
    pub(super) fn left(path: String, size: u64, missing: u64) -> Self {
        let arrived = Arrived::Unknown(0);
        Self { path, version: None, size, is_closed: true, missing, arrived, is_doubted: true, measured: None }
    }

    /// Whether there may be something of it there.
    pub(super) fn has_begun(&self) -> bool {
        self.arrived != Arrived::Nothing
    }

    /// How long the file there is, as far as it is known.
    pub(super) fn there(&self) -> u64 {
        match self.arrived {
            Arrived::Nothing | Arrived::Wrong => 0,
            Arrived::Bytes(there) | Arrived::Unknown(there) | Arrived::Refused(there) => there,
        }
    }

    /// Bytes of output that will not be there when it is given up now.
    pub(super) fn lost(&self) -> u64 {
        let note = length(&self.note());
        let told = if self.there() > 0 { 0 } else { self.missing };
        told + self.size.saturating_sub(self.there().saturating_sub(note))
    }

    /// What is to be done next.
    pub(super) fn step(&self) -> Step {
        let there = match self.arrived {
            Arrived::Unknown(_) => return Step::Measure,
            Arrived::Wrong => return Step::Remove,
            Arrived::Refused(_) => return if self.is_closed { Step::Finish } else { Step::Wait },
            Arrived::Nothing | Arrived::Bytes(_) => self.there(),
        };
        let mut note = if self.size > 0 { self.note() } else { Vec::new() };
        let total = length(&note) + self.size;
        if there == total {
            return match (self.is_doubted && self.measured != Some(there), self.is_closed) {
                (true, _) => Step::Measure,
                (false, true) => Step::Finish,
                (false, false) => Step::Wait,
            };
        }
        let from = there.saturating_sub(length(&note));
        note.drain(..usize::try_from(there).unwrap_or(usize::MAX).min(note.len()));
        let count = self.size.saturating_sub(from).min(CHUNK_BYTES - length(&note));
        Step::Append(Append { note, from, count, at: there, is_closed: self.is_closed })
    }

    /// A piece is being sent.
    pub(super) fn sending(&mut self) {
        self.arrived = Arrived::Unknown(self.there());
        self.measured = None;
    }

    /// A piece was not answered.
    pub(super) fn doubt(&mut self) {
        self.is_doubted = true;
    }

    /// The file there is as long as this.
    pub(super) fn measure(&mut self, there: u64) {
        let longest = length(&self.note()) + self.size;
        let fits = match self.arrived {
            Arrived::Bytes(known) => known == there,
            _ => there <= longest,
        };
        (self.arrived, self.measured) =
            if fits { (Arrived::Bytes(there), Some(there)) } else { (Arrived::Wrong, None) };
    }

    fn note(&self) -> Vec<u8> {
        if self.missing == 0 {
            return Vec::new();
        }
        let missing = self.missing;
        format!("[attune: {missing} bytes of output before this never reached the platform]\n").into_bytes()
    }
}

fn length(bytes: &[u8]) -> u64 {
    bytes.len() as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parcel(size: u64) -> Parcel {
        Parcel { size, ..Parcel::new("sensor/demo/one/stderr/v1.txt".to_owned(), 1) }
    }

    fn piece(parcel: &Parcel) -> Append {
        match parcel.step() {
            Step::Append(append) => append,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn pieces_follow_one_another_until_everything_is_there() {
        let mut parcel = parcel(CHUNK_BYTES + 5);
        let first = piece(&parcel);
        assert_eq!((first.at, first.from, first.count), (0, 0, CHUNK_BYTES));
        parcel.arrived = Arrived::Bytes(CHUNK_BYTES);
        let second = piece(&parcel);
        assert_eq!((second.at, second.from, second.count), (CHUNK_BYTES, CHUNK_BYTES, 5));
        parcel.arrived = Arrived::Bytes(CHUNK_BYTES + 5);
        assert_eq!(parcel.step(), Step::Wait);
        parcel.is_closed = true;
        assert_eq!((parcel.step(), parcel.lost()), (Step::Finish, 0));
    }

    #[test]
    fn what_is_missing_is_said_first_wherever_a_call_broke_off() {
        let mut parcel = parcel(10);
        parcel.missing = 4711;
        let note = b"[attune: 4711 bytes of output before this never reached the platform]\n";
        let whole = piece(&parcel);
        assert_eq!((whole.note.as_slice(), whole.from, whole.count), (note.as_slice(), 0, 10));
        assert_eq!(parcel.lost(), 4721);
        for (there, of_note, from, count) in
            [(3, &note[3..], 0, 10), (length(note), &[], 0, 10), (length(note) + 4, &[], 4, 6)]
        {
            parcel.arrived = Arrived::Unknown(0);
            parcel.measure(there);
            let rest = piece(&parcel);
            assert_eq!((rest.note.as_slice(), rest.from, rest.count, rest.at), (of_note, from, count, there));
            assert_eq!(parcel.lost(), count, "{there}");
        }
    }

    #[test]
    fn a_call_without_an_answer_is_measured_and_measured_again_at_the_end() {
        let mut parcel = parcel(10);
        parcel.sending();
        parcel.doubt();
        assert_eq!(parcel.step(), Step::Measure);
        parcel.measure(6);
        assert_eq!(piece(&parcel).from, 6);
        parcel.sending();
        parcel.arrived = Arrived::Bytes(10);
        assert_eq!(parcel.step(), Step::Measure);
        parcel.measure(10);
        assert_eq!(parcel.step(), Step::Wait);
    }

    #[test]
    fn a_file_that_is_not_as_long_as_it_should_be_is_sent_anew() {
        for (arrived, there) in [(Arrived::Unknown(0), 11), (Arrived::Bytes(10), 16), (Arrived::Bytes(10), 0)] {
            let mut parcel = parcel(10);
            parcel.arrived = arrived;
            parcel.measure(there);
            assert_eq!(parcel.step(), Step::Remove, "{arrived:?} {there}");
            assert_eq!(parcel.lost(), 10);
        }
    }

    #[test]
    fn an_empty_version_sends_no_note() {
        let mut parcel = parcel(0);
        parcel.missing = 1;
        assert_eq!(parcel.step(), Step::Wait);
        parcel.is_closed = true;
        assert_eq!((parcel.step(), parcel.lost()), (Step::Finish, 1));
    }

    #[test]
    fn what_is_refused_is_lost_when_nothing_more_is_written() {
        let mut parcel = parcel(10);
        parcel.arrived = Arrived::Refused(4);
        assert_eq!(parcel.step(), Step::Wait);
        parcel.is_closed = true;
        assert_eq!((parcel.step(), parcel.lost()), (Step::Finish, 6));
    }
}
