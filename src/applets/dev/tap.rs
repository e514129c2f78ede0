//! Turns what happens on the bus and inside the agents into lines.
//!
//! The messages say that something happened; the lines are made from the rows, which are the truth.

use std::path::PathBuf;
use std::sync::Arc;

use attune_bus::{Bus, BusError, Consumer, ConsumerEvent, QueueLifetime, QueueSpec, decode};
use attune_model::activity::{Activity, Observer};
use attune_model::message::{
    Envelope, EventCreated, Exchange, ExecutionCompleted, ExecutionStatusChanged, MessageType,
};
use attune_model::status::{ExecutionStatus, SensorProcessStatus};
use attune_model::{ExecutionId, JsonMap};
use attune_store::{ExecutionView, HubStore};
use serde_json::{Value, json};

use super::console::{Console, Kind, Line};

const QUEUE: &str = "dev.console";

/// Messages that may be on their way to the console; beyond it they wait in the queue.
const PREFETCH: u16 = 64;

/// What a person gets to see of a payload or a result.
const EXCERPT_CHARS: usize = 160;

/// Follows the bus.
#[derive(Debug)]
pub(super) struct Tap {
    consumer: Box<dyn Consumer>,
    view: View,
}

/// Makes lines of messages and rows.
#[derive(Debug)]
struct View {
    store: Arc<dyn HubStore>,
    console: Console,
    artifacts: PathBuf,
}

impl Tap {
    /// Declares a queue of its own; nothing that is published afterwards is missed.
    pub(super) async fn build(
        bus: &dyn Bus,
        store: Arc<dyn HubStore>,
        console: Console,
        artifacts: PathBuf,
    ) -> Result<Self, BusError> {
        bus.declare(&QueueSpec {
            name: QUEUE.to_owned(),
            bindings: vec![
                (Exchange::Events, "event.created".to_owned()),
                (Exchange::Executions, "execution.status.changed".to_owned()),
                (Exchange::Executions, "execution.completed".to_owned()),
            ],
            message_ttl_ms: None,
            dead_letters: false,
            lifetime: QueueLifetime::Permanent,
        })
        .await?;
        let consumer = bus.consume(QUEUE, QUEUE, PREFETCH).await?;
        Ok(Self { consumer, view: View { store, console, artifacts } })
    }

    /// Follows until the bus is closed: what ends during the drain is shown too.
    pub(super) async fn run(self) {
        let Self { mut consumer, view } = self;
        while let Some(event) = consumer.next().await {
            let ConsumerEvent::Delivery(delivery) = event else { continue };
            view.show(&delivery.body).await;
            if let Err(error) = delivery.ack().await {
                tracing::warn!(%error, "failed to acknowledge a message of the console");
            }
        }
    }
}

impl View {
    async fn show(&self, body: &bytes::Bytes) {
        let shown = match decode::<Value>(body) {
            Ok((Envelope { message_type: MessageType::EventCreated, .. }, _)) => self.show_event(body).await,
            Ok((Envelope { message_type: MessageType::ExecutionStatusChanged, .. }, _)) => self.show_change(body).await,
            Ok((Envelope { message_type: MessageType::ExecutionCompleted, .. }, _)) => self.show_end(body).await,
            Ok(_) => Ok(()),
            Err(error) => Err(error),
        };
        if let Err(error) = shown {
            self.console.say(Line::new(Kind::Error, "bus", "unreadable").text(error.to_string())).await;
        }
    }

    async fn show_event(&self, body: &bytes::Bytes) -> Result<(), BusError> {
        let (_, event) = decode::<EventCreated>(body)?;
        let payload = event.payload.unwrap_or(Value::Null);
        let source = event.sensor_ref.unwrap_or_default();
        let text = format!("#{} from {source}  {}", event.event_id, excerpt(&payload.to_string()));
        let line = Line::new(Kind::Event, event.trigger_ref, "created")
            .text(text)
            .field("id", event.event_id.0)
            .field("sensor", source)
            .field("payload", payload);
        self.console.say(line).await;
        Ok(())
    }

    /// Terminal changes are followed by a completion, which says more; only the begin is shown here.
    async fn show_change(&self, body: &bytes::Bytes) -> Result<(), BusError> {
        let (_, change) = decode::<ExecutionStatusChanged>(body)?;
        if change.new_status == ExecutionStatus::Running.as_str() {
            let view = self.row(change.execution_id).await;
            let line = Line::new(Kind::Execution, change.action_ref.clone(), "running");
            self.console.say(identify(line, change.execution_id, &change.action_ref, view.as_ref(), "")).await;
        }
        Ok(())
    }

