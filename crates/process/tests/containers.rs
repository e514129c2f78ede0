//! In real containers, of an image that holds the helper child and nothing else: process 1, hostile code, lack of memory.
#![expect(clippy::unwrap_used, reason = "tests")]

mod support;

use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use attune_testkit::containers::{Container, Engine, Image};
use attune_testkit::eventually_blocking;
use support::attack::Attack;
use support::{TEST_CHILD, is_root};

const IN_ENVIRONMENT: &str = "hush-environment";
const IN_FILE: &str = "hush-file";

/// The engine and the image; none where containers are not wanted.
fn engine() -> Option<(Engine, Image)> {
    let engine = Engine::ensure()?;
    let folder = tempfile::tempdir().unwrap();
    let secret = folder.path().join("secret");
    std::fs::write(&secret, IN_FILE).unwrap();
    std::fs::set_permissions(&secret, std::fs::Permissions::from_mode(0o600)).unwrap();
    Some((engine, engine.image(&[(Path::new(TEST_CHILD), "/helper"), (&secret, "/secret")])))
}

/// Runs to its end; exit code, standard output.
fn ended(container: &Container) -> (i32, String) {
    let code = container.wait();
    let (out, err) = container.logs();
    assert_eq!(err, "");
    (code, out)
}

#[test]
fn process_1_reaps_a_thousand_orphans_and_takes_no_status_from_the_agent() {
    let Some((engine, image)) = engine() else { return };
    let steps = ["/helper", "init", "unblock-signals", "orphans-and-children", "1000"];
    assert_eq!(ended(&engine.run(&image, &[], &steps)), (0, "no zombie\n".to_owned()));
}

#[test]
fn process_1_leaves_with_the_code_of_the_agent_also_when_that_crashes() {
    let Some((engine, image)) = engine() else { return };
    for (steps, code) in [(&["exit", "9"], 9), (&["raise", "9"], 137), (&["raise", "6"], 134)] {
        let words = [&["/helper", "init", "unblock-signals"][..], steps].concat();
        assert_eq!(ended(&engine.run(&image, &[], &words)).0, code, "{steps:?}");
    }
}

#[test]
fn process_1_forwards_signals_from_the_start_and_needs_next_to_nothing() {
    let Some((engine, image)) = engine() else { return };
    let words = ["/helper", "init", "unblock-signals", "print", "here", "wait-for-ever"];
    let container = engine.run(&image, &[], &words);
    eventually_blocking("the agent", || (container.logs().0 == "here\n").then_some(()));
    if is_root() {
        let kibibytes = support::own_kibibytes(container.pid());
        assert!(kibibytes > 0 && kibibytes < 1024, "{kibibytes} KiB");
    } else {
        attune_testkit::lacking("root", "run the tests as root");
    }
    container.kill("TERM");
    assert_eq!(container.wait(), 143);
    // Before the agent has set anything up: its init has, and passes the signal on as soon as there is somebody.
    let container = engine.run(&image, &[], &words);
    container.kill("TERM");
    assert_eq!(container.wait(), 143);
}

#[test]
fn hostile_code_finds_nothing_as_root_and_as_another_user() {
    let Some((engine, image)) = engine() else { return };
    let environment = ["-e", &format!("SECRET={IN_ENVIRONMENT}")];
    let as_user = [&environment[..], &["--user", "1000"]].concat();
    let attack = |options: &[&str], before: &[&str], uid: &str| {
        let steps = [&["/helper"], before, &["prepare", "run-attack", "2", uid, "/secret"]].concat();
        let (code, out) = ended(&engine.run(&image, options, &steps));
        assert_eq!(code, 0, "{out}");
        Attack::new(out.as_bytes())
    };
    let secrets = [IN_ENVIRONMENT, IN_FILE];
    // The file belongs to root, whose code may read it.
    attack(&environment, &["open", "/secret"], "0").assert_nothing_leaks(&secrets, &["file"]);
    attack(&environment, &["open", "/secret"], "1000").assert_nothing_leaks(&secrets, &[]);
    attack(&as_user, &[], "1000").assert_nothing_leaks(&secrets, &[]);
    // Below a process 1 of ours, which has the same secrets.
    attack(&environment, &["init", "open", "/secret"], "0").assert_nothing_leaks(&secrets, &["file"]);
}

#[test]
fn a_child_that_is_killed_for_lack_of_memory_is_told_from_one_that_is_killed() {
    let Some((engine, image)) = engine() else { return };
    let told = |steps: &[&str]| {
        let count = steps.len().to_string();
        let words = [&["/helper", "prepare", "run-and-tell", &count], steps].concat();
        let limits = ["--memory", "100m", "--memory-swap", "100m"];
        ended(&engine.run(&image, &limits, &words)).1
    };
    let text = told(&["use-memory", "300000000"]);
    assert!(text.starts_with("OutOfMemory kills Some(1) peak "), "{text}");
    let text = told(&["raise", "9"]);
    assert!(text.starts_with("Signalled { signal: 9, core_dumped: false } kills Some(0) "), "{text}");
}
