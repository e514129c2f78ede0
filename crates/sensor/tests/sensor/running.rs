//! Which sensors run, with what, and that each runs once.

use std::collections::BTreeMap;
use std::fs;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use attune_model::activity::Activity;
use attune_model::clock::SystemClock;
use attune_model::status::{SensorProcessStatus, WorkerStatus};
use attune_store::{HubStore, PageRequest};
use attune_testkit::eventually;
use serde_json::{Value, json};

use crate::support::{Running, World, is_alive};

/// Writes its pid and its rules, then waits for its end.
const FAITHFUL: &str = r#"echo "$$ $ATTUNE_SENSOR_TRIGGERS" >> "$FACTS/$ATTUNE_SENSOR_REF"; exec sleep 1000"#;

fn pid(fact: &str) -> &str {
    fact.split(' ').next().unwrap()
}

#[tokio::test]
async fn a_wanted_sensor_runs_with_exactly_the_variables_of_the_contract() {
    let mut world = World::new().await;
    world.add_sensor("envy", "shell", r#"env > "$FACTS/tmp"; mv "$FACTS/tmp" "$FACTS/env"; exec sleep 1000"#);
    let mut host = world.start().await;
    assert!(host.started.wait().await);
    let facts = world.eventually_facts("env", 1).await;
    let mut variables: BTreeMap<&str, &str> = facts.iter().filter_map(|line| line.split_once('=')).collect();
    // What the shell sets by itself.
    for name in ["PWD", "SHLVL", "_", "OLDPWD"] {
        variables.remove(name);
    }
    let row = world.eventually_running(host.worker, "demo.envy").await;
    let id = row.sensor.to_string();
    let (artifacts, facts_dir) = (world.path("artifacts"), world.path("facts"));
    let api_url = format!("http://{}", world.address);
    let rules: Value = serde_json::from_str(variables.remove("ATTUNE_SENSOR_TRIGGERS").unwrap()).unwrap();
    let rule = &rules.as_array().unwrap()[0];
    assert_eq!((&rule["ref"], &rule["config"]), (&json!("demo.envy_rule"), &json!({"n": 1})));
    let expected: BTreeMap<&str, &str> = [
        ("PATH", "/usr/local/bin:/usr/bin:/bin"),
        ("FACTS", facts_dir.to_str().unwrap()),
        ("ATTUNE_API_URL", &api_url),
        ("ATTUNE_API_TOKEN", "secret-token-1"),
        ("ATTUNE_SENSOR_ID", &id),
        ("ATTUNE_SENSOR_REF", "demo.envy"),
        ("ATTUNE_MQ_URL", "amqp://guest:guest@localhost:5672"),
        ("ATTUNE_MQ_EXCHANGE", "attune.events"),
        ("ATTUNE_ARTIFACTS_DIR", artifacts.to_str().unwrap()),
        ("ATTUNE_LOG_LEVEL", "info"),
        ("ATTUNE_AGENT_BIN", "/opt/attune/agent/attune-agents"),
        ("ATTUNE_SENSOR_CONFIG", r#"{"path":"/x"}"#),
        ("ATTUNE_SENSOR_TRIGGER_REFS", r#"["demo.envy_trigger"]"#),
    ]
    .into();
    assert_eq!(variables, expected);
    let request = world.api.requests.lock().unwrap()[0].clone();
    let expected = json!({"sensor_ref": "demo.envy", "trigger_types": ["demo.envy_trigger"], "ttl_seconds": 86400});
    assert_eq!(request, expected);
    host.stop().await;
}

/// The rows are read while the queue is made, and no message tells of what changes in between.
#[tokio::test]
async fn what_changes_while_a_host_is_built_is_not_missed() {
    let mut world = World::new().await;
    world.add_sensor("early", "shell", FAITHFUL);
    world.load().await;
    let built = world.build_host(world.config(), Arc::new(SystemClock)).await;
    world.add_sensor("late", "shell", FAITHFUL);
    world.load().await;
    let host = Running::spawn(built);
    world.eventually_running(host.worker, "demo.early").await;
    world.eventually_running(host.worker, "demo.late").await;
    host.stop().await;
}

#[tokio::test]
async fn the_row_follows_the_process_and_nothing_is_left_at_the_end() {
    let mut world = World::new().await;
    world.add_sensor("one", "shell", FAITHFUL);
    let host = world.start().await;
    let worker = host.worker;
    let row = world.eventually_running(worker, "demo.one").await;
    let facts = world.eventually_facts("demo.one", 1).await;
    assert_eq!(row.pid.unwrap().to_string(), pid(&facts[0]));
    assert_eq!((row.active_rule_count, row.consecutive_failures), (1, 0));
    assert_eq!(
        (row.worker_name.as_str(), row.log_artifact_ref.as_deref()),
        ("sensor-test", Some("sensor.demo.one.stderr"))
    );
    eventually("live numbers in the capabilities", async || {
        let workers = world.store.workers(PageRequest { page: 1, page_size: 10 }).await.unwrap();
        let capabilities = &workers.items[0].capabilities;
        let is_live = capabilities["sensor_processes_running"] == 1
            && capabilities["sensor_processes_monitored"] == 1
            && capabilities["active_rules"] == 1;
        is_live.then_some(())
    })
    .await;
    host.stop().await;
    assert!(!is_alive(pid(&facts[0])));
    let row = world.row(worker, "demo.one").await.unwrap();
    assert_eq!((row.status, row.pid), (SensorProcessStatus::Stopped, None));
    let workers = world.store.workers(PageRequest { page: 1, page_size: 10 }).await.unwrap();
    assert_eq!(workers.items[0].status, WorkerStatus::Inactive);
}

#[tokio::test]
async fn a_storm_of_messages_leaves_one_process() {
    let mut world = World::new().await;
    world.add_sensor("one", "shell", FAITHFUL);
    let host = world.start().await;
    for _ in 0..300 {
        world.hint().await;
    }
    world.eventually_running(host.worker, "demo.one").await;
    for _ in 0..300 {
        world.hint().await;
    }
    // A later change is seen, so everything before it has been seen too.
    world.add_sensor("two", "shell", FAITHFUL);
    world.load().await;
    world.hint().await;
    world.eventually_facts("demo.two", 1).await;
    assert_eq!(world.facts("demo.one").len(), 1);
    assert_eq!(world.api.tokens.load(Ordering::SeqCst), 2);
    host.stop().await;
}

#[tokio::test]
async fn changed_rules_reach_the_sensor_by_one_restart() {
    let mut world = World::new().await;
    world.add_sensor("one", "shell", FAITHFUL);
    let host = world.start().await;
    let first = world.eventually_facts("demo.one", 1).await;
    world.add_rule("more", "one", &json!({"n": 2}));
    world.load().await;
    for _ in 0..50 {
        world.hint().await;
    }
    let facts = world.eventually_facts("demo.one", 2).await;
    let rules: Value = serde_json::from_str(facts[1].split_once(' ').unwrap().1).unwrap();
    let refs: Vec<&Value> = rules.as_array().unwrap().iter().map(|rule| &rule["ref"]).collect();
    assert_eq!(refs, ["demo.one_rule", "demo.more"]);
    assert!(!is_alive(pid(&first[0])), "the old one is gone before the new one is there");
    let row = world
        .eventually_row(host.worker, "demo.one", |row| {
            row.status == SensorProcessStatus::Running && row.active_rule_count == 2
        })
        .await;
    assert_eq!(row.consecutive_failures, 0, "a planned restart is no failure");
    assert_eq!(world.facts("demo.one").len(), 2);
    host.stop().await;
}

#[tokio::test]
async fn a_sensor_without_rules_or_disabled_is_stopped_and_comes_back() {
    let mut world = World::new().await;
    world.add_sensor("one", "shell", FAITHFUL);
    world.add_sensor("two", "shell", FAITHFUL);
    let host = world.start().await;
    let pids = [world.eventually_facts("demo.one", 1).await, world.eventually_facts("demo.two", 1).await].concat();
    // A row of a sensor that was taken and does not run yet says `stopped`, too.
    for sensor in ["demo.one", "demo.two"] {
        world.eventually_running(host.worker, sensor).await;
    }
    world.pack.rules[0].enabled = false;
    world.pack.sensors[1].enabled = false;
    world.load().await;
    world.hint().await;
    for (sensor, rules) in [("demo.one", 0), ("demo.two", 1)] {
        let row = world.eventually_row(host.worker, sensor, |row| row.status == SensorProcessStatus::Stopped).await;
        assert_eq!(row.active_rule_count, rules, "{sensor}");
    }
    assert!(pids.iter().all(|fact| !is_alive(pid(fact))));
    world.pack.rules[0].enabled = true;
    world.pack.sensors[1].enabled = true;
    world.load().await;
    world.hint().await;
    world.eventually_facts("demo.one", 2).await;
    world.eventually_facts("demo.two", 2).await;
    host.stop().await;
}

#[tokio::test]
async fn changes_without_a_message_are_found_by_the_slow_comparison() {
    let mut world = World::new().await;
    world.timing.reconcile_interval = Duration::from_millis(30);
    world.add_sensor("one", "shell", FAITHFUL);
    let host = world.start().await;
    world.eventually_running(host.worker, "demo.one").await;
    world.pack.rules.clear();
    world.load().await;
    world.eventually_row(host.worker, "demo.one", |row| row.status == SensorProcessStatus::Stopped).await;
    host.stop().await;
}

#[tokio::test]
async fn a_changed_script_restarts_its_sensor_and_no_other() {
    let mut world = World::new().await;
    world.add_sensor("one", "shell", FAITHFUL);
    world.add_sensor("two", "shell", FAITHFUL);
    let host = world.start().await;
    world.eventually_facts("demo.one", 1).await;
    world.eventually_facts("demo.two", 1).await;
    world.write_script("one", &format!("echo changed >> $FACTS/changed\n{FAITHFUL}"));
    world.hint().await;
    world.eventually_facts("changed", 1).await;
    world.eventually_facts("demo.one", 2).await;
    assert_eq!(world.facts("demo.two").len(), 1);
    host.stop().await;
}

/// Other settings of the rule of `demo.other`, and nothing else: only that sensor starts again.
async fn change_other(world: &World, number: u32) {
    let mut database = world.database().await.acquire().await.unwrap();
    let query = sqlx::query("UPDATE rule SET trigger_params = ?1 WHERE ref = 'demo.other_rule'");
    query.bind(json!({"n": number}).to_string()).execute(&mut *database).await.unwrap();
    world.hint().await;
}

#[tokio::test]
async fn a_pack_that_is_registered_with_another_file_restarts_its_sensors_and_the_same_pack_does_not() {
    let mut world = World::new().await;
    world.add_sensor("one", "shell", FAITHFUL);
    world.add_sensor("other", "shell", FAITHFUL);
    let mut host = world.start().await;
    assert!(host.started.wait().await);
    let first = [world.eventually_facts("demo.one", 1).await, world.eventually_facts("demo.other", 1).await];
    // A file that only the sensors know of, and nobody says anything.
    let words = world.path("packs/demo/data/words.txt");
    fs::create_dir_all(words.parent().unwrap()).unwrap();
    fs::write(&words, "one").unwrap();
    change_other(&world, 2).await;
    world.eventually_facts("demo.other", 2).await;
    assert_eq!(world.facts("demo.one").len(), 1);
    world.register().await;
    world.eventually_facts("demo.one", 2).await;
    world.eventually_facts("demo.other", 3).await;
    for lines in first {
        assert!(!is_alive(pid(&lines[0])));
    }
    // The same pack.
    world.register().await;
    for (number, starts) in [(3, 4), (4, 5)] {
        change_other(&world, number).await;
        world.eventually_facts("demo.other", starts).await;
    }
    assert_eq!(world.facts("demo.one").len(), 2);
    // The message was lost, and the row of the pack is another one.
    fs::write(&words, "some more").unwrap();
    "1.0.1".clone_into(&mut world.pack.version);
    world.load().await;
    world.hint().await;
    world.eventually_facts("demo.one", 3).await;
    host.stop().await;
    assert_eq!(world.facts("demo.one").len(), 3);
}

#[tokio::test]
async fn a_sensor_that_does_not_fit_is_left_alone_and_says_why() {
    let mut world = World::new().await;
    world.add_sensor("selective", "shell", FAITHFUL);
    world.add_sensor("broken", "shell", FAITHFUL);
    world.add_sensor("jewel", "ruby", FAITHFUL);
    world.add_sensor("plain", "shell", FAITHFUL);
    world.pack.sensors[0].placement.selector = json!({"zone": "b"});
    world.pack.sensors[1].placement.selector = json!("zone b");
    let mut host = world.start().await;
    assert!(host.started.wait().await);
    world.eventually_facts("demo.plain", 1).await;
    let reasons: BTreeMap<String, String> = world
        .seen
        .0
        .lock()
        .unwrap()
        .iter()
        .filter_map(|activity| match activity {
            Activity::Sensor { sensor_ref, status: SensorProcessStatus::Failed, reason, .. } => {
                Some((sensor_ref.clone(), reason.clone().unwrap()))
            }
            _ => None,
        })
        .collect();
    assert_eq!(reasons.len(), 3, "{reasons:?}");
    assert!(reasons["demo.selective"].contains("not placed here"), "{reasons:?}");
    assert!(reasons["demo.broken"].contains("placement is not valid"), "{reasons:?}");
    assert!(reasons["demo.jewel"].contains("core.ruby"), "{reasons:?}");
    assert!(world.facts("demo.selective").is_empty());
    host.stop().await;
}

#[tokio::test]
async fn twenty_stubborn_sensors_are_stopped_side_by_side() {
    let mut world = World::new().await;
    world.timing.stop_grace = Duration::from_secs(3);
    let stubborn = r#"trap "" TERM INT HUP; echo $$ >> "$FACTS/$ATTUNE_SENSOR_REF"; while :; do sleep 1000; done"#;
    for number in 0..20 {
        world.add_sensor(&format!("s{number}"), "shell", stubborn);
    }
    let host = world.start().await;
    let mut pids = Vec::new();
    for number in 0..20 {
        pids.extend(world.eventually_facts(&format!("demo.s{number}"), 1).await);
    }
    let (worker, tasks) = (host.worker, host.tasks.clone());
    host.stop.soft().cancel();
    // One after another they would take a minute.
    eventually("the end of all", async || tasks.is_empty().then_some(())).await;
    assert!(pids.iter().all(|pid| !is_alive(pid)));
    for number in 0..20 {
        let row = world.row(worker, &format!("demo.s{number}")).await.unwrap();
        assert_eq!(row.status, SensorProcessStatus::Stopped);
    }
}

#[tokio::test]
async fn every_sensor_is_asked_to_end_before_the_grace_of_any_is_over() {
    const SENSORS: usize = 20;
    let mut world = World::new().await;
    // One after another, the second would be asked tomorrow.
    world.timing.stop_grace = Duration::from_hours(24);
    let deaf = r#"trap 'echo $$ >> "$FACTS/asked"' TERM; echo $$ >> "$FACTS/pids"; while :; do sleep 1000; done"#;
    for number in 0..SENSORS {
        world.add_sensor(&format!("s{number}"), "shell", deaf);
    }
    let host = world.start().await;
    let mut pids = world.eventually_facts("pids", SENSORS).await;
    host.stop.soft().cancel();
    let mut asked = world.eventually_facts("asked", SENSORS).await;
    assert!(pids.iter().all(|pid| is_alive(pid)));
    pids.sort_unstable();
    asked.sort_unstable();
    assert_eq!(asked, pids, "each of them, and once");
    host.stop.hard().cancel();
    host.tasks.drained().await;
    assert!(pids.iter().all(|pid| !is_alive(pid)));
}

#[tokio::test]
async fn the_hard_stop_does_not_wait_for_the_grace() {
    let mut world = World::new().await;
    world.timing.stop_grace = Duration::from_hours(1);
    world.add_sensor("one", "shell", r#"trap "" TERM; echo $$ >> "$FACTS/one"; while :; do sleep 1000; done"#);
    let host = world.start().await;
    let facts = world.eventually_facts("one", 1).await;
    host.stop.hard().cancel();
    let tasks = host.tasks.clone();
    eventually("the end", async || tasks.is_empty().then_some(())).await;
    assert!(!is_alive(&facts[0]));
    assert_eq!(world.row(host.worker, "demo.one").await.unwrap().status, SensorProcessStatus::Stopped);
}
