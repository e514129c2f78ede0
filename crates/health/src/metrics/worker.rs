//! What a worker counts.

use attune_model::measure::{CancelTarget, ClaimAnswer, FinishAnswer, Measure};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::{Registry, Unit};

use super::kinds::{Counters, Terminal};
use super::{long_times, short_times};

#[derive(Debug)]
pub(super) struct WorkerMetrics {
    slots: Gauge,
    running: Gauge,
    started: Counter,
    ended: Counters<Terminal>,
    duration: Histogram,
    claims: Counters<ClaimAnswer>,
    claim_duration: Histogram,
    finishes: Counters<FinishAnswer>,
    finish_duration: Histogram,
    publish_retries: Counter,
    spooled: Counter,
    refused: Counter,
    cancels: Counters<CancelTarget>,
}

impl WorkerMetrics {
    pub(super) fn register(registry: &mut Registry) -> Self {
        let (slots, running) = (Gauge::default(), Gauge::default());
        registry.register("slots", "How many executions run at once at most", slots.clone());
        registry.register("executions_running", "Executions in the hands of the worker", running.clone());
        let mut counter = |name: &str, help: &str| {
            let counter = Counter::default();
            registry.register(name, help, counter.clone());
            counter
        };
        let started = counter("executions_started", "Executions that were claimed");
        let publish_retries = counter("publish_retries", "Batches of messages that had to be published again");
        let spooled = counter("results_spooled", "Results that were kept on disk while storage was away");
        let refused = counter("files_refused", "Files of executions that the API refused for good");
        let mut duration = |name: &str, help: &str, histogram: Histogram| {
            registry.register_with_unit(name, help, Unit::Seconds, histogram.clone());
            histogram
        };
        Self {
            slots,
            running,
            started,
            publish_retries,
            spooled,
            refused,
            duration: duration("execution_duration", "From the claim of an execution to its written end", long_times()),
            claim_duration: duration("claim_duration", "What a claim took, with repeated attempts", short_times()),
            finish_duration: duration("finish_duration", "What writing an end took, with retries", short_times()),
            ended: Counters::register(registry, "executions_ended", "Executions whose end is in their row", "status"),
            claims: Counters::register(registry, "claims", "Claims of dispatched executions", "answer"),
            finishes: Counters::register(registry, "finishes", "Ends of executions that were to be written", "answer"),
            cancels: Counters::register(registry, "cancels", "Cancels that came", "target"),
        }
    }

    pub(super) fn measure(&self, measure: Measure) {
        match measure {
            Measure::Slots(slots) => {
                self.slots.set(i64::from(slots));
            }
            Measure::Claim { answer, took } => {
                self.claims.count(answer);
                self.claim_duration.observe(took.as_secs_f64());
            }
            Measure::ExecutionStarted => {
                self.started.inc();
                self.running.inc();
            }
            Measure::ExecutionLeft => {
                self.running.dec();
            }
            Measure::ExecutionEnded { status, took } => {
                if let Some(terminal) = Terminal::of(status) {
                    self.ended.count(terminal);
                }
                if let Some(took) = took {
                    self.duration.observe(took.as_secs_f64());
                }
            }
            Measure::Finish { answer, took } => {
                self.finishes.count(answer);
                self.finish_duration.observe(took.as_secs_f64());
            }
            Measure::PublishRetried => {
                self.publish_retries.inc();
            }
            Measure::ResultSpooled => {
                self.spooled.inc();
            }
            Measure::FileRefused => {
                self.refused.inc();
            }
            Measure::Cancel(target) => self.cancels.count(target),
            _ => {}
        }
    }
}
