//! How the process ends: the documented exit codes and the failure that carries one.
//!
//! The numbers are observed by init systems, orchestrators, scripts and by the worker itself. They are listed in
//! `docs/exit-codes.md`; a test keeps that page, this enum and the mapping together.

use std::error::Error;
use std::fmt;
use std::process::ExitCode;

use attune_model::chain;

use crate::{output, telemetry};

/// Every way in which a command of this binary ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Exit {
    /// Done, or asked to stop and drained.
    Success,
    /// The command worked and its answer is no: the action failed, a pack has errors.
    Failed,
    /// The command line cannot be used, and the name was that of one of the platform's programs.
    PlatformUsage,
    /// The command line cannot be used.
    Usage,
    /// A file is not what it should be: no program, for another architecture, another checksum.
    Data,
    /// A file that the command line names cannot be read.
    NoInput,
    /// Something that is needed could not be reached or is not part of this build.
    Unavailable,
    /// A task ended on its own, or ignored the hard stop.
    Internal,
    /// The operating system refused something while starting.
    OperatingSystem,
    /// A folder does not take what should be written there: read-only, full, not ours, noexec.
    CannotCreate,
    /// Standard output could not be written.
    Output,
    /// The configuration is not valid.
    Configuration,
    /// The action took longer than its time limit.
    TimedOut,
    /// The action was cancelled.
    Cancelled,
    /// `__exec` failed before it could become the program.
    ExecFailed,
    /// `__exec` found the program, but it cannot be executed.
    ExecRefused,
    /// `__exec` did not find the program.
    ExecNotFound,
    /// A child was ended by this signal: what a shell reports for a program that `__exec` has become.
    #[cfg_attr(not(test), expect(dead_code, reason = "seen from outside only; part of the documented numbers"))]
    Signalled(u8),
    /// This process was process 1, and the agent below it ended with this code.
    Agent(u8),
}

impl Exit {
    /// The number.
    pub(crate) fn number(self) -> u8 {
        match self {
            Self::Success => 0,
            Self::Failed => 1,
            Self::PlatformUsage => 2,
            Self::Usage => 64,
            Self::Data => 65,
            Self::NoInput => 66,
            Self::Unavailable => 69,
            Self::Internal => 70,
            Self::OperatingSystem => 71,
            Self::CannotCreate => 73,
            Self::Output => 74,
            Self::Configuration => 78,
            Self::TimedOut => 124,
            Self::Cancelled => 130,
            Self::ExecFailed => 125,
            Self::ExecRefused => 126,
            Self::ExecNotFound => 127,
            Self::Signalled(signal) => 128_u8.saturating_add(signal),
            Self::Agent(code) => code,
        }
    }
}

/// Why a command could not do its work, and the exit code that says so.
#[derive(Debug)]
pub(crate) struct Failure {
    exit: Exit,
    error: Box<dyn Error + Send + Sync>,
}

impl Failure {
    /// `error` ends the process with `exit`.
    pub(crate) fn new(exit: Exit, error: impl Error + Send + Sync + 'static) -> Self {
        Self { exit, error: Box::new(error) }
    }

    /// A failure without an error value behind it; `message` says what to do.
    pub(crate) fn message(exit: Exit, message: impl Into<String>) -> Self {
        Self { exit, error: Box::new(Message(message.into())) }
    }

    /// A command line that cannot be used.
    pub(crate) fn usage(message: impl Into<String>) -> Self {
        Self::message(Exit::Usage, message)
    }

    /// The same, told as the platform's own programs tell it.
    pub(crate) fn told_as_the_platform(self) -> Self {
        let exit = if self.exit == Exit::Usage { Exit::PlatformUsage } else { self.exit };
        Self { exit, ..self }
    }

    /// Its exit code.
    pub(crate) fn exit(&self) -> Exit {
        self.exit
    }
}

/// Prints the error and its causes, joined by `: `.
impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&chain(&*self.error))
    }
}

#[derive(Debug)]
struct Message(String);

impl fmt::Display for Message {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl Error for Message {}

/// Says why a command failed, on standard error, and gives the process its exit code.
pub(crate) fn conclude(result: Result<Exit, Failure>) -> ExitCode {
    let exit = result.unwrap_or_else(|failure| {
        say(&failure);
        failure.exit()
    });
    ExitCode::from(exit.number())
}

fn say(failure: &Failure) {
    let text = failure.to_string();
    if telemetry::speaks_json() {
        tracing::error!(exit.code = failure.exit().number(), "{}", text.trim_end());
        return;
    }
    output::tell(format!("error: {}\n", text.trim_end()).as_bytes());
}

#[cfg(test)]
mod tests {
    use std::io::{self, ErrorKind};

    use super::*;

    /// In the order of the page.
    const PINNED: &[(Exit, u8)] = &[
        (Exit::Success, 0),
        (Exit::Failed, 1),
        (Exit::PlatformUsage, 2),
        (Exit::Usage, 64),
        (Exit::Data, 65),
        (Exit::NoInput, 66),
        (Exit::Unavailable, 69),
        (Exit::Internal, 70),
        (Exit::OperatingSystem, 71),
        (Exit::CannotCreate, 73),
        (Exit::Output, 74),
        (Exit::Configuration, 78),
        (Exit::TimedOut, 124),
        (Exit::ExecFailed, 125),
        (Exit::ExecRefused, 126),
        (Exit::ExecNotFound, 127),
        (Exit::Cancelled, 130),
    ];

    #[test]
    fn the_numbers_are_those_that_others_rely_on() {
        for (exit, number) in PINNED {
            assert_eq!(exit.number(), *number, "{exit:?}");
        }
        assert_eq!(Exit::Signalled(9).number(), 137);
        assert_eq!(Exit::Signalled(15).number(), 143);
    }

    #[test]
    fn the_page_lists_exactly_these_codes_by_these_names() {
        let page = include_str!("../docs/exit-codes.md");
        let rows: Vec<(String, String)> = page
            .lines()
            .filter_map(|line| {
                let mut cells =
                    line.strip_prefix("| `")?.split('|').map(|cell| cell.trim().trim_matches('`').to_owned());
                Some((cells.next()?, cells.next()?))
            })
            .collect();
        let mut expected: Vec<(String, String)> =
            PINNED.iter().map(|(exit, number)| (number.to_string(), format!("{exit:?}"))).collect();
        expected.push(("128+n".to_owned(), "Signalled".to_owned()));
        assert_eq!(rows, expected, "docs/exit-codes.md and src/exit.rs differ");
    }

    #[test]
    fn a_failure_prints_its_causes_once_each() {
        #[derive(Debug, thiserror::Error)]
        #[error("failed to open the queue")]
        struct Outer(#[source] io::Error);
        let failure = Failure::new(Exit::Unavailable, Outer(io::Error::new(ErrorKind::ConnectionRefused, "refused")));
        assert_eq!(failure.to_string(), "failed to open the queue: refused");
        assert_eq!(failure.exit(), Exit::Unavailable);
    }
}
