//! Between the reader of a pipe and the writer of its log: a bounded buffer.
//!
//! The reader never waits for storage, so slow storage never stops a sensor. When the buffer is full, what comes is counted
//! and lost, and the log says so.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use attune_process::Sink;
use tokio::sync::Notify;

/// Bytes that wait for storage.
const CAPACITY: usize = 1024 * 1024;

/// What the writer takes at once.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Batch {
    /// In the order in which they came.
    pub(crate) bytes: Vec<u8>,
    /// How many did not fit behind them.
    pub(crate) lost_bytes: u64,
    /// Whether nothing follows.
    pub(crate) finished: bool,
}

#[derive(Debug, Default)]
struct Shared {
    waiting: Mutex<Batch>,
    changed: Notify,
}

impl Shared {
    fn waiting(&self) -> MutexGuard<'_, Batch> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The end that the process writes to. Dropping it is the end of the stream.
#[derive(Debug)]
pub(crate) struct LogSink {
    shared: Arc<Shared>,
}

/// The end that the log reads from.
#[derive(Debug)]
pub(crate) struct LogSource {
    shared: Arc<Shared>,
}

/// A buffer and its two ends.
pub(crate) fn queue() -> (LogSink, LogSource) {
    let shared = Arc::new(Shared::default());
    (LogSink { shared: shared.clone() }, LogSource { shared })
}

impl Sink for LogSink {
    fn write(&mut self, chunk: &[u8]) {
        let mut waiting = self.shared.waiting();
        let room = CAPACITY.saturating_sub(waiting.bytes.len());
        // After a loss nothing more is taken until the writer has seen it: the gap stays in one place.
        let taken = if waiting.lost_bytes > 0 { 0 } else { chunk.len().min(room) };
        waiting.bytes.extend_from_slice(&chunk[..taken]);
        waiting.lost_bytes += (chunk.len() - taken) as u64;
        drop(waiting);
        self.shared.changed.notify_one();
    }

    fn finish(&mut self) {
        self.shared.waiting().finished = true;
        self.shared.changed.notify_one();
    }
}

impl Drop for LogSink {
    fn drop(&mut self) {
        self.finish();
    }
}

impl LogSource {
    /// Everything that waits, as soon as there is something. Cancel-safe.
    pub(crate) async fn take(&self) -> Batch {
        loop {
            {
                let mut waiting = self.shared.waiting();
                if !waiting.bytes.is_empty() || waiting.lost_bytes > 0 || waiting.finished {
                    let finished = waiting.finished;
                    let batch = std::mem::take(&mut *waiting);
                    waiting.finished = finished;
                    return batch;
                }
            }
            // One permit is kept, so a change between the look and the wait is not missed.
            self.shared.changed.notified().await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_does_not_fit_is_counted_in_one_place() {
        let (mut sink, source) = queue();
        sink.write(&vec![b'a'; CAPACITY - 1]);
        sink.write(b"bcd");
        sink.write(b"e");
        let batch = source.take().await;
        assert_eq!((batch.bytes.len(), batch.lost_bytes, batch.finished), (CAPACITY, 3, false));
        sink.write(b"f");
        drop(sink);
        assert_eq!(source.take().await, Batch { bytes: b"f".to_vec(), lost_bytes: 0, finished: true });
    }
}
