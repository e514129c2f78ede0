//! What a child sets up in itself, seen from inside and from outside.
#![expect(clippy::unwrap_used, reason = "tests")]

mod support;

use std::future::pending;
use std::os::unix::fs::PermissionsExt as _;

use attune_process::{Command, Launcher, Limits, Outcome, Policy, Session, StartError, User, refused, start};
use attune_testkit::eventually;
use support::{as_user, child, ended, launcher, pid_in, reachable, runtime, scratch, state};

/// By the launcher.
fn with(policy: Policy, mut command: Command) -> Command {
    command.policy = Some(Policy { launcher: launcher(), ..policy });
    command
}

const PRINT_STATUS: &str = "while read -r line; do echo \"$line\"; done < /proc/self/status";

fn shell(script: &str) -> Command {
    let mut command = Command::new("/bin/sh");
    command.args = vec!["-c".into(), script.into()];
    command.stdout = child(&[]).stdout;
    command
}

/// One line of /proc/self/status of a child.
fn status(mut command: Command, name: &str) -> String {
    command.args = vec!["print-file".into(), "/proc/self/status".into()];
    let report = ended(command);
    let text = String::from_utf8(report.stdout.bytes).unwrap();
    let line = text.lines().find(|line| line.starts_with(name));
    line.unwrap().split_once(':').unwrap().1.trim().to_owned()
}

