//! Whether the hub can do its work: storage answers and both queues are consumed.
//!
//! Storage is asked on a timer, so that the answer to a probe never waits for it. Freshness is judged when somebody asks, by
//! the age of the last answer: a database that hangs tells nothing by itself.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use attune_lifecycle::Stop;
use attune_model::activity::Observer;
use attune_model::chain;
use attune_model::condition::Condition;
use attune_model::measure::{ConnectionState, ConsumerChange, Measure, Server};
use tokio::time::{Instant, MissedTickBehavior, interval, timeout};

use crate::core::Core;

/// What has to be well.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Part {
    /// Storage.
    Storage,
    /// Consumer of stored events.
    Events,
    /// Consumer of requests for executions.
    Requests,
}

const PARTS: [Part; 3] = [Part::Storage, Part::Events, Part::Requests];

impl Part {
    /// Name of the condition, and what is wrong when it is down.
    fn words(self) -> (&'static str, &'static str) {
        match self {
            Self::Storage => ("database", "storage does not answer"),
            Self::Events => ("events", "the broker has not confirmed the consumer of events"),
            Self::Requests => ("requests", "the broker has not confirmed the consumer of requests for executions"),
        }
    }
}

/// One part, as it was last reported.
#[derive(Debug, Clone, Copy)]
struct State {
    up: bool,
    /// Since when.
    since: Instant,
    /// When it was last reported as well.
    seen: Instant,
}

/// The state of all parts. Clones are the same.
#[derive(Debug, Clone)]
pub(crate) struct Vitals {
    states: Arc<Mutex<[State; PARTS.len()]>>,
    period: Duration,
    observer: Arc<dyn Observer>,
}

impl Vitals {
    /// Nothing is well yet. Storage will be asked once per `period`.
    pub(crate) fn new(period: Duration, observer: Arc<dyn Observer>) -> Self {
        let now = Instant::now();
        let nothing = State { up: false, since: now, seen: now };
        Self { states: Arc::new(Mutex::new([nothing; PARTS.len()])), period, observer }
    }

    fn states(&self) -> MutexGuard<'_, [State; PARTS.len()]> {
        self.states.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Tells the state of every part, as it is now.
    pub(crate) fn conditions(&self, all: &mut Vec<Condition>) {
        let states = *self.states();
        let fresh_for = self.period * 2;
        all.extend(PARTS.into_iter().zip(states).map(|(part, State { up, since, seen })| {
            let (name, problem) = part.words();
            if !up {
                Condition::problem(name, problem, since.into_std())
            } else if part == Part::Storage && seen.elapsed() >= fresh_for {
                Condition::problem(name, problem, (seen + fresh_for).into_std())
            } else {
                Condition::well(name, since.into_std())
            }
        }));
    }

    /// `part` is well, or is not.
    pub(crate) fn report(&self, part: Part, up: bool) {
        let now = Instant::now();
        let mut states = self.states();
        let state = &mut states[part as usize];
        let changed = state.up != up;
        if changed {
            (state.up, state.since) = (up, now);
        }
        if up {
            state.seen = now;
        }
        drop(states);
        if changed {
            self.observer.measure(match (part, up) {
                (Part::Storage, true) => {
                    Measure::Connection { server: Server::Store, state: ConnectionState::Connected }
                }
                (Part::Storage, false) => Measure::Connection { server: Server::Store, state: ConnectionState::Lost },
                (_, true) => Measure::Consumer(ConsumerChange::Confirmed),
                (_, false) => Measure::Consumer(ConsumerChange::Lost),
            });
        }
    }
}

/// Asks storage for a sign of life until the stop. The log says once that it is gone and once that it is back.
pub(crate) async fn run(core: Arc<Core>, stop: Stop) {
    let vitals = &core.vitals;
    let mut tick = interval(vitals.period);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut gone = false;
    loop {
        tokio::select! {
            biased;
            () = stop.soft().cancelled() => return,
            _ = tick.tick() => {}
        }
        let problem = match timeout(vitals.period, core.store.ping()).await {
            Ok(Ok(())) => None,
            Ok(Err(error)) => Some(chain(&error)),
            Err(_elapsed) => Some(format!("no answer within {} ms", vitals.period.as_millis())),
        };
        match &problem {
            Some(error) if !gone => tracing::warn!(error, "storage does not answer; the hub is not ready"),
            None if gone => tracing::info!("storage answers again"),
            _ => {}
        }
        gone = problem.is_some();
        vitals.report(Part::Storage, !gone);
    }
}

#[cfg(test)]
mod tests {
    use attune_model::activity::NoObserver;

    use super::*;

    const PERIOD: Duration = Duration::from_secs(5);

    fn problems(vitals: &Vitals) -> Vec<&'static str> {
        let mut all = Vec::new();
        vitals.conditions(&mut all);
        all.into_iter().filter(|condition| !condition.is_well()).map(|condition| condition.name).collect()
    }

    #[tokio::test(start_paused = true)]
    async fn a_database_that_hangs_is_noticed_by_the_clock() {
        let vitals = Vitals::new(PERIOD, Arc::new(NoObserver));
        assert_eq!(problems(&vitals), ["database", "events", "requests"]);
        for part in PARTS {
            vitals.report(part, true);
        }
        assert_eq!(problems(&vitals), [""; 0]);
        tokio::time::advance(PERIOD * 2).await;
        assert_eq!(problems(&vitals), ["database"], "queues are not asked, they tell");
        vitals.report(Part::Storage, true);
        vitals.report(Part::Requests, false);
        assert_eq!(problems(&vitals), ["requests"]);
    }
}
