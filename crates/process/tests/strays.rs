//! Descendants that leave their group. The agent is played by the helper child, because adopting strays concerns a whole
//! process.
#![expect(clippy::unwrap_used, reason = "tests")]

mod support;

use std::future::pending;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use attune_process::{Command, Outcome, TREE_VARIABLE, start};
use support::{child, ended, gone, has_control_groups, is_alive, pid_in, reachable, runtime, scratch};

/// An agent that runs one child with these steps, and prints what it found.
fn agent(how: &str, steps: &[&str]) -> Command {
    let count = steps.len().to_string();
    child(&[&["prepare", how, &count], steps].concat())
}

/// Starts a daemon in a session of its own that writes its id to `path`, and waits for that.
fn daemon(path: &str) -> [&str; 9] {
    ["spawn", "5", "new-session", "ignore-term", "write-pid", path, "wait-for-ever", "wait-for-file", path]
}

/// An agent whose child starts a daemon, which starts one too; they write their ids to `outer` and `inner`.
fn with_daemon_of_daemon(how: &str, outer: &str, inner: &str) -> Command {
    let of_outer = [&["new-session", "write-pid", outer], &daemon(inner)[..], &["wait-for-ever"]].concat();
    let count = of_outer.len().to_string();
    agent(how, &[&["spawn", &count], &of_outer[..], &["wait-for-file", inner]].concat())
}

#[test]
fn a_daemon_ends_with_the_run_that_left_it_and_the_run_says_so() {
    let (_folder, file) = scratch();
    let report = ended(agent("run", &daemon(file.to_str().unwrap())));
    assert_eq!(report.outcome, Outcome::Exited(0), "{report:?}");
    assert_eq!(report.stdout.bytes, b"strays 1 held false children 0\n");
    runtime().block_on(async { gone(pid_in(&file).await).await });
}

#[test]
fn the_members_of_a_group_have_the_rest_of_the_grace_where_strays_are_adopted() {
    let (_folder, file) = scratch();
    let path = file.to_str().unwrap();
    let steps = ["spawn", "3", "obey-late", "100", path, "wait-for-file", path, "wait-for-ever"];
    let report = ended(agent("run-and-stop", &steps));
    assert_eq!(report.stdout.bytes, b"strays 0 held false children 0\n", "{report:?}");
    assert!(Path::new(&format!("{path}.obeyed")).exists(), "it was killed before it had done what it had to");
}

#[test]
fn a_daemon_of_a_deliberate_starter_lives_on() {
    let (_folder, file) = scratch();
    let report = ended(agent("run-leaving-strays", &daemon(file.to_str().unwrap())));
    assert_eq!(report.outcome, Outcome::Exited(0), "{report:?}");
    assert_eq!(report.stdout.bytes, b"strays 0 held true children 1\n");
    runtime().block_on(async {
        let daemon = pid_in(&file).await;
        assert!(is_alive(daemon));
        attune_sys::kill(attune_sys::Pid::new(daemon).unwrap(), attune_process::SIGKILL).unwrap();
    });
}

#[test]
fn a_daemon_that_was_left_alone_lives_on_after_later_runs_also_without_a_mark() {
    let (_folder, file) = scratch();
    let path = file.to_str().unwrap();
    let hidden = ["spawn-without-env", "4", "new-session", "write-pid", path, "wait-for-ever", "wait-for-file", path];
    let count = hidden.len().to_string();
    let first = [&["prepare", "run-leaving-strays", &count], &hidden[..]].concat();
    let report = ended(child(&[&first[..], &["run", "2", "print", "hi"]].concat()));
    let text = String::from_utf8_lossy(&report.stdout.bytes).into_owned();
    assert_eq!(text.matches("strays 0").count(), 2, "{text} {report:?}");
    runtime().block_on(async {
        let daemon = pid_in(&file).await;
        assert!(is_alive(daemon));
        attune_sys::kill(attune_sys::Pid::new(daemon).unwrap(), attune_process::SIGKILL).unwrap();
    });
}

/// A shell that runs `script`, with the agent as `$0` and `file` as `$1`.
fn begun_by_a_shell(script: &str, file: &Path) -> Command {
    let mut command = child(&[]);
    command.program = "/bin/sh".into();
    command.args = ["-c", script, support::TEST_CHILD, file.to_str().unwrap()].map(Into::into).to_vec();
    command
}

