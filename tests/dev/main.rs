//! `attune-agents dev` from outside: the built binary, real packs, real interpreters, real signals.

#![expect(clippy::unwrap_used, reason = "tests")]
#![expect(clippy::disallowed_methods, reason = "the subject is a process")]

mod docs;
mod health;
mod support;

use std::collections::BTreeSet;
use std::fs;
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use serde_json::Value;
use support::{Dev, copy_tree, descendants_of, run_dev, write};

fn repository() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// A pack whose rule starts `echo` every second through the native timer sensor.
fn ticking_pack(folder: &Path) {
    write(&folder.join("pack.yaml"), "ref: tick\nlabel: Tick\nname: Tick\nversion: 1.0.0\n");
    write(
        &folder.join("rules/often.yaml"),
        "ref: tick.often\nlabel: Often\ntrigger_ref: core.intervaltimer\naction_ref: tick.say\nenabled: true\n\
         trigger_params: { unit: seconds, interval: 1 }\n\
         action_params: { text: 'event {{ event.id }}' }\n",
    );
    write(
        &folder.join("actions/say.yaml"),
        "ref: tick.say\nlabel: Say\nrunner_type: shell\nentry_point: say.sh\noutput_format: json\n\
         parameters:\n  text: { type: string, required: true }\n",
    );
    write(&folder.join("actions/say.sh"), "read -r line\nprintf '{\"heard\":%s}\\n' \"$line\"\n");
}

fn core() -> String {
    repository().join("packs/core").display().to_string()
}

fn completed(action: &str) -> impl Fn(&Value) -> bool {
    move |line| line["kind"] == "execution" && line["action"] == action && line["status"] == "completed"
}

#[test]
fn the_packs_of_this_repository_run_end_to_end_in_every_language() {
    let scratch = tempfile::tempdir().unwrap();
    copy_tree(&repository().join("packs"), &scratch.path().join("packs"));
    let mut dev = Dev::start(scratch.path(), &["packs"]);
    let mut wanted: BTreeSet<String> = [
        "ready",
        "sensor core.timer_sensor running",
        "sensor demo.file_watcher running",
        "sensor demo.webhook_receiver running",
        "event core.intervaltimer",
        "event demo.file_changed",
        "event demo.webhook",
        "native completed",
        "node completed",
        "python completed",
        "shell completed",
    ]
    .map(str::to_owned)
    .into();
    let packs = scratch.path().join("packs");
    while !wanted.is_empty() {
        let what = format!("{wanted:?}");
        let line = dev.wait(&what, |_| true);
        let text = |key: &str| line[key].as_str().unwrap_or_default().to_owned();
        let fact = match text("kind").as_str() {
            "sensor" => format!("sensor {} {}", text("ref"), text("status")),
            "event" => format!("event {}", text("ref")),
            "execution" if text("status") != "running" => {
                assert_eq!(line["status"], "completed", "{line:#}");
                assert!(line["rule"].is_string() && line["id"].is_i64(), "{line:#}");
                format!("{} completed", support::runtime_of(&packs, &text("action")))
            }
            "ready" => {
                assert!(text("address").starts_with("http://127.0.0.1:"), "{line:#}");
                "ready".to_owned()
            }
            _ => continue,
        };
        wanted.remove(&fact);
    }
    dev.stop_and_expect(0);
}

#[test]
fn a_saved_file_counts_at_once_and_a_broken_one_leaves_the_last_good_version() {
    let scratch = tempfile::tempdir().unwrap();
    let pack = scratch.path().join("tick");
    ticking_pack(&pack);
    let mut dev = Dev::start(scratch.path(), &[&core(), "tick"]);
    dev.wait("first run", completed("tick.say"));

    write(&pack.join("actions/say.sh"), "printf '{\"version\":2}\\n'\n");
    dev.wait("reload", |line| line["kind"] == "pack" && line["ref"] == "tick" && line["status"] == "reloaded");
    dev.wait("new code", |line| completed("tick.say")(line) && line["result"]["data"]["version"] == 2);

    write(&pack.join("rules/often.yaml"), "ref: tick.often\ntrigger_ref: [\n");
    let broken = dev.wait("problem", |line| line["kind"] == "error" && line["status"] == "broken");
    assert!(broken["ref"].as_str().unwrap().ends_with("rules/often.yaml"), "{broken}");
    assert!(broken["line"].as_u64().unwrap() >= 1, "{broken}");
    dev.wait("the last good version goes on", completed("tick.say"));
    dev.stop_and_expect(0);
}

