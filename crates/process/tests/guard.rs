//! The guardian: children end when their agent cannot end them, and nobody else does. The agent is played by the helper
//! child where it has to be stopped or killed.
#![expect(clippy::unwrap_used, reason = "tests")]

mod support;

use std::fs;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use attune_process::{Child, GUARD_APPLET, Guard, Launcher, Stream, boottime, start};
use attune_sys::{Pid, SIGKILL, SIGSTOP};
use attune_testkit::{eventually, eventually_blocking};
use support::{
    TEST_CHILD, as_user, child, gone, has_control_groups, is_alive, pid_in, reachable, runtime, scratch, written,
};

const LONG: Duration = Duration::from_hours(1);

/// A step that does nothing until it is killed, TERM or not.
fn stubborn(path: &str) -> [&str; 4] {
    ["ignore-term", "write-pid", path, "wait-for-ever"]
}

/// An agent with one child under guard that may live for `life`; started and has told its guardian. It adopts strays, so its
/// child is marked.
async fn agent(life: Duration, steps: &[&str]) -> Child {
    agent_that("guard-ms", life, steps).await
}

/// … in another way.
async fn agent_that(how: &str, life: Duration, steps: &[&str]) -> Child {
    let (_folder, guarded) = scratch();
    let (life, count) = (life.as_millis().to_string(), steps.len().to_string());
    let mut words = vec!["prepare", how, &life, guarded.to_str().unwrap(), &count];
    words.extend_from_slice(steps);
    let mut command = child(&words);
    command.stdout = Stream::null();
    let agent = start(command).unwrap();
    written(&guarded).await;
    agent
}

fn signal(pid: u32, signal: i32) {
    attune_sys::kill(Pid::new(pid).unwrap(), signal).unwrap();
}

fn guard() -> Arc<Guard> {
    Guard::start(Some(Launcher { program: TEST_CHILD.into(), args: vec![GUARD_APPLET.into()] })).unwrap()
}

/// The guardians among the children of this very test process.
fn guardians() -> Vec<u32> {
    guardians_of(std::process::id())
}

fn guardians_of(agent: u32) -> Vec<u32> {
    let children = fs::read_dir(format!("/proc/{agent}/task")).unwrap().flatten().flat_map(|thread| {
        let list = fs::read_to_string(thread.path().join("children")).unwrap_or_default();
        list.split_whitespace().map(|pid| pid.parse().unwrap()).collect::<Vec<u32>>()
    });
    let is_guardian = |pid: &u32| {
        let line = fs::read(Path::new("/proc").join(pid.to_string()).join("cmdline")).unwrap_or_default();
        line.windows(GUARD_APPLET.len()).any(|part| part == GUARD_APPLET.as_bytes())
    };
    children.filter(is_guardian).collect()
}

#[test]
fn a_stopped_agent_loses_its_children_when_their_time_is_over() {
    let (_folder, file) = scratch();
    runtime().block_on(async {
        let agent = agent(Duration::from_secs(2), &stubborn(file.to_str().unwrap())).await;
        let victim = pid_in(&file).await;
        signal(agent.pid(), SIGSTOP);
        gone(victim).await;
        assert!(is_alive(agent.pid()), "it is stopped, not dead");
    });
}

#[test]
fn a_killed_agent_leaves_neither_its_children_nor_what_left_their_group() {
    let (folder, file) = scratch();
    let stray = folder.path().join("stray");
    let daemon = ["new-session", "ignore-term", "write-pid", stray.to_str().unwrap(), "wait-for-ever"];
    let steps = [&["spawn", "5"], &daemon[..], &stubborn(file.to_str().unwrap())].concat();
    runtime().block_on(async {
        let agent = agent(LONG, &steps).await;
        let (victim, stray) = (pid_in(&file).await, pid_in(&stray).await);
        // Not its group: the guardian has one of its own.
        signal(agent.pid(), SIGKILL);
        gone(victim).await;
        gone(stray).await;
        drop(agent);
    });
}

