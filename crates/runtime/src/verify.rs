//! `distributions.verification`: the commands with which a runtime or a version proves that it is there (shape: a fact of
//! the platform). Blocking, with a limit for every command; to be called outside async code.

use std::path::PathBuf;
use std::thread;
use std::time::Duration;

use attune_model::rows::{Runtime, RuntimeVersion};
use attune_model::{Pattern, order};
use attune_process::probe;
use serde::Deserialize;
use serde_json::Value;

use crate::host::Host;

/// How long one command may take.
pub const COMMAND_LIMIT: Duration = Duration::from_secs(10);
/// How many rows are verified at the same time.
const AT_ONCE: usize = 4;

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Verification {
    always_available: bool,
    check_required: Option<bool>,
    commands: Vec<Command>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Command {
    binary: Option<String>,
    args: Vec<String>,
    exit_code: i32,
    pattern: Option<String>,
    priority: Option<i64>,
}

/// The runtimes that verify, by their display names.
pub fn runtimes(rows: &[Runtime], host: &Host) -> Vec<String> {
    passing(rows, |row| runtime(row, host)).into_iter().map(|row| row.name.clone()).collect()
}

/// The versions that verify.
pub fn versions<'a>(rows: &'a [RuntimeVersion], host: &Host) -> Vec<&'a RuntimeVersion> {
    passing(rows, |row| version(row, host))
}

