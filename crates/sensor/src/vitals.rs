//! Whether the host can do its work, and what it does, for those who look at it from outside.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use attune_lifecycle::Standing;
use attune_model::activity::Observer;
use attune_model::condition::Condition;
use attune_model::measure::{ConsumerChange, Kind as _, Measure, SensorState, Success};
use attune_model::{SensorId, WorkerId};
use tokio::time::Instant;

use crate::registry::Registry;

/// One sensor of a host. Nothing of what it was given.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SensorLook {
    /// Its row.
    pub id: SensorId,
    /// Its name.
    pub sensor_ref: String,
    /// Where it stands.
    pub state: SensorState,
    /// Its process, while it runs.
    pub pid: Option<u32>,
    /// Failures in a row.
    pub failures: i32,
    /// Enabled rules that it serves.
    pub active_rules: i32,
}

impl SensorLook {
    /// The word for its state.
    pub fn state_word(&self) -> &'static str {
        self.state.word()
    }
}

/// A look at a host from outside. Outlives it; clones are the same.
#[derive(Debug, Clone)]
pub struct Overview {
    pub(crate) worker: WorkerId,
    pub(crate) registry: Registry,
    pub(crate) vitals: Vitals,
}

impl Overview {
    /// The host's row.
    pub fn id(&self) -> WorkerId {
        self.worker
    }

    /// What has to be well for the host to do its work: its row and its ear for changes of rules.
    pub fn conditions(&self, all: &mut Vec<Condition>) {
        self.vitals.conditions(all);
    }

    /// The sensors that it knows, by id.
    pub fn sensors(&self) -> Vec<SensorLook> {
        self.registry.look()
    }
}

/// What was last reported.
#[derive(Debug)]
struct State {
    /// When the row was last written; none before the first time.
    written: Option<Instant>,
    /// Since when it is written, or is not.
    row_since: Instant,
    /// Whether the last attempt failed.
    failing: bool,
    /// Whether changes are heard of.
    listening: Standing,
}

#[derive(Debug)]
struct Inner {
    state: Mutex<State>,
    fresh_for: Duration,
    observer: Arc<dyn Observer>,
}

/// The row and the listener of a host.
#[derive(Debug, Clone)]
pub(crate) struct Vitals {
    inner: Arc<Inner>,
}

impl Vitals {
    /// Nothing is well yet. The row is fresh for two intervals of the heartbeat.
    pub(crate) fn new(heartbeat_interval: Duration, observer: Arc<dyn Observer>) -> Self {
        let now = Instant::now();
        let state = State { written: None, row_since: now, failing: false, listening: Standing::down() };
        let inner = Inner { state: Mutex::new(state), fresh_for: heartbeat_interval * 2, observer };
        Self { inner: Arc::new(inner) }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.inner.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A sign of life that began at `begun` was written, or was not.
    pub(crate) fn sign_of_life(&self, success: Success, begun: Instant) {
        let mut state = self.state();
        let (now, failing) = (Instant::now(), success == Success::Failed);
        if state.failing != failing || state.written.is_none() {
            (state.failing, state.row_since) = (failing, now);
        }
        if !failing {
            state.written = Some(now);
        }
        drop(state);
        self.inner.observer.measure(Measure::Heartbeat { success, took: now - begun });
    }

    /// The consumer of changes was confirmed, or lost.
    pub(crate) fn listening(&self, listening: bool) {
        if !self.state().listening.tell(listening) {
            return;
        }
        let change = if listening { ConsumerChange::Confirmed } else { ConsumerChange::Lost };
        self.inner.observer.measure(Measure::Consumer(change));
    }

    fn conditions(&self, all: &mut Vec<Condition>) {
        const ROW: &str = "host_row";
        const RULES: &str = "rules";
        let state = self.state();
        let since = state.row_since.into_std();
        all.push(match state.written {
            _ if state.failing => Condition::problem(
                ROW,
                "the host's row could not be written: storage does not answer, or refuses",
                since,
            ),
            None => Condition::problem(ROW, "the host's row was not written yet", since),
            Some(written) if written.elapsed() >= self.inner.fresh_for => {
                let problem = "the host's row is not fresh: two heartbeats were not written in time";
                Condition::problem(ROW, problem, (written + self.inner.fresh_for).into_std())
            }
            Some(_) => Condition::well(ROW, since),
        });
        let since = state.listening.since();
        all.push(if state.listening.is_up() {
            Condition::well(RULES, since)
        } else {
            Condition::problem(RULES, "the broker has not confirmed the consumer of changes of rules", since)
        });
    }
}

#[cfg(test)]
mod tests {
    use attune_model::activity::NoObserver;

    use super::*;

    const INTERVAL: Duration = Duration::from_secs(30);

    fn problems(vitals: &Vitals) -> Vec<&'static str> {
        let mut all = Vec::new();
        vitals.conditions(&mut all);
        all.iter().filter(|condition| !condition.is_well()).map(|condition| condition.name).collect()
    }

    #[tokio::test(start_paused = true)]
    async fn well_means_a_fresh_row_and_a_confirmed_consumer() {
        let vitals = Vitals::new(INTERVAL, Arc::new(NoObserver));
        assert_eq!(problems(&vitals), ["host_row", "rules"]);
        vitals.listening(true);
        vitals.sign_of_life(Success::Ok, Instant::now());
        assert!(problems(&vitals).is_empty());
        vitals.sign_of_life(Success::Failed, Instant::now());
        assert_eq!(problems(&vitals), ["host_row"]);
        vitals.sign_of_life(Success::Ok, Instant::now());
        tokio::time::advance(Duration::from_millis(59_999)).await;
        assert!(problems(&vitals).is_empty());
        tokio::time::advance(Duration::from_millis(1)).await;
        assert_eq!(problems(&vitals), ["host_row"], "whatever the heartbeat is waiting for");
        vitals.listening(false);
        assert_eq!(problems(&vitals), ["host_row", "rules"]);
    }
}
