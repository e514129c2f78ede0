//! `execution.result`: the one place that knows its shape and its texts (facts of the platform).

use std::io;
use std::time::Duration;

use attune_model::status::ExecutionStatus;
use attune_store::{CANCELLED_TEXT, SecretValue, cancelled_result};
use serde_json::{Map, Value, json};

use crate::output::truncation_notice;

/// A child that breaks the pipe of its parameters within this time simply did not want them.
const UNREAD_PARAMETERS_LIMIT: Duration = Duration::from_millis(500);

/// More lines of standard error than this are too long for an error text.
const ERROR_LINES: usize = 5;

/// How a run ended, as far as the result tells it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Ending {
    /// The child exited by itself.
    Exited(i32),
    /// A signal ended it.
    Signalled,
    /// The kernel ended it because memory was out.
    OutOfMemory {
        /// The most that it had.
        peak_memory_bytes: u64,
    },
    /// The time limit was over.
    TimedOut(Duration),
    /// Somebody cancelled it; the code is that of a child that still exited by itself.
    Cancelled {
        /// None when a signal ended it.
        exit_code: Option<i32>,
    },
    /// The worker itself was stopped.
    WorkerStopped,
    /// It is not known how it ended.
    Lost(String),
}

/// One captured stream.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct CapturedText {
    /// What was kept; invalid UTF-8 is replaced.
    pub text: String,
    /// Bytes that were not kept.
    pub dropped_bytes: u64,
}

impl CapturedText {
    /// Text of captured bytes, without NUL, which no text column can hold.
    pub fn new(bytes: &[u8], dropped_bytes: u64) -> Self {
        let text = String::from_utf8_lossy(bytes).replace('\0', "\u{fffd}");
        Self { text, dropped_bytes }
    }

    fn with_notice(&self, stream: &str) -> String {
        if self.dropped_bytes == 0 { self.text.clone() } else { self.text.clone() + &truncation_notice(stream) }
    }
}

/// What the code file is started with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// An interpreter.
    Interpreted,
    /// Itself.
    Native,
}

/// A run that got as far as a child process.
#[derive(Debug)]
pub struct Ran {
    /// How it ended.
    pub ending: Ending,
    /// Of the child.
    pub duration: Duration,
    /// Standard output.
    pub stdout: CapturedText,
    /// Standard error.
    pub stderr: CapturedText,
    /// Parameters that did not reach the child.
    pub stdin_error: Option<io::Error>,
    /// What the code file was started with.
    pub kind: Kind,
    /// Standard output as data; only after exit code 0.
    pub data: Option<Value>,
    /// The secret parts of `data`, where it has markers instead.
    pub sealed: Vec<SecretValue>,
}

/// What came of an execution.
#[derive(Debug)]
pub enum Conclusion {
    /// A child ran.
    Ran(Ran),
    /// It did not come to a child; the text says why, with the platform's prefix of its kind.
    Failed(String),
    /// It was cancelled before there was a child.
    CancelledEarly,
    /// The worker was stopped before there was a child.
    StoppedEarly,
}

/// The text of [`Conclusion::Failed`]: kind and cause.
pub(crate) fn early_failure(prefix: &str, cause: &str) -> String {
    format!("Action execution failed: Internal error: {prefix}: {cause}")
}

impl Conclusion {
    /// The status of the row.
    pub fn status(&self) -> ExecutionStatus {
        match self {
            Self::Ran(ran) => ran.status(),
            Self::Failed(_) | Self::StoppedEarly => ExecutionStatus::Failed,
            Self::CancelledEarly => ExecutionStatus::Cancelled,
        }
    }

    /// The same run, but somebody cancelled it before its end was written.
    #[must_use]
    pub fn cancelled(self) -> Self {
        match self {
            Self::Ran(mut ran) => {
                let exit_code = match ran.ending {
                    Ending::Exited(code) => Some(code),
                    Ending::Cancelled { exit_code } => exit_code,
                    _ => None,
                };
                ran.ending = Ending::Cancelled { exit_code };
                Self::Ran(ran)
            }
            Self::Failed(_) | Self::CancelledEarly | Self::StoppedEarly => Self::CancelledEarly,
        }
    }

    /// The secret parts of the result, to be stored apart.
    pub fn sealed(&self) -> &[SecretValue] {
        match self {
            Self::Ran(ran) => &ran.sealed,
            Self::Failed(_) | Self::CancelledEarly | Self::StoppedEarly => &[],
        }
    }

    /// The document. `stderr_log` is the path of the kept standard error.
    pub fn document(&self, stderr_log: Option<&str>) -> Value {
        match self {
            Self::Ran(ran) => ran.document(stderr_log),
            Self::Failed(text) => json!({"succeeded": false, "error": without_nul(text)}),
            Self::CancelledEarly => cancelled_result(&Value::Null),
            Self::StoppedEarly => {
                json!({"succeeded": false, "error": "worker was stopped before the action started"})
            }
        }
    }
}

