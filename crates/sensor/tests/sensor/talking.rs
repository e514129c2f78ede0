//! Sensors that say how they are and take new tokens, and operators that control a running host.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;
use std::sync::atomic::Ordering;
use std::time::Duration;

use attune_model::status::SensorProcessStatus;
use attune_sensor::{CONTROL_SOCKET, ControlReply, ControlRequest, SensorView, ask_host};
use attune_store::NewRuntime;
use attune_testkit::eventually;
use serde_json::json;

use crate::support::{World, is_alive};

/// Says what `SAYS` says, then writes its pid and the token of the moment whenever that changes, and its rules at the start.
const TALKER: &str = r#"
import os, socket, sys, time
host = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
def say(text):
    host.sendto(text.encode(), os.environ["NOTIFY_SOCKET"])
say("READY=1\nSTATUS=watching\nX_ATTUNE_KEEPS=@KEEPS@")
def fact(kind, text):
    with open(os.environ["FACTS"] + "/" + kind, "a") as file:
        file.write(text + "\n")
fact("rules", f"{os.getpid()} {os.environ['ATTUNE_SENSOR_TRIGGERS']}")
last = None
while True:
    token = open(os.environ["ATTUNE_API_TOKEN_FILE"]).read()
    if token != last:
        last = token
        print("my token is " + token, flush=True)
        fact("tokens", f"{os.getpid()} {token}")
    time.sleep(0.01)
"#;

async fn world(keeps: &str) -> World {
    let mut world = World::new().await;
    world.run = Some(world.path("run"));
    world.add_sensor("one", "python", &TALKER.replace("@KEEPS@", keeps));
    world
}

async fn view(world: &World) -> SensorView {
    match ask_host(&socket(world), &ControlRequest::List).await.unwrap() {
        ControlReply::Sensors(views) => views.into_iter().find(|view| view.sensor == "demo.one").unwrap(),
        other => panic!("{other:?}"),
    }
}

fn socket(world: &World) -> PathBuf {
    world.path("run").join(CONTROL_SOCKET)
}

async fn eventually_view(world: &World, what: &str, fits: impl Fn(&SensorView) -> bool) -> SensorView {
    eventually(what, async || {
        if !socket(world).exists() {
            return None;
        }
        // There is none before the first comparison.
        let ControlReply::Sensors(views) = ask_host(&socket(world), &ControlRequest::List).await.unwrap() else {
            return None;
        };
        views.into_iter().find(|view| view.sensor == "demo.one").filter(|view| fits(view))
    })
    .await
}

fn pid(fact: &str) -> &str {
    fact.split(' ').next().unwrap()
}

#[tokio::test]
async fn a_token_reaches_a_running_sensor_that_takes_it_and_no_log() {
    let world = world("token").await;
    world.api.life_ms.store(1500, Ordering::SeqCst);
    let host = world.start().await;
    let facts = world.eventually_facts("tokens", 3).await;
    assert_eq!(pid(&facts[0]), pid(&facts[2]), "no restart: {facts:?}");
    assert!(facts[0].ends_with("secret-token-1") && facts[2].ends_with("secret-token-3"), "{facts:?}");
    let file = fs::read_dir(world.path("run")).unwrap().find_map(|entry| {
        let path = entry.unwrap().path();
        path.is_dir().then(|| fs::read_dir(path).unwrap().map(|file| file.unwrap().path()).collect::<Vec<_>>())
    });
    let token = file.unwrap().into_iter().find(|path| path.extension().is_some_and(|end| end == "token")).unwrap();
    assert_eq!(fs::metadata(&token).unwrap().permissions().mode() & 0o777, 0o600);
    let row = world.eventually_running(host.worker, "demo.one").await;
    assert_eq!(row.pid.unwrap().to_string(), pid(&facts[0]));
    host.stop().await;
    assert!(!token.exists(), "nothing private is left");
    let log = fs::read_to_string(world.path("artifacts/sensor/demo/one/stdout/v1.txt")).unwrap();
    assert!(log.lines().count() >= 3 && log.lines().all(|line| line == "my token is [redacted]"), "{log}");
}