fn runtime(row: &Runtime, host: &Host) -> bool {
    let verification = verification_of(&row.distributions, &row.r#ref);
    verification.always_available
        || verification.check_required == Some(false)
        || any_passes(&verification.commands, &row.r#ref, host)
}

/// Without commands, the version's own interpreter must answer; without an interpreter there is nothing to check.
fn version(row: &RuntimeVersion, host: &Host) -> bool {
    let subject = format!("version {} of {}", row.version, row.runtime_ref);
    let verification = verification_of(&row.distributions, &subject);
    if verification.commands.iter().any(|command| command.binary.is_some()) {
        return any_passes(&verification.commands, &subject, host);
    }
    let binary = row.execution_config.pointer("/interpreter/binary").and_then(Value::as_str).unwrap_or_default();
    if binary.is_empty() {
        return true;
    }
    let own = Command { binary: Some(binary.to_owned()), args: vec!["--version".to_owned()], ..Command::default() };
    passes(&own, &subject, host)
}

fn verification_of(distributions: &Value, subject: &str) -> Verification {
    let Some(value) = distributions.get("verification").filter(|value| !value.is_null()) else {
        return Verification::default();
    };
    Verification::deserialize(value).unwrap_or_else(|error| {
        tracing::warn!(subject, %error, "distributions.verification cannot be read; counted as not available");
        Verification::default()
    })
}

fn any_passes(commands: &[Command], subject: &str, host: &Host) -> bool {
    const LAST: i64 = 999;
    let mut commands: Vec<&Command> = commands.iter().collect();
    order::sort_by_key(&mut commands, |command| command.priority.unwrap_or(LAST));
    commands.into_iter().any(|command| passes(command, subject, host))
}

fn passes(command: &Command, subject: &str, host: &Host) -> bool {
    let Some(program) = command.binary.as_deref().and_then(|binary| locate(binary, host)) else {
        return false;
    };
    let args: Vec<&str> = command.args.iter().map(String::as_str).collect();
    let output = match probe(&program, &args, host.env(), COMMAND_LIMIT) {
        Ok(output) => output,
        Err(error) => {
            tracing::debug!(subject, error = attune_model::chain(&error), "verification command did not start");
            return false;
        }
    };
    if output.timed_out || output.exit_code != Some(command.exit_code) {
        return false;
    }
    let Some(pattern) = &command.pattern else {
        return true;
    };
    let text = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    match Pattern::new(pattern) {
        Ok(pattern) => pattern.is_match(&text),
        Err(error) => {
            tracing::warn!(
                subject,
                pattern,
                error = attune_model::chain(&error),
                "pattern of a verification command cannot be read"
            );
            false
        }
    }
}

fn locate(binary: &str, host: &Host) -> Option<PathBuf> {
    if binary.contains('/') {
        return Some(PathBuf::from(binary)).filter(|path| path.is_absolute());
    }
    host.find(binary).map(|found| found.program)
}

/// The rows that pass, in their order.
fn passing<T: Sync>(rows: &[T], check: impl Fn(&T) -> bool + Sync) -> Vec<&T> {
    let check = &check;
    let verdicts = |rows: &[T]| -> Vec<bool> {
        thread::scope(|scope| {
            let begin = |row| {
                let thread = thread::Builder::new().name("verify".to_owned());
                // No more threads to be had: slower, but the same answer.
                thread.spawn_scoped(scope, move || check(row)).map_err(|_| check(row))
            };
            let asked: Vec<_> = rows.iter().map(begin).collect();
            let answer = |asked: Result<thread::ScopedJoinHandle<'_, bool>, bool>| match asked {
                Ok(thread) => thread.join().unwrap_or(false),
                Err(passed) => passed,
            };
            asked.into_iter().map(answer).collect()
        })
    };
    let passed = rows.chunks(AT_ONCE).flat_map(verdicts);
    rows.iter().zip(passed).filter_map(|(row, passed)| passed.then_some(row)).collect()
}

#[cfg(test)]
mod tests {
    use attune_model::{RuntimeId, RuntimeVersionId};
    use serde_json::json;

    use super::*;
    use crate::tests_support::program;

    fn row(name: &str, verification: &Value) -> Runtime {
        Runtime {
            id: RuntimeId(1),
            r#ref: format!("core.{name}"),
            pack: None,
            pack_ref: None,
            description: None,
            name: name.into(),
            aliases: Vec::new(),
            distributions: json!({ "verification": verification }),
            execution_config: json!({}),
        }
    }

    fn version_row(distributions: Value, execution_config: Value) -> RuntimeVersion {
        RuntimeVersion {
            id: RuntimeVersionId(1),
            runtime: RuntimeId(1),
            runtime_ref: "core.tool".into(),
            version: "1.0".into(),
            execution_config,
            distributions,
            is_default: false,
            available: false,
        }
    }

    fn machine() -> (tempfile::TempDir, Host) {
        let dir = tempfile::tempdir().unwrap();
        program(&dir.path().join("good"), "echo tool 1.2 >&2");
        program(&dir.path().join("bad"), "echo tool 1.2; exit 3");
        let host = Host::new(vec![("PATH".into(), dir.path().into())]).path_only();
        (dir, host)
    }

    #[test]
    fn a_command_passes_by_exit_code_and_pattern() {
        let (_dir, host) = machine();
        let rows = [
            row("a", &json!({"commands": [{"binary": "good", "pattern": "tool 1\\."}]})),
            row("b", &json!({"commands": [{"binary": "good", "pattern": "tool 2"}]})),
            row("c", &json!({"commands": [{"binary": "bad"}]})),
            row("d", &json!({"commands": [{"binary": "bad", "exit_code": 3}]})),
            row("e", &json!({"commands": [{"binary": "absent"}, {"args": ["x"]}]})),
            row("f", &json!({"commands": [{"binary": "absent"}, {"binary": "good", "priority": 1}]})),
            row("g", &json!({"commands": [{"binary": "good", "pattern": "("}]})),
        ];
        assert_eq!(runtimes(&rows, &host), ["a", "d", "f"]);
    }

    #[test]
    fn some_runtimes_need_no_check_and_silence_is_no_proof() {
        let (_dir, host) = machine();
        let rows = [
            row("always", &json!({"always_available": true})),
            row("unchecked", &json!({"check_required": false})),
            row("silent", &Value::Null),
            row("malformed", &json!({"always_available": "yes"})),
        ];
        assert_eq!(runtimes(&rows, &host), ["always", "unchecked"]);
    }

    #[test]
    fn a_version_without_commands_is_proved_by_its_interpreter() {
        let (_dir, host) = machine();
        let rows = [
            version_row(json!({}), json!({"interpreter": {"binary": "good"}})),
            version_row(json!({}), json!({"interpreter": {"binary": "bad"}})),
            version_row(json!({}), json!({})),
            version_row(json!({"verification": {"commands": [{"binary": "absent"}]}}), json!({})),
        ];
        let passed = versions(&rows, &host);
        assert_eq!(passed, [&rows[0], &rows[2]]);
    }
}
