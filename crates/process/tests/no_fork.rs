//! That no child is started by copying the agent, seen by the kernel; with whatever C library this is built for.
#![expect(clippy::unwrap_used, reason = "tests")]

mod support;

use std::path::Path;

use support::{TEST_CHILD, child, ended, has_control_groups};

#[test]
fn every_process_is_started_without_a_copy_of_the_memory() {
    for how in ["run", "run-and-tell"] {
        let Some(calls) = traced(how) else { return };
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
    let steps = ["__exec", "umask=18", "--", TEST_CHILD, "print", "hi"];
    let Some(Traced { calls, .. }) = strace(&["-e", "trace=execve,set_tid_address"], &steps) else { return };
    let names: Vec<&str> = calls.iter().filter_map(|call| call.split(' ').find(|word| word.contains('('))).collect();
    let names: Vec<&str> = names.iter().filter_map(|call| call.split('(').next()).collect();
    // The C library, which makes the last call at its start, is that of the program.
    assert_eq!(names, ["execve", "execve", "set_tid_address"], "{calls:?}");
}

/// Prints its control groups, and how much it reads.
const IN_GROUP: &[&str] = &["prepare", "run-twice", "3", "print-file", "/proc/self/cgroup", "read-all"];

/// Says that it has done so twice, each time in another group.
fn assert_ran_in_groups(output: &str) {
    let groups: Vec<&str> = output.lines().filter(|line| line.starts_with("0::/")).collect();
    assert_eq!(groups.len(), 2, "{output}");
    for (number, group) in groups.into_iter().enumerate() {
        assert!(group.contains("/attune.") && group.ends_with(&format!("/{number}")), "{output}");
    }
    assert_eq!(output.matches("\nread 5\nExited(0) []\n").count(), 2, "{output}");
}

#[test]
fn a_child_begins_in_its_control_group_without_a_launcher_in_between() {
    if !has_control_groups() {
        return;
    }
    let Some(traced) = strace(&["-e", "trace=execve,clone,clone3,openat"], IN_GROUP) else { return };
    assert_ran_in_groups(&traced.output);
    // The agent and its two children, which enter nothing by themselves.
    assert_eq!((traced.programs(), traced.beginnings()), (3, 2), "{:?}", traced.calls);
    assert!(!traced.calls.iter().any(|call| call.contains("/0/cgroup.procs")), "{:?}", traced.calls);
}

/// As with kernels before 5.7 and in containers that forbid clone3(2), which do so in different ways.
#[test]
fn where_a_child_cannot_begin_in_its_control_group_the_launcher_enters_it_and_that_is_tried_once() {
    if !has_control_groups() {
        return;
    }
    // glibc makes threads by this call, and has another way for the first error only.
    let errors = if cfg!(target_env = "musl") { &["ENOSYS", "EPERM", "EINVAL"][..] } else { &["ENOSYS"] };
    for error in errors {
        let refused = format!("inject=clone3:error={error}");
        let Some(traced) = strace(&["-e", "trace=execve,clone,clone3", "-e", &refused], IN_GROUP) else { return };
        assert_ran_in_groups(&traced.output);
        assert_eq!((traced.programs(), traced.beginnings()), (5, 1), "{error}: {:?}", traced.calls);
    }
}

/// The calls that make threads and processes; none where tracing is not possible.
fn traced(how: &str) -> Option<Vec<String>> {
    let is_call = |line: &String| ["clone(", "clone3(", "fork("].iter().any(|name| line.contains(name));
    let traced = strace(&["-e", "trace=clone,clone3,fork,vfork"], &["prepare", how, "2", "print", "hi"])?;
    Some(traced.calls.into_iter().filter(is_call).collect())
}

/// A program under strace.
struct Traced {
    /// What strace wrote.
    calls: Vec<String>,
    /// What the program wrote.
    output: String,
}

impl Traced {
    /// How many times a child was to begin in a control group.
    fn beginnings(&self) -> usize {
        self.calls.iter().filter(|call| call.contains("CLONE_INTO_CGROUP")).count()
    }

    /// How many times a process has become a program.
    fn programs(&self) -> usize {
        self.calls.iter().filter(|call| call.contains("execve(")).count()
    }
}

/// What the child does with these arguments, and with these options of strace; none where the machine lacks tracing.
fn strace(options: &[&str], args: &[&str]) -> Option<Traced> {
    let traced = strace_if_possible(options, args);
    if traced.is_none() {
        attune_testkit::lacking("tracing", "install strace (scripts/setup) and allow ptrace");
    }
    traced
}

fn strace_if_possible(options: &[&str], args: &[&str]) -> Option<Traced> {
    let strace = Path::new("/usr/bin/strace");
    if !strace.exists() {
        return None;
    }
    let folder = tempfile::tempdir().unwrap();
    let log = folder.path().join("log");
    let mut command = child(&[]);
    command.program = strace.into();
    let words = [&["-f", "-o", log.to_str().unwrap()], options, &[TEST_CHILD], args].concat();
    command.args = words.iter().map(Into::into).collect();
    let report = ended(command);
    if report.outcome != attune_process::Outcome::Exited(0) {
        let text = String::from_utf8_lossy(&report.stderr.bytes).into_owned();
        assert!(text.contains("not permitted"), "{text}");
        return None;
    }
    let calls = std::fs::read_to_string(log).unwrap().lines().map(str::to_owned).collect();
    Some(Traced { calls, output: String::from_utf8(report.stdout.bytes).unwrap() })
}
