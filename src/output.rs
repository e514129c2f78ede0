//! Standard output, for what a command was asked to print, and standard error for a word beside it.
//!
//! All of an answer goes through [`Output`], because the standard library hides two facts: it opens `/dev/null` in place of a
//! standard output that is closed, and it takes a descriptor that cannot be written for one that swallowed everything.
//! A command whose answer nobody received must not say that it worked: both are failures, with exit code 74.

use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::os::fd::AsFd;

use crate::exit::{Exit, Failure};

/// A buffered standard output whose failures are seen.
#[derive(Debug)]
pub(crate) struct Output {
    writer: BufWriter<File>,
}

impl Output {
    /// Opens it.
    pub(crate) fn open() -> Result<Self, Failure> {
        if attune_sys::stdout_was_closed() {
            return Err(failed(&io::Error::other("it is closed")));
        }
        let descriptor = io::stdout().as_fd().try_clone_to_owned().map_err(|error| failed(&error))?;
        Ok(Self { writer: BufWriter::new(File::from(descriptor)) })
    }

    /// Writes `text` as it is.
    pub(crate) fn text(&mut self, text: &str) -> Result<(), Failure> {
        self.bytes(text.as_bytes())
    }

    /// Writes bytes that need not be text.
    pub(crate) fn bytes(&mut self, bytes: &[u8]) -> Result<(), Failure> {
        self.writer.write_all(bytes).map_err(|error| failed(&error))
    }

    /// Writes `text` and a newline, and lets the reader see it now.
    pub(crate) fn line(&mut self, text: &str) -> Result<(), Failure> {
        self.text(text)?;
        self.text("\n")?;
        self.flush()
    }

    /// Hands on what was written. What is not flushed may be lost without a failure.
    pub(crate) fn flush(&mut self) -> Result<(), Failure> {
        self.writer.flush().map_err(|error| failed(&error))
    }
}

/// Prints `text` and nothing else.
pub(crate) fn print(text: &str) -> Result<Exit, Failure> {
    let mut output = Output::open()?;
    output.text(text)?;
    output.flush()?;
    Ok(Exit::Success)
}

/// Writes to standard error what a person should know. Without one nobody can be told; the exit code still says how it ended.
pub(crate) fn tell(bytes: &[u8]) {
    match io::stderr().write_all(bytes) {
        Ok(()) | Err(_) => {}
    }
}

fn failed(error: &io::Error) -> Failure {
    Failure::message(Exit::Output, format!("failed to write to standard output: {error}"))
}
