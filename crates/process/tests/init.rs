//! Process 1, played by the helper child: in a PID namespace where that is allowed, as a subreaper everywhere.
#![expect(clippy::unwrap_used, reason = "tests")]

mod support;

use std::future::pending;
use std::os::unix::fs::PermissionsExt as _;
use std::time::Duration;

use attune_process::{Command, Outcome, Report, start};
use attune_testkit::eventually;
use support::{TEST_CHILD, child, ended, pid_in, runtime, scratch};

/// The helper child under an init of its own. It adopts no orphans, so that all of them come to the init.
fn under_init(steps: &[&str]) -> Command {
    child(&[&["init", "unblock-signals"], steps].concat())
}

/// The same in a PID namespace of its own, where the init is process 1; none where namespaces are not allowed.
fn in_namespace(steps: &[&str]) -> Option<Command> {
    let unshare = ["/usr/bin/unshare", "/bin/unshare"];
    let unshare = unshare.into_iter().find(|path| std::path::Path::new(path).exists())?;
    let enter = |steps: &[&str]| {
        let mut command = child(&[]);
        command.program = unshare.into();
        let flags = ["--pid", "--fork", "--mount-proc", "--kill-child", TEST_CHILD];
        command.args = flags.iter().chain(steps).map(Into::into).collect();
        command
    };
    let is_allowed = ended(enter(&["exit", "0"])).outcome == Outcome::Exited(0);
    is_allowed.then(|| enter(&[&["init", "unblock-signals"], steps].concat()))
}

fn both(steps: &[&str], check: impl Fn(Report)) {
    check(ended(under_init(steps)));
    match in_namespace(steps) {
        Some(command) => check(ended(command)),
        None => attune_testkit::lacking("namespaces", "run as root with util-linux (scripts/setup) and CAP_SYS_ADMIN"),
    }
}

#[test]
fn the_code_of_the_agent_is_the_code_of_the_init() {
    both(&["print", "agent", "exit", "9"], |report| {
        assert_eq!(report.stdout.bytes, b"agent\n");
        assert_eq!(report.outcome, Outcome::Exited(9));
    });
}

#[test]
fn an_init_that_was_started_with_sigchld_ignored_sees_the_end_of_the_agent() {
    let mut command = under_init(&["exit", "3"]);
    let program = std::mem::replace(&mut command.program, "/usr/bin/env".into());
    command.args.splice(0..0, ["--ignore-signal=CHLD".into(), program.into()]);
    assert_eq!(ended(command).outcome, Outcome::Exited(3));
}

#[test]
fn an_agent_that_crashes_gives_128_and_the_signal() {
    both(&["raise", "9"], |report| {
        assert_eq!(report.outcome, Outcome::Exited(128 + 9));
    });
}

#[test]
fn the_agent_has_no_signal_blocked() {
    both(&["print-file", "/proc/self/status"], |report| {
        let text = String::from_utf8(report.stdout.bytes).unwrap();
        assert!(text.contains("SigBlk:\t0000000000000000"), "{text}");
    });
}

#[test]
fn a_signal_to_the_init_reaches_the_agent() {
    runtime().block_on(async {
        let (_folder, file) = scratch();
        let mut command = under_init(&["write-pid", file.to_str().unwrap(), "wait-for-ever"]);
        // Only a forwarded signal can end this before the test gives up.
        command.ending.grace = Duration::from_secs(1000);
        let init = start(command).unwrap();
        let pid = attune_sys::Pid::new(init.pid()).unwrap();
        let signalled = async {
            pid_in(&file).await;
            attune_sys::kill(pid, attune_process::SIGTERM).unwrap();
            pending::<()>().await;
        };
        let report = init.supervise(None, signalled).await;
        assert_eq!(report.outcome, Outcome::Exited(128 + 15));
    });
}

#[test]
fn orphans_leave_no_zombie_and_the_statuses_of_the_agents_children_are_its_own() {
    both(&["orphans-and-children", "1000"], |report| {
        let text = String::from_utf8_lossy(&report.stdout.bytes);
        assert_eq!(report.outcome, Outcome::Exited(0), "{text} {report:?}");
        assert_eq!(text, "no zombie\n");
    });
}

#[test]
fn the_environment_of_the_init_is_hidden_from_processes_of_the_same_user() {
    // A folder that every user can reach.
    let folder = tempfile::tempdir().unwrap();
    std::fs::set_permissions(folder.path(), std::fs::Permissions::from_mode(0o755)).unwrap();
    let program = folder.path().join("child");
    std::fs::copy(TEST_CHILD, &program).unwrap();
    std::fs::set_permissions(&program, std::fs::Permissions::from_mode(0o755)).unwrap();
    let mut command = under_init(&["print-environment-of-parent"]);
    command.program = program;
    command.env = vec![("SECRET".into(), "hush".into())];
    // Root may read it where it has the privilege to trace; so root is another user here.
    command.policy = support::is_root().then(|| support::as_user(12_345));
    let report = ended(command);
    let text = String::from_utf8_lossy(&report.stdout.bytes);
    assert_eq!(report.outcome, Outcome::Exited(0), "{report:?}");
    assert!(text.starts_with("refused: ") && !text.contains("hush"), "{text}");
}

/// Whatever the agent is going to be: the first process waits in a few pages of its own.
#[test]
fn the_init_needs_less_than_a_mebibyte_of_its_own() {
    if !support::is_root() {
        attune_testkit::lacking("root", "run the tests as root");
        return;
    }
    runtime().block_on(async {
        let (_folder, file) = scratch();
        let init = start(under_init(&["write-pid", file.to_str().unwrap(), "wait-for-ever"])).unwrap();
        let pid = init.pid();
        let looked = async {
            pid_in(&file).await;
            let kibibytes = support::own_kibibytes(pid);
            assert!(kibibytes > 0 && kibibytes < 1024, "{kibibytes} KiB");
        };
        init.supervise(None, looked).await;
    });
}

#[test]
fn the_environment_of_the_init_is_empty_once_the_agent_has_it() {
    if !support::is_root() {
        attune_testkit::lacking("root", "run the tests as root");
        return;
    }
    runtime().block_on(async {
        let (_folder, file) = scratch();
        let mut command = under_init(&["print-env", "write-pid", file.to_str().unwrap(), "wait-for-ever"]);
        command.env = vec![("SECRET".into(), "hush-hush".into()), ("OTHER".into(), "thing".into())];
        let init = start(command).unwrap();
        let pid = init.pid();
        let looked = async {
            pid_in(&file).await;
            // Root may read it in spite of everything; the agent may be there before its init goes on.
            eventually("an empty environment", async || {
                let text = String::from_utf8(std::fs::read(format!("/proc/{pid}/environ")).unwrap()).unwrap();
                (text.contains("SECRET=\0") && !text.contains("hush") && !text.contains("thing")).then_some(())
            })
            .await;
        };
        let report = init.supervise(None, looked).await;
        assert_eq!(report.stdout.bytes, b"OTHER=thing\nSECRET=hush-hush\n");
    });
}