#[test]
fn a_pack_that_holds_the_data_folder_is_not_reloaded_by_what_dev_writes() {
    let scratch = tempfile::tempdir().unwrap();
    ticking_pack(scratch.path());
    let mut dev = Dev::start(scratch.path(), &[&core(), "."]);
    let not_reloaded = |line: &Value| {
        assert_ne!(line["status"], "reloaded", "{line}");
        completed("tick.say")(line)
    };
    dev.wait("a run", not_reloaded);
    dev.wait("another run", not_reloaded);
    write(&scratch.path().join("actions/say.sh"), "printf '{\"version\":2}\\n'\n");
    dev.wait("reload", |line| line["kind"] == "pack" && line["ref"] == "tick" && line["status"] == "reloaded");
    dev.stop_and_expect(0);
}

#[test]
fn a_changed_rule_restarts_its_sensor_and_a_removed_pack_ends() {
    let scratch = tempfile::tempdir().unwrap();
    let pack = scratch.path().join("tick");
    ticking_pack(&pack);
    let mut dev = Dev::start(scratch.path(), &[&core(), "tick"]);
    dev.wait("first run", completed("tick.say"));
    let rule = fs::read_to_string(pack.join("rules/often.yaml")).unwrap();
    write(&pack.join("rules/often.yaml"), &rule.replace("enabled: true", "enabled: false"));
    dev.wait("no rule, no sensor", |line| {
        line["kind"] == "sensor" && line["ref"] == "core.timer_sensor" && line["status"] == "stopped"
    });
    write(&pack.join("rules/often.yaml"), &rule);
    dev.wait("sensor is back", |line| {
        line["kind"] == "sensor" && line["ref"] == "core.timer_sensor" && line["status"] == "running"
    });
    dev.wait("it works again", completed("tick.say"));
    fs::remove_dir_all(&pack).unwrap();
    dev.wait("removed", |line| line["kind"] == "pack" && line["ref"] == "tick" && line["status"] == "removed");
    dev.wait("its sensor has no rule left", |line| {
        line["kind"] == "sensor" && line["ref"] == "core.timer_sensor" && line["status"] == "stopped"
    });
    dev.stop_and_expect(0);
}

#[test]
fn a_failing_action_and_a_failing_sensor_say_why_and_where_the_log_is() {
    let scratch = tempfile::tempdir().unwrap();
    let pack = scratch.path().join("tick");
    ticking_pack(&pack);
    write(&pack.join("actions/say.sh"), "echo 'no such planet' >&2\nexit 3\n");
    write(&pack.join("triggers/never.yaml"), "ref: tick.never\nlabel: Never\n");
    write(
        &pack.join("sensors/faulty.yaml"),
        "ref: tick.faulty\nlabel: Faulty\nrunner_type: shell\nentry_point: faulty.sh\nenabled: true\n\
         trigger_types: [tick.never]\n",
    );
    write(
        &pack.join("sensors/faulty.sh"),
        "echo 'cannot see anything' >&2\nmark=$(mktemp -u)\nsetsid sh -c \"touch $mark; exec sleep 1000\" &\n\
         until [ -e \"$mark\" ]; do sleep 0.01; done\nrm \"$mark\"\nexit 4\n",
    );
    write(
        &pack.join("rules/never.yaml"),
        "ref: tick.on_never\nlabel: Never\ntrigger_ref: tick.never\naction_ref: tick.say\nenabled: true\naction_params: { text: x }\n",
    );
    write(
        &pack.join("sensors/unmarked.yaml"),
        "ref: tick.unmarked\nlabel: Unmarked\nrunner_type: native\nentry_point: unmarked\nenabled: true\n\
         trigger_types: [tick.nor]\n",
    );
    write(&pack.join("triggers/nor.yaml"), "ref: tick.nor\nlabel: Nor\n");
    write(
        &pack.join("rules/nor.yaml"),
        "ref: tick.on_nor\nlabel: Nor\ntrigger_ref: tick.nor\naction_ref: tick.say\nenabled: true\naction_params: { text: x }\n",
    );
    write(&pack.join("sensors/unmarked"), "echo 'no first line'\n");
    let may_run = fs::Permissions::from_mode(0o755);
    fs::set_permissions(pack.join("sensors/unmarked"), may_run).unwrap();
    let mut dev = Dev::start(scratch.path(), &[&core(), "tick"]);
    let mut failed = std::collections::BTreeMap::new();
    while failed.len() < 2 {
        let sensor = dev.wait("sensors in back-off", |line| line["status"] == "backoff");
        failed.insert(sensor["ref"].as_str().unwrap().to_owned(), sensor);
    }
    let (sensor, unmarked) = (&failed["tick.faulty"], &failed["tick.unmarked"]);
    assert!(unmarked["reason"].as_str().unwrap().contains("neither a program nor a script"), "{unmarked}");
    let reason = sensor["reason"].as_str().unwrap();
    assert!(reason.starts_with("it exited with code 4; it left s"), "{reason}");
    assert!(fs::read_to_string(sensor["log"].as_str().unwrap()).unwrap().contains("cannot see anything"), "{sensor}");
    let run = dev.wait("failed run", |line| line["kind"] == "execution" && line["status"] == "failed");
    assert_eq!(run["result"]["exit_code"], 3, "{run}");
    assert!(run["result"]["error"].as_str().unwrap().contains("no such planet"), "{run}");
    assert!(fs::read_to_string(run["log"].as_str().unwrap()).unwrap().contains("no such planet"), "{run}");
    dev.stop_and_expect(0);
}

