//! How children are ended, and that nothing of them stays.
#![expect(clippy::unwrap_used, reason = "tests")]

mod support;

use std::future::{pending, ready};
use std::time::Duration;

use attune_process::{Command, Ending, Keep, Outcome, Stream, start};
use attune_testkit::eventually;
use support::{child, gone, is_alive, pid_in, runtime, scratch, state, written};

const SOON: Option<Duration> = Some(Duration::from_millis(50));

fn impatient(mut command: Command) -> Command {
    command.ending.grace = Duration::from_millis(100);
    command
}

#[test]
fn a_child_whose_time_is_over_is_asked_to_end() {
    runtime().block_on(async {
        let report = start(child(&["print", "busy", "wait-for-ever"]))
            .unwrap()
            .supervise(Some(Duration::from_millis(200)), pending())
            .await;
        let limit = Duration::from_millis(200);
        assert_eq!(report.outcome, Outcome::TimedOut { limit, last: None });
        assert_eq!(report.stdout.bytes, b"busy\n");
        gone(report.pid).await;
    });
}

#[test]
fn the_time_limit_counts_from_the_start_and_not_from_the_supervision() {
    runtime().block_on(async {
        let child = start(child(&["wait-for-ever"])).unwrap();
        let report = child.supervise(Some(Duration::ZERO), pending()).await;
        assert!(matches!(report.outcome, Outcome::TimedOut { .. }), "{report:?}");
    });
}

#[test]
fn a_child_that_ignores_the_signal_is_killed_when_the_grace_is_over() {
    runtime().block_on(async {
        let (_folder, file) = scratch();
        let child =
            start(impatient(child(&["ignore-term", "write-pid", file.to_str().unwrap(), "wait-for-ever"]))).unwrap();
        let report = child.supervise(None, written(&file)).await;
        assert_eq!(report.outcome, Outcome::Cancelled { exit_code: None });
        assert!(report.duration >= Duration::from_millis(100));
        gone(report.pid).await;
    });
}

#[test]
fn a_child_that_asked_for_it_is_killed_without_grace() {
    runtime().block_on(async {
        let (_folder, file) = scratch();
        let mut command = child(&["ignore-term", "write-pid", file.to_str().unwrap(), "wait-for-ever"]);
        command.ending.grace = Duration::from_secs(1000);
        let report = start(command).unwrap().supervise_until(None, ready(()), written(&file)).await;
        assert_eq!(report.outcome, Outcome::Cancelled { exit_code: None });
    });
}

#[test]
fn a_stopped_child_ends_without_being_killed() {
    runtime().block_on(async {
        let (_folder, file) = scratch();
        let mut command = child(&["write-pid", file.to_str().unwrap(), "stop", "exit", "5"]);
        command.ending.grace = Duration::from_secs(1000);
        let child = start(command).unwrap();
        let pid = child.pid();
        let stopped = async {
            pid_in(&file).await;
            eventually("the child to be stopped", async || (state(pid) == Some('T')).then_some(())).await;
        };
        // Only CONT can end it here: TERM stays pending in a stopped process, and the grace is endless.
        let report = child.supervise(None, stopped).await;
        assert!(matches!(report.outcome, Outcome::Cancelled { .. }), "{report:?}");
    });
}

#[test]
fn another_signal_than_term_can_ask_for_the_end() {
    runtime().block_on(async {
        let (_folder, file) = scratch();
        let mut command = child(&["ignore-term", "write-pid", file.to_str().unwrap(), "wait-for-ever"]);
        command.ending =
            Ending { signal: attune_process::SIGINT, grace: Duration::from_secs(1000), ..Ending::default() };
        let report = start(command).unwrap().supervise(None, written(&file)).await;
        assert_eq!(report.outcome, Outcome::Cancelled { exit_code: None });
    });
}

#[test]
fn what_a_child_leaves_in_its_group_is_killed_and_its_own_exit_code_stays() {
    runtime().block_on(async {
        let (_folder, file) = scratch();
        let path = file.to_str().unwrap();
        let left = ["spawn", "4", "ignore-term", "write-pid", path, "wait-for-ever"];
        let steps = [&left[..], &["wait-for-file", path, "exit", "9"]].concat();
        let report = start(child(&steps)).unwrap().supervise(None, pending()).await;
        assert_eq!(report.outcome, Outcome::Exited(9));
        assert!(!report.pipes_held_open, "{report:?}");
        gone(pid_in(&file).await).await;
    });
}

#[test]
fn the_whole_group_ends_when_its_leader_has_to() {
    runtime().block_on(async {
        let (_folder, file) = scratch();
        let path = file.to_str().unwrap();
        let left = ["spawn", "4", "ignore-term", "write-pid", path, "wait-for-ever"];
        let steps = [&left[..], &["ignore-term", "wait-for-ever"]].concat();
        let report = start(impatient(child(&steps))).unwrap().supervise(None, written(&file)).await;
        assert!(matches!(report.outcome, Outcome::Cancelled { .. }), "{report:?}");
        gone(pid_in(&file).await).await;
    });
}