impl Ran {
    /// Whether the run was a success.
    pub fn succeeded(&self) -> bool {
        self.ending == Ending::Exited(0) && self.error().is_none()
    }

    fn status(&self) -> ExecutionStatus {
        match self.ending {
            Ending::Cancelled { .. } => ExecutionStatus::Cancelled,
            _ if self.succeeded() => ExecutionStatus::Completed,
            _ => ExecutionStatus::Failed,
        }
    }

    fn exit_code(&self) -> i32 {
        match self.ending {
            Ending::Exited(code) => code,
            Ending::Cancelled { exit_code } => exit_code.unwrap_or(-1),
            Ending::Signalled
            | Ending::OutOfMemory { .. }
            | Ending::TimedOut(_)
            | Ending::WorkerStopped
            | Ending::Lost(_) => -1,
        }
    }

    /// The error text; none after a success.
    pub fn error(&self) -> Option<String> {
        match &self.ending {
            Ending::TimedOut(limit) => Some(format!("Execution timed out after {} seconds", seconds(*limit))),
            Ending::Cancelled { .. } => Some(CANCELLED_TEXT.to_owned()),
            Ending::WorkerStopped => Some("worker was stopped while the action ran".to_owned()),
            Ending::OutOfMemory { peak_memory_bytes } => Some(format!(
                "Out of memory: the kernel killed the action, which had {} MiB; give it more or let it use less",
                peak_memory_bytes >> 20
            )),
            Ending::Lost(why) => Some(format!("Process wait failed: {why}")),
            Ending::Exited(_) | Ending::Signalled => self.stdin_text().or_else(|| self.exit_text()),
        }
    }

    fn stdin_text(&self) -> Option<String> {
        let error = self.stdin_error.as_ref()?;
        let unread = error.kind() == io::ErrorKind::BrokenPipe
            && self.ending == Ending::Exited(0)
            && self.duration < UNREAD_PARAMETERS_LIMIT;
        (!unread).then(|| format!("Failed to write parameters to stdin: {error}"))
    }

    fn exit_text(&self) -> Option<String> {
        let code = self.exit_code();
        let stderr = &self.stderr.text;
        match (code, self.kind) {
            (0, _) => None,
            (_, Kind::Native) if stderr.trim().is_empty() => Some(format!("Native binary exited with code {code}")),
            (_, Kind::Native) => Some(format!("Native binary exited with code {code}: {}", stderr.trim())),
            (_, Kind::Interpreted) if stderr.trim().is_empty() => Some(format!("Command exited with code {code}")),
            (_, Kind::Interpreted) if stderr.lines().count() <= ERROR_LINES => Some(stderr.clone()),
            (_, Kind::Interpreted) => stderr.trim_end().lines().next_back().map(str::to_owned),
        }
    }

    fn document(&self, stderr_log: Option<&str>) -> Value {
        let mut result = Map::new();
        let mut put = |key: &str, value: Value| result.insert(key.to_owned(), value);
        put("succeeded", self.succeeded().into());
        if matches!(self.ending, Ending::Cancelled { .. }) {
            put("cancelled", true.into());
        }
        put("exit_code", self.exit_code().into());
        put("duration_ms", u64::try_from(self.duration.as_millis()).unwrap_or(u64::MAX).into());
        if let Some(error) = self.error() {
            put("error", error.into());
        }
        if self.data.is_none() && !self.stdout.text.is_empty() {
            put("stdout", self.stdout.with_notice("stdout").into());
        }
        if let Some(path) = stderr_log {
            put("stderr_log", path.into());
        }
        for (stream, captured) in [("stdout", &self.stdout), ("stderr", &self.stderr)] {
            if captured.dropped_bytes > 0 {
                put(&format!("{stream}_truncated"), true.into());
                put(&format!("{stream}_bytes_truncated"), captured.dropped_bytes.into());
            }
        }
        if let Some(data) = &self.data {
            put("data", data.clone());
            if let Some(queue_ack) = data.as_object().and_then(|data| data.get("queue_ack")) {
                put("queue_ack", queue_ack.clone());
            }
        }
        Value::Object(result)
    }
}

/// Whole seconds where they are whole.
fn seconds(limit: Duration) -> String {
    if limit.subsec_nanos() == 0 { limit.as_secs().to_string() } else { limit.as_secs_f64().to_string() }
}

fn without_nul(text: &str) -> String {
    text.replace('\0', "\u{fffd}")
}

/// The same value without NUL in any text: storage as text cannot hold it.
pub(crate) fn storable(value: Value) -> Value {
    match value {
        Value::String(text) if text.contains('\0') => Value::String(without_nul(&text)),
        Value::Array(items) => Value::Array(items.into_iter().map(storable).collect()),
        Value::Object(map) => {
            Value::Object(map.into_iter().map(|(key, value)| (without_nul(&key), storable(value))).collect())
        }
        other => other,
    }
}
