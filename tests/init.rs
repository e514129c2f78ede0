//! Process 1 from outside: in a PID namespace of its own where that is allowed, and by `--init` everywhere.

#![expect(clippy::unwrap_used, reason = "tests")]
#![expect(clippy::disallowed_methods, reason = "the subject is a process")]

use std::fs;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use attune_testkit::eventually_blocking;

const PROGRAM: &str = env!("CARGO_BIN_EXE_attune-agents");

/// The program as process 1 of a namespace; none where this user may not make one.
fn as_process_1(arguments: &[&str]) -> Option<Command> {
    let unshare = |words: &[&str]| {
        let mut command = Command::new("unshare");
        command.args(["--map-root-user", "--pid", "--fork", "--mount-proc", "--kill-child"]).args(words);
        command.stdin(Stdio::null());
        command
    };
    let allowed = unshare(&["true"]).stderr(Stdio::null()).status().is_ok_and(|status| status.success());
    if !allowed {
        attune_testkit::lacking("namespaces", "run as root with util-linux (scripts/setup) and CAP_SYS_ADMIN");
    }
    allowed.then(|| {
        let mut command = unshare(&[PROGRAM]);
        command.args(arguments).current_dir(env!("CARGO_MANIFEST_DIR"));
        command
    })
}

fn with_init(applet: &str, arguments: &[&str]) -> Command {
    let mut command = Command::new(PROGRAM);
    command.args([applet, "--init"]).args(arguments).current_dir(env!("CARGO_MANIFEST_DIR")).stdin(Stdio::null());
    command
}

fn terminate(child: &Child) {
    let pid = child.id().to_string();
    assert!(Command::new("kill").args(["-TERM", &pid]).status().unwrap().success());
}

#[test]
fn the_agents_exit_code_is_that_of_process_1() {
    let data = tempfile::tempdir().unwrap();
    let data = data.path().to_str().unwrap();
    for (arguments, code) in [
        (&["run", "core.noop", "--data", data][..], 0),
        (&["run", "core.sleep", "--param", "seconds=60", "--timeout", "100ms", "--data", data], 124),
        (&["run", "none.such"], 64),
    ] {
        let (applet, rest) = arguments.split_first().unwrap();
        let ended = with_init(applet, rest).output().unwrap();
        assert_eq!(ended.status.code(), Some(code), "--init {arguments:?}: {ended:?}");
        let Some(mut command) = as_process_1(arguments) else { return };
        let ended = command.output().unwrap();
        assert_eq!(ended.status.code(), Some(code), "process 1 {arguments:?}: {ended:?}");
    }
}

#[test]
fn process_1_prints_nothing_of_its_own() {
    if let Some(mut command) = as_process_1(&["worker", "--version"]) {
        let ended = command.output().unwrap();
        assert_eq!(String::from_utf8(ended.stdout).unwrap(), concat!("attune-agent ", env!("CARGO_PKG_VERSION"), "\n"));
        assert!(ended.status.success() && ended.stderr.is_empty());
    }
}

#[test]
fn a_signal_reaches_the_agent_which_stops_in_order() {
    let data = tempfile::tempdir().unwrap();
    let mut child = with_init("dev", &["--json", "--data", data.path().to_str().unwrap(), "packs/core"])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines().map(Result::unwrap);
    assert!(lines.any(|line| line.contains("\"status\":\"ready\"")));
    terminate(&child);
    assert!(lines.any(|line| line.contains("\"status\":\"stopping\"")));
    let status = eventually_blocking("the end", || child.try_wait().unwrap());
    assert_eq!(status.code(), Some(0));
}