#[test]
fn the_members_of_a_group_have_the_rest_of_the_grace_when_their_leader_obeys() {
    runtime().block_on(async {
        let (_folder, file) = scratch();
        let path = file.to_str().unwrap();
        let member = ["spawn", "3", "obey-late", "100", path];
        let mut command = child(&[&member[..], &["wait-for-file", path, "wait-for-ever"]].concat());
        command.ending.grace = Duration::from_secs(1000);
        // The leader ends at once; a supervision that waits for the whole grace does not end before the test does.
        let report = start(command).unwrap().supervise(None, written(&file)).await;
        assert_eq!(report.outcome, Outcome::Cancelled { exit_code: None });
        let obeyed = format!("{path}.obeyed");
        assert!(std::path::Path::new(&obeyed).exists(), "the member was killed before it had done what it had to");
        gone(pid_in(&file).await).await;
    });
}

#[test]
fn a_member_that_does_not_obey_is_killed_when_the_grace_of_the_group_is_over() {
    runtime().block_on(async {
        let (_folder, file) = scratch();
        let path = file.to_str().unwrap();
        let member = ["spawn", "3", "obey-late", "1000000", path];
        let command = impatient(child(&[&member[..], &["wait-for-file", path, "wait-for-ever"]].concat()));
        let report = start(command).unwrap().supervise(None, written(&file)).await;
        assert_eq!(report.outcome, Outcome::Cancelled { exit_code: None });
        assert!(!std::path::Path::new(&format!("{path}.obeyed")).exists());
        gone(pid_in(&file).await).await;
    });
}

#[test]
fn a_daemon_that_holds_the_pipes_is_reported_and_does_not_hang_the_run() {
    runtime().block_on(async {
        let (_folder, file) = scratch();
        let path = file.to_str().unwrap();
        let daemon = ["spawn", "4", "new-session", "write-pid", path, "wait-for-ever"];
        let mut command = child(&[&daemon[..], &["wait-for-file", path]].concat());
        command.ending.drain = Duration::from_millis(50);
        let report = start(command).unwrap().supervise(None, pending()).await;
        let daemon = pid_in(&file).await;
        assert_eq!(report.outcome, Outcome::Exited(0));
        let name = std::fs::read_to_string(format!("/proc/{daemon}/comm")).unwrap();
        assert!(report.pipes_held_open, "{report:?}");
        assert_eq!(report.pipe_holders, [format!("{} ({daemon})", name.trim())]);
        let daemon = attune_sys::Pid::new(daemon).unwrap();
        attune_sys::kill(daemon, attune_process::SIGKILL).unwrap();
    });
}

#[test]
fn a_child_that_closes_its_output_goes_on_until_its_end() {
    runtime().block_on(async {
        let report = start(child(&["close-stdout", "nap-ms", "50", "eprint", "still here", "exit", "4"]))
            .unwrap()
            .supervise(None, pending())
            .await;
        assert_eq!(report.outcome, Outcome::Exited(4));
        assert_eq!(report.stderr.bytes, b"still here\n");
    });
}

#[test]
fn a_child_that_never_stops_writing_is_ended_in_time() {
    runtime().block_on(async {
        let mut command = impatient(child(&["ignore-term", "fill-for-ever"]));
        command.stdout = Stream::keep(Keep::Tail { limit_bytes: 10 });
        let report = start(command).unwrap().supervise(SOON, pending()).await;
        assert!(matches!(report.outcome, Outcome::TimedOut { .. }), "{report:?}");
        assert_eq!(report.stdout.bytes, b"xxxxxxxxxx");
    });
}

#[test]
fn a_dropped_future_leaves_no_process_and_no_zombie() {
    runtime().block_on(async {
        let (_folder, file) = scratch();
        let path = file.to_str().unwrap();
        let child = start(child(&["ignore-term", "write-pid", path, "wait-for-ever"])).unwrap();
        let pid = child.pid();
        tokio::select! {
            report = child.supervise(None, pending()) => panic!("{report:?}"),
            written = pid_in(&file) => assert_eq!(written, pid),
        }
        eventually("the child to be reaped", async || state(pid).is_none().then_some(())).await;
    });
}

#[test]
fn a_child_that_is_never_supervised_dies_with_its_handle() {
    let runtime = runtime();
    let pid = {
        let _inside = runtime.enter();
        let child = start(child(&["wait-for-ever"])).unwrap();
        assert!(is_alive(child.pid()));
        child.pid()
    };
    drop(runtime);
    attune_testkit::eventually_blocking("the child to be reaped", || state(pid).is_none().then_some(()));
}

#[test]
fn no_child_is_a_zombie_after_its_report() {
    runtime().block_on(async {
        let report = start(child(&["exit", "0"])).unwrap().supervise(None, pending()).await;
        assert_eq!(state(report.pid), None);
    });
}

/// The race between the end of a child and a signal to it, both ways round.
#[test]
fn a_child_that_ends_while_it_is_signalled_is_reported_as_one_or_the_other() {
    runtime().block_on(async {
        for _ in 0..100 {
            let child = start(child(&["exit", "6"])).unwrap();
            let report = child.supervise(Some(Duration::from_millis(1)), pending()).await;
            let is_right =
                matches!(report.outcome, Outcome::Exited(6) | Outcome::TimedOut { last: None | Some(6), .. });
            assert!(is_right, "{report:?}");
        }
    });
}