#[test]
fn what_was_started_before_the_agent_in_its_process_is_none_of_its_strays() {
    let (_folder, file) = scratch();
    let script = "sleep 1000 & echo $! > \"$1\"; exec \"$0\" prepare run 2 print hi";
    let report = ended(begun_by_a_shell(script, &file));
    assert!(report.stdout.bytes.starts_with(b"strays 0 "), "{report:?}");
    // The run of this test has ended it with its group; what counts is that the agent below did not.
    assert_eq!(report.strays_ended, Vec::<String>::new());
}

/// At whatever moment of its life it is found.
#[test]
fn what_was_started_before_and_becomes_other_programs_all_the_time_is_no_stray_either() {
    let (_folder, file) = scratch();
    std::fs::write(&file, "exec /bin/sh \"$0\"\n").unwrap();
    let script = "for _ in 1 2 3 4; do /bin/sh \"$1\" & done; exec \"$0\" prepare run 2 print hi";
    for _ in 0..10 {
        let report = ended(begun_by_a_shell(script, &file));
        assert!(report.stdout.bytes.starts_with(b"strays 0 "), "{report:?}");
    }
}

#[test]
fn daemons_of_daemons_end_too() {
    let (folder, file) = scratch();
    let inner = folder.path().join("inner");
    let (outer, inner) = (file.to_str().unwrap(), inner.to_str().unwrap());
    let report = ended(with_daemon_of_daemon("run", outer, inner));
    assert_eq!(report.stdout.bytes, b"strays 2 held false children 0\n");
    runtime().block_on(async {
        gone(pid_in(outer.as_ref()).await).await;
        gone(pid_in(inner.as_ref()).await).await;
    });
}

#[test]
fn a_daemon_that_hides_its_origin_ends_when_no_other_run_is_left() {
    let (_folder, file) = scratch();
    let path = file.to_str().unwrap();
    let steps = [
        "spawn-without-env",
        "5",
        "new-session",
        "ignore-term",
        "write-pid",
        path,
        "wait-for-ever",
        "wait-for-file",
        path,
    ];
    let report = ended(agent("run", &steps));
    assert_eq!(report.stdout.bytes, b"strays 1 held false children 0\n");
    runtime().block_on(async { gone(pid_in(&file).await).await });
}

#[test]
fn a_run_does_not_end_the_daemon_of_another_one() {
    let (_folder, file) = scratch();
    let report = ended(agent("run-beside-another", &daemon(file.to_str().unwrap())));
    assert_eq!(report.outcome, Outcome::Exited(0), "{report:?}");
    assert_eq!(report.stdout.bytes, b"other done, daemon alive\nstrays 1 held false children 0\n");
}

#[test]
fn strays_that_end_by_themselves_leave_no_zombie() {
    let strays = ["spawn", "3", "new-session", "nap-ms", "30"].repeat(50);
    let report = ended(agent("run-and-wait", &strays));
    assert_eq!(report.stdout.bytes, b"children 0\n", "{report:?}");
}

#[test]
fn runs_beside_each_other_that_leave_daemons_do_not_disturb_each_other() {
    let report = ended(agent("run-many", &["spawn", "2", "new-session", "wait-for-ever"]));
    assert_eq!(report.stdout.bytes, b"children 0\n", "{report:?}");
}

#[test]
fn a_daemon_ends_with_a_run_that_is_dropped() {
    let (_folder, file) = scratch();
    let report = ended(agent("drop", &daemon(file.to_str().unwrap())));
    assert_eq!(report.stdout.bytes, b"children 0\n", "{report:?}");
    runtime().block_on(async { gone(pid_in(&file).await).await });
}

#[test]
fn daemons_of_daemons_end_also_with_a_run_that_is_dropped_while_they_are_looked_for() {
    let (folder, file) = scratch();
    let inner = folder.path().join("inner");
    let (outer, inner) = (file.to_str().unwrap(), inner.to_str().unwrap());
    let report = ended(with_daemon_of_daemon("drop-in-sweep", outer, inner));
    assert_eq!(report.stdout.bytes, b"children 0\n", "{report:?}");
    runtime().block_on(async { gone(pid_in(inner.as_ref()).await).await });
}

