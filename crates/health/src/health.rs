//! What an agent knows about itself, gathered when somebody asks.

use std::fmt;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use attune_lifecycle::Stop;
use attune_model::condition::Condition;
use serde_json::{Map, Value, json};
use tokio::sync::watch;

use crate::metrics::{Metrics, Parts};

/// Which agent this is.
#[derive(Debug, Clone)]
pub struct About {
    /// `worker`, `sensor`, `hub`, `dev`.
    pub role: &'static str,
    /// The name that it registers.
    pub name: String,
    /// Of the program.
    pub version: &'static str,
    /// What of it is counted.
    pub parts: Parts,
}

/// The health of one agent. Clones are the same.
#[derive(Clone)]
pub struct Health {
    inner: Arc<Inner>,
}

type Conditions = Box<dyn Fn(&mut Vec<Condition>) + Send + Sync>;
type Section = (&'static str, Box<dyn Fn() -> Value + Send + Sync>);

struct Inner {
    about: About,
    stop: Stop,
    begun: Instant,
    begun_at: SystemTime,
    started: watch::Sender<bool>,
    conditions: RwLock<Vec<Conditions>>,
    sections: RwLock<Vec<Section>>,
    metrics: Arc<Metrics>,
}

impl fmt::Debug for Health {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Health").field("about", &self.inner.about).finish_non_exhaustive()
    }
}

impl Health {
    /// An agent that is starting. It is alive, and not ready before [`Health::started`].
    pub fn new(about: About, stop: Stop) -> Self {
        let metrics = Arc::new(Metrics::new(&about));
        Self {
            inner: Arc::new(Inner {
                about,
                stop,
                begun: Instant::now(),
                begun_at: SystemTime::now(),
                started: watch::Sender::new(false),
                conditions: RwLock::default(),
                sections: RwLock::default(),
                metrics,
            }),
        }
    }

    /// The counters. They listen to what the services observe.
    pub fn metrics(&self) -> Arc<Metrics> {
        self.inner.metrics.clone()
    }

    /// Asks `source` for the state of parts of the agent whenever somebody wants to know. Must not block.
    pub fn watch(&self, source: impl Fn(&mut Vec<Condition>) + Send + Sync + 'static) {
        self.inner.conditions.write().unwrap_or_else(PoisonError::into_inner).push(Box::new(source));
    }

    /// Adds a section to the status document. Must not block, and must name nothing secret.
    pub fn section(&self, name: &'static str, source: impl Fn() -> Value + Send + Sync + 'static) {
        self.inner.sections.write().unwrap_or_else(PoisonError::into_inner).push((name, Box::new(source)));
    }

    /// Everything that has to be well is being watched now.
    pub fn started(&self) {
        self.inner.started.send_replace(true);
    }

    /// What has to be well for the agent to be ready, the start and the stop of the agent included.
    pub fn conditions(&self) -> Vec<Condition> {
        let inner = &*self.inner;
        let mut all = Vec::with_capacity(8);
        let problem = if inner.stop.soft().is_cancelled() {
            Some("the agent is stopping")
        } else if *inner.started.borrow() {
            None
        } else {
            Some("the agent is starting")
        };
        all.push(Condition { name: "agent", problem: problem.map(Into::into), since: inner.begun });
        for source in inner.conditions.read().unwrap_or_else(PoisonError::into_inner).iter() {
            source(&mut all);
        }
        all
    }

    /// Whether the agent can do its work.
    pub fn is_ready(&self) -> bool {
        self.conditions().iter().all(Condition::is_well)
    }

    /// Why the agent cannot go on and should be restarted; none while it can.
    pub fn fatal(&self) -> Option<&'static str> {
        self.inner.stop.is_failing().then_some("a vital task ended on its own; the agent is stopping")
    }

    /// The status document.
    pub fn status(&self) -> Value {
        let Inner { about: About { role, name, version, .. }, begun, begun_at, sections, .. } = &*self.inner;
        let conditions = self.conditions();
        let mut document = Map::new();
        document.insert(
            "agent".to_owned(),
            json!({
                "role": role,
                "name": name,
                "version": version,
                "pid": std::process::id(),
                "started_at_unix": begun_at.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs()),
                "uptime_seconds": seconds(begun.elapsed()),
            }),
        );
        document.insert("live".to_owned(), self.fatal().is_none().into());
        document.insert("ready".to_owned(), conditions.iter().all(Condition::is_well).into());
        let conditions = conditions.iter().map(|Condition { name, problem, since }| {
            json!({"name": name, "ok": problem.is_none(), "problem": problem, "for_seconds": seconds(since.elapsed())})
        });
        document.insert("conditions".to_owned(), Value::Array(conditions.collect()));
        for (name, source) in sections.read().unwrap_or_else(PoisonError::into_inner).iter() {
            document.insert((*name).to_owned(), source());
        }
        Value::Object(document)
    }

    /// All counters, in the text format that Prometheus reads.
    pub fn exposition(&self) -> Result<String, fmt::Error> {
        self.inner.metrics.text(self)
    }

    /// Becomes true when the start is over.
    pub(crate) fn follow_start(&self) -> watch::Receiver<bool> {
        self.inner.started.subscribe()
    }
}

/// To a millisecond.
fn seconds(duration: Duration) -> f64 {
    (duration.as_secs_f64() * 1000.0).round() / 1000.0
}

#[cfg(test)]
mod tests {
    use super::*;

    fn health() -> (Health, Stop) {
        let stop = Stop::new();
        let about = About { role: "worker", name: "w".to_owned(), version: "1", parts: Parts::WORKER };
        (Health::new(about, stop.clone()), stop)
    }

    #[test]
    fn ready_is_from_the_end_of_the_start_to_the_stop_while_every_part_is_well() {
        let (health, stop) = health();
        assert!(!health.is_ready());
        health.started();
        assert!(health.is_ready());
        let (broken, state) = watch::channel(false);
        let since = Instant::now();
        health.watch(move |all| {
            all.push(if *state.borrow() {
                Condition::problem("part", "broken", since)
            } else {
                Condition::well("part", since)
            });
        });
        assert!(health.is_ready());
        broken.send(true).unwrap();
        assert!(!health.is_ready());
        assert_eq!(health.conditions().last().unwrap().problem.as_deref(), Some("broken"));
        broken.send(false).unwrap();
        assert!(health.is_ready());
        stop.ask();
        assert!(!health.is_ready());
        assert_eq!(health.fatal(), None, "an asked stop is no reason to be killed");
    }

    #[test]
    fn a_vital_task_that_ended_is_fatal() {
        let (health, stop) = health();
        assert_eq!(health.fatal(), None);
        stop.soft().cancel();
        assert!(health.fatal().is_some());
    }

    #[test]
    fn sections_stand_in_the_status_document() {
        let (health, _stop) = health();
        health.section("worker", || json!({"running": []}));
        let status = health.status();
        assert_eq!(status["worker"], json!({"running": []}));
        assert_eq!(status["agent"]["name"], "w");
        assert_eq!(status["ready"], false);
        assert_eq!(status["conditions"][0]["problem"], "the agent is starting");
    }
}
