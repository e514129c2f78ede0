//! What a consumer is about to see. Holds at most what the broker may have in flight, and forgets what went stale.

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};

use attune_bus::{ConsumerEvent, Delivery};
use tokio::sync::Notify;

#[derive(Debug, Default)]
pub(crate) struct Mailbox {
    inner: Mutex<Inner>,
    changed: Notify,
}

#[derive(Debug, Default)]
struct Inner {
    events: VecDeque<ConsumerEvent>,
    closed: bool,
}

impl Mailbox {
    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn deliver(&self, delivery: Delivery) {
        self.inner().events.push_back(ConsumerEvent::Delivery(delivery));
        self.changed.notify_one();
    }

    /// The channel is gone, and with it every delivery that nobody has looked at.
    pub(crate) fn interrupt(&self, cause: String) {
        let mut inner = self.inner();
        // A resumption that nobody saw before this interruption is no news any more either.
        inner.events.clear();
        inner.events.push_back(ConsumerEvent::Interrupted(cause));
        drop(inner);
        self.changed.notify_one();
    }

    pub(crate) fn resume(&self) {
        self.inner().events.push_back(ConsumerEvent::Resumed);
        self.changed.notify_one();
    }

    /// Nothing comes any more.
    pub(crate) fn close(&self) {
        let mut inner = self.inner();
        inner.events.clear();
        inner.closed = true;
        drop(inner);
        self.changed.notify_one();
    }

    /// The next event; none when closed. One reader; cancel-safe.
    pub(crate) async fn next(&self) -> Option<ConsumerEvent> {
        loop {
            {
                let mut inner = self.inner();
                if let Some(event) = inner.events.pop_front() {
                    return Some(event);
                }
                if inner.closed {
                    return None;
                }
            }
            self.changed.notified().await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn an_interruption_takes_what_was_not_seen_with_it() {
        let mailbox = Mailbox::default();
        mailbox.interrupt("first".into());
        mailbox.resume();
        mailbox.interrupt("second".into());
        mailbox.resume();
        assert!(matches!(mailbox.next().await, Some(ConsumerEvent::Interrupted(cause)) if cause == "second"));
        assert!(matches!(mailbox.next().await, Some(ConsumerEvent::Resumed)));
        mailbox.close();
        assert!(mailbox.next().await.is_none());
        assert!(mailbox.next().await.is_none(), "and it stays closed");
    }
}
