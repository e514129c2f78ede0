//! The three pipes of a child, served at the same time.
//!
//! Invariants: a round serves every pipe once, so a stream that never pauses starves neither the other one nor the input;
//! all progress lives in [`Pumps`] and none in a future, so dropping [`Pumps::run`] between two polls loses nothing.

use std::convert::Infallible;
use std::fs;
use std::future::{pending, poll_fn};
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::path::PathBuf;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead as _, AsyncWrite as _, ReadBuf};
use tokio::net::unix::pipe;

use crate::capture::Capture;
use crate::input::Rest;
use crate::report::Captured;

/// The capacity of a pipe: one read empties it. On the stack of the poll, so that a quiet child costs no buffer.
const CHUNK_BYTES: usize = 64 * 1024;

pub(crate) struct Pumps {
    stdin: Writer,
    stdout: Reader,
    stderr: Reader,
}

impl Pumps {
    pub(crate) fn new(stdin: Writer, stdout: Reader, stderr: Reader) -> Self {
        Self { stdin, stdout, stderr }
    }

    /// Serves the pipes until all of them are at their end.
    pub(crate) async fn run(&mut self) {
        poll_fn(|context| self.poll(context)).await;
    }

    /// [`Pumps::run`] for a child that is still there: never ends.
    pub(crate) async fn serve(&mut self) -> Infallible {
        self.run().await;
        pending().await
    }

    fn are_done(&self) -> bool {
        self.stdin.pipe.is_none() && !self.outputs_are_open()
    }

    /// Whether somebody could still write to a pipe that is read here.
    pub(crate) fn outputs_are_open(&self) -> bool {
        self.stdout.pipe.is_some() || self.stderr.pipe.is_some()
    }

    /// The pipes that somebody could still write to, as links in `/proc` show them.
    pub(crate) fn open_outputs(&self) -> Vec<PathBuf> {
        let pipes = [&self.stdout, &self.stderr].into_iter().filter_map(|reader| reader.pipe.as_ref());
        pipes.filter_map(|pipe| fs::read_link(format!("/proc/self/fd/{}", pipe.as_raw_fd())).ok()).collect()
    }

    /// The child is gone: what it has not read is lost.
    pub(crate) fn close_input(&mut self) {
        self.stdin.close();
    }

    /// Closes the pipes. The log of standard error ends with `remark`.
    pub(crate) fn finish(self, remark: Option<&str>) -> Gathered {
        let (stdout, _) = self.stdout.capture.finish(None);
        let (stderr, notes) = self.stderr.capture.finish(remark);
        Gathered { stdout, stderr, stdin_error: self.stdin.error, notes }
    }

    #[expect(
        clippy::large_stack_arrays,
        reason = "not initialised and gone when the poll returns; a buffer per child would stay"
    )]
    fn poll(&mut self, context: &mut Context<'_>) -> Poll<()> {
        let mut chunk = [const { MaybeUninit::uninit() }; CHUNK_BYTES];
        loop {
            let stdout = self.stdout.poll_chunk(context, &mut chunk);
            let stderr = self.stderr.poll_chunk(context, &mut chunk);
            let stdin = self.stdin.poll_part(context);
            if self.are_done() {
                return Poll::Ready(());
            }
            if stdout.is_pending() && stderr.is_pending() && stdin.is_pending() {
                return Poll::Pending;
            }
        }
    }
}

/// What came through the pipes.
pub(crate) struct Gathered {
    pub(crate) stdout: Captured,
    pub(crate) stderr: Captured,
    pub(crate) stdin_error: Option<io::Error>,
    pub(crate) notes: Vec<String>,
}

/// One output pipe and what becomes of it.
pub(crate) struct Reader {
    pipe: Option<pipe::Receiver>,
    capture: Capture,
}

impl Reader {
    /// Must be called inside a runtime.
    pub(crate) fn new(pipe: Option<OwnedFd>, capture: Capture) -> io::Result<Self> {
        Ok(Self { pipe: pipe.map(pipe::Receiver::from_owned_fd).transpose()?, capture })
    }

    /// Ready after one read that found something or the end; pending also when the pipe is closed already.
    fn poll_chunk(&mut self, context: &mut Context<'_>, chunk: &mut [MaybeUninit<u8>]) -> Poll<()> {
        let Some(pipe) = &mut self.pipe else {
            return Poll::Pending;
        };
        let mut chunk = ReadBuf::uninit(chunk);
        let read = ready!(Pin::new(pipe).poll_read(context, &mut chunk));
        if let Err(error) = &read {
            tracing::warn!(%error, "reading from a child failed; the rest of its output is lost");
        }
        if read.is_err() || chunk.filled().is_empty() {
            self.pipe = None;
        } else {
            self.capture.accept(chunk.filled());
        }
        Poll::Ready(())
    }
}

/// The input pipe and what is still to be written.
#[derive(Default)]
pub(crate) struct Writer {
    pipe: Option<pipe::Sender>,
    bytes: Vec<u8>,
    written: usize,
    error: Option<io::Error>,
}

impl Writer {
    /// Must be called inside a runtime.
    pub(crate) fn new(rest: Option<Rest>) -> io::Result<Self> {
        let Some(rest) = rest else {
            return Ok(Self::default());
        };
        Ok(Self {
            pipe: Some(pipe::Sender::from_owned_fd(rest.pipe)?),
            bytes: rest.bytes,
            written: rest.written,
            error: None,
        })
    }

    /// Ready after one write or its failure; pending also when the pipe is closed already.
    fn poll_part(&mut self, context: &mut Context<'_>) -> Poll<()> {
        let Some(pipe) = &mut self.pipe else {
            return Poll::Pending;
        };
        match ready!(Pin::new(pipe).poll_write(context, &self.bytes[self.written..])) {
            Ok(count) => self.written += count,
            Err(error) => {
                self.error = Some(error);
                self.pipe = None;
            }
        }
        if self.written == self.bytes.len() {
            self.close();
        }
        Poll::Ready(())
    }

    fn close(&mut self) {
        if self.pipe.take().is_some() && self.written < self.bytes.len() {
            self.error = Some(io::Error::from(io::ErrorKind::BrokenPipe));
        }
        self.bytes = Vec::new();
        self.written = 0;
    }
}
