//! Sensors that end, cannot start, or print what they like; an API that is away; a host that comes back.

use std::fs;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use attune_bus::{Bus, ConsumerEvent, QueueLifetime, QueueSpec, decode};
use attune_model::Secret;
use attune_model::clock::{Clock, SystemClock};
use attune_model::message::{EventCreated, Exchange};
use attune_model::rows::SensorProcess;
use attune_model::status::SensorProcessStatus;
use attune_testkit::eventually;
use chrono::{DateTime, SecondsFormat, Utc};
use serde_json::{Value, json};

use crate::support::{World, is_alive};

const FAITHFUL: &str = r#"echo "$$ $ATTUNE_API_TOKEN" >> "$FACTS/$ATTUNE_SENSOR_REF"; exec sleep 1000"#;

fn in_backoff(row: &SensorProcess) -> bool {
    row.status == SensorProcessStatus::Backoff
}

#[tokio::test]
async fn every_kind_of_end_is_a_failure_that_is_recorded_and_tried_again() {
    let mut world = World::new().await;
    let beginning = r#"echo started >> "$FACTS/$ATTUNE_SENSOR_REF"; "#;
    world.add_sensor("zero", "shell", &format!("{beginning} exit 0"));
    world.add_sensor("one", "shell", &format!("{beginning} echo first >&2; echo bad luck >&2; exit 1"));
    world.add_sensor("killed", "shell", &format!("{beginning} kill -9 $$"));
    world.timing.backoff_max = Duration::from_millis(40);
    let host = world.start().await;
    for sensor in ["demo.zero", "demo.one", "demo.killed"] {
        world.eventually_facts(sensor, 3).await;
    }
    let worker = host.worker;
    let failed_twice = |row: &SensorProcess| in_backoff(row) && row.consecutive_failures >= 2;
    let zero = world.eventually_row(worker, "demo.zero", failed_twice).await;
    assert_eq!((zero.last_exit_code, zero.last_signal, zero.pid), (Some(0), None, None));
    // By the host's clock, and written a moment later by the store's: no order on a slow machine.
    assert!(zero.next_restart_at.is_some());
    let one = world.eventually_row(worker, "demo.one", failed_twice).await;
    assert_eq!((one.last_exit_code, one.stderr_excerpt.as_deref()), (Some(1), Some("first\nbad luck")));
    let killed = world.eventually_row(worker, "demo.killed", failed_twice).await;
    assert_eq!((killed.last_exit_code, killed.last_signal), (None, Some(9)));
    host.stop().await;
    assert_eq!(world.row(worker, "demo.one").await.unwrap().status, SensorProcessStatus::Stopped);
}

#[tokio::test]
async fn a_missing_script_or_interpreter_is_named_in_the_row_and_mended_without_waiting() {
    let mut world = World::new().await;
    world.timing.backoff_min = Duration::from_hours(1);
    world.timing.backoff_max = Duration::from_hours(1);
    world.add_sensor("gone", "shell", FAITHFUL);
    world.add_sensor("odd", "missing", FAITHFUL);
    fs::remove_file(world.path("packs/demo/sensors/gone")).unwrap();
    let mut host = world.start().await;
    assert!(host.started.wait().await, "a failed start is an attempt");
    let gone = world.eventually_row(host.worker, "demo.gone", in_backoff).await;
    let excerpt = gone.stderr_excerpt.unwrap();
    assert!(excerpt.contains("start failed") && excerpt.contains("demo/sensors/gone"), "{excerpt}");
    assert_eq!(gone.consecutive_failures, 1);
    let odd = world.eventually_row(host.worker, "demo.odd", in_backoff).await;
    assert!(odd.stderr_excerpt.as_ref().unwrap().contains("no-such-interpreter"), "{odd:?}");
    assert_eq!(world.api.tokens.load(Ordering::SeqCst), 0, "no token for what cannot start");
    world.write_script("gone", FAITHFUL);
    world.hint().await;
    let row = world.eventually_running(host.worker, "demo.gone").await;
    assert_eq!(row.consecutive_failures, 0);
    host.stop().await;
}

