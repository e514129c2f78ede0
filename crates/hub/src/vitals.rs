//! Whether the hub can do its work: storage answers and both queues are consumed.
//!
//! Storage is asked on a timer, so that the answer to a probe never waits for it. Freshness is judged when somebody asks, by
//! the age of the last answer: a database that hangs tells nothing by itself.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use attune_lifecycle::{Standing, Stop};
use attune_model::activity::Observer;
use attune_model::chain;
use attune_model::condition::Condition;
use attune_model::measure::{ConnectionState, ConsumerChange, Measure, Server};
use tokio::time::{MissedTickBehavior, interval, timeout};

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

/// The state of all parts. Clones are the same.
#[derive(Debug, Clone)]
pub(crate) struct Vitals {
    states: Arc<Mutex<[Standing; PARTS.len()]>>,
    period: Duration,
    observer: Arc<dyn Observer>,
}

impl Vitals {
    /// Nothing is well yet. Storage will be asked once per `period`.
    pub(crate) fn new(period: Duration, observer: Arc<dyn Observer>) -> Self {
        Self { states: Arc::new(Mutex::new([Standing::down(); PARTS.len()])), period, observer }
    }

    fn states(&self) -> MutexGuard<'_, [Standing; PARTS.len()]> {
        self.states.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Tells the state of every part, as it is now.
    pub(crate) fn conditions(&self, all: &mut Vec<Condition>) {
        let states = *self.states();
        let fresh_for = self.period * 2;
        all.extend(PARTS.into_iter().zip(states).map(|(part, standing)| {
            let (name, problem) = part.words();
            match standing.stale_since(fresh_for).filter(|_| part == Part::Storage) {
                _ if !standing.is_up() => Condition::problem(name, problem, standing.since()),
                Some(stale_since) => Condition::problem(name, problem, stale_since),
                None => Condition::well(name, standing.since()),
            }
        }));
    }

    /// `part` is well, or is not.
    pub(crate) fn report(&self, part: Part, up: bool) {
        let changed = self.states()[part as usize].tell(up);
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
