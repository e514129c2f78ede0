//! What children do and what the report says about it.
#![expect(clippy::unwrap_used, reason = "tests")]

mod support;

use std::future::pending;
use std::os::unix::fs::PermissionsExt as _;
use std::time::Duration;

use attune_process::{Captured, Command, Input, Keep, Outcome, Policy, Sink, Stream, start, start_aside};
use attune_testkit::eventually;
use support::{child, ended, runtime};

const MEBIBYTE: usize = 1024 * 1024;

#[test]
fn exit_code_output_and_errors_of_a_child_are_reported() {
    let report = ended(child(&["print", "out", "eprint", "err", "exit", "7"]));
    assert_eq!(report.outcome, Outcome::Exited(7));
    assert_eq!(report.stdout.bytes, b"out\n");
    assert_eq!(report.stderr.bytes, b"err\n");
    assert_eq!(report.stdout.dropped_bytes, 0);
    assert!(report.stdin_error.is_none());
    assert!(!report.pipes_held_open);
}

#[test]
fn the_environment_of_a_child_is_what_it_was_given_and_nothing_else() {
    let mut command = child(&["print-env"]);
    command.env = vec![("ONLY".into(), "this one".into())];
    assert_eq!(ended(command).stdout.bytes, b"ONLY=this one\n");
}

#[test]
fn variables_are_sorted_by_name_and_of_two_of_one_name_the_later_one_counts() {
    let given = [("B", "1\0"), ("A-", "x"), ("A", "2=2"), ("B", "3"), ("LAST", "")];
    let launched = Policy { launcher: support::launcher(), ..Policy::default() };
    for policy in [None, Some(Policy::default()), Some(launched)] {
        let mut command = child(&["print-env"]);
        command.env = given.map(|(name, value)| (name.into(), value.into())).to_vec();
        command.policy = policy;
        let printed = String::from_utf8(ended(command).stdout.bytes).unwrap();
        assert_eq!(printed, "A=2=2\nA-=x\nB=3\nLAST=\n", "what nobody sees is not looked at either");
    }
}

#[test]
fn a_child_runs_in_the_directory_that_it_was_given() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path().canonicalize().unwrap();
    let mut command = child(&["print-cwd"]);
    command.cwd = Some(folder.clone());
    let printed = String::from_utf8(ended(command).stdout.bytes).unwrap();
    assert_eq!(printed.trim_end(), folder.to_str().unwrap());
}

#[test]
fn a_child_that_ends_by_a_signal_is_reported_with_it() {
    for signal in [attune_process::SIGKILL, attune_process::SIGTERM] {
        let report = ended(child(&["raise", &signal.to_string()]));
        let expected = Outcome::Signalled { signal, core_dumped: false };
        assert_eq!(report.outcome, expected);
    }
}

#[test]
fn input_larger_than_a_pipe_reaches_a_child_that_reads_it() {
    let mut command = child(&["read-all"]);
    command.stdin = Input::Bytes(vec![b'p'; 3 * MEBIBYTE]);
    let report = ended(command);
    assert!(report.stdin_error.is_none(), "{report:?}");
    assert_eq!(report.stdout.bytes, b"read 3145728\n");
}

#[test]
fn a_child_that_writes_megabytes_before_it_reads_does_not_hang() {
    let mut command = child(&["fill-both", "2000000", "read-all"]);
    command.stdin = Input::Bytes(vec![b'p'; MEBIBYTE]);
    let report = ended(command);
    assert_eq!(report.outcome, Outcome::Exited(0));
    assert!(report.stdout.bytes.ends_with(b"read 1048576\n"));
    assert_eq!(report.stderr.bytes.len(), 2_000_000);
}

#[test]
fn a_child_that_never_reads_its_input_ends_and_the_rest_is_reported_as_a_broken_pipe() {
    for steps in [&["exit", "0"][..], &["read-some", "exit", "0"][..]] {
        let mut command = child(steps);
        command.stdin = Input::Bytes(vec![b'p'; MEBIBYTE]);
        let report = ended(command);
        assert_eq!(report.outcome, Outcome::Exited(0));
        assert_eq!(report.stdin_error.unwrap().kind(), std::io::ErrorKind::BrokenPipe);
    }
}

#[test]
fn small_input_that_nobody_reads_is_no_error_and_empty_input_is_an_end() {
    let mut command = child(&["exit", "0"]);
    command.stdin = Input::Bytes(b"{}".to_vec());
    let report = ended(command);
    assert!(report.stdin_error.is_none(), "{report:?}");

    let mut command = child(&["read-all"]);
    command.stdin = Input::Bytes(Vec::new());
    assert_eq!(ended(command).stdout.bytes, b"read 0\n");
}