/// Nothing but the control group of the run tells where such a daemon comes from.
#[test]
fn a_killed_agent_leaves_no_daemon_either_that_hides_its_origin() {
    if !has_control_groups() {
        return;
    }
    let (folder, file) = scratch();
    let stray = folder.path().join("stray");
    let daemon = ["new-session", "ignore-term", "write-pid", stray.to_str().unwrap(), "wait-for-ever"];
    let steps = [&["spawn-without-env", "5"], &daemon[..], &stubborn(file.to_str().unwrap())].concat();
    runtime().block_on(async {
        let agent = agent_that("guard-grouped-ms", LONG, &steps).await;
        let (victim, stray) = (pid_in(&file).await, pid_in(&stray).await);
        signal(agent.pid(), SIGKILL);
        gone(victim).await;
        gone(stray).await;
        drop(agent);
    });
}

fn idle(path: &Path) -> Child {
    start(child(&stubborn(path.to_str().unwrap()))).unwrap()
}

#[test]
fn only_what_is_watched_ends_and_only_when_its_time_is_over() {
    let (folder, _) = scratch();
    let path = |name: &str| folder.path().join(name);
    runtime().block_on(async {
        let guard = guard();
        guard.allow_until(1, boottime() + LONG);
        let (kept, doomed) = (idle(&path("kept")), idle(&path("doomed")));
        written(&path("kept")).await;
        written(&path("doomed")).await;
        let forgotten = guard.watch(&kept, Some(1));
        let watched = guard.watch(&doomed, Some(1));
        drop(forgotten);
        // The end of the time, and a renewal that comes too late for what was killed by then.
        guard.allow_until(1, Duration::ZERO);
        gone(doomed.pid()).await;
        assert!(is_alive(kept.pid()));
        // What is started after the end of the time dies at once.
        let late = idle(&path("late"));
        let late_watched = guard.watch(&late, Some(1));
        gone(late.pid()).await;
        guard.allow_until(1, boottime() + LONG);
        let next = idle(&path("next"));
        let next_watched = guard.watch(&next, Some(1));
        written(&path("next")).await;
        assert!(is_alive(next.pid()) && is_alive(kept.pid()));
        drop((watched, late_watched, next_watched));
    });
}

#[test]
fn a_guardian_that_was_killed_is_replaced_and_told_everything() {
    let (_folder, file) = scratch();
    runtime().block_on(async {
        let guard = guard();
        guard.allow_until(1, boottime() + LONG);
        let victim = idle(&file);
        written(&file).await;
        let _watched = guard.watch(&victim, Some(1));
        let first = guardians();
        assert_eq!(first.len(), 1);
        signal(first[0], SIGKILL);
        gone(first[0]).await;
        assert!(is_alive(victim.pid()), "the guardian protects nothing by its own end");
        eventually("another guardian", async || {
            guard.allow_until(1, Duration::ZERO);
            (!is_alive(victim.pid())).then_some(())
        })
        .await;
    });
}

/// Its standard input is a pipe through which anybody who could open it would give it orders.
#[test]
fn a_guardian_shows_nothing_to_its_own_user() {
    if !support::is_root() {
        attune_testkit::lacking("root", "run the tests as root");
        return;
    }
    let (folder, program) = reachable();
    fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o777)).unwrap();
    let guarded = folder.path().join("guarded");
    let mut command = child(&["guard-ms", "3600000", guarded.to_str().unwrap(), "1", "wait-for-ever"]);
    command.program = program;
    command.stdout = Stream::null();
    command.policy = Some(as_user(12_345));
    runtime().block_on(async {
        let agent = start(command).unwrap();
        written(&guarded).await;
        // Whose these files are is what the kernel decides by: those of a process that nobody may look into are root's.
        let owner = |pid: u32| fs::metadata(format!("/proc/{pid}/fd")).unwrap().uid();
        assert_eq!(owner(agent.pid()), 12_345);
        let [guardian] = guardians_of(agent.pid())[..] else { panic!("one guardian") };
        eventually("it to hide", async || (owner(guardian) == 0).then_some(())).await;
        drop(agent);
    });
}

#[test]
fn a_guardian_is_small_and_ends_with_its_agent() {
    let guard = guard();
    let pid = eventually_blocking("the guardian", || guardians().first().copied());
    // Only when it waits has it done all that it does.
    eventually_blocking("the guardian to wait", || (support::state(pid)? == 'S').then_some(()));
    let private_kib = support::own_kibibytes(pid);
    assert!(private_kib < 1024, "{private_kib} KiB");
    println!("private memory of a guardian: {private_kib} KiB");
    drop(guard);
    eventually_blocking("its end", || (!is_alive(pid)).then_some(()));
}
