//! What a person at a terminal sees: the action's output as it comes, builds of environments, and how it ended.

use std::sync::{Arc, Mutex, PoisonError};

use attune_model::activity::{Activity, Observer};
use attune_model::status::ExecutionStatus;
use attune_process::Sink;
use attune_worker::{Conclusion, Ending, Sinks};

use crate::exit::Failure;
use crate::output::{Output, tell};

use super::Style;

/// Standard output and standard error.
#[derive(Debug, Clone, Default)]
pub(super) struct Terminal {
    /// Why standard output could not be written.
    failed: Arc<Mutex<Option<Failure>>>,
}

impl Terminal {
    /// Where the action's output goes.
    pub(super) fn sinks(&self, style: Style) -> Sinks {
        let stdout = ToStdout { output: None, lost: false, failed: self.failed.clone() };
        Sinks {
            stdout: (style == Style::Output).then(|| Box::new(stdout) as Box<dyn Sink>),
            stderr: Some(Box::new(ToStderr)),
        }
    }

    /// Whether everything was written.
    pub(super) fn conclude(&self) -> Result<(), Failure> {
        self.failed.lock().unwrap_or_else(PoisonError::into_inner).take().map_or(Ok(()), Err)
    }
}

struct ToStdout {
    output: Option<Output>,
    lost: bool,
    failed: Arc<Mutex<Option<Failure>>>,
}

impl Sink for ToStdout {
    fn write(&mut self, chunk: &[u8]) {
        if self.lost {
            return;
        }
        if let Err(failure) = self.try_write(chunk) {
            self.lost = true;
            *self.failed.lock().unwrap_or_else(PoisonError::into_inner) = Some(failure);
        }
    }
}

impl ToStdout {
    fn try_write(&mut self, chunk: &[u8]) -> Result<(), Failure> {
        let output = match &mut self.output {
            Some(output) => output,
            none => none.insert(Output::open()?),
        };
        output.bytes(chunk)?;
        output.flush()
    }
}

struct ToStderr;

impl Sink for ToStderr {
    fn write(&mut self, chunk: &[u8]) {
        tell(chunk);
    }
}

/// Tells about environments that are built.
#[derive(Debug, Default)]
pub(super) struct Progress;

impl Observer for Progress {
    fn observe(&self, activity: Activity) {
        let line = match activity {
            Activity::EnvironmentStarted { pack_ref, runtime, step } => {
                format!("building environment {pack_ref}/{runtime}: {step}\n")
            }
            Activity::EnvironmentFinished { pack_ref, runtime, took, error: None } => {
                format!("environment {pack_ref}/{runtime} is ready after {:.1} s\n", took.as_secs_f64())
            }
            // The result says it.
            Activity::EnvironmentFinished { .. } | Activity::Sensor { .. } => return,
        };
        tell(line.as_bytes());
    }
}

/// One line about the end.
pub(super) fn summarise(action: &str, conclusion: &Conclusion) {
    let word = match conclusion.status() {
        ExecutionStatus::Completed => "completed",
        ExecutionStatus::Cancelled => "cancelled",
        _ => "failed",
    };
    let took = match conclusion {
        Conclusion::Ran(ran) => format!(" in {} ms", ran.duration.as_millis()),
        Conclusion::Failed(_) | Conclusion::CancelledEarly | Conclusion::StoppedEarly => String::new(),
    };
    let why = match conclusion.status() {
        ExecutionStatus::Failed => format!(": {}", reason(conclusion)),
        _ => String::new(),
    };
    tell(format!("{action} {word}{took}{why}\n").as_bytes());
}

/// Standard error was seen already; its text is not repeated.
fn reason(conclusion: &Conclusion) -> String {
    if let Conclusion::Ran(ran) = conclusion
        && let Ending::Exited(code) = ran.ending
        && ran.stdin_error.is_none()
    {
        return format!("exit code {code}");
    }
    let document = conclusion.document(None);
    document["error"].as_str().unwrap_or("no reason is known").trim_end().to_owned()
}
