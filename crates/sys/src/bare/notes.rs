//! What could not be set up, for the agent: lines at the very start of standard error, with a token that it knows.

use super::calls::{Errno, write};

const STANDARD_ERROR: usize = 2;

/// Longer lines are cut.
const MOST_BYTES: usize = 512;

pub(super) struct Notes {
    token: &'static [u8],
}

impl Notes {
    pub(super) fn new(token: &'static [u8]) -> Self {
        Self { token }
    }

    /// A line of its own.
    pub(super) fn say(&self, text: &[u8]) {
        let mut line = self.line();
        line.push(text);
        line.write();
    }

    /// What did not work, with the number of the error.
    pub(super) fn failed(&self, what: &[u8], error: Errno) {
        let mut line = self.line();
        line.push(what);
        line.push(b" (os error ");
        line.push_error(error);
        line.push(b")");
        line.write();
    }

    /// What the launcher goes on without.
    pub(super) fn left_out(&self, error: Errno, what: &[u8]) {
        let mut line = self.line();
        line.push(b"left out: ");
        line.push_error(error);
        line.push(b" ");
        line.push(what);
        line.write();
    }

    /// Why the program is not started: the step that was refused, and the user that it was about; none of them stands for
    /// executing the program.
    pub(super) fn refused(&self, error: Errno, step: &[u8], user: Option<u64>) {
        let mut line = self.line();
        line.push(b"not started: ");
        line.push_error(error);
        line.push(b" ");
        line.push(step);
        if let Some(user) = user {
            line.push_number(user);
        }
        line.write();
    }

    /// The agent that asked is not there any more.
    pub(super) fn agent_is_gone(&self, agent: u64) {
        let mut line = self.line();
        line.push(b"the agent (process ");
        line.push_number(agent);
        line.push(b") is gone");
        line.write();
    }

    fn line(&self) -> Line {
        let mut line = Line { bytes: [0; MOST_BYTES], length: 0 };
        line.push(self.token);
        line
    }
}

struct Line {
    bytes: [u8; MOST_BYTES],
    length: usize,
}

impl Line {
    fn push(&mut self, text: &[u8]) {
        for byte in text {
            // The last place is for the end of the line.
            if self.length < MOST_BYTES - 1
                && let Some(place) = self.bytes.get_mut(self.length)
            {
                *place = *byte;
                self.length += 1;
            }
        }
    }

    fn push_error(&mut self, Errno(number): Errno) {
        self.push_number(u64::from(number.unsigned_abs()));
    }

    fn push_number(&mut self, number: u64) {
        let mut divisor = 1;
        while number / divisor >= 10 {
            divisor *= 10;
        }
        while divisor > 0 {
            let digit = u8::try_from(number / divisor % 10).unwrap_or(0);
            self.push(&[b'0' + digit]);
            divisor /= 10;
        }
    }

    fn write(mut self) {
        if let Some(place) = self.bytes.get_mut(self.length) {
            *place = b'\n';
        }
        let line = self.bytes.get(..=self.length).unwrap_or_default();
        // Nobody can be told that this failed; what the note is about has happened all the same.
        write(STANDARD_ERROR, line).unwrap_or_default();
    }
}
