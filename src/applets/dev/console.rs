//! What `dev` says on standard output: one line per fact, for people or as one JSON object a line.
//!
//! Lines come from many tasks through one bounded channel to one writer. A full channel makes [`Console::say`] wait until
//! the stop; [`Console::say_or_drop`], for callers that must not, counts what it dropped and the writer says so. The writer
//! has a thread of its own: a reader that has stopped reading holds up neither the system nor its end.

use std::io::IsTerminal;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;

use attune_lifecycle::Stop;
use attune_model::JsonMap;
use chrono::{DateTime, Local, SecondsFormat, Utc};
use serde_json::{Value, json};
use tokio::sync::{mpsc, oneshot};

use crate::exit::{Exit, Failure};
use crate::output::Output;

/// Lines that may wait for a slow terminal.
const CAPACITY: usize = 1024;

/// How lines look.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Style {
    /// For people.
    Text,
    /// One object a line.
    Json,
}

/// `kind` of a line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// A pack was loaded, reloaded, removed; its environment is built.
    Pack,
    /// Everything is started.
    Ready,
    /// A sensor process changed.
    Sensor,
    /// An event was stored.
    Event,
    /// An execution began or ended.
    Execution,
    /// Something is wrong that belongs to none of the others.
    Error,
}

impl Kind {
    fn as_str(self) -> &'static str {
        match self {
            Self::Pack => "pack",
            Self::Ready => "ready",
            Self::Sensor => "sensor",
            Self::Event => "event",
            Self::Execution => "execution",
            Self::Error => "error",
        }
    }
}

/// One fact.
#[derive(Debug, Clone)]
pub(super) struct Line {
    time: DateTime<Utc>,
    kind: Kind,
    r#ref: String,
    status: String,
    text: String,
    fields: JsonMap,
}

impl Line {
    /// The thing called `ref` is `status` now.
    pub(super) fn new(kind: Kind, r#ref: impl Into<String>, status: impl Into<String>) -> Self {
        Self {
            time: Utc::now(),
            kind,
            r#ref: r#ref.into(),
            status: status.into(),
            text: String::new(),
            fields: JsonMap::new(),
        }
    }

    /// What a person reads after the status.
    pub(super) fn text(mut self, text: impl Into<String>) -> Self {
        self.text = text.into();
        self
    }

    /// What a program reads besides.
    pub(super) fn field(mut self, name: &str, value: impl Into<Value>) -> Self {
        self.fields.insert(name.to_owned(), value.into());
        self
    }

    fn is_bad(&self) -> bool {
        self.kind == Kind::Error || matches!(self.status.as_str(), "failed" | "backoff" | "abandoned" | "broken")
    }