#[test]
fn a_rule_whose_timer_cannot_fire_is_named() {
    let scratch = tempfile::tempdir().unwrap();
    let pack = scratch.path().join("tick");
    ticking_pack(&pack);
    write(
        &pack.join("rules/never.yaml"),
        "ref: tick.never\nlabel: Never\ntrigger_ref: core.crontimer\naction_ref: tick.say\nenabled: true\n\
         trigger_params: { expression: every day }\naction_params: { text: x }\n",
    );
    let mut dev = Dev::start(scratch.path(), &[&core(), "tick"]);
    let line = dev.wait("the rule", |line| line["kind"] == "error" && line["ref"] == "tick.never");
    assert!(line["message"].as_str().unwrap().contains("expression"), "{line}");
    dev.wait("the rest runs", completed("tick.say"));
    dev.stop_and_expect(0);
}

#[test]
fn a_stop_ends_stubborn_children_and_leaves_no_process() {
    let scratch = tempfile::tempdir().unwrap();
    let pack = scratch.path().join("tick");
    ticking_pack(&pack);
    // Ignores TERM and has a child of its own that does, too.
    write(&pack.join("actions/say.sh"), "trap '' TERM\n(trap '' TERM; while :; do sleep 1; done) &\nwait\n");
    let mut dev = Dev::start(scratch.path(), &[&core(), "tick"]);
    dev.wait("a run", |line| line["kind"] == "execution" && line["status"] == "running");
    let children = descendants_of(dev.pid());
    assert!(!children.is_empty());
    dev.interrupt();
    dev.wait("the soft stop", |line| line["kind"] == "ready" && line["status"] == "stopping");
    dev.interrupt();
    dev.expect_exit(0);
    attune_testkit::eventually_blocking("all children are gone", || {
        children.iter().all(|pid| !Path::new(&format!("/proc/{pid}")).exists()).then_some(())
    });
}

#[test]
fn the_next_start_goes_on_with_the_same_data() {
    let scratch = tempfile::tempdir().unwrap();
    ticking_pack(&scratch.path().join("tick"));
    let mut first = Dev::start(scratch.path(), &[&core(), "tick"]);
    let before = first.wait("a run", completed("tick.say"))["id"].as_i64().unwrap();
    first.stop_and_expect(0);
    let mut second = Dev::start(scratch.path(), &[&core(), "tick"]);
    let after = second.wait("a run", completed("tick.say"))["id"].as_i64().unwrap();
    assert!(after > before, "{after} is not after {before}");
    second.stop_and_expect(0);
}

#[test]
fn the_timer_sensor_starts_again_without_the_file_of_the_program() {
    let scratch = tempfile::tempdir().unwrap();
    ticking_pack(&scratch.path().join("tick"));
    let program = scratch.path().join("attune-agents");
    fs::copy(support::BINARY, &program).unwrap();
    let mut dev = Dev::start_from(&program, scratch.path(), &[&core(), "tick"]);
    dev.wait("first run", completed("tick.say"));
    fs::remove_file(&program).unwrap();
    let is_timer = |pid: &u32| {
        let line = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        line.split(|byte| *byte == 0).nth(1) == Some(b"timer-sensor")
    };
    let timer = descendants_of(dev.pid()).into_iter().find(is_timer).unwrap();
    attune_sys::kill(attune_sys::Pid::new(timer).unwrap(), attune_sys::SIGKILL).unwrap();
    for status in ["backoff", "running"] {
        dev.wait(status, |line| line["kind"] == "sensor" && line["status"] == status);
    }
    dev.wait("it works again", completed("tick.say"));
    dev.stop_and_expect(0);
}