/// Programs may give themselves any mark.
#[test]
fn a_daemon_that_says_it_is_left_alone_ends_with_its_run() {
    let (_folder, file) = scratch();
    let path = file.to_str().unwrap();
    let script = r#"
        env ATTUNE_PROCESS_TREE="$ATTUNE_PROCESS_TREE.left-alone-0123456789abcdef" \
            setsid /bin/sh -c 'printf %s $$ > "$0"; exec sleep 1000' "$1" > /dev/null 2>&1 &
        while [ ! -s "$1" ]; do sleep 0.01; done
    "#;
    let report = ended(agent("run", &["become", "/bin/sh", "-c", script, "sh", path]));
    let text = String::from_utf8_lossy(&report.stdout.bytes).into_owned();
    assert!(text.starts_with("strays 1 held false"), "{text} {report:?}");
    assert!(!is_alive(runtime().block_on(pid_in(&file))));
}

#[test]
fn the_end_of_the_agent_ends_what_no_run_knows() {
    let (_folder, file) = scratch();
    let steps = ["write-pid", file.to_str().unwrap(), "wait-for-ever"];
    let report = ended(agent("end-unknown", &steps));
    assert_eq!(report.stdout.bytes, b"ended 1 children 0\n", "{report:?}");
    runtime().block_on(async { gone(pid_in(&file).await).await });
}

#[test]
fn an_agent_that_adopts_nobody_adds_nothing_to_the_environment() {
    let report = ended(child(&["print-env"]));
    assert_eq!(report.stdout.bytes, b"");
    let report = ended(agent("run-and-show", &["print-env"]));
    let text = String::from_utf8(report.stdout.bytes).unwrap();
    assert!(text.starts_with(TREE_VARIABLE), "{text}");
}

#[test]
fn a_daemon_of_a_double_fork_ends_with_its_run() {
    let (_folder, file) = scratch();
    let path = file.to_str().unwrap();
    // Its parent starts a session and ends at once, as daemon(3) has it.
    let daemon = ["spawn", "7", "new-session", "spawn", "4", "ignore-term", "write-pid", path, "wait-for-ever"];
    let report = ended(agent("run", &[&daemon[..], &["wait-for-file", path]].concat()));
    let text = String::from_utf8(report.stdout.bytes).unwrap();
    // The parent may be slower than its daemon, and is then one more.
    let ended = ["strays 1 held false children 0\n", "strays 2 held false children 0\n"];
    assert!(ended.contains(&&*text), "{text} {:?}", report.stderr);
    runtime().block_on(async { gone(pid_in(&file).await).await });
}

#[test]
fn a_bomb_of_processes_that_leave_their_group_is_cleared_away() {
    let folder = tempfile::tempdir().unwrap();
    let bomb = ["spawn", "3", "bomb", "5", folder.path().to_str().unwrap(), "nap-ms", "40"];
    let report = ended(agent("run", &bomb));
    let text = String::from_utf8(report.stdout.bytes).unwrap();
    assert!(text.ends_with(" held false children 0\n"), "{text} {:?}", report.stderr);
    runtime().block_on(async {
        for entry in std::fs::read_dir(folder.path()).unwrap() {
            if let Ok(pid) = entry.unwrap().file_name().to_str().unwrap().parse() {
                gone(pid).await;
            }
        }
    });
}

/// At any moment one of them is just ending by itself, and the next one is not yet a child of the agent.
#[test]
fn a_relay_of_processes_that_end_by_themselves_is_stopped() {
    for nap in ["0", "1", "2", "3", "5", "8", "13", "21"] {
        let report = ended(agent("run", &["spawn", "2", "relay", "100000", "nap-ms", nap]));
        let text = String::from_utf8(report.stdout.bytes).unwrap();
        assert!(text.ends_with(" held false children 0\n"), "{text} {:?}", report.stderr);
    }
}

/// Each comes to the agent when the one before it is killed; what is left when such a run ends is not of that run.
#[test]
fn daemons_of_daemons_end_also_while_runs_end_that_may_leave_something() {
    let folder = tempfile::tempdir().unwrap();
    let place = |level: u32| folder.path().join(level.to_string()).to_str().unwrap().to_owned();
    let words = |words: &[&str]| words.iter().map(|word| (*word).to_owned()).collect::<Vec<_>>();
    let mut chain = Vec::new();
    for level in 0..10 {
        let daemon = [words(&["new-session", "write-pid", &place(level)]), chain, words(&["wait-for-ever"])].concat();
        chain = [words(&["spawn", &daemon.len().to_string()]), daemon].concat();
    }
    // The innermost one is the last to be there.
    chain.extend(words(&["wait-for-file", &place(0)]));
    let report = ended(agent("run-beside-starters", &chain.iter().map(String::as_str).collect::<Vec<_>>()));
    let text = String::from_utf8(report.stdout.bytes).unwrap();
    assert_eq!(text, "strays 10 held false children 0\n", "{:?}", report.stderr);
}