/// Whoever may read it: nobody should have to rely on that.
#[test]
fn secrets_are_gone_from_the_environment_that_the_kernel_shows_once_the_agent_has_read_them() {
    let data = tempfile::tempdir().unwrap();
    let mut child = with_init("dev", &["--json", "--data", data.path().to_str().unwrap(), "packs/core"])
        .env("ATTUNE__SECURITY__JWT_SECRET", "hush-hush")
        .env("attune__database__url", "postgresql://hush-too@host/name")
        .env("ATTUNE_PROCESS_TREE", "of-somebody")
        .env("HARMLESS", "stays")
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines().map(Result::unwrap);
    assert!(lines.any(|line| line.contains("\"status\":\"ready\"")));
    let init = child.id();
    let agents = fs::read_to_string(format!("/proc/{init}/task/{init}/children")).unwrap();
    let agent = agents.split_whitespace().next().unwrap();
    match (fs::read(format!("/proc/{init}/environ")), fs::read(format!("/proc/{agent}/environ"))) {
        (Ok(of_init), Ok(of_agent)) => {
            let [of_init, of_agent] = [of_init, of_agent].map(|bytes| String::from_utf8(bytes).unwrap());
            assert!(!of_init.contains("hush") && !of_init.contains("stays"), "{of_init:?}");
            assert!(!of_agent.contains("hush") && of_agent.contains("HARMLESS=stays\0"), "{of_agent:?}");
            assert!(of_agent.contains("ATTUNE_PROCESS_TREE=of-somebody\0"), "{of_agent:?}");
        }
        // Without the privilege to trace nobody may look at all.
        (of_init, of_agent) => assert!(of_init.is_err() && of_agent.is_err()),
    }
    terminate(&child);
    let status = eventually_blocking("the end", || child.try_wait().unwrap());
    assert_eq!(status.code(), Some(0));
}

/// Signals of one line of `/proc/<pid>/status`, one bit for each.
fn signals(pid: &str, line: &str) -> Option<u64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let signals = status.lines().find_map(|found| found.strip_prefix(line))?;
    u64::from_str_radix(signals.trim(), 16).ok()
}

fn only_child(pid: &str) -> Option<String> {
    let children = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).ok()?;
    children.split_whitespace().next().map(str::to_owned)
}

/// From the moment in which process 1 has its signals blocked. Before that the kernel throws away what comes, because process
/// 1 of a namespace has no default for signals.
#[test]
fn a_signal_at_any_moment_of_the_start_ends_the_container() {
    const TERM: u64 = 1 << 14;
    type Moment = (&'static str, fn(&str) -> Option<()>);
    let moments: [Moment; 3] = [
        // Once it waits for them, the kernel shows them as not blocked.
        ("process 1 has its signals blocked", |init| {
            let is_blocked = signals(init, "SigBlk:").is_some_and(|blocked| blocked & TERM != 0);
            (is_blocked || only_child(init).is_some()).then_some(())
        }),
        ("the agent is there", |init| only_child(init).map(drop)),
        ("the agent takes signals", |init| {
            signals(&only_child(init)?, "SigCgt:").filter(|caught| caught & TERM != 0).map(drop)
        }),
    ];
    let data = tempfile::tempdir().unwrap();
    let data = data.path().to_str().unwrap();
    for (what, has_come) in moments.iter().cycle().take(12) {
        let Some(mut command) = as_process_1(&["dev", "--json", "--data", data, "packs/core"]) else { return };
        let mut child = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        let init = eventually_blocking("process 1", || {
            let init = only_child(&child.id().to_string())?;
            (fs::read_link(format!("/proc/{init}/exe")).ok()? == Path::new(PROGRAM)).then_some(init)
        });
        eventually_blocking(what, || has_come(&init));
        assert!(Command::new("kill").args(["-TERM", &init]).status().unwrap().success());
        let status = eventually_blocking("the end", || child.try_wait().unwrap());
        assert!(matches!(status.code(), Some(0 | 143)), "{what}: {status:?}");
    }
}

/// A signal that comes before anything is set up ends the agent, or stops it in order; it is never lost.
#[test]
fn a_signal_during_the_start_is_not_lost() {
    let data = tempfile::tempdir().unwrap();
    for _ in 0..5 {
        let mut child = with_init("dev", &["--json", "--data", data.path().to_str().unwrap(), "packs/core"])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let init = child.id();
        eventually_blocking("the agent", || {
            let agents = fs::read_to_string(format!("/proc/{init}/task/{init}/children")).ok()?;
            (!agents.trim().is_empty()).then_some(())
        });
        terminate(&child);
        let status = eventually_blocking("the end", || child.try_wait().unwrap());
        assert!(matches!(status.code(), Some(0 | 143)), "{status:?}");
    }
}
