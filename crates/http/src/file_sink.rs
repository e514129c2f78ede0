//! A file that takes a body as it comes, never in memory as a whole.

use std::os::unix::fs::FileExt as _;

use attune_lifecycle::spawn_blocking;

use crate::{Problem, Sink};

/// Written at once.
const CHUNK_BYTES: usize = 256 * 1024;

/// What has come so far.
#[derive(Debug)]
pub(crate) struct FileSink {
    sink: Sink,
    written: u64,
    waiting: Vec<u8>,
}

impl FileSink {
    pub(crate) fn new(sink: Sink) -> Self {
        Self { sink, written: 0, waiting: Vec::with_capacity(CHUNK_BYTES) }
    }

    /// Takes the next bytes.
    pub(crate) async fn take(&mut self, bytes: &[u8]) -> Result<(), Problem> {
        let limit_bytes = self.sink.limit_bytes;
        let total = self.written + (self.waiting.len() + bytes.len()) as u64;
        if total > limit_bytes {
            return Err(Problem::TooLong { limit_bytes });
        }
        self.waiting.extend_from_slice(bytes);
        if self.waiting.len() >= CHUNK_BYTES { self.write(false).await } else { Ok(()) }
    }

    /// That was all.
    pub(crate) async fn finish(mut self) -> Result<(), Problem> {
        self.write(true).await
    }

    /// The last time the file becomes as long as what has come: an earlier attempt may have left more.
    async fn write(&mut self, is_last: bool) -> Result<(), Problem> {
        let (file, at) = (self.sink.file.clone(), self.written);
        let bytes = std::mem::replace(&mut self.waiting, Vec::with_capacity(CHUNK_BYTES));
        self.written += bytes.len() as u64;
        let end = self.written;
        let written = spawn_blocking(move || {
            file.write_all_at(&bytes, at)?;
            if is_last { file.set_len(end) } else { Ok(()) }
        });
        let written = written.await.unwrap_or_else(|panicked| Err(std::io::Error::other(panicked)));
        written.map_err(|error| Problem::Sink(error.to_string()))
    }
}