#[test]
fn the_head_is_kept_to_the_byte_and_the_rest_is_counted() {
    for (written, kept, dropped_bytes) in [(1000, 1000, 0), (1001, 1000, 1), (5_000_000, 1000, 4_999_000)] {
        let mut command = child(&["fill", &written.to_string()]);
        command.stdout = Stream::keep(Keep::Head { limit_bytes: 1000 });
        let bytes = vec![b'x'; kept];
        assert_eq!(ended(command).stdout, Captured { bytes, dropped_bytes });
    }
}

#[test]
fn the_tail_holds_the_last_words() {
    let mut command = child(&["fill", "3000000", "print", "the end"]);
    command.stdout = Stream::keep(Keep::Tail { limit_bytes: 8 });
    let bytes = b"the end\n".to_vec();
    let dropped_bytes = 3_000_000;
    assert_eq!(ended(command).stdout, Captured { bytes, dropped_bytes });
}

struct Tee(std::sync::mpsc::Sender<Option<Vec<u8>>>);

impl Sink for Tee {
    fn write(&mut self, chunk: &[u8]) {
        self.0.send(Some(chunk.to_vec())).unwrap();
    }

    fn finish(&mut self) {
        self.0.send(None).unwrap();
    }
}

#[test]
fn a_sink_sees_every_byte_of_both_streams_whatever_is_kept() {
    let (sender, out) = std::sync::mpsc::channel();
    let mut command = child(&["fill-both", "700000"]);
    command.stdout = Stream::keep(Keep::Head { limit_bytes: 3 }).to(Tee(sender));
    let report = ended(command);
    assert_eq!(report.stdout.bytes, b"xxx");
    let mut chunks: Vec<Option<Vec<u8>>> = out.iter().collect();
    assert_eq!(chunks.pop(), Some(None), "finish comes last");
    let all: Vec<u8> = chunks.into_iter().flat_map(Option::unwrap).collect();
    assert_eq!(all, vec![b'x'; 700_000]);
}

#[test]
fn a_secret_reaches_neither_the_report_nor_the_sink() {
    let (sender, out) = std::sync::mpsc::channel();
    let redactor = std::sync::Arc::new(attune_process::Redactor::new(["open sesame"]));
    let mut command = child(&["print", "say open sesame now", "eprint", "open%20sesame"]);
    command.stdout = command.stdout.to(Tee(sender)).without(&redactor);
    command.stderr = command.stderr.without(&redactor);
    let report = ended(command);
    assert_eq!(report.stdout.bytes, b"say [redacted] now\n");
    assert_eq!(report.stderr.bytes, b"[redacted]\n");
    let seen: Vec<u8> = out.iter().flatten().flatten().collect();
    assert_eq!(seen, b"say [redacted] now\n");
}

#[test]
fn one_endless_line_takes_no_memory() {
    let mut command = child(&["fill", "300000000"]);
    command.stdout = Stream::keep(Keep::Head { limit_bytes: 1000 });
    let before = support::resident_bytes();
    let report = ended(command);
    let grown = support::resident_bytes().saturating_sub(before);
    assert_eq!(report.stdout.dropped_bytes, 300_000_000 - 1000);
    assert!(grown < 8 * MEBIBYTE as u64, "grown by {grown} bytes");
}

#[test]
fn input_of_any_size_is_written_while_a_late_reader_writes() {
    let mut command = child(&["fill-both", "3000000", "nap-ms", "30", "read-all"]);
    command.stdin = Input::Bytes(vec![b'p'; 100 * MEBIBYTE]);
    command.stderr = Stream::null();
    let report = ended(command);
    assert!(report.stdin_error.is_none(), "{report:?}");
    assert!(report.stdout.bytes.ends_with(b"read 104857600\n"));
}

#[test]
fn children_that_end_within_a_millisecond_are_all_seen_with_their_output() {
    for code in 0..50_i32 {
        let report = ended(child(&["print", "short", "nap-ms", "1", "exit", &code.to_string()]));
        assert_eq!(report.outcome, Outcome::Exited(code));
        assert_eq!(report.stdout.bytes, b"short\n");
    }
}

#[test]
fn memory_and_time_of_a_child_are_measured() {
    let report = ended(child(&["use-memory", "50000000"]));
    let peak = report.usage.peak_memory_bytes;
    assert!((50_000_000..500_000_000).contains(&peak), "{report:?}");
    assert!(report.usage.user_time + report.usage.system_time > Duration::ZERO);
    assert!(report.duration > Duration::ZERO);
}

