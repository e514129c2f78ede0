//! Every row of the result's tables.

use std::io;
use std::time::Duration;

use attune_model::status::ExecutionStatus;
use serde_json::{Value, json};

use crate::result::{CapturedText, Conclusion, Ending, Kind, Ran, early_failure, storable};

fn ran(ending: Ending) -> Ran {
    Ran {
        ending,
        duration: Duration::from_millis(12),
        stdout: CapturedText::default(),
        stderr: CapturedText::default(),
        stdin_error: None,
        kind: Kind::Interpreted,
        data: None,
        sealed: Vec::new(),
    }
}

fn text(text: &str) -> CapturedText {
    CapturedText { text: text.to_owned(), dropped_bytes: 0 }
}

fn conclude(ran: Ran) -> (ExecutionStatus, Value) {
    let conclusion = Conclusion::Ran(ran);
    (conclusion.status(), conclusion.document(None))
}

#[test]
fn a_success_has_its_output_or_its_data_but_not_both() {
    let plain = Ran { stdout: text("hi\n"), ..ran(Ending::Exited(0)) };
    assert_eq!(
        conclude(plain),
        (ExecutionStatus::Completed, json!({"succeeded": true, "exit_code": 0, "duration_ms": 12, "stdout": "hi\n"}))
    );
    let parsed = Ran {
        stdout: text("{\"queue_ack\":{}}"),
        data: Some(json!({"queue_ack": {}, "n": 1})),
        ..ran(Ending::Exited(0))
    };
    assert_eq!(
        conclude(parsed).1,
        json!({"succeeded": true, "exit_code": 0, "duration_ms": 12,
               "data": {"queue_ack": {}, "n": 1}, "queue_ack": {}})
    );
}

#[test]
fn the_error_of_an_exit_code_is_the_end_of_standard_error() {
    for (stderr, kind, expected) in [
        ("", Kind::Interpreted, "Command exited with code 3"),
        ("one\ntwo\n", Kind::Interpreted, "one\ntwo\n"),
        ("1\n2\n3\n4\n5\n", Kind::Interpreted, "1\n2\n3\n4\n5\n"),
        ("1\n2\n3\n4\n5\nlast\n", Kind::Interpreted, "last"),
        (" bad \n", Kind::Native, "Native binary exited with code 3: bad"),
        ("", Kind::Native, "Native binary exited with code 3"),
    ] {
        let (status, result) = conclude(Ran { stderr: text(stderr), kind, ..ran(Ending::Exited(3)) });
        assert_eq!(status, ExecutionStatus::Failed);
        assert_eq!(result, json!({"succeeded": false, "exit_code": 3, "duration_ms": 12, "error": expected}));
    }
}

#[test]
fn endings_without_an_exit_code_have_minus_one() {
    for (ending, status, error) in [
        (Ending::Signalled, ExecutionStatus::Failed, "Command exited with code -1"),
        (Ending::TimedOut(Duration::from_secs(5)), ExecutionStatus::Failed, "Execution timed out after 5 seconds"),
        (
            Ending::TimedOut(Duration::from_millis(1500)),
            ExecutionStatus::Failed,
            "Execution timed out after 1.5 seconds",
        ),
        (
            Ending::OutOfMemory { peak_memory_bytes: 64 << 20 },
            ExecutionStatus::Failed,
            "Out of memory: the kernel killed the action, which had 64 MiB; give it more or let it use less",
        ),
        (Ending::WorkerStopped, ExecutionStatus::Failed, "worker was stopped while the action ran"),
        (Ending::Lost("no child".to_owned()), ExecutionStatus::Failed, "Process wait failed: no child"),
    ] {
        let (got, result) = conclude(ran(ending));
        assert_eq!(got, status);
        assert_eq!(result, json!({"succeeded": false, "exit_code": -1, "duration_ms": 12, "error": error}));
    }
}

#[test]
fn a_cancelled_run_says_so_with_its_real_code() {
    for (exit_code, expected) in [(None, -1), (Some(7), 7)] {
        let (status, result) = conclude(ran(Ending::Cancelled { exit_code }));
        assert_eq!(status, ExecutionStatus::Cancelled);
        assert_eq!(
            result,
            json!({"succeeded": false, "cancelled": true, "exit_code": expected, "duration_ms": 12,
                   "error": "Execution cancelled by user"})
        );
    }
    let late = Conclusion::Ran(ran(Ending::Exited(0))).cancelled();
    assert_eq!(late.status(), ExecutionStatus::Cancelled);
    assert_eq!(late.document(None)["exit_code"], 0);
}

#[test]
fn parameters_that_did_not_arrive_turn_a_success_into_a_failure() {
    let broken = || Some(io::Error::from(io::ErrorKind::BrokenPipe));
    let quick = Ran { stdin_error: broken(), ..ran(Ending::Exited(0)) };
    assert!(quick.succeeded());
    let slow = Ran { stdin_error: broken(), duration: Duration::from_millis(500), ..ran(Ending::Exited(0)) };
    assert_eq!(slow.error().unwrap(), "Failed to write parameters to stdin: broken pipe");
    assert_eq!(conclude(slow).0, ExecutionStatus::Failed);
    let failed = Ran { stdin_error: broken(), stderr: text("hidden"), ..ran(Ending::Exited(2)) };
    let (_, result) = conclude(failed);
    assert_eq!(result["exit_code"], 2);
    assert_eq!(result["error"], "Failed to write parameters to stdin: broken pipe");
}

#[test]
fn lost_output_is_reported_after_a_success_too() {
    let cut = CapturedText { text: "abc".to_owned(), dropped_bytes: 9 };
    let (_, result) = conclude(Ran { stdout: cut.clone(), stderr: cut, ..ran(Ending::Exited(0)) });
    assert_eq!(
        result,
        json!({"succeeded": true, "exit_code": 0, "duration_ms": 12,
               "stdout": "abc\n\n[OUTPUT TRUNCATED: stdout exceeded size limit]\n",
               "stdout_truncated": true, "stdout_bytes_truncated": 9,
               "stderr_truncated": true, "stderr_bytes_truncated": 9})
    );
}

#[test]
fn early_ends_have_no_exit_code() {
    let failed = Conclusion::Failed(early_failure("Invalid action", "no code"));
    assert_eq!(
        failed.document(None),
        json!({"succeeded": false, "error": "Action execution failed: Internal error: Invalid action: no code"})
    );
    assert_eq!(failed.status(), ExecutionStatus::Failed);
    assert_eq!(
        Conclusion::CancelledEarly.document(None),
        json!({"succeeded": false, "cancelled": true, "error": "Execution cancelled by user"})
    );
    assert_eq!(Conclusion::StoppedEarly.status(), ExecutionStatus::Failed);
}

#[test]
fn nothing_in_a_result_has_a_nul() {
    assert_eq!(CapturedText::new(b"a\0b\xff", 0).text, "a\u{fffd}b\u{fffd}");
    assert_eq!(storable(json!({"a\u{0}": ["\u{0}", 1]})), json!({"a\u{fffd}": ["\u{fffd}", 1]}));
}