#[tokio::test]
async fn a_token_that_cannot_be_renewed_is_told_and_so_is_its_end_and_the_next_one_is_taken() {
    for (keeps, is_kept) in [("token", true), ("nothing", false)] {
        let world = world(keeps).await;
        world.api.life_ms.store(1000, Ordering::SeqCst);
        let host = world.start().await;
        let first = world.eventually_facts("tokens", 1).await;
        world.api.is_down.store(true, Ordering::SeqCst);
        let says = |what: &'static str| {
            let world = &world;
            async move {
                let fits = |view: &SensorView| view.reason.as_ref().is_some_and(|reason| reason.contains(what));
                eventually_view(world, what, fits).await
            }
        };
        assert!(says("its token cannot be renewed").await.reason.unwrap().contains("503"));
        let expired = says("its token has expired").await;
        assert_eq!(expired.state, "running");
        let pids: Vec<_> = world.facts("tokens").iter().map(|fact| pid(fact).to_owned()).collect();
        assert!(is_alive(pids.last().unwrap()) && pids.starts_with(&[pid(&first[0]).to_owned()]));
        world.api.life_ms.store(0, Ordering::SeqCst);
        world.api.is_down.store(false, Ordering::SeqCst);
        let fine =
            eventually_view(&world, "a new token", |view| view.state == "running" && view.reason.is_none()).await;
        assert_eq!(fine.pid.unwrap().to_string() == *pids.last().unwrap(), is_kept);
        host.stop().await;
    }
}

#[tokio::test]
async fn a_sensor_that_does_not_take_tokens_is_started_again_for_one() {
    let world = world("nothing").await;
    world.api.life_ms.store(1500, Ordering::SeqCst);
    let host = world.start().await;
    let facts = world.eventually_facts("tokens", 2).await;
    assert_ne!(pid(&facts[0]), pid(&facts[1]), "{facts:?}");
    let row = world.eventually_running(host.worker, "demo.one").await;
    assert_eq!(row.consecutive_failures, 0);
    host.stop().await;
}

#[tokio::test]
async fn a_sensor_that_listens_for_rules_itself_is_not_started_again_for_them() {
    let mut world = world("rules").await;
    let host = world.start().await;
    let first = world.eventually_facts("rules", 1).await;
    eventually_view(&world, "what it says", |view| view.ready && view.state == "running").await;
    world.add_rule("more", "one", &json!({"n": 2}));
    world.load().await;
    world.hint().await;
    // The host has seen the change: it counts one rule more.
    world.eventually_row(host.worker, "demo.one", |row| row.status == SensorProcessStatus::Running).await;
    eventually_view(&world, "two rules", |view| view.rules == 2).await;
    let row = world.eventually_row(host.worker, "demo.one", |row| row.active_rule_count == 2).await;
    assert_eq!((row.status, row.pid.unwrap().to_string().as_str()), (SensorProcessStatus::Running, pid(&first[0])));
    assert_eq!(world.facts("rules"), first);
    assert!(is_alive(pid(&first[0])));
    // Its code is another matter.
    world.write_script("one", &format!("{}\n# changed\n", TALKER.replace("@KEEPS@", "rules")));
    world.hint().await;
    world.eventually_facts("rules", 2).await;
    host.stop().await;
}

#[tokio::test]
async fn the_row_of_a_sensor_that_talks_all_the_time_is_written_late_and_not_never() {
    let mut world = World::new().await;
    world.run = Some(world.path("run"));
    let script = r#"
import os, socket, time
host = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
while True:
    host.sendto(b"WATCHDOG=1", os.environ["NOTIFY_SOCKET"])
    time.sleep(0.1)
"#;
    world.add_sensor("one", "python", script);
    let mut database = world.database().await.acquire().await.unwrap();
    for statement in [
        "CREATE TABLE closed (why TEXT)",
        "INSERT INTO closed VALUES ('the test')",
        "CREATE TRIGGER not_running BEFORE UPDATE ON sensor_process
         WHEN NEW.status = 'running' AND EXISTS (SELECT * FROM closed)
         BEGIN SELECT RAISE(ABORT, 'not now'); END",
    ] {
        sqlx::query(statement).execute(&mut *database).await.unwrap();
    }
    let host = world.start().await;
    eventually_view(&world, "running", |view| view.state == "running").await;
    assert_ne!(world.row(host.worker, "demo.one").await.unwrap().status, SensorProcessStatus::Running);
    sqlx::query("DELETE FROM closed").execute(&mut *database).await.unwrap();
    world.eventually_running(host.worker, "demo.one").await;
    host.stop().await;
}