/// What a child has to be whether it sets itself up or the launcher does: each of these tests is made for both.
macro_rules! in_both_ways {
    ($($(#[$attribute:meta])* fn $name:ident() $body:block)*) => {
        mod by_the_child {
            use super::*;

            fn with(policy: Policy, mut command: Command) -> Command {
                command.policy = Some(policy);
                command
            }

            $($(#[$attribute])* fn $name() $body)*
        }

        mod by_the_launcher {
            use super::*;

            $($(#[$attribute])* fn $name() $body)*
        }
    };
}

in_both_ways! {
    #[test]
    fn a_child_with_a_policy_is_the_program_with_its_arguments_input_and_exit_code() {
        let mut command = with(Policy::default(), child(&["print", "a b", "eprint", "err", "read-all", "exit", "7"]));
        command.stdin = attune_process::Input::Bytes(vec![b'x'; 1_000_000]);
        let report = ended(command);
        assert_eq!(report.outcome, Outcome::Exited(7));
        assert_eq!(report.stdout.bytes, b"a b\nread 1000000\n");
        assert_eq!(report.stderr.bytes, b"err\n");
        assert_eq!(report.notes, Vec::<String>::new());
    }

    #[test]
    fn the_environment_is_not_touched() {
        let mut command = with(Policy::default(), child(&["print-env"]));
        command.env = vec![("ONLY".into(), "this".into())];
        assert_eq!(ended(command).stdout.bytes, b"ONLY=this\n");
    }

    #[test]
    fn limits_are_those_of_the_policy_and_no_core_is_written() {
        let limits =
            Limits { memory_bytes: Some(3_000_000_000), cpu_seconds: Some(77), open_files: Some(55), ..Limits::default() };
        let policy = Policy { limits, ..Policy::default() };
        let report = ended(with(policy, child(&["print-file", "/proc/self/limits"])));
        let text = String::from_utf8(report.stdout.bytes).unwrap();
        for (name, value) in [
            ("Max address space", "3000000000"),
            ("Max cpu time", "77"),
            ("Max open files", "55"),
            ("Max core file size", "0"),
        ] {
            let line = text.lines().find(|line| line.starts_with(name)).unwrap();
            let values: Vec<&str> = line[name.len()..].split_whitespace().collect();
            assert_eq!(values[..2], [value, value], "{line}");
        }
        assert_eq!(report.notes, Vec::<String>::new());
    }

    #[test]
    fn mask_niceness_and_privileges_are_those_of_the_policy() {
        let umask = Policy { umask: Some(0o27), ..Policy::default() };
        assert_eq!(status(with(umask, child(&[])), "Umask"), "0027");
        let confined = Policy { no_new_privileges: true, ..Policy::default() };
        assert_eq!(status(with(confined, child(&[])), "NoNewPrivs"), "1");
        let nice = Policy { nice: Some(19), ..Policy::default() };
        let report = ended(with(nice, child(&["print-file", "/proc/self/stat"])));
        let stat = String::from_utf8(report.stdout.bytes).unwrap();
        let after_name = stat.rsplit_once(") ").unwrap().1;
        assert_eq!(after_name.split(' ').nth(16), Some("19"), "{stat}");
    }

    #[test]
    fn a_new_session_is_led_by_the_child_and_still_ends_as_a_group() {
        runtime().block_on(async {
            let (_folder, file) = scratch();
            let path = file.to_str().unwrap();
            let left = ["spawn", "4", "ignore-term", "write-pid", path, "wait-for-ever"];
            let steps = [&left[..], &["wait-for-file", path, "print-file", "/proc/self/stat"]].concat();
            let policy = Policy { session: Session::New, ..Policy::default() };
            let child = start(with(policy, child(&steps))).unwrap();
            let report = child.supervise(None, pending()).await;
            let stat = String::from_utf8(report.stdout.bytes).unwrap();
            let fields: Vec<&str> = stat.rsplit_once(") ").unwrap().1.split(' ').collect();
            let pid = report.pid.to_string();
            assert_eq!((fields[2], fields[3]), (&*pid, &*pid), "group and session: {stat}");
            assert_eq!(report.notes, Vec::<String>::new());
            support::gone(pid_in(&file).await).await;
        });
    }

    #[test]
    fn signals_have_their_defaults_and_only_the_standard_descriptors_are_open() {
        // Not the helper child: its standard library ignores SIGPIPE.
        let report = ended(with(Policy::default(), shell(PRINT_STATUS)));
        let text = String::from_utf8(report.stdout.bytes).unwrap();
        for name in ["SigIgn:", "SigBlk:"] {
            let line = text.lines().find_map(|line| line.strip_prefix(name));
            let signals = u64::from_str_radix(line.unwrap().trim(), 16).unwrap();
            // 32 to 34 belong to the C libraries, which let nobody else touch them.
            assert_eq!(signals & !(0b111 << 31), 0, "{text}");
        }
        let report = ended(with(Policy::default(), child(&["print-descriptors"])));
        let text = String::from_utf8(report.stdout.bytes).unwrap();
        // The fourth one is the folder that is being listed.
        assert_eq!(text.lines().count(), 4, "{text}");
    }

    #[test]
    fn a_memory_limit_that_no_program_fits_into_is_an_error_and_no_crash() {
        let limited = |bytes, command| {
            let limits = Limits { memory_bytes: Some(bytes), ..Limits::default() };
            ended(with(Policy { limits, ..Policy::default() }, command))
        };
        // More arguments than fit into one page: the kernel would say that these are too long.
        let mut command = shell("exit");
        command.args.push("x".repeat(100_000).into());
        for report in [limited(1, shell("exit")), limited(200_000, command)] {
            let Outcome::NotStarted(error) = &report.outcome else { panic!("{report:?}") };
            assert!(matches!(**error, StartError::NoMemory { .. }), "{error:?}");
            assert_eq!(report.notes, Vec::<String>::new());
        }
        // The stack fits and the program does not, which the kernel finds out when there is no way back.
        let report = limited(300_000, shell("exit"));
        assert!(matches!(report.outcome, Outcome::Signalled { .. }), "{report:?}");
        assert!(report.notes.iter().any(|note| note.contains("memory limit of 300000 bytes")), "{report:?}");
    }

    #[test]
    fn a_program_that_uses_up_its_cpu_time_is_killed_and_the_limit_is_named() {
        let limits = Limits { cpu_seconds: Some(1), ..Limits::default() };
        let report = ended(with(Policy { limits, ..Policy::default() }, shell("while :; do :; done")));
        let signal = attune_process::SIGKILL;
        assert_eq!(report.outcome, Outcome::Signalled { signal, core_dumped: false });
        assert_eq!(report.notes, ["it may have used up its limit of 1 s of CPU time"], "{:?}", report.usage);
    }

    #[test]
    fn a_part_that_is_refused_is_reported_and_the_program_runs_all_the_same() {
        // More than the kernel lets anybody have.
        let limits = Limits { open_files: Some(u64::MAX), ..Limits::default() };
        let report = ended(with(Policy { limits, ..Policy::default() }, child(&["eprint", "hello", "exit", "3"])));
        assert_eq!(report.outcome, Outcome::Exited(3));
        assert_eq!(report.stderr.bytes, b"hello\n");
        assert_eq!(report.notes.len(), 1);
        assert!(report.notes[0].starts_with("the limit of open files was not set"), "{:?}", report.notes);
    }

    #[test]
    fn a_program_that_cannot_start_is_the_same_error_with_a_policy() {
        let refused = |program: &str| {
            let command = with(Policy::default(), Command::new(program));
            runtime().block_on(async { start(command).unwrap_err() })
        };
        assert!(matches!(refused("/does/not/exist"), StartError::NotFound { .. }));
        assert!(matches!(refused("/proc/self/status"), StartError::NotExecutable { .. }));
        let mut command = with(Policy::default(), child(&[]));
        command.cwd = Some("/no/folder".into());
        let error = runtime().block_on(async { start(command).unwrap_err() });
        assert!(matches!(error, StartError::WorkingDirectory { .. }), "{error:?}");
    }
}

#[test]
fn the_oom_score_is_that_of_the_policy() {
    let doomed = Policy { oom_score_adj: Some(900), ..Policy::default() };
    let report = ended(with(doomed, child(&["print-file", "/proc/self/oom_score_adj"])));
    assert_eq!(report.stdout.bytes, b"900\n");
}

/// An agent whose memory nobody may look at, and who is not root: the kernel keeps the file of the score from such a process.
#[test]
fn an_agent_that_hides_its_memory_has_children_with_the_policy_all_the_same() {
    if !support::is_root() {
        attune_testkit::lacking("root", "run the tests as root");
        return;
    }
    let (_folder, agent) = reachable();
    let mut command = child(&["prepare", "run-doomed", "3", "print-file", "/proc/self/oom_score_adj"]);
    command.program = agent;
    command.policy = Some(as_user(12_346));
    let report = ended(command);
    assert_eq!(String::from_utf8(report.stdout.bytes).unwrap(), "900\n[]\n", "{:?}", report.stderr);
}

#[test]
fn a_launcher_that_is_not_there_is_an_error_that_names_it() {
    let mut command = with(Policy::default(), child(&[]));
    command.policy.as_mut().unwrap().launcher.program = "/no/launcher".into();
    let error = runtime().block_on(async { start(command).unwrap_err() });
    assert!(matches!(error, StartError::Launcher { .. }), "{error:?}");
}

#[test]
fn another_user_is_taken_on_or_the_child_does_not_run() {
    let policy = Policy { user: Some(User { uid: 12_345, gid: 23_456, groups: vec![34_567] }), ..Policy::default() };
    // Not the helper child: that user may not reach its folder.
    let report = ended(with(policy, shell(PRINT_STATUS)));
    let text = String::from_utf8(report.stdout.bytes).unwrap();
    if !support::is_root() {
        attune_testkit::lacking("root", "run the tests as root");
        let Outcome::NotStarted(error) = &report.outcome else { panic!("{:?}", report.outcome) };
        assert!(error.to_string().contains("become user 12345"), "{error:?}");
        assert_eq!(text, "");
        return;
    }
    assert_eq!(report.outcome, Outcome::Exited(0), "{text} {:?}", report.notes);
    for line in ["Uid: 12345 12345 12345 12345", "Gid: 23456 23456 23456 23456", "Groups: 34567"] {
        let found = text.lines().any(|found| found.split_whitespace().eq(line.split(' ')));
        assert!(found, "{line} in {text}");
    }
}

#[test]
fn a_loop_that_starts_processes_ends_at_the_limit() {
    if !support::is_root() {
        attune_testkit::lacking("root", "run the tests as root");
        return;
    }
    let (_folder, program) = reachable();
    let mut command = child(&["spawn", "1", "wait-for-ever", "print", "one"].repeat(9));
    command.program = program;
    // The kernel counts those of the user, all together, and lets root have as many as it likes. Nobody else is this one.
    let user = Some(User { uid: 54_322, gid: 54_322, groups: Vec::new() });
    let limits = Limits { processes: Some(4), ..Limits::default() };
    let report = ended(with(Policy { user, limits, ..Policy::default() }, command));
    assert_eq!(report.outcome, Outcome::Exited(99));
    let said = String::from_utf8(report.stderr.bytes).unwrap();
    assert!(said.contains("Resource temporarily unavailable"), "{said}");
    assert_eq!(String::from_utf8(report.stdout.bytes).unwrap(), "one\n".repeat(3), "and the loop itself");
}

#[test]
fn what_is_refused_is_known_before_the_first_program() {
    let tried = |policy| runtime().block_on(refused(&Policy { launcher: launcher(), ..policy }));
    assert_eq!(tried(Policy { dies_with_agent: true, ..Policy::default() }).unwrap(), Vec::<String>::new());
    let notes = tried(Policy { oom_score_adj: Some(5000), ..Policy::default() }).unwrap();
    assert!(notes[0].starts_with("the OOM score was not set"), "{notes:?}");
    let nowhere = Launcher { program: "/no/such/agent".into(), args: Vec::new() };
    let error = runtime().block_on(refused(&Policy { launcher: nowhere, ..Policy::default() })).unwrap_err();
    assert!(matches!(&*error, StartError::NotFound { .. }), "{error:?}");
}

/// The agent is root's alone, and its actions run as somebody else: that is in order.
#[test]
fn a_user_who_may_not_read_the_agent_is_no_reason_to_refuse() {
    if !support::is_root() {
        attune_testkit::lacking("root", "run the tests as root");
        return;
    }
    let (_folder, agent) = reachable();
    std::fs::set_permissions(&agent, std::fs::Permissions::from_mode(0o700)).unwrap();
    let policy = Policy { launcher: Launcher { program: agent, ..launcher() }, ..as_user(12_345) };
    assert_eq!(runtime().block_on(refused(&policy)).unwrap(), Vec::<String>::new());
    let report = ended(Command { policy: Some(policy), ..shell("exit 3") });
    assert_eq!(report.outcome, Outcome::Exited(3), "{report:?}");
}

/// Containers that drop all capabilities and give back those to change users have agents that cannot end their children.
#[test]
fn an_agent_that_may_not_signal_the_user_of_its_children_says_so() {
    if !support::is_root() {
        attune_testkit::lacking("root", "run the tests as root");
        return;
    }
    let (_folder, agent) = reachable();
    let mut command = child(&["prepare", "run-as", "4", "12345", "ended", "exit", "3"]);
    let confined = ["--bounding-set=-kill".into(), agent.into()];
    command.args.splice(0..0, confined);
    command.program = "/usr/bin/setpriv".into();
    let report = ended(command);
    let text = String::from_utf8_lossy(&report.stdout.bytes).into_owned();
    assert!(
        text.contains("\nExited(3) [\"the agent may not signal") && text.contains("capability KILL"),
        "{text} {report:?}"
    );
}

/// The agent of this test is a copy of the helper child, which removes its own file and then starts children by way of it.
#[test]
fn children_are_set_up_also_when_the_file_of_the_agent_was_removed_or_replaced() {
    let (_folder, agent) = reachable();
    let mut command = child(&["run-without-own-file", "2", "print", "set up"]);
    command.program = agent.clone();
    let report = ended(command);
    assert_eq!(String::from_utf8(report.stdout.bytes).unwrap(), "set up\nset up\n", "{:?}", report.stderr);
    assert_eq!(std::fs::read(agent).unwrap(), b"#!/bin/false\n");
}

/// The agent of this test is the helper child, which starts a child of its own and is then killed.
#[test]
fn a_child_dies_with_an_agent_that_is_killed_and_not_with_the_thread_that_started_it() {
    runtime().block_on(async {
        let (_folder, file) = scratch();
        let path = file.to_str().unwrap();
        let agent = start(child(&["supervise-doomed", "3", "write-pid", path, "wait-for-ever"])).unwrap();
        let killed = async {
            let grandchild = pid_in(&file).await;
            // A signal from the thread that started it would have come by now: it has ended.
            let told = format!("/proc/{grandchild}/status");
            assert!(std::fs::read_to_string(told).unwrap().contains("State:\tS"));
            attune_sys::kill(attune_sys::Pid::new(agent_pid(&file).await).unwrap(), attune_process::SIGKILL).unwrap();
            eventually("the grandchild to die", async || (!matches!(state(grandchild), Some('R' | 'S'))).then_some(()))
                .await;
            // Nothing else ends this supervision early.
            pending::<()>().await;
        };
        let report = agent.supervise(None, killed).await;
        let signal = attune_process::SIGKILL;
        assert!(matches!(report.outcome, Outcome::Signalled { signal: s, .. } if s == signal), "{report:?}");
        support::gone(pid_in(&file).await).await;
    });
}

async fn agent_pid(file: &std::path::Path) -> u32 {
    let grandchild = pid_in(file).await;
    let stat = std::fs::read_to_string(format!("/proc/{grandchild}/stat")).unwrap();
    let parent = stat.rsplit_once(") ").unwrap().1.split(' ').nth(1).unwrap();
    parent.parse().unwrap()
}