#[test]
fn work_of_a_killed_dev_is_ended_by_the_next_one() {
    let scratch = tempfile::tempdir().unwrap();
    let pack = scratch.path().join("tick");
    ticking_pack(&pack);
    write(&pack.join("actions/say.sh"), "exec sleep 600\n");
    let mut first = Dev::start(scratch.path(), &[&core(), "tick"]);
    let id = first.wait("a run", |line| line["kind"] == "execution" && line["status"] == "running")["id"].clone();
    first.kill();
    write(&pack.join("actions/say.sh"), "printf '{}\\n'\n");
    let mut second = Dev::start(scratch.path(), &[&core(), "tick"]);
    let ended = second
        .wait("the old run", |line| line["kind"] == "execution" && line["id"] == id && line["status"] == "abandoned");
    assert!(ended["result"]["error"].as_str().unwrap().contains("restarted"), "{ended}");
    second.stop_and_expect(0);
}

#[test]
fn a_second_dev_a_taken_port_and_an_unwritable_folder_are_clear_errors() {
    let scratch = tempfile::tempdir().unwrap();
    ticking_pack(&scratch.path().join("tick"));
    let mut dev = Dev::start(scratch.path(), &[&core(), "tick"]);
    dev.wait("ready", |line| line["kind"] == "ready");
    let second = run_dev(scratch.path(), &[&core(), "tick"]);
    assert_eq!(second.status.code(), Some(69), "{second:?}");
    assert!(String::from_utf8_lossy(&second.stderr).contains(&format!("process {}", dev.pid())), "{second:?}");
    dev.stop_and_expect(0);

    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let refused = run_dev(scratch.path(), &["--listen", &address, &core(), "tick"]);
    assert_eq!(refused.status.code(), Some(69), "{refused:?}");
    assert!(String::from_utf8_lossy(&refused.stderr).contains(&address), "{refused:?}");
    assert!(refused.stdout.is_empty(), "nothing ran that could stop: {refused:?}");

    let file = scratch.path().join("file");
    write(&file, "not a folder");
    let refused = run_dev(scratch.path(), &["--data", file.to_str().unwrap(), &core(), "tick"]);
    assert_eq!(refused.status.code(), Some(71), "{refused:?}");
    assert!(String::from_utf8_lossy(&refused.stderr).contains(file.to_str().unwrap()), "{refused:?}");

    let refused = run_dev(scratch.path(), &["no-such-folder"]);
    assert_eq!(refused.status.code(), Some(1), "{refused:?}");
    assert!(String::from_utf8_lossy(&refused.stdout).contains("no-such-folder"), "{refused:?}");
}

#[test]
fn without_an_interpreter_the_rest_runs_and_the_missing_one_is_named() {
    let scratch = tempfile::tempdir().unwrap();
    let pack = scratch.path().join("tick");
    ticking_pack(&pack);
    write(&pack.join("triggers/never.yaml"), "ref: tick.never\nlabel: Never\n");
    write(
        &pack.join("sensors/py.yaml"),
        "ref: tick.py\nlabel: Py\nrunner_type: python\nentry_point: py.py\nenabled: true\ntrigger_types: [tick.never]\n",
    );
    write(&pack.join("sensors/py.py"), "import time\ntime.sleep(600)\n");
    write(
        &pack.join("rules/never.yaml"),
        "ref: tick.on_never\nlabel: Never\ntrigger_ref: tick.never\naction_ref: tick.say\nenabled: true\naction_params: { text: x }\n",
    );
    // A PATH that has a shell and nothing else.
    let bin = scratch.path().join("bin");
    fs::create_dir(&bin).unwrap();
    for tool in ["sh", "sleep"] {
        std::os::unix::fs::symlink(format!("/bin/{tool}"), bin.join(tool)).unwrap();
    }
    let mut dev = Dev::start_with(scratch.path(), &[&core(), "tick"], |command| {
        command.env("PATH", &bin).env("HOME", scratch.path()).env("ATTUNE_SENSOR_RUNTIMES", "shell,native");
    });
    let line = dev.wait("why the python sensor does not run", |line| {
        line["ref"] == "tick.py" && line["status"] != "running" && line.to_string().contains("python")
    });
    assert!(!line["reason"].as_str().unwrap().is_empty(), "{line}");
    dev.wait("the rest runs", completed("tick.say"));
    dev.stop_and_expect(0);
}

