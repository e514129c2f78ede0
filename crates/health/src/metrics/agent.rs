//! What every agent counts: its row, its servers, its children, its environments.

use std::sync::atomic::{AtomicU8, Ordering};
use std::time::Duration;

use attune_model::measure::{ConnectionState, ConsumerChange, Kind, Measure, Server, Success};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::{Registry, Unit};

use super::kinds::{Counters, Gauges};
use super::{long_times, short_times};

#[derive(Debug)]
pub(super) struct AgentMetrics {
    ready: Gauge,
    heartbeats: Counters<Success>,
    heartbeat_duration: Histogram,
    connected: Gauges<Server>,
    /// 1 or 0 after the first heartbeat.
    store_up: AtomicU8,
    /// By server, then by state.
    connection_changes: Box<[Box<[Counter]>]>,
    consumer_changes: Counters<ConsumerChange>,
    children: Counters<Success>,
    child_start_duration: Histogram,
    dropped: Counter,
    builds: Counters<Success>,
    build_duration: Histogram,
}

impl AgentMetrics {
    pub(super) fn register(registry: &mut Registry) -> Self {
        let ready = Gauge::default();
        registry.register("ready", "Whether the agent is ready: 1 or 0", ready.clone());
        let dropped = Counter::default();
        let dropped_help = "Output of children beyond what is kept";
        registry.register_with_unit("child_output_dropped", dropped_help, Unit::Bytes, dropped.clone());
        let mut duration = |name: &str, help: &str, histogram: Histogram| {
            registry.register_with_unit(name, help, Unit::Seconds, histogram.clone());
            histogram
        };
        Self {
            ready,
            dropped,
            heartbeat_duration: duration("heartbeat_duration", "What writing the agent's row took", short_times()),
            child_start_duration: duration("child_start_duration", "What starting a child took", short_times()),
            build_duration: duration("environment_build_duration", "What an environment build took", long_times()),
            heartbeats: Counters::register(registry, "heartbeats", "Signs of life of the agent's row", "result"),
            store_up: AtomicU8::new(u8::MAX),
            connected: Gauges::register(registry, "connected", "Whether a server is connected: 1 or 0", "server"),
            connection_changes: connection_changes(registry),
            consumer_changes: Counters::register(
                registry,
                "consumer_changes",
                "Consumers of queues that were confirmed or lost",
                "change",
            ),
            children: Counters::register(registry, "children", "Starts of child processes", "result"),
            builds: Counters::register(registry, "environment_builds", "Builds of environments", "result"),
        }
    }

    pub(super) fn ready(&self, ready: bool) {
        self.ready.set(i64::from(ready));
    }

    pub(super) fn environment(&self, success: Success, took: Duration) {
        self.builds.count(success);
        self.build_duration.observe(took.as_secs_f64());
    }

    pub(super) fn measure(&self, measure: Measure) {
        match measure {
            Measure::Heartbeat { success, took } => {
                self.heartbeats.count(success);
                self.store(success);
                self.heartbeat_duration.observe(took.as_secs_f64());
            }
            Measure::ChildStarted { took } => {
                self.children.count(Success::Ok);
                self.child_start_duration.observe(took.as_secs_f64());
            }
            Measure::ChildNotStarted => self.children.count(Success::Failed),
            Measure::OutputDropped { bytes } => {
                self.dropped.inc_by(bytes);
            }
            Measure::Connection { server, state } => self.connection(server, state),
            Measure::Consumer(change) => self.consumer_changes.count(change),
            _ => {}
        }
    }

    /// The heartbeat is the one call that an agent makes to its store in any case.
    fn store(&self, success: Success) {
        let state = match success {
            Success::Ok => ConnectionState::Connected,
            Success::Failed => ConnectionState::Lost,
        };
        let up = state == ConnectionState::Connected;
        if self.store_up.swap(u8::from(up), Ordering::Relaxed) != u8::from(up) {
            self.connection(Server::Store, state);
        }
    }

    fn connection(&self, server: Server, state: ConnectionState) {
        if let Some(connected) = self.connected.of(server) {
            connected.set(i64::from(state == ConnectionState::Connected));
        }
        if let Some(counter) = self.connection_changes.get(server.index()).and_then(|states| states.get(state.index()))
        {
            counter.inc();
        }
    }
}

fn connection_changes(registry: &mut Registry) -> Box<[Box<[Counter]>]> {
    let family = Family::<[(&'static str, &'static str); 2], Counter>::default();
    let counter = |server: &Server, state: &ConnectionState| {
        family.get_or_create_owned(&[("server", server.word()), ("state", state.word())])
    };
    let of_server = |server| ConnectionState::ALL.iter().map(|state| counter(server, state)).collect();
    let all = Server::ALL.iter().map(of_server).collect();
    registry.register("connection_changes", "How often a connection came to a state", family);
    all
}