    async fn show_end(&self, body: &bytes::Bytes) -> Result<(), BusError> {
        let (_, end) = decode::<ExecutionCompleted>(body)?;
        let view = self.row(end.execution_id).await;
        let row = view.as_ref().map(|view| &view.execution);
        let status = row.map_or_else(|| end.status.to_lowercase(), |row| row.status.to_string());
        let result = row.and_then(|row| row.result.clone()).or(end.result).unwrap_or(Value::Null);
        let log = self.log_of(end.execution_id, &result);
        let mut text = outcome(&result);
        if status != ExecutionStatus::Completed.as_str()
            && let Some(log) = &log
        {
            text = format!("{text}  log {log}");
        }
        let line = Line::new(Kind::Execution, end.action_ref.clone(), status).field("result", result).field("log", log);
        self.console.say(identify(line, end.execution_id, &end.action_ref, view.as_ref(), &text)).await;
        Ok(())
    }

    async fn row(&self, id: ExecutionId) -> Option<ExecutionView> {
        match self.store.execution(id).await {
            Ok(view) => view,
            Err(error) => {
                let line = Line::new(Kind::Error, "store", "unreadable").text(error.to_string()).field("id", id.0);
                self.console.say(line).await;
                None
            }
        }
    }

    /// Where the standard error of a run is, if there is any.
    fn log_of(&self, id: ExecutionId, result: &Value) -> Option<String> {
        let named = result.get("stderr_log").and_then(Value::as_str).map(str::to_owned);
        named.or_else(|| {
            let live = self.artifacts.join(format!("execution_{id}")).join("stderr.log");
            live.is_file().then(|| live.display().to_string())
        })
    }
}

fn identify(line: Line, id: ExecutionId, action: &str, view: Option<&ExecutionView>, text: &str) -> Line {
    let rule = view.and_then(|view| view.rule_ref.clone());
    let cause = rule.as_ref().map(|rule| format!(" by {rule}")).unwrap_or_default();
    line.text(format!("#{id}{cause}  {text}")).field("id", id.0).field("action", action).field("rule", rule)
}

/// The part of a result that a person wants to see first: the error, else the data, else the output.
fn outcome(result: &Value) -> String {
    let shown = ["error", "data", "stdout"].iter().find_map(|key| result.get(key)).unwrap_or(&Value::Null);
    let text = match shown {
        Value::Null => String::new(),
        Value::String(text) => text.clone(),
        other => other.to_string(),
    };
    let took = result.get("duration_ms").and_then(Value::as_u64).map(|ms| format!("{ms} ms  ")).unwrap_or_default();
    format!("{took}{}", excerpt(text.trim_end()))
}

fn excerpt(text: &str) -> String {
    match text.char_indices().nth(EXCERPT_CHARS) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_owned(),
    }
}

impl Observer for Console {
    fn observe(&self, activity: Activity) {
        self.say_or_drop(line_of(activity));
    }
}

fn line_of(activity: Activity) -> Line {
    match activity {
        Activity::Sensor { sensor_ref, status, pid, reason, log } => {
            let mut words: Vec<String> =
                pid.map(|pid| format!("pid {pid}")).into_iter().chain(reason.clone()).collect();
            if matches!(status, SensorProcessStatus::Backoff | SensorProcessStatus::Failed) {
                words.extend(log.as_ref().map(|log| format!("log {}", log.display())));
            }
            Line::new(Kind::Sensor, sensor_ref, status.as_str())
                .text(words.join("  "))
                .field("pid", pid)
                .field("reason", reason)
                .field("log", log.map(|log| log.display().to_string()))
        }
        Activity::EnvironmentStarted { pack_ref, runtime, step } => Line::new(Kind::Pack, pack_ref, "building")
            .text(format!("environment for {runtime}: {step}"))
            .field("runtime", runtime)
            .field("step", step),
        Activity::EnvironmentFinished { pack_ref, runtime, took, error } => {
            let status = if error.is_some() { "failed" } else { "built" };
            let took_ms = u64::try_from(took.as_millis()).unwrap_or(u64::MAX);
            let mut fields = JsonMap::new();
            fields.insert("runtime".to_owned(), json!(runtime));
            fields.insert("took_ms".to_owned(), json!(took_ms));
            fields.insert("error".to_owned(), json!(error));
            let text = match error {
                Some(error) => format!("environment for {runtime}: {error}"),
                None => format!("environment for {runtime} in {took_ms} ms"),
            };
            fields.into_iter().fold(Line::new(Kind::Pack, pack_ref, status).text(text), |line, (name, value)| {
                line.field(&name, value)
            })
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_error_of_a_failed_run_is_what_a_person_sees() {
        let result = json!({ "succeeded": false, "duration_ms": 12, "error": "no such file\n", "stdout": "x" });
        assert_eq!(outcome(&result), "12 ms  no such file");
        assert_eq!(outcome(&json!({ "succeeded": true, "data": { "a": 1 }, "duration_ms": 3 })), "3 ms  {\"a\":1}");
        assert_eq!(outcome(&json!({ "succeeded": true })), "");
    }

    #[test]
    fn long_texts_are_cut_between_characters() {
        let text = "ä".repeat(EXCERPT_CHARS + 1);
        assert_eq!(excerpt(&text), format!("{}…", "ä".repeat(EXCERPT_CHARS)));
        assert_eq!(excerpt("short"), "short");
    }
}
