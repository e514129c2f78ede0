//! Whether the worker can take work: every consumer is confirmed and the row is fresh.
//!
//! Freshness is judged when somebody asks, by the age of the last heartbeat that was written: a heartbeat that hangs tells
//! nothing by itself.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use attune_lifecycle::Standing;
use attune_model::activity::Observer;
use attune_model::condition::Condition;
use attune_model::measure::{ConsumerChange, Measure};
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

impl Part {
    /// Name of the condition.
    fn name(self) -> &'static str {
        match self {
            Self::Executions => "executions",
            Self::Cancels => "cancels",
            Self::Packs => "packs",
            Self::Heartbeat => "row",
        }
    }

    /// What is wrong when it is down.
    fn problem(self) -> &'static str {
        match self {
            Self::Executions => "the broker has not confirmed the consumer of dispatches",
            Self::Cancels => "the broker has not confirmed the consumer of cancels",
            Self::Packs => "the broker has not confirmed the consumer of pack events",
            Self::Heartbeat => "the worker's row could not be written: storage does not answer, or refuses",
        }
    }
}

#[derive(Debug)]
struct Inner {
    states: Mutex<[Standing; PARTS.len()]>,
    ready: watch::Sender<bool>,
    /// A row that was written before that time is not fresh.
    fresh_for: Duration,
    observer: Arc<dyn Observer>,
}

/// The state of all parts. Clones are the same.
#[derive(Debug, Clone)]
pub(crate) struct Readiness {
    inner: Arc<Inner>,
}

impl Readiness {
    /// Nothing is well yet. The row is fresh for two intervals of the heartbeat.
    pub(crate) fn new(heartbeat_interval: Duration, observer: Arc<dyn Observer>) -> Self {
        let inner = Inner {
            states: Mutex::new([Standing::down(); PARTS.len()]),
            ready: watch::Sender::new(false),
            fresh_for: heartbeat_interval * 2,
            observer,
        };
        Self { inner: Arc::new(inner) }
    }

    fn states(&self) -> MutexGuard<'_, [Standing; PARTS.len()]> {
        self.inner.states.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Follows the whole, as it is reported.
    pub(crate) fn subscribe(&self) -> watch::Receiver<bool> {
        self.inner.ready.subscribe()
    }

    /// Tells the state of every part, as it is now.
    pub(crate) fn conditions(&self, all: &mut Vec<Condition>) {
        let states = *self.states();
        let fresh_for = self.inner.fresh_for;
        all.extend(PARTS.into_iter().zip(states).map(|(part, standing)| {
            match standing.stale_since(fresh_for).filter(|_| part == Part::Heartbeat) {
                _ if !standing.is_up() => Condition::problem(part.name(), part.problem(), standing.since()),
                Some(stale_since) => {
                    let problem = "the worker's row is not fresh: two heartbeats were not written in time";
                    Condition::problem(part.name(), problem, stale_since)
                }
                None => Condition::well(part.name(), standing.since()),
            }
        }));
    }

    /// `part` is well.
    pub(crate) fn up(&self, part: Part) {
        self.report(part, true);
    }

    /// `part` is not.
    pub(crate) fn down(&self, part: Part) {
        self.report(part, false);
    }

    /// Whether `part` is well, as it was reported.
    pub(crate) fn is_up(&self, part: Part) -> bool {
        self.states()[part as usize].is_up()
    }

    fn report(&self, part: Part, up: bool) {
        let mut states = self.states();
        let changed = states[part as usize].tell(up);
        let ready = states.iter().all(Standing::is_up);
        self.inner.ready.send_if_modified(|known| std::mem::replace(known, ready) != ready);
        drop(states);
        if changed && part != Part::Heartbeat {
            let change = if up { ConsumerChange::Confirmed } else { ConsumerChange::Lost };
            self.inner.observer.measure(Measure::Consumer(change));
        }
    }
}

#[cfg(test)]
mod tests {
    use attune_model::activity::NoObserver;

    use super::*;

    const INTERVAL: Duration = Duration::from_secs(30);

    fn well(readiness: &Readiness) -> bool {
        let mut all = Vec::new();
        readiness.conditions(&mut all);
        assert_eq!(all.len(), PARTS.len());
        all.iter().all(Condition::is_well)
    }

    #[tokio::test]
    async fn ready_means_every_part() {
        let readiness = Readiness::new(INTERVAL, Arc::new(NoObserver));
        let ready = readiness.subscribe();
        for part in PARTS {
            assert!(!*ready.borrow() && !well(&readiness));
            readiness.up(part);
        }
        assert!(*ready.borrow() && well(&readiness));
        readiness.down(Part::Cancels);
        assert!(!*ready.borrow() && !well(&readiness));
        readiness.up(Part::Cancels);
        assert!(*ready.borrow() && well(&readiness));
    }

    #[tokio::test(start_paused = true)]
    async fn a_row_that_nobody_writes_goes_stale_after_two_heartbeats() {
        let readiness = Readiness::new(INTERVAL, Arc::new(NoObserver));
        for part in PARTS {
            readiness.up(part);
        }
        tokio::time::advance(Duration::from_millis(59_999)).await;
        assert!(well(&readiness));
        tokio::time::advance(Duration::from_millis(1)).await;
        assert!(!well(&readiness), "whatever the heartbeat is waiting for");
        readiness.up(Part::Heartbeat);
        assert!(well(&readiness));
    }
}
