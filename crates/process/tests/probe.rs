//! Short questions without a runtime.
#![expect(clippy::unwrap_used, reason = "tests")]

mod support;

use std::path::Path;
use std::time::Duration;

use attune_process::{StartError, probe};
use support::{TEST_CHILD, state};

const PLENTY: Duration = Duration::from_secs(20);

#[test]
fn both_streams_and_the_exit_code_are_answered() {
    let steps = ["print", "Python 3.12.1", "eprint", "warning", "exit", "2"];
    let output = probe(Path::new(TEST_CHILD), &steps, &[], PLENTY).unwrap();
    assert_eq!(output.exit_code, Some(2));
    assert_eq!(output.stdout, b"Python 3.12.1\n");
    assert_eq!(output.stderr, b"warning\n");
    assert!(!output.timed_out);
}

#[test]
fn a_program_that_does_not_answer_is_killed_at_the_limit() {
    let (_folder, file) = support::scratch();
    let steps = ["ignore-term", "print", "hm", "write-pid", file.to_str().unwrap(), "wait-for-ever"];
    let limit = Duration::from_millis(500);
    let output = probe(Path::new(TEST_CHILD), &steps, &[], limit).unwrap();
    assert!(output.timed_out);
    assert_eq!(output.exit_code, None);
    if let Ok(pid) = std::fs::read_to_string(file) {
        assert_eq!(state(pid.parse().unwrap()), None);
    }
}

#[test]
fn output_without_end_is_cut_and_does_not_hang() {
    let steps = ["fill-both", "1000000", "exit", "0"];
    let output = probe(Path::new(TEST_CHILD), &steps, &[], PLENTY).unwrap();
    assert_eq!(output.exit_code, Some(0));
    assert_eq!(output.stdout.len(), 64 * 1024);
    assert_eq!(output.stderr.len(), 64 * 1024);
}

#[test]
fn a_descendant_that_keeps_the_pipe_does_not_hold_the_answer_up() {
    let steps = ["print", "1.0", "spawn", "1", "wait-for-ever"];
    let output = probe(Path::new(TEST_CHILD), &steps, &[], PLENTY).unwrap();
    assert_eq!(output.stdout, b"1.0\n");
    assert!(!output.timed_out);
}

#[test]
fn the_environment_is_what_was_given() {
    let env = [("A".into(), "b".into())];
    let output = probe(Path::new(TEST_CHILD), &["print-env"], &env, PLENTY).unwrap();
    assert_eq!(output.stdout, b"A=b\n");
}

#[test]
fn a_missing_program_is_an_error_that_names_it() {
    let error = probe(Path::new("/no/python"), &[], &[], PLENTY).unwrap_err();
    assert!(matches!(error, StartError::NotFound { .. }), "{error:?}");
}