#[tokio::test]
async fn a_message_does_not_shorten_the_delay_of_an_unchanged_sensor() {
    let mut world = World::new().await;
    world.timing.backoff_min = Duration::from_hours(1);
    world.timing.backoff_max = Duration::from_hours(1);
    world.add_sensor("one", "shell", r#"echo started >> "$FACTS/one"; exit 3"#);
    let host = world.start().await;
    world.eventually_row(host.worker, "demo.one", in_backoff).await;
    for _ in 0..50 {
        world.hint().await;
    }
    world.add_sensor("two", "shell", FAITHFUL);
    world.load().await;
    world.hint().await;
    world.eventually_facts("demo.two", 1).await;
    assert_eq!(world.facts("one").len(), 1);
    host.stop().await;
}

#[tokio::test]
async fn an_api_that_is_away_delays_the_start_only() {
    let mut world = World::new().await;
    world.api.is_down.store(true, Ordering::SeqCst);
    world.add_sensor("one", "shell", FAITHFUL);
    let host = world.start().await;
    let row = world.eventually_row(host.worker, "demo.one", in_backoff).await;
    assert!(row.stderr_excerpt.unwrap().contains("503"));
    world.api.is_down.store(false, Ordering::SeqCst);
    world.eventually_running(host.worker, "demo.one").await;
    host.stop().await;
}

#[tokio::test]
async fn a_token_is_renewed_by_a_restart_that_is_no_failure() {
    let mut world = World::new().await;
    world.api.life_ms.store(400, Ordering::SeqCst);
    world.add_sensor("one", "shell", FAITHFUL);
    let host = world.start().await;
    let facts = world.eventually_facts("demo.one", 2).await;
    assert!(facts[0].ends_with("secret-token-1") && facts[1].ends_with("secret-token-2"), "{facts:?}");
    // While the API is away the sensor goes on with what it has.
    world.api.life_ms.store(0, Ordering::SeqCst);
    let before = world.facts("demo.one").len();
    let last = world.eventually_facts("demo.one", before).await.pop().unwrap();
    let row = world.eventually_row(host.worker, "demo.one", |row| row.status == SensorProcessStatus::Running).await;
    assert_eq!((row.consecutive_failures, row.last_exit_code), (0, None));
    let restarts = eventually("a token for a day", async || {
        let facts = world.facts("demo.one");
        let pid = facts.last()?.split(' ').next()?.to_owned();
        is_alive(&pid).then_some(facts.len())
    })
    .await;
    assert!(restarts >= 2, "{last}");
    host.stop().await;
}

#[tokio::test]
async fn a_sensor_whose_token_cannot_be_renewed_goes_on() {
    let mut world = World::new().await;
    world.api.life_ms.store(300, Ordering::SeqCst);
    world.add_sensor("one", "shell", FAITHFUL);
    let host = world.start().await;
    let facts = world.eventually_facts("demo.one", 1).await;
    world.api.is_down.store(true, Ordering::SeqCst);
    let asked = world.api.requests.lock().unwrap().len();
    eventually("further requests", async || (world.api.requests.lock().unwrap().len() >= asked + 2).then_some(()))
        .await;
    let last = world.facts("demo.one").pop().unwrap();
    assert!(is_alive(last.split(' ').next().unwrap()));
    assert!(!facts.is_empty());
    host.stop().await;
}

#[tokio::test]
async fn a_sensor_whose_successor_gets_no_token_goes_on_until_that_has_one_or_it_ends() {
    let mut world = World::new().await;
    world.add_sensor("one", "shell", FAITHFUL);
    world.add_sensor("other", "shell", FAITHFUL);
    let host = world.start().await;
    let mut first = Vec::new();
    for sensor in ["demo.one", "demo.other"] {
        world.eventually_running(host.worker, sensor).await;
        first.push(world.facts(sensor)[0].split(' ').next().unwrap().to_owned());
    }
    world.api.is_down.store(true, Ordering::SeqCst);
    let asked = world.api.requests.lock().unwrap().len();
    for sensor in ["one", "other"] {
        world.add_rule(&format!("more_{sensor}"), sensor, &json!({"n": 2}));
    }
    world.load().await;
    world.hint().await;
    eventually("further requests", async || (world.api.requests.lock().unwrap().len() >= asked + 6).then_some(()))
        .await;
    for (sensor, pid) in ["demo.one", "demo.other"].into_iter().zip(&first) {
        let row = world.row(host.worker, sensor).await.unwrap();
        assert!(is_alive(pid) && row.status == SensorProcessStatus::Running, "{row:?}");
    }
    // Nothing is left that could go on.
    attune_sys::kill(attune_sys::Pid::new(first[1].parse().unwrap()).unwrap(), attune_sys::SIGKILL).unwrap();
    let row = world.eventually_row(host.worker, "demo.other", in_backoff).await;
    assert!(row.stderr_excerpt.unwrap().contains("503"));
    world.api.is_down.store(false, Ordering::SeqCst);
    for sensor in ["demo.one", "demo.other"] {
        world.eventually_facts(sensor, 2).await;
        let runs_anew = |row: &SensorProcess| row.status == SensorProcessStatus::Running && row.active_rule_count == 2;
        world.eventually_row(host.worker, sensor, runs_anew).await;
    }
    assert!(!is_alive(&first[0]));
    host.stop().await;
}

#[tokio::test]
async fn what_a_sensor_prints_is_kept_whatever_it_is_and_without_its_secrets() {
    let mut world = World::new().await;
    let script = r#"
import os, sys
out = sys.stdout.buffer
out.write(b"caf\xe9 \xff\n" + b"x" * 300000 + b"\n" + os.environ["ATTUNE_API_TOKEN"].encode() + b"\nlast")
out.flush()
sys.stderr.write("warned: " + os.environ["ATTUNE_MQ_URL"] + " p@ssword\n")
sys.stderr.flush()
open(os.environ["FACTS"] + "/printed", "w").write("yes\n")
import time
time.sleep(1000)
"#;
    world.add_sensor("loud", "python", script);
    world.load().await;
    let mut config = world.config();
    config.mq_url = Some(Secret::new("amqp://attune:p%40ssword@broker:5672/%2f".to_owned()));
    let host = world.start_host_with(config, Arc::new(SystemClock)).await;
    let worker = host.worker;
    world.eventually_facts("printed", 1).await;
    let row = world.eventually_running(worker, "demo.loud").await;
    assert!(is_alive(&row.pid.unwrap().to_string()), "no byte of output kills it");
    host.stop().await;
    let log = fs::read(world.path("artifacts/sensor/demo/loud/stdout/v1.txt")).unwrap();
    assert!(log.starts_with(b"caf\xe9 \xff\nxxx"));
    assert!(log.ends_with(b"\n[redacted]\nlast\n"), "{}", String::from_utf8_lossy(&log[log.len() - 60..]));
    assert_eq!(log.split(|byte| *byte == b'x').count(), 300_001);
    let stderr = fs::read_to_string(world.path("artifacts/sensor/demo/loud/stderr/v1.txt")).unwrap();
    assert_eq!(stderr, "warned: amqp://attune:[redacted]@broker:5672/%2f [redacted]\n");
}

#[tokio::test]
async fn logs_grow_by_versions_of_bounded_size_and_old_ones_go() {
    let mut world = World::new().await;
    world.logs.max_bytes = 100;
    let script =
        r#"for n in $(seq 100 199); do echo "line $n of a log"; done; echo done >> "$FACTS/done"; exec sleep 1000"#;
    world.add_sensor("long", "shell", script);
    let host = world.start().await;
    world.eventually_facts("done", 1).await;
    host.stop().await;
    let folder = world.path("artifacts/sensor/demo/long/stdout");
    let mut files: Vec<_> = fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    assert_eq!(files.len(), 4, "{files:?}");
    for file in &files {
        assert!(fs::metadata(file).unwrap().len() <= 100, "{file:?}");
    }
    let newest = files.iter().map(|file| fs::read_to_string(file).unwrap()).find(|text| text.contains("line 199"));
    assert!(newest.is_some());
}

/// When the third failure is seen.
const NOW: &str = "2026-03-01T10:20:30.123456Z";

/// It is always this time.
#[derive(Debug)]
struct Still(DateTime<Utc>);

impl Clock for Still {
    fn now(&self) -> DateTime<Utc> {
        self.0
    }
}

/// The alert about the third failure of `demo.one`, which happened now and is what its row tells of.
fn third_alert(row: &SensorProcess, now: DateTime<Utc>) -> Value {
    let (sensor, worker, restart) = (row.sensor, row.worker, row.next_restart_at.unwrap());
    let delay = (restart - now).num_seconds();
    // An hour but for what keeps many sensors from coming back at once.
    assert!((3240..=3600).contains(&delay), "{delay}");
    json!({
        "severity": "error",
        "category": "sensor_process_health",
        "failure_type": "sensor_process_repeated_failure",
        "component_type": "sensor",
        "component_id": sensor,
        "component_ref": "demo.one",
        "worker_role": "sensor",
        "observed_at": NOW,
        "summary": format!("sensor demo.one failed 3 times in a row on sensor-test; it is started again in {delay} s"),
        "details": {
            "sensor_id": sensor,
            "sensor_ref": "demo.one",
            "worker_id": worker,
            "worker_name": "sensor-test",
            "process_status": "backoff",
            "consecutive_failures": 3,
            "last_exit_code": 4,
            "last_signal": null,
            "backoff_delay_seconds": delay,
            "next_restart_at": restart.to_rfc3339_opts(SecondsFormat::Micros, true),
            "active_rule_count": 2,
            "stderr_excerpt": "why",
        },
        "correlation_id": format!("sensor:{sensor}:worker:{worker}:repeated_failure"),
    })
}

#[tokio::test]
async fn the_third_failure_raises_an_alert_on_the_bus() {
    let mut world = World::new().await;
    world.timing.backoff_min = Duration::from_hours(1);
    world.timing.backoff_max = Duration::from_hours(1);
    let spec = QueueSpec {
        name: "test.events".to_owned(),
        bindings: vec![(Exchange::Events, "event.created".to_owned())],
        message_ttl_ms: None,
        dead_letters: false,
        lifetime: QueueLifetime::Permanent,
    };
    world.bus.declare(&spec).await.unwrap();
    let mut consumer = world.bus.consume("test.events", "test", 10).await.unwrap();
    world.add_sensor("one", "shell", "echo why >&2; exit 4");
    world.add_rule("more", "one", &json!({"n": 2}));
    for failures in 1..3 {
        let host = world.start().await;
        let has_failed = |row: &SensorProcess| in_backoff(row) && row.consecutive_failures == failures;
        let row = world.eventually_row(host.worker, "demo.one", has_failed).await;
        assert_eq!(row.last_alerted_failure_count, 0);
        host.stop().await;
    }
    let now: DateTime<Utc> = NOW.parse().unwrap();
    let host = world.start_host_with(world.config(), Arc::new(Still(now))).await;
    let Some(ConsumerEvent::Delivery(delivery)) = consumer.next().await else { panic!("no message") };
    let (envelope, event): (_, EventCreated) = decode(&delivery.body).unwrap();
    assert_eq!(envelope.headers.source_service.as_deref(), Some("system-alert"));
    assert_eq!(event.trigger_ref, "core.alert");
    assert_eq!((event.sensor_id, event.sensor_ref.as_deref()), (None, Some("attune.system")));
    let row = world.eventually_row(host.worker, "demo.one", |row| row.last_alerted_failure_count == 3).await;
    let expected = third_alert(&row, now);
    assert_eq!(event.payload.unwrap(), expected);
    let stored = sqlx::query_as("SELECT payload, source, source_ref FROM event WHERE trigger_ref = 'core.alert'");
    let stored: (String, Option<i64>, String) = stored.fetch_one(&world.database().await).await.unwrap();
    assert_eq!((stored.1, stored.2.as_str()), (None, "attune.system"));
    assert_eq!(serde_json::from_str::<Value>(&stored.0).unwrap(), expected);
    host.stop().await;
}

#[tokio::test]
async fn an_alert_does_not_take_the_place_of_a_failure_that_could_not_be_written_yet() {
    let mut world = World::new().await;
    world.timing.backoff_min = Duration::from_hours(1);
    world.timing.backoff_max = Duration::from_hours(1);
    world.add_sensor("one", "shell", "exit 4");
    for failures in 1..3 {
        let host = world.start().await;
        let has_failed = |row: &SensorProcess| in_backoff(row) && row.consecutive_failures == failures;
        world.eventually_row(host.worker, "demo.one", has_failed).await;
        host.stop().await;
    }
    let mut database = world.database().await.acquire().await.unwrap();
    for statement in [
        "CREATE TABLE closed (why TEXT)",
        "INSERT INTO closed VALUES ('the test')",
        "CREATE TRIGGER no_failures BEFORE UPDATE ON sensor_process
         WHEN NEW.status = 'backoff' AND EXISTS (SELECT * FROM closed) BEGIN SELECT RAISE(ABORT, 'not now'); END",
    ] {
        sqlx::query(statement).execute(&mut *database).await.unwrap();
    }
    let host = world.start().await;
    let alerted = |row: &SensorProcess| row.last_alerted_failure_count == 3;
    eventually("the alert", async || {
        let events = sqlx::query_scalar("SELECT count(*) FROM event WHERE trigger_ref = 'core.alert'");
        let count: i64 = events.fetch_one(&mut *database).await.unwrap();
        (count > 0).then_some(())
    })
    .await;
    sqlx::query("DELETE FROM closed").execute(&mut *database).await.unwrap();
    let row = world.eventually_row(host.worker, "demo.one", alerted).await;
    assert_eq!((row.status, row.consecutive_failures), (SensorProcessStatus::Backoff, 3));
    assert_eq!((row.last_exit_code, row.next_restart_at.is_some()), (Some(4), true));
    host.stop().await;
}

#[tokio::test]
async fn a_host_that_comes_back_goes_on_counting_and_forgets_dead_processes() {
    let mut world = World::new().await;
    world.timing.backoff_min = Duration::from_hours(1);
    world.timing.backoff_max = Duration::from_hours(1);
    world.add_sensor("bad", "shell", "exit 1");
    world.add_sensor("good", "shell", FAITHFUL);
    let host = world.start().await;
    let worker = host.worker;
    world.eventually_row(worker, "demo.bad", in_backoff).await;
    world.eventually_running(worker, "demo.good").await;
    host.stop().await;
    world.pack.sensors[1].enabled = false;
    let again = world.start().await;
    assert_eq!(again.worker, worker, "the row is the same");
    let row = world.eventually_row(worker, "demo.bad", |row| in_backoff(row) && row.consecutive_failures == 2).await;
    assert_eq!(row.last_exit_code, Some(1));
    assert_eq!(world.row(worker, "demo.good").await.unwrap().status, SensorProcessStatus::Stopped);
    again.stop().await;
}

/// Has the host compare at least once for each of these new sensors.
async fn compare(world: &mut World, others: &[&str]) {
    for other in others {
        world.add_sensor(other, "shell", FAITHFUL);
        world.load().await;
        world.hint().await;
        world.eventually_facts(&format!("demo.{other}"), 1).await;
    }
}

#[tokio::test]
async fn a_sensor_that_is_enabled_anew_begins_with_a_clean_history() {
    let mut world = World::new().await;
    world.timing.backoff_min = Duration::from_hours(1);
    world.timing.backoff_max = Duration::from_hours(1);
    world.add_sensor(
        "one",
        "shell",
        r#"echo started >> "$FACTS/one"; test ! -e "$FACTS/mended" || exec sleep 1000; exit 1"#,
    );
    let host = world.start().await;
    world.eventually_row(host.worker, "demo.one", in_backoff).await;
    let switch = async |world: &mut World, is_on: bool| {
        world.pack.sensors[0].enabled = is_on;
        world.load().await;
        world.hint().await;
    };
    switch(&mut world, false).await;
    world.eventually_row(host.worker, "demo.one", |row| row.status == SensorProcessStatus::Stopped).await;
    // Nothing in this process remembers it.
    compare(&mut world, &["two", "three"]).await;
    switch(&mut world, true).await;
    let row = world.eventually_row(host.worker, "demo.one", in_backoff).await;
    assert_eq!(row.consecutive_failures, 1);
    // Nor does the row of one that runs tell of old failures.
    switch(&mut world, false).await;
    world.eventually_row(host.worker, "demo.one", |row| row.status == SensorProcessStatus::Stopped).await;
    compare(&mut world, &["four", "five"]).await;
    fs::write(world.path("facts/mended"), "").unwrap();
    switch(&mut world, true).await;
    let row = world.eventually_running(host.worker, "demo.one").await;
    assert_eq!(row.consecutive_failures, 0);
    host.stop().await;
}

#[tokio::test]
async fn a_healthy_time_makes_the_next_failure_the_first() {
    let mut world = World::new().await;
    world.timing.healthy_after = Duration::ZERO;
    world.add_sensor("one", "shell", r#"echo started >> "$FACTS/one"; exit 1"#);
    let host = world.start().await;
    world.eventually_facts("one", 5).await;
    let row = world.eventually_row(host.worker, "demo.one", in_backoff).await;
    assert_eq!(row.consecutive_failures, 1);
    host.stop().await;
}

#[tokio::test]
async fn rules_that_the_kernel_would_refuse_are_named_and_harm_no_other_sensor() {
    let mut world = World::new().await;
    world.add_sensor("big", "shell", FAITHFUL);
    world.add_rule("huge", "big", &json!({"text": "x".repeat(140_000)}));
    world.add_sensor("small", "shell", FAITHFUL);
    let host = world.start().await;
    let row = world.eventually_row(host.worker, "demo.big", in_backoff).await;
    assert!(row.stderr_excerpt.as_ref().unwrap().contains("ATTUNE_SENSOR_TRIGGERS"), "{row:?}");
    world.eventually_facts("demo.small", 1).await;
    host.stop().await;
}

#[tokio::test]
async fn an_entry_point_outside_of_the_pack_is_not_run() {
    let mut world = World::new().await;
    world.add_sensor("one", "shell", FAITHFUL);
    world.pack.sensors[0].entrypoint = "../../../evil".to_owned();
    fs::write(world.path("evil"), FAITHFUL).unwrap();
    let host = world.start().await;
    let row = world.eventually_row(host.worker, "demo.one", in_backoff).await;
    assert!(row.stderr_excerpt.unwrap().contains("leads out of"));
    assert!(world.facts("demo.one").is_empty());
    host.stop().await;
}