    fn json(self) -> String {
        let mut object = JsonMap::new();
        object.insert("time".to_owned(), json!(self.time.to_rfc3339_opts(SecondsFormat::Micros, true)));
        object.insert("kind".to_owned(), json!(self.kind.as_str()));
        object.insert("ref".to_owned(), json!(self.r#ref));
        object.insert("status".to_owned(), json!(self.status));
        object.extend(self.fields);
        Value::Object(object).to_string()
    }

    fn human(&self, colours: Colours) -> String {
        let time = self.time.with_timezone(&Local).format("%H:%M:%S%.3f");
        let (on, off) = match colours {
            Colours::Off => ("", ""),
            Colours::On if self.is_bad() => ("\x1b[31m", "\x1b[0m"),
            Colours::On if matches!(self.status.as_str(), "completed" | "running" | "ready" | "loaded") => {
                ("\x1b[32m", "\x1b[0m")
            }
            Colours::On => ("\x1b[36m", "\x1b[0m"),
        };
        let line = format!(
            "{time}  {:<9}  {:<26}  {on}{:<9}{off}  {}",
            self.kind.as_str(),
            self.r#ref,
            self.status,
            printable(&self.text)
        );
        line.trim_end().to_owned()
    }
}

/// One line of `text`: what came from user code must not move the cursor or fake a line of ours.
fn printable(text: &str) -> String {
    text.trim_end()
        .chars()
        .map(|c| {
            if c == '\n' {
                '⏎'
            } else if c.is_control() {
                ' '
            } else {
                c
            }
        })
        .collect()
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Colours {
    On,
    Off,
}

/// Where lines are said.
#[derive(Debug, Clone)]
pub(super) struct Console {
    sender: mpsc::Sender<Line>,
    dropped: Arc<AtomicU64>,
    stop: Stop,
}

impl Console {
    /// A console, and how its writer ends: when every console is gone, or when standard output cannot be written any more.
    /// That asks for the stop; without a reader there is nothing to run for.
    pub(super) fn start(style: Style, no_color: bool, stop: Stop) -> Result<(Self, Written), Failure> {
        let (sender, receiver) = mpsc::channel(CAPACITY);
        let dropped = Arc::new(AtomicU64::new(0));
        let colours = if no_color || !std::io::stdout().is_terminal() { Colours::Off } else { Colours::On };
        let writer = Writer { receiver, dropped: dropped.clone(), style, colours, output: Output::open()? };
        let (ended, written) = oneshot::channel();
        let asked = stop.clone();
        let body = move || {
            let result = writer.run();
            if result.is_err() {
                asked.ask();
            }
            // Nobody waits any more when the last lines took too long.
            drop(ended.send(result));
        };
        thread::Builder::new().name("console".to_owned()).spawn(body).map_err(|error| {
            Failure::message(Exit::OperatingSystem, format!("failed to start the thread that writes lines: {error}"))
        })?;
        Ok((Self { sender, dropped, stop }, written))
    }

    /// Says it as soon as there is room; after the stop now or not at all.
    pub(super) async fn say(&self, line: Line) {
        tokio::select! {
            biased;
            room = self.sender.reserve() => match room {
                Ok(room) => room.send(line),
                // The writer has reported it.
                Err(_closed) => tracing::debug!("standard output is gone"),
            },
            () = self.stop.soft().cancelled() => drop(self.dropped.fetch_add(1, Ordering::Relaxed)),
        }
    }

    /// Says it now or not at all.
    pub(super) fn say_or_drop(&self, line: Line) {
        if self.sender.try_send(line).is_err() {
            self.dropped.fetch_add(1, Ordering::Relaxed);
        }
    }
}

/// What became of the writer.
pub(super) type Written = oneshot::Receiver<Result<(), Failure>>;

/// Writes lines until every [`Console`] is gone.
#[derive(Debug)]
struct Writer {
    receiver: mpsc::Receiver<Line>,
    dropped: Arc<AtomicU64>,
    style: Style,
    colours: Colours,
    output: Output,
}

impl Writer {
    /// Returns when all is written, or when standard output cannot be written any more.
    fn run(mut self) -> Result<(), Failure> {
        while let Some(line) = self.receiver.blocking_recv() {
            self.write(line)?;
            let dropped = self.dropped.swap(0, Ordering::Relaxed);
            if dropped > 0 {
                let text = format!("{dropped} lines were dropped because standard output is slow");
                self.write(Line::new(Kind::Error, "dev", "dropped").text(text).field("lines", dropped))?;
            }
        }
        Ok(())
    }

    fn write(&mut self, line: Line) -> Result<(), Failure> {
        let text = match self.style {
            Style::Json => line.json(),
            Style::Text => line.human(self.colours),
        };
        self.output.line(&text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_json_line_begins_with_time_kind_ref_and_status() {
        let line = Line::new(Kind::Execution, "demo.greet", "completed").field("id", 7).text("unused");
        let text = line.json();
        let object: JsonMap = serde_json::from_str(&text).unwrap();
        let keys: Vec<&str> = object.keys().map(String::as_str).collect();
        assert_eq!(keys, ["time", "kind", "ref", "status", "id"]);
        assert_eq!(object["kind"], "execution");
        assert!(object["time"].as_str().unwrap().parse::<DateTime<Utc>>().is_ok());
    }

    #[test]
    fn text_of_user_code_cannot_break_the_line_or_drive_the_terminal() {
        let line = Line::new(Kind::Sensor, "demo.x", "backoff").text("one\ntwo\x1b[2Jthree\n");
        let text = line.human(Colours::Off);
        assert!(!text.contains('\n') && !text.contains('\x1b'), "{text:?}");
        assert!(text.ends_with("one⏎two [2Jthree"), "{text:?}");
    }
}
