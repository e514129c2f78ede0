//! That no child is started by copying the agent, seen by the kernel; with whatever C library this is built for.
#![expect(clippy::unwrap_used, reason = "tests")]

mod support;

use std::path::Path;

use support::{TEST_CHILD, child, ended};

#[test]
fn every_process_is_started_without_a_copy_of_the_memory() {
    for how in ["run", "run-and-tell"] {
        let Some(calls) = traced(how) else {
            attune_testkit::lacking("tracing", "install strace (scripts/setup) and allow ptrace");
            return;
        };
        // The program itself is not among them; with a policy its child becomes another one on the way.
        let (threads, processes): (Vec<_>, Vec<_>) = calls.into_iter().partition(|call| call.contains("CLONE_THREAD"));
        assert!(!threads.is_empty() && processes.len() == 1, "{how}: {processes:?}");
        for call in processes {
            let is_fast = call.contains("CLONE_VM") && call.contains("CLONE_VFORK") || call.contains("vfork(");
            assert!(is_fast, "{how}: {call}");
        }
    }
}

/// The flags of `scripts/test musl` let the child of the tests begin at the launcher, like the shipped binary.
#[cfg(target_env = "musl")]
#[test]
fn the_launcher_has_become_the_program_before_the_c_library_begins() {
    let Some(calls) = strace("execve,set_tid_address", &["__exec", "umask=18", "--", TEST_CHILD, "print", "hi"]) else {
        attune_testkit::lacking("tracing", "install strace (scripts/setup) and allow ptrace");
        return;
    };
    let names: Vec<&str> = calls.iter().filter_map(|call| call.split(' ').find(|word| word.contains('('))).collect();
    let names: Vec<&str> = names.iter().filter_map(|call| call.split('(').next()).collect();
    // The C library, which makes the last call at its start, is that of the program.
    assert_eq!(names, ["execve", "execve", "set_tid_address"], "{calls:?}");
}

/// The calls that make threads and processes; none where tracing is not possible.
fn traced(how: &str) -> Option<Vec<String>> {
    let is_call = |line: &String| ["clone(", "clone3(", "fork("].iter().any(|name| line.contains(name));
    let lines = strace("clone,clone3,fork,vfork", &["prepare", how, "2", "print", "hi"])?;
    Some(lines.into_iter().filter(is_call).collect())
}

/// What strace writes about `calls` of the child with these arguments; none where tracing is not possible.
fn strace(calls: &str, args: &[&str]) -> Option<Vec<String>> {
    let strace = Path::new("/usr/bin/strace");
    if !strace.exists() {
        return None;
    }
    let folder = tempfile::tempdir().unwrap();
    let log = folder.path().join("log");
    let mut command = child(&[]);
    command.program = strace.into();
    let trace = format!("trace={calls}");
    let words = ["-f", "-e", &trace, "-o", log.to_str().unwrap(), TEST_CHILD];
    command.args = words.iter().chain(args).map(Into::into).collect();
    let report = ended(command);
    if report.outcome != attune_process::Outcome::Exited(0) {
        let text = String::from_utf8_lossy(&report.stderr.bytes).into_owned();
        assert!(text.contains("not permitted"), "{text}");
        return None;
    }
    let text = std::fs::read_to_string(log).unwrap();
    Some(text.lines().map(str::to_owned).collect())
}
