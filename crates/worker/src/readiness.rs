//! Whether the worker can take work: every consumer is confirmed and the row is fresh.

use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::watch;

/// What has to be well.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Part {
    /// Consumer of dispatches.
    Executions,
    /// Consumer of cancels.
    Cancels,
    /// Consumer of pack events.
    Packs,
    /// The row.
    Heartbeat,
}

const PARTS: [Part; 4] = [Part::Executions, Part::Cancels, Part::Packs, Part::Heartbeat];

/// The state of all parts.
#[derive(Debug, Clone)]
pub(crate) struct Readiness {
    up: Arc<Mutex<Vec<Part>>>,
    ready: watch::Sender<bool>,
}

impl Readiness {
    /// Nothing is well yet.
    pub(crate) fn new() -> Self {
        Self { up: Arc::default(), ready: watch::Sender::new(false) }
    }

    /// Follows the whole.
    pub(crate) fn subscribe(&self) -> watch::Receiver<bool> {
        self.ready.subscribe()
    }

    /// `part` is well.
    pub(crate) fn up(&self, part: Part) {
        let mut up = self.up.lock().unwrap_or_else(PoisonError::into_inner);
        if !up.contains(&part) {
            up.push(part);
        }
        self.tell(PARTS.iter().all(|part| up.contains(part)));
    }

    /// `part` is not.
    pub(crate) fn down(&self, part: Part) {
        let mut up = self.up.lock().unwrap_or_else(PoisonError::into_inner);
        up.retain(|known| *known != part);
        self.tell(false);
    }

    fn tell(&self, now: bool) {
        self.ready.send_if_modified(|ready| std::mem::replace(ready, now) != now);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ready_means_every_part() {
        let readiness = Readiness::new();
        let ready = readiness.subscribe();
        for part in PARTS {
            assert!(!*ready.borrow());
            readiness.up(part);
        }
        assert!(*ready.borrow());
        readiness.down(Part::Cancels);
        assert!(!*ready.borrow());
        readiness.up(Part::Cancels);
        assert!(*ready.borrow());
    }
}
