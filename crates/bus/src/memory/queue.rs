//! One queue in memory.

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::Notify;
use tokio::time::Instant;

use crate::{BusError, QueueLifetime, QueueSpec};

/// Most messages one queue holds. A publisher beyond it gets an error instead of eating the memory of the process.
const CAPACITY: usize = 100_000;

#[derive(Debug, Clone)]
pub(super) struct Message {
    pub(super) body: Bytes,
    pub(super) routing_key: String,
    pub(super) redelivered: bool,
    published: Instant,
}

impl Message {
    pub(super) fn new(body: Bytes, routing_key: String) -> Self {
        Self { body, routing_key, redelivered: false, published: Instant::now() }
    }
}

#[derive(Debug)]
pub(super) struct Queue {
    pub(super) spec: QueueSpec,
    pub(super) changed: Notify,
    waiting: Mutex<VecDeque<Message>>,
    usage: Mutex<Usage>,
}

#[derive(Debug)]
struct Usage {
    consumers: u32,
    unused_since: Instant,
}

impl Queue {
    pub(super) fn new(spec: QueueSpec) -> Self {
        Self {
            spec,
            changed: Notify::new(),
            waiting: Mutex::default(),
            usage: Mutex::new(Usage { consumers: 0, unused_since: Instant::now() }),
        }
    }

    pub(super) fn waiting(&self) -> MutexGuard<'_, VecDeque<Message>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn usage(&self) -> MutexGuard<'_, Usage> {
        self.usage.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn consumer_came(&self) {
        self.usage().consumers += 1;
    }

    pub(super) fn consumer_left(&self) {
        let mut usage = self.usage();
        usage.consumers = usage.consumers.saturating_sub(1);
        usage.unused_since = Instant::now();
    }

    pub(super) fn consumers(&self) -> u32 {
        self.usage().consumers
    }

    /// Whether nobody has consumed it for its lifetime.
    pub(super) fn is_over(&self) -> bool {
        let QueueLifetime::UntilUnused(limit) = self.spec.lifetime else { return false };
        let usage = self.usage();
        usage.consumers == 0 && usage.unused_since.elapsed() >= limit
    }

    pub(super) fn push(&self, message: Message) -> Result<(), BusError> {
        let mut waiting = self.waiting();
        if waiting.len() >= CAPACITY {
            return Err(BusError::Unavailable(format!("queue {} is full", self.spec.name)));
        }
        waiting.push_back(message);
        drop(waiting);
        self.changed.notify_waiters();
        Ok(())
    }

    /// The oldest message that has not outlived the queue's limit, and those before it that have.
    pub(super) fn pop(&self) -> (Option<Message>, Vec<Message>) {
        let limit = self.spec.message_ttl_ms.map(|ms| Duration::from_millis(u64::from(ms)));
        let mut waiting = self.waiting();
        let mut expired = Vec::new();
        while let Some(message) = waiting.pop_front() {
            if limit.is_none_or(|limit| message.published.elapsed() < limit) {
                return (Some(message), expired);
            }
            expired.push(message);
        }
        (None, expired)
    }
}
