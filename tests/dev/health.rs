//! `attune-agents health` against a running system, as a container's health check would start it.

use std::fs;
use std::path::Path;
use std::process::{Command, Output};

use attune_testkit::eventually_blocking;
use serde_json::{Value, json};

use crate::support::{Dev, write};

fn health(arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_attune-agents"));
    // Nothing of a user's environment is there, and the folder holds no configuration.
    command.arg("health").args(arguments).env_clear().current_dir("/").output().unwrap()
}

fn text(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).unwrap()
}

/// An action that runs until it is ended, started once a second.
fn busy_pack(folder: &Path) {
    write(&folder.join("pack.yaml"), "ref: busy\nlabel: Busy\nname: Busy\nversion: 1.0.0\n");
    write(
        &folder.join("rules/often.yaml"),
        "ref: busy.often\nlabel: Often\ntrigger_ref: core.intervaltimer\naction_ref: busy.wait\nenabled: true\n\
         trigger_params: { unit: seconds, interval: 1 }\naction_params: { password: 'hunter2' }\n",
    );
    write(
        &folder.join("actions/wait.yaml"),
        "ref: busy.wait\nlabel: Wait\nrunner_type: shell\nentry_point: wait.sh\n\
         parameters:\n  password: { type: string }\n",
    );
    write(&folder.join("actions/wait.sh"), "echo started\nexec sleep 1000\n");
}

#[test]
fn a_health_check_sees_what_is_true() {
    let scratch = tempfile::tempdir().unwrap();
    busy_pack(&scratch.path().join("busy"));
    let socket = scratch.path().join("health.sock");
    let socket = socket.to_str().unwrap();
    let mut dev = Dev::start_with(scratch.path(), &[&super::core(), "busy"], |command| {
        command.env("ATTUNE__HEALTH__LISTEN", format!("unix:{socket}"));
    });
    let ready = dev.wait("ready", |line| line["kind"] == "ready" && line["status"] == "ready");
    assert_eq!(ready["health"], format!("unix:{socket}"), "{ready}");
    let answer = health(&["--socket", socket]);
    assert_eq!((answer.status.code(), text(&answer.stderr)), (Some(0), ""));
    for part in [
        "ready\n[+] agent: ok",
        "[+] executions: ok",
        "[+] cancels: ok",
        "[+] packs: ok",
        "[+] row: ok",
        "[+] host_row: ok",
        "[+] rules: ok",
    ] {
        assert!(text(&answer.stdout).contains(part), "{part}: {answer:?}");
    }
    dev.wait("running", |line| line["kind"] == "execution" && line["status"] == "running");
    let status = health(&["--socket", socket, "--ask", "status"]);
    assert!(!text(&status.stdout).contains("hunter2"), "parameters are nobody's business");
    let status: Value = serde_json::from_slice(&status.stdout).unwrap();
    assert_eq!((&status["agent"]["role"], &status["agent"]["pid"]), (&"dev".into(), &dev.pid().into()));
    assert_eq!(status["worker"]["running"][0]["action_ref"], "busy.wait", "{status:#}");
    let sensor = &status["sensor"]["sensors"][0];
    assert_eq!((&sensor["ref"], &sensor["state"]), (&"core.timer_sensor".into(), &"running".into()), "{status:#}");
    assert!(sensor["pid"].is_u64() && sensor["active_rules"] == 1, "{status:#}");
    children_have_everything(socket);
    let metrics = health(&["--socket", socket, "--ask", "metrics"]);
    for line in [
        "attune_sensor_sensors{state=\"running\"} 1",
        "attune_sensor_sensors{state=\"starting\"} 0",
        "attune_sensor_tokens_total{result=\"ok\"} 1",
    ] {
        assert!(text(&metrics.stdout).lines().any(|seen| seen == line), "{line}: {metrics:?}");
    }
    assert!(text(&metrics.stdout).contains("\nattune_ready 1\n"), "{metrics:?}");
    assert!(!text(&metrics.stdout).contains("busy"), "refs are no labels");

    signal(&dev, "-STOP");
    let silent = health(&["--socket", socket, "--timeout", "200ms"]);
    assert_eq!(silent.status.code(), Some(69));
    assert!(text(&silent.stderr).starts_with("error: nobody answers at unix:/"), "{silent:?}");
    signal(&dev, "-CONT");
    let alive = health(&["--socket", socket, "--ask", "live", "--timeout", "20s"]);
    assert_eq!((alive.status.code(), text(&alive.stdout)), (Some(0), "alive\n"));

    // It drains: an execution is still running.
    dev.interrupt();
    dev.wait("stopping", |line| line["status"] == "stopping");
    let stopping = health(&["--socket", socket]);
    assert_eq!(stopping.status.code(), Some(1));
    assert!(text(&stopping.stdout).contains("not ready\n[-] agent: the agent is stopping"), "{stopping:?}");
    assert_eq!(health(&["--socket", socket, "--ask", "live"]).status.code(), Some(0));
    dev.interrupt();
    dev.expect_exit(0);
    assert_eq!(health(&["--socket", socket]).status.code(), Some(69));
    assert!(fs::symlink_metadata(socket).is_err(), "the socket is gone with its owner");
}

