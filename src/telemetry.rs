//! Logs, on standard error only: for people on a terminal, one JSON object a line on request.
//!
//! `RUST_LOG` decides what is logged. Without it the level comes from the configuration, which is read when logging
//! works already; until then it is the level that the applet started with.

use std::backtrace::{Backtrace, BacktraceStatus};
use std::io::{self, IsTerminal};
use std::panic::PanicHookInfo;
use std::str::FromStr;
use std::sync::atomic::{AtomicBool, Ordering};

use attune_config::Source;
use tracing::level_filters::LevelFilter;
use tracing_subscriber::filter::{FilterExt, Targets, filter_fn};
use tracing_subscriber::layer::{Layer, SubscriberExt};
use tracing_subscriber::registry::Registry;
use tracing_subscriber::reload;
use tracing_subscriber::util::SubscriberInitExt;

use crate::exit::{Exit, Failure};
use crate::unwinding;

/// How log lines look.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum LogFormat {
    /// For people.
    Text,
    /// One object a line.
    Json,
}

impl FromStr for LogFormat {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "text" | "pretty" => Ok(Self::Text),
            "json" => Ok(Self::Json),
            _ => Err("expected `json` or `text`"),
        }
    }
}

/// It calls every lost connection an error, many times; the bus itself says it once. `RUST_LOG` shows it all.
const AMQP_LIBRARY: &str = "lapin";

/// Whether log lines are JSON. Then the last words of the process are, too.
static JSON: AtomicBool = AtomicBool::new(false);

/// Whether standard error carries one JSON object a line.
pub(crate) fn speaks_json() -> bool {
    JSON.load(Ordering::Relaxed)
}

type Boxed = Box<dyn Layer<Registry> + Send + Sync>;

/// The logging of this process, once it has started.
#[derive(Debug)]
pub(crate) struct Telemetry {
    /// None when `RUST_LOG` has decided.
    level: Option<reload::Handle<LevelFilter, Registry>>,
}

impl Telemetry {
    /// Starts logging at `level`. `format` is what the command line asks for.
    pub(crate) fn start(
        environment: &dyn Source,
        format: Option<LogFormat>,
        level: LevelFilter,
    ) -> Result<Self, Failure> {
        let format = match (format, environment.text("ATTUNE_LOG_FORMAT")) {
            (Some(format), _) => format,
            (None, Some(text)) => text
                .parse()
                .map_err(|problem| Failure::message(Exit::Configuration, format!("ATTUNE_LOG_FORMAT: {problem}")))?,
            (None, None) => LogFormat::Text,
        };
        let lines = lines(environment, format);
        let chosen = targets(&environment.text("RUST_LOG").unwrap_or_default())
            .map_err(|problem| Failure::message(Exit::Configuration, format!("RUST_LOG: {problem}")))?;
        let telemetry = if let Some(filter) = chosen {
            install(tracing_subscriber::registry().with(lines.with_filter(filter)))?;
            Self { level: None }
        } else {
            let (filter, handle) = reload::Layer::new(level);
            let ours = filter_fn(|line| !line.target().starts_with(AMQP_LIBRARY));
            install(tracing_subscriber::registry().with(lines.with_filter(filter.and(ours))))?;
            Self { level: Some(handle) }
        };
        JSON.store(format == LogFormat::Json, Ordering::Relaxed);
        unwinding::set_hook(log_panic);
        Ok(telemetry)
    }

    /// Logs at `level` from now on, unless `RUST_LOG` is set.
    pub(crate) fn set_level(&self, level: LevelFilter) {
        let Some(handle) = &self.level else { return };
        if let Err(error) = handle.reload(level) {
            tracing::warn!(%error, "failed to change the log level");
        }
    }
}

/// What the library would take for the name of a target that nothing has, or for a level that nobody asked for, is an error here:
/// spans, fields, spaces, a level that is missing. Empty parts mean nothing, so that templates may leave them.
/// None when nothing is said.
fn targets(directives: &str) -> Result<Option<Targets>, String> {
    let parts: Vec<_> = directives.split(',').map(str::trim).filter(|part| !part.is_empty()).collect();
    let of_no_target = |part: &&&str| part.contains(['[', ']', '{', '}']) || part.contains(char::is_whitespace);
    if let Some(part) = parts.iter().find(of_no_target) {
        return Err(format!(
            "{part:?} is no target with a level, such as attune_worker=debug; spans and fields have none"
        ));
    }
    if let Some(part) = parts.iter().find(|part| part.ends_with('=')) {
        return Err(format!("{part:?} has no level, such as {part}debug"));
    }
    if parts.is_empty() {
        return Ok(None);
    }
    parts.join(",").parse().map(Some).map_err(|error| format!("{error}, in {directives:?}"))
}

