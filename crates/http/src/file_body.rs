//! A file as a body: read as it is sent, never in memory as a whole.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt as _;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use attune_lifecycle::spawn_blocking;
use bytes::Bytes;
use http_body::{Frame, SizeHint};
use tokio::task::JoinHandle;

const CHUNK_BYTES: usize = 256 * 1024;

/// The first bytes of a file, as many as were promised. A file that has become shorter breaks the request off.
#[derive(Debug)]
pub(crate) struct FileBody {
    file: Arc<File>,
    at: u64,
    left: u64,
    reading: Option<JoinHandle<io::Result<Bytes>>>,
}

impl FileBody {
    pub(crate) fn new(file: Arc<File>, size_bytes: u64) -> Self {
        Self { file, at: 0, left: size_bytes, reading: None }
    }

    /// By its position, since another try may be reading the same file.
    fn read(&self) -> JoinHandle<io::Result<Bytes>> {
        let (file, at) = (self.file.clone(), self.at);
        let count = usize::try_from(self.left).unwrap_or(usize::MAX).min(CHUNK_BYTES);
        spawn_blocking(move || {
            let mut chunk = vec![0; count];
            file.read_exact_at(&mut chunk, at)?;
            Ok(chunk.into())
        })
    }
}

impl http_body::Body for FileBody {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, io::Error>>> {
        if self.left == 0 {
            return Poll::Ready(None);
        }
        let mut reading = self.reading.take().unwrap_or_else(|| self.read());
        let Poll::Ready(read) = Pin::new(&mut reading).poll(context) else {
            self.reading = Some(reading);
            return Poll::Pending;
        };
        let chunk = read.unwrap_or_else(|error| Err(io::Error::other(error)))?;
        let count = chunk.len() as u64;
        (self.at, self.left) = (self.at + count, self.left - count);
        Poll::Ready(Some(Ok(Frame::data(chunk))))
    }

    fn is_end_stream(&self) -> bool {
        self.left == 0
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.left)
    }
}