#[test]
fn a_child_with_a_sink_can_be_supervised_on_any_thread() {
    let (sender, out) = std::sync::mpsc::channel();
    let mut command = child(&["print", "x"]);
    command.stdout = command.stdout.to(Tee(sender));
    let runtime = runtime();
    let _inside = runtime.enter();
    let supervision = start(command).unwrap().supervise(None, pending());
    let ended = std::thread::scope(|scope| scope.spawn(|| runtime.block_on(supervision)).join());
    assert_eq!(ended.unwrap().outcome, Outcome::Exited(0));
    assert_eq!(out.iter().flatten().flatten().collect::<Vec<_>>(), b"x\n");
}

#[test]
fn many_children_that_end_at_once_are_all_seen() {
    runtime().block_on(async {
        let all = (0..64).map(|number: usize| async move {
            let code = (number % 100).to_string();
            let report = start(child(&["exit", &code])).unwrap().supervise(None, pending()).await;
            assert_eq!(report.outcome, Outcome::Exited(code.parse().unwrap()));
        });
        futures_util::future::join_all(all).await;
    });
}

#[test]
fn a_program_that_is_being_written_is_started_when_it_is_closed() {
    let folder = tempfile::tempdir().unwrap();
    let program = folder.path().join("fresh");
    std::fs::copy(support::TEST_CHILD, &program).unwrap();
    std::fs::set_permissions(&program, std::fs::Permissions::from_mode(0o755)).unwrap();
    let busy = std::fs::File::options().append(true).open(&program).unwrap();
    let closer = std::thread::spawn(move || {
        std::thread::park_timeout(Duration::from_millis(40));
        drop(busy);
    });
    let mut command = Command::new(&program);
    command.args = vec!["exit".into(), "3".into()];
    assert_eq!(ended(command).outcome, Outcome::Exited(3));
    closer.join().unwrap();
}

#[test]
fn while_a_child_is_started_aside_other_tasks_go_on() {
    let folder = tempfile::tempdir().unwrap();
    let program = folder.path().join("fresh");
    std::fs::copy(support::TEST_CHILD, &program).unwrap();
    let busy = std::fs::File::options().append(true).open(&program).unwrap();
    runtime().block_on(async {
        // The start succeeds because the other task, on the same thread, closes the program meanwhile.
        let (child, ()) = tokio::join!(start_aside(Command::new(&program)), async { drop(busy) });
        assert_eq!(child.unwrap().supervise(None, pending()).await.outcome, Outcome::Exited(0));
    });
}

#[test]
fn programs_that_cannot_be_read_do_not_hold_up_others() {
    let folder = tempfile::tempdir().unwrap();
    let program = folder.path().join("slow");
    std::fs::copy(support::TEST_CHILD, &program).unwrap();
    let Some(held) = attune_testkit::Held::new(&program) else { return };
    runtime().block_on(async {
        // More than there are threads for it. Without a policy they would keep copies of the pipe that ends the lease.
        let command = || Command { policy: Some(Policy::default()), ..Command::new(&program) };
        let slow = futures_util::future::join_all((0..3).map(|_| start_aside(command())));
        let mut slow = std::pin::pin!(slow);
        let other = tokio::select! {
            biased;
            _ = &mut slow => panic!("the programs were read"),
            other = start_aside(child(&["exit", "3"])) => other.unwrap(),
        };
        assert_eq!(other.supervise(None, pending()).await.outcome, Outcome::Exited(3));
        drop(held);
        for child in slow.await {
            assert_eq!(child.unwrap().supervise(None, pending()).await.outcome, Outcome::Exited(0));
        }
    });
}

#[test]
fn a_start_aside_that_is_given_up_leaves_no_process() {
    let folder = tempfile::tempdir().unwrap();
    let place = folder.path().canonicalize().unwrap();
    let here = || {
        let processes = std::fs::read_dir("/proc").unwrap().flatten();
        processes.filter(|process| std::fs::read_link(process.path().join("cwd")).is_ok_and(|cwd| cwd == place)).count()
    };
    runtime().block_on(async {
        let waiting = || Command { cwd: Some(place.clone()), ..child(&["wait-for-ever"]) };
        let mut given_up = Box::pin(start_aside(waiting()));
        assert!(futures_util::poll!(&mut given_up).is_pending());
        drop(given_up);
        // Children are started one after the other, so the first one was, or was not, by now.
        let kept = start_aside(waiting()).await.unwrap();
        eventually("the child that nobody wanted to be gone", async || (here() == 1).then_some(())).await;
        drop(kept);
        eventually("the other one to be gone", async || (here() == 0).then_some(())).await;
    });
}