#[tokio::test]
async fn a_sensor_that_waits_for_the_token_of_its_successor_hears_that_it_is_not_wanted_any_more() {
    let mut world = world("nothing").await;
    let host = world.start().await;
    let running = eventually_view(&world, "running", |view| view.state == "running" && view.ready).await;
    world.api.is_down.store(true, Ordering::SeqCst);
    world.add_rule("more", "one", &json!({"n": 2}));
    world.load().await;
    world.hint().await;
    let goes_on = |view: &SensorView| view.reason.as_ref().is_some_and(|reason| reason.contains("goes on as it was"));
    let waiting = eventually_view(&world, "why it is not started anew", goes_on).await;
    assert_eq!((waiting.state.as_str(), waiting.pid), ("running", running.pid));
    world.pack.rules.pop();
    world.load().await;
    world.hint().await;
    eventually_view(&world, "that all is well", |view| view.reason.is_none()).await;
    world.api.is_down.store(false, Ordering::SeqCst);
    world.add_sensor("other", "shell", r#"echo "$$" >> "$FACTS/other"; exec sleep 1000"#);
    world.load().await;
    world.hint().await;
    world.eventually_facts("other", 1).await;
    let view = view(&world).await;
    assert_eq!((view.pid, view.rules, view.state.as_str()), (running.pid, 1, "running"));
    host.stop().await;
}

#[tokio::test]
async fn a_sensor_that_hangs_is_started_again_and_the_row_says_so() {
    let mut world = World::new().await;
    world.run = Some(world.path("run"));
    world.timing.watchdog = Duration::from_millis(200);
    let script = r#"
import os, socket, time
assert os.environ["WATCHDOG_USEC"] == "200000"
host = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
for _ in range(5):
    host.sendto(b"WATCHDOG=1", os.environ["NOTIFY_SOCKET"])
    time.sleep(0.02)
with open(os.environ["FACTS"] + "/one", "a") as file:
    file.write("hangs\n")
time.sleep(1000)
"#;
    world.add_sensor("one", "python", script);
    let host = world.start().await;
    world.eventually_facts("one", 2).await;
    let row = world.eventually_row(host.worker, "demo.one", |row| row.status == SensorProcessStatus::Backoff).await;
    let excerpt = row.stderr_excerpt.unwrap();
    assert!(excerpt.contains("it hung: no WATCHDOG=1 within 0.2 s"), "{excerpt}");
    host.stop().await;
}

#[tokio::test]
async fn an_operator_lists_stops_starts_and_restarts_without_restarting_the_host() {
    let mut world = world("token").await;
    let host = world.start().await;
    let running = eventually_view(&world, "running", |view| view.state == "running" && view.ready).await;
    assert_eq!(fs::metadata(socket(&world)).unwrap().permissions().mode() & 0o777, 0o600);
    assert_eq!((running.rules, running.failures, running.status.as_deref()), (1, 0, Some("watching")));
    let first = running.pid.unwrap().to_string();
    let id = world.row(host.worker, "demo.one").await.unwrap().sensor;
    let control = socket(&world);
    let ask = async |request: ControlRequest| ask_host(&control, &request).await.unwrap();
    let one = || "demo.one".to_owned();

    assert_eq!(ask(ControlRequest::Restart(one())).await, ControlReply::Accepted);
    let again = eventually_view(&world, "another process", |view| view.pid.is_some_and(|pid| pid.to_string() != first));
    let second = again.await.pid.unwrap().to_string();
    assert!(!is_alive(&first));

    assert_eq!(ask(ControlRequest::Stop(one())).await, ControlReply::Accepted);
    let stopped = eventually_view(&world, "stopped", |view| view.state == "stopped").await;
    assert!(stopped.pid.is_none() && !is_alive(&second));
    let has_token = || {
        let mut folders = fs::read_dir(world.path("run")).unwrap().map(|entry| entry.unwrap().path());
        folders.any(|folder| folder.join(format!("{id}.token")).exists())
    };
    world.eventually_row(host.worker, "demo.one", |row| row.status == SensorProcessStatus::Stopped).await;
    eventually("the end of its token's file", async || (!has_token()).then_some(())).await;
    // Messages do not bring it back.
    world.add_sensor("other", "shell", r#"echo "$$" >> "$FACTS/other"; exec sleep 1000"#);
    world.load().await;
    world.hint().await;
    world.eventually_facts("other", 1).await;
    assert_eq!(view(&world).await.state, "stopped");

    assert_eq!(ask(ControlRequest::Start(one())).await, ControlReply::Accepted);
    let started = eventually_view(&world, "running again", |view| view.state == "running").await;
    let log = eventually_view(&world, "a log", |view| view.stdout.is_some()).await.stdout.unwrap();
    eventually("the line in the log", async || {
        fs::read_to_string(&log).unwrap().contains("my token is [redacted]").then_some(())
    })
    .await;
    assert!(started.pid.is_some());
    let refused = ask(ControlRequest::Stop("demo.nobody".to_owned())).await;
    assert!(matches!(refused, ControlReply::Refused(reason) if reason.contains("demo.nobody")));
    host.stop().await;
    assert!(!socket(&world).exists());
}

#[tokio::test]
async fn a_sensor_that_has_ended_is_not_said_to_run_while_its_row_waits() {
    let mut world = world("token").await;
    world.timing.backoff_min = Duration::from_hours(1);
    world.timing.backoff_max = Duration::from_hours(1);
    let host = world.start().await;
    let pid = eventually_view(&world, "running", |view| view.state == "running").await.pid.unwrap();
    let locked = world.lock_store().await;
    attune_sys::kill(attune_sys::Pid::new(pid).unwrap(), attune_sys::SIGKILL).unwrap();
    let view = eventually_view(&world, "its end", |view| view.reason.is_some()).await;
    assert_eq!((view.state.as_str(), view.pid), ("backoff", None), "{view:?}");
    locked.rollback().await.unwrap();
    host.stop().await;
}

#[tokio::test]
async fn why_a_sensor_did_not_run_is_not_said_any_more_when_it_is_started() {
    let mut world = world("token").await;
    world.write_script("one", "raise SystemExit(3)");
    world.timing.backoff_min = Duration::from_hours(1);
    world.timing.backoff_max = Duration::from_hours(1);
    world.pack.runtimes.push(NewRuntime {
        r#ref: "core.slow".to_owned(),
        name: "Slow".to_owned(),
        execution_config: json!({
            "interpreter": {"binary": "/bin/sh"},
            "environment": {"env_type": "slow", "create_command": ["/bin/sh", "-c", "exec sleep 1000"]},
        }),
        ..NewRuntime::default()
    });
    let host = world.start().await;
    let failed = eventually_view(&world, "its failure", |view| view.state == "backoff").await;
    assert!(failed.reason.unwrap().contains("it exited with code 3; next start in"));
    world.pack.sensors[0].runtime_ref = "core.slow".to_owned();
    world.load().await;
    world.hint().await;
    let starting = eventually_view(&world, "its start", |view| view.state == "starting").await;
    assert_eq!(starting.reason, None);
    host.stop().await;
}

#[tokio::test]
async fn an_operator_is_answered_and_obeyed_while_the_database_hangs() {
    let world = world("token").await;
    let host = world.start().await;
    eventually_view(&world, "running", |view| view.state == "running").await;
    let first = view(&world).await.pid.unwrap().to_string();
    let ask = async |request: ControlRequest| ask_host(&socket(&world), &request).await.unwrap();
    let one = || "demo.one".to_owned();
    // Whoever reads the rules now waits for seconds.
    let mut database = world.database().await.acquire().await.unwrap();
    for statement in [
        "PRAGMA legacy_alter_table = ON",
        "ALTER TABLE rule RENAME TO rules_of_now",
        "CREATE VIEW rule AS WITH RECURSIVE n(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM n WHERE x < 60000000)
         SELECT * FROM rules_of_now WHERE (SELECT count(*) FROM n) > 0",
    ] {
        sqlx::query(statement).execute(&mut *database).await.unwrap();
    }
    assert_eq!(ask(ControlRequest::Restart(one())).await, ControlReply::Accepted);
    let again = eventually_view(&world, "another process", |view| view.pid.is_some_and(|pid| pid.to_string() != first));
    let second = again.await.pid.unwrap().to_string();
    assert_eq!(ask(ControlRequest::Stop(one())).await, ControlReply::Accepted);
    eventually_view(&world, "stopped", |view| view.state == "stopped").await;
    assert!(!is_alive(&first) && !is_alive(&second));
    let what = eventually("a host that waits", async || match ask(ControlRequest::Start(one())).await {
        ControlReply::Later(what) => Some(what),
        _ => None,
    })
    .await;
    assert!(what.contains("waits for its database"), "{what}");
    for statement in ["DROP VIEW rule", "ALTER TABLE rules_of_now RENAME TO rule"] {
        sqlx::query(statement).execute(&mut *database).await.unwrap();
    }
    eventually_view(&world, "running again", |view| view.state == "running").await;
    host.stop().await;
}