/// The policy of actions is tried beside the start.
fn children_have_everything(socket: &str) {
    let children = eventually_blocking("what children can have here", || {
        let status = health(&["--socket", socket, "--ask", "status"]);
        let status: Value = serde_json::from_slice(&status.stdout).unwrap();
        Some(status["children"].clone()).filter(Value::is_object)
    });
    assert_eq!(children["refused"], json!([]), "{children:#}");
    assert_eq!(children["processes that leave their group are adopted"], "yes", "{children:#}");
}

fn signal(dev: &Dev, signal: &str) {
    assert!(Command::new("kill").args([signal, &dev.pid().to_string()]).status().unwrap().success());
}

#[test]
fn the_place_is_found_the_way_the_agent_finds_it() {
    let scratch = tempfile::tempdir().unwrap();
    let folder = scratch.path();
    let run = |variables: &[(&str, &str)], arguments: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_attune-agents"));
        command.arg("health").args(arguments).env_clear().envs(variables.iter().copied()).current_dir(folder);
        let output = command.output().unwrap();
        (output.status.code().unwrap(), text(&output.stderr).to_owned())
    };
    let host = fs::read_to_string("/proc/sys/kernel/hostname").unwrap();
    let named_after_host = format!("unix:@attune-agents/worker/worker-{}/", host.trim());
    for (arguments, place) in [(&[][..], named_after_host.as_str()), (&["hub"], "unix:@attune-agents/hub/attune-hub/")]
    {
        let (code, said) = run(&[], arguments);
        // Another test may have started just that one on this machine; then it is there, and answers for itself.
        assert!((code == 69 && said.contains(place)) || matches!(code, 0 | 1), "{code}: {said}");
    }
    for (variables, arguments, place) in [
        (vec![], vec!["sensor", "--name", "nobody-1"], "unix:@attune-agents/sensor/nobody-1/"),
        (vec![("ATTUNE_WORKER_NAME", "nobody-2")], vec!["worker"], "unix:@attune-agents/worker/nobody-2/"),
        (vec![("ATTUNE__WORKER__NAME", "nobody-3"), ("ATTUNE_WORKER_NAME", "x")], vec![], "/worker/nobody-3/"),
        (vec![("ATTUNE__HEALTH__LISTEN", "0.0.0.0:1")], vec![], "http://127.0.0.1:1"),
        (vec![], vec!["--url", "http://127.0.0.1:1"], "http://127.0.0.1:1"),
        (vec![], vec!["--socket", "@other"], "unix:@other"),
        (vec![("ATTUNE__HEALTH__LISTEN", "off")], vec![], "health.listen is off"),
    ] {
        let (code, said) = run(&variables, &arguments);
        assert_eq!(code, 69, "{said}");
        assert!(said.contains(place), "{place}: {said}");
    }
    // An agent could not start with the rest of this; a health check has no opinion about it.
    write(
        &folder.join("config.yaml"),
        "health: { listen: 'unix:/nowhere/health.sock' }\nmessage_queue: { url: 'x' }\n",
    );
    let (code, said) = run(&[], &[]);
    assert_eq!(code, 69, "{said}");
    assert!(said.contains("unix:/nowhere/health.sock"), "{said}");
    assert_eq!(run(&[], &["--socket", "/a", "--url", "http://b"]).0, 64);
    assert_eq!(run(&[], &["--ask", "nonsense"]).0, 64);
    let (code, said) = run(&[("ATTUNE__HEALTH__LISTEN", "everywhere")], &[]);
    assert_eq!(code, 78);
    assert!(said.contains("ATTUNE__HEALTH__LISTEN"), "{said}");
}