fn install(subscriber: impl SubscriberInitExt) -> Result<(), Failure> {
    subscriber.try_init().map_err(|error| Failure::new(Exit::Internal, error))
}

fn lines(environment: &dyn Source, format: LogFormat) -> Boxed {
    let layer = tracing_subscriber::fmt::layer().with_writer(io::stderr);
    match format {
        LogFormat::Json => layer.json().flatten_event(true).boxed(),
        LogFormat::Text => {
            // Any value but the empty one switches colours off, as https://no-color.org has it.
            let plain = environment.get("NO_COLOR").is_some_and(|value| !value.is_empty());
            layer.with_ansi(!plain && io::stderr().is_terminal()).boxed()
        }
    }
}

/// A panic is a fact for the log like any other; on bare standard error it would be lost among JSON lines.
fn log_panic(info: &PanicHookInfo<'_>) {
    let message = info.payload_as_str().unwrap_or("the panic carries no text");
    let place = info.location().map(ToString::to_string).unwrap_or_default();
    let thread = std::thread::current().name().unwrap_or("unnamed").to_owned();
    let backtrace = Backtrace::capture();
    if backtrace.status() == BacktraceStatus::Captured {
        tracing::error!(panic.place = place, panic.thread = thread, %backtrace, "panicked: {message}");
    } else {
        tracing::error!(panic.place = place, panic.thread = thread, "panicked: {message}");
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::panic::{self, AssertUnwindSafe};
    use std::sync::{Arc, Mutex};

    use super::*;

    #[derive(Clone, Default)]
    struct Written(Arc<Mutex<Vec<u8>>>);

    impl Write for Written {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().write(bytes)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn rust_log_names_levels_and_targets_and_nothing_else() {
        let read = |directives: &str| targets(directives).map(|targets| targets.map(|targets| targets.to_string()));
        for (directives, means) in [
            ("info", "info"),
            ("info,", "info"),
            (" info, attune_worker=debug ", "attune_worker=debug,info"),
            ("a,,b=3", "b=info,a=trace"),
            ("off", "off"),
            ("warn,a=off", "a=off,warn"),
        ] {
            assert_eq!(read(directives), Ok(Some(means.to_owned())), "{directives:?}");
        }
        for directives in ["", " ", ",,"] {
            assert_eq!(read(directives), Ok(None), "{directives:?}");
        }
        for (directives, reason) in [
            ("info,[[[", "\"[[[\" is no target"),
            ("a[span]=debug", "spans and fields have none"),
            ("a{field}=debug", "spans and fields have none"),
            ("a = debug", "\"a = debug\" is no target"),
            ("info,a=", "\"a=\" has no level, such as a=debug"),
            ("a=loud", "in \"a=loud\""),
        ] {
            let error = read(directives).unwrap_err();
            assert!(error.contains(reason), "{error}");
        }
    }

    #[test]
    #[expect(clippy::disallowed_methods, reason = "a test is unwound by tables that are there")]
    fn a_panic_becomes_a_log_line_with_its_place() {
        let written = Written::default();
        let sink = written.clone();
        let layer = tracing_subscriber::fmt::layer().json().flatten_event(true).with_writer(move || sink.clone());
        let before = panic::take_hook();
        tracing::subscriber::with_default(tracing_subscriber::registry().with(layer), || {
            panic::set_hook(Box::new(log_panic));
            let number = 7;
            panic::catch_unwind(AssertUnwindSafe(|| panic!("number {number}"))).unwrap_err();
        });
        panic::set_hook(before);
        let bytes = written.0.lock().unwrap();
        let line: serde_json::Value = serde_json::from_slice(&bytes).unwrap();
        assert_eq!((&line["level"], &line["message"]), (&"ERROR".into(), &"panicked: number 7".into()));
        assert!(line["panic.place"].as_str().unwrap().starts_with("src/telemetry.rs:"), "{line}");
    }
}