#[test]
fn for_ends_it_and_a_closed_output_is_noticed() {
    let scratch = tempfile::tempdir().unwrap();
    ticking_pack(&scratch.path().join("tick"));
    let ended = run_dev(scratch.path(), &["--for", "300ms", &core(), "tick"]);
    assert_eq!(ended.status.code(), Some(0), "{ended:?}");
    assert!(String::from_utf8_lossy(&ended.stdout).contains("\"kind\":\"ready\""), "{ended:?}");

    let mut dev = Dev::start(scratch.path(), &[&core(), "tick"]);
    dev.wait("ready", |line| line["kind"] == "ready");
    dev.close_output();
    dev.expect_exit(74);
}

#[test]
fn a_reader_that_does_not_read_holds_up_neither_the_work_nor_the_end() {
    let scratch = tempfile::tempdir().unwrap();
    let pack = scratch.path().join("tick");
    ticking_pack(&pack);
    // One line about it is more than a pipe takes.
    write(&pack.join("actions/say.sh"), "head -c 300000 /dev/zero | tr '\\0' x\n");
    let (mut dev, _unread) = Dev::start_unread(scratch.path(), &[&core(), "tick"]);
    let third_log = scratch.path().join("data/artifacts/tick/say/stdout/log/v3.txt");
    attune_testkit::eventually_blocking("a third run", || third_log.exists().then_some(()));
    dev.interrupt();
    dev.expect_exit(0);
}

#[test]
fn sensors_run_also_when_dev_listens_on_every_address() {
    let scratch = tempfile::tempdir().unwrap();
    ticking_pack(&scratch.path().join("tick"));
    let mut dev = Dev::start(scratch.path(), &["--listen", "0.0.0.0:0", &core(), "tick"]);
    let ready = dev.wait("ready", |line| line["kind"] == "ready");
    assert!(ready["address"].as_str().unwrap().starts_with("http://127.0.0.1:"), "{ready}");
    dev.wait("a run", completed("tick.say"));
    dev.stop_and_expect(0);
}

#[test]
fn secrets_of_the_data_folder_are_readable_by_their_owner_only() {
    let scratch = tempfile::tempdir().unwrap();
    ticking_pack(&scratch.path().join("tick"));
    let ended = run_dev(scratch.path(), &["--for", "100ms", &core(), "tick"]);
    assert_eq!(ended.status.code(), Some(0), "{ended:?}");
    for name in ["key", "token", "attune.db"] {
        let mode = fs::metadata(scratch.path().join("data").join(name)).unwrap().permissions().mode();
        assert_eq!(mode & 0o077, 0, "{name} is {mode:o}");
    }
}

#[test]
fn a_sensor_sees_what_its_host_offers_and_nothing_of_the_agents_environment() {
    let scratch = tempfile::tempdir().unwrap();
    let pack = scratch.path().join("tick");
    ticking_pack(&pack);
    write(&pack.join("triggers/never.yaml"), "ref: tick.never\nlabel: Never\n");
    write(
        &pack.join("sensors/spy.yaml"),
        "ref: tick.spy\nlabel: Spy\nrunner_type: shell\nentry_point: spy.sh\nenabled: true\n\
         trigger_types: [tick.never]\n",
    );
    write(&pack.join("sensors/spy.sh"), "env\nexec sleep 600\n");
    write(
        &pack.join("rules/never.yaml"),
        "ref: tick.on_never\nlabel: Never\ntrigger_ref: tick.never\naction_ref: tick.say\nenabled: true\n\
         action_params: { text: x }\n",
    );
    let mut dev = Dev::start_with(scratch.path(), &[&core(), "tick"], |command| {
        command.env("ATTUNE__SECURITY__JWT_SECRET", "hunter22hunter22").env("DATABASE_PASSWORD", "hunter22hunter22");
    });
    dev.wait("the spy", |line| line["ref"] == "tick.spy" && line["status"] == "running");
    let log = scratch.path().join("data/artifacts/sensor/tick/spy/stdout/v1.txt");
    let seen = attune_testkit::eventually_blocking("its environment", || {
        fs::read_to_string(&log).ok().filter(|text| text.contains("ATTUNE_SENSOR_REF="))
    });
    let runtimes = seen.lines().find_map(|line| line.strip_prefix("ATTUNE_SENSOR_RUNTIMES=")).unwrap();
    assert!(runtimes.split(',').any(|name| name == "shell") && runtimes.ends_with("native"), "{runtimes}");
    assert!(!seen.contains("hunter22"), "{seen}");
    dev.stop_and_expect(0);
}