/// In the middle of `exec` a process shows no mark, and one of a relay is there most of the time.
#[test]
fn a_relay_is_stopped_also_while_another_run_lives() {
    for nap in ["0", "1", "2", "3", "5", "8", "13", "21"].repeat(4) {
        let report = ended(agent("run-beside-a-quiet-one", &["spawn", "2", "relay", "100000", "nap-ms", nap]));
        let text = String::from_utf8(report.stdout.bytes).unwrap();
        assert!(text.ends_with("\nchildren 1\n"), "{text} {:?}", report.stderr);
    }
}

/// Needs a control group of its own for the run: nothing else ties such a process to it while another run lives.
#[test]
fn a_daemon_that_hides_its_origin_while_another_run_lives_ends_with_its_run() {
    if !has_control_groups() {
        return;
    }
    let (_folder, file) = scratch();
    let path = file.to_str().unwrap();
    let hidden = ["spawn-without-env", "5", "new-session", "ignore-term", "write-pid", path, "wait-for-ever"];
    let steps = [&hidden[..], &["wait-for-file", path]].concat();
    let report = ended(agent("run-hidden-beside-another", &steps));
    let text = String::from_utf8_lossy(&report.stdout.bytes).into_owned();
    // In between it is counted until it is reaped, which is another thread's work.
    assert!(text.starts_with("strays 1 held false ") && text.ends_with("\nchildren 0\n"), "{text} {report:?}");
    runtime().block_on(async { gone(pid_in(&file).await).await });
}

/// An agent that runs one child as another user and cannot trace others, without control groups, as in most containers; none
/// where this process may not play that.
fn agent_of_another_user(folder: &Path, agent: &Path, steps: &[&str]) -> Option<Command> {
    std::fs::set_permissions(folder, std::fs::Permissions::from_mode(0o777)).unwrap();
    let script = "umount --lazy --all --types cgroup2; exec setpriv --bounding-set=-sys_ptrace,-sys_admin,-perfmon \"$0\" \"$@\"";
    let enter = |steps: &[&str]| {
        let mut command = child(&[]);
        command.program = "/usr/bin/unshare".into();
        let agent = agent.to_str().unwrap();
        command.args = [&["--mount", "/bin/sh", "-c", script, agent], steps].concat().iter().map(Into::into).collect();
        command.env = vec![("PATH".into(), "/usr/sbin:/usr/bin:/sbin:/bin".into())];
        command
    };
    if support::is_root() && ended(enter(&["exit", "0"])).outcome == Outcome::Exited(0) {
        let count = (steps.len() + 2).to_string();
        return Some(enter(&[&["prepare", "run-as", &count, "12345"], steps].concat()));
    }
    attune_testkit::lacking("namespaces", "run as root with util-linux (scripts/setup) and CAP_SYS_ADMIN");
    None
}

/// Its marks are hidden from an agent that may not trace, though that is root.
#[test]
fn a_daemon_of_another_user_ends_with_its_run_while_another_run_lives() {
    let (folder, program) = reachable();
    let file = folder.path().join("pid");
    let steps = [&["ended"], &daemon(file.to_str().unwrap())[..]].concat();
    let Some(agent) = agent_of_another_user(folder.path(), &program, &steps) else { return };
    let report = ended(agent);
    let text = String::from_utf8_lossy(&report.stdout.bytes).into_owned();
    assert_eq!(text, "strays 1 holders 0\nExited(0) []\n", "{report:?}");
    runtime().block_on(async { gone(pid_in(&file).await).await });
}

#[test]
fn a_daemon_of_another_user_that_holds_the_output_open_is_named() {
    let (folder, program) = reachable();
    let file = folder.path().join("pid");
    let steps = [&["spared"], &daemon(file.to_str().unwrap())[..]].concat();
    let Some(agent) = agent_of_another_user(folder.path(), &program, &steps) else { return };
    let report = ended(agent);
    let text = String::from_utf8_lossy(&report.stdout.bytes).into_owned();
    assert_eq!(text, "strays 0 holders 1\nExited(0) []\n", "{report:?}");
    let daemon = runtime().block_on(pid_in(&file));
    attune_sys::kill(attune_sys::Pid::new(daemon).unwrap(), attune_process::SIGKILL).unwrap();
}

/// A control group ends whole, whatever its members have made below it.
#[test]
fn a_daemon_that_went_into_a_control_group_of_its_own_ends_with_its_run() {
    if !has_control_groups() {
        return;
    }
    let (_folder, file) = scratch();
    let script = r#"
        while read -r _ point kind _; do [ "$kind" != cgroup2 ] || root=$point; done < /proc/self/mounts
        while IFS=: read -r number _ path; do [ "$number" != 0 ] || own=$root$path; done < /proc/self/cgroup
        mkdir "$own/below"
        /usr/bin/setsid /usr/bin/env -i /bin/sh -c \
            'echo $$ > "$0/cgroup.procs"; printf %s $$ > "$1"; exec /bin/sleep 1000' "$own/below" "$1" > /dev/null 2>&1 &
        while [ ! -s "$1" ]; do /bin/sleep 0.01; done
    "#;
    let steps = ["become", "/bin/sh", "-c", script, "sh", file.to_str().unwrap()];
    let report = ended(agent("run-hidden-beside-another", &steps));
    let text = String::from_utf8_lossy(&report.stdout.bytes).into_owned();
    assert!(text.starts_with("strays 1 held false ") && text.ends_with("\nchildren 0\n"), "{text} {report:?}");
    assert!(!is_alive(runtime().block_on(pid_in(&file))));
}

#[test]
fn what_a_killed_agent_left_ends_with_the_next_start_and_nothing_of_a_living_one_does() {
    runtime().block_on(async {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
        let (killed, spared, kept) = (path("killed"), path("spared"), path("kept"));
        let leader = |file: &str| format!("{file}.leader");
        let run = |how: &str, file: &str| {
            let itself = leader(file);
            let steps = [&["write-pid", &itself], &daemon(file)[..], &["wait-for-ever"]].concat();
            start(agent(how, &steps)).unwrap()
        };
        let (doomed, generous, living) = (run("run", &killed), run("run-leaving-strays", &spared), run("run", &kept));
        let daemons = [pid_in(killed.as_ref()).await, pid_in(spared.as_ref()).await, pid_in(kept.as_ref()).await];
        for agent in [&doomed, &generous] {
            attune_sys::kill(attune_sys::Pid::new(agent.pid()).unwrap(), attune_process::SIGKILL).unwrap();
        }
        // Their daemons are what survives.
        let reports = [doomed.supervise(None, pending()).await, generous.supervise(None, pending()).await];
        assert!(reports.iter().all(|report| matches!(report.outcome, Outcome::Signalled { .. })), "{reports:?}");
        assert_eq!(daemons.map(is_alive), [true; 3]);
        let next = start(child(&["prepare", "end-remains"])).unwrap().supervise(None, pending()).await;
        assert_eq!(next.outcome, Outcome::Exited(0), "{next:?}");
        gone(daemons[0]).await;
        assert_eq!(daemons.map(is_alive), [false, true, true]);
        living.supervise(None, std::future::ready(())).await;
        // Nobody else ends them: neither the daemons, nor the children whose agents are gone.
        let leaders = [pid_in(leader(&spared).as_ref()).await, pid_in(leader(&kept).as_ref()).await];
        for pid in [daemons[1], daemons[2], leaders[0], leaders[1]] {
            attune_sys::kill(attune_sys::Pid::new(pid).unwrap(), attune_process::SIGKILL).unwrap();
        }
    });
}

/// Questions to programs have no policy, so they do not die with the agent that asks.
#[test]
fn a_question_that_a_killed_agent_asked_ends_with_the_next_start() {
    runtime().block_on(async {
        let (_folder, file) = scratch();
        let asking = start(agent("ask", &["write-pid", file.to_str().unwrap(), "wait-for-ever"])).unwrap();
        let question = pid_in(&file).await;
        attune_sys::kill(attune_sys::Pid::new(asking.pid()).unwrap(), attune_process::SIGKILL).unwrap();
        asking.supervise(None, pending()).await;
        // A group of its own keeps it from the end of the agent's.
        assert!(is_alive(question));
        let next = start(child(&["prepare", "end-remains"])).unwrap().supervise(None, pending()).await;
        assert_eq!(next.outcome, Outcome::Exited(0), "{next:?}");
        gone(question).await;
    });
}
