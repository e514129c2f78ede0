//! Sensors that do not fit this host: from the beginning, or not any more; by their placement, or by the version they need.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use attune_model::activity::Activity;
use attune_model::clock::SystemClock;
use attune_model::rows::{RawPlacement, SensorProcess};
use attune_model::status::SensorProcessStatus;
use attune_runtime::plan::Planner;
use attune_store::NewRuntimeVersion;
use attune_testkit::eventually;
use serde_json::{Value, json};

use crate::support;
use crate::support::{World, is_alive};

const FAITHFUL: &str = r#"echo "$$" >> "$FACTS/$ATTUNE_SENSOR_REF"; exec sleep 1000"#;

/// Writes its own pid and that of a child that heeds no polite signal.
const PARENT: &str = r#"
(trap "" TERM INT HUP; while :; do sleep 1000; done) &
echo "$$ $!" >> "$FACTS/$ATTUNE_SENSOR_REF"
wait
"#;

/// What was said, in this order, of why the sensor is not run here.
fn refusals(world: &World, wanted: &str) -> Vec<String> {
    let seen = world.seen.0.lock().unwrap();
    let refusal = |activity: &Activity| match activity {
        Activity::Sensor { sensor_ref, status: SensorProcessStatus::Failed, reason, .. } if sensor_ref == wanted => {
            reason.clone()
        }
        _ => None,
    };
    seen.iter().filter_map(refusal).collect()
}

/// A host in zone a, for work that needs its card.
fn put_in_zone(world: &mut World) {
    world.capabilities.insert("labels".to_owned(), json!({"zone": "a"}));
    let taints = json!([
        {"key": "gpu", "value": "a100", "effect": "no_schedule"},
        {"key": "busy", "effect": "prefer_no_schedule"},
    ]);
    world.capabilities.insert("taints".to_owned(), taints);
}

fn tolerating(toleration: &Value) -> RawPlacement {
    RawPlacement { tolerations: json!([toleration]), ..RawPlacement::default() }
}

fn at_home() -> RawPlacement {
    RawPlacement {
        selector: json!({"zone": "a"}),
        affinity: json!({"required": [{"match_labels": {"zone": "a"}}]}),
        ..tolerating(&json!({"key": "gpu", "operator": "exists"}))
    }
}

fn is_stopped(row: &SensorProcess) -> bool {
    row.status == SensorProcessStatus::Stopped
}

async fn change(world: &World) {
    world.load().await;
    world.hint().await;
}

#[tokio::test]
async fn a_sensor_is_ended_when_it_fits_no_longer_and_runs_again_when_it_does() {
    let mut world = World::new().await;
    world.timing.stop_grace = Duration::from_millis(200);
    put_in_zone(&mut world);
    world.add_sensor("moving", "shell", PARENT);
    world.add_sensor("settled", "shell", FAITHFUL);
    world.pack.sensors[0].placement = at_home();
    world.pack.sensors[1].placement = at_home();
    let away = [
        (
            RawPlacement { selector: json!({"zone": "b"}), ..at_home() },
            "it is not placed here: worker_selector wants label zone=b",
        ),
        (
            RawPlacement { affinity: json!({"required": [{"match_labels": {"zone": "b"}}]}), ..at_home() },
            "it is not placed here: no term of worker_affinity.required matches the labels",
        ),
        (
            RawPlacement { affinity: json!({"anti_affinity": [{"match_labels": {"zone": "a"}}]}), ..at_home() },
            "it is not placed here: worker_affinity.anti_affinity[0] matches the labels",
        ),
        (
            RawPlacement { tolerations: json!([]), ..at_home() },
            "it is not placed here: taint gpu=a100 is not tolerated",
        ),
        // What nobody can read fits nowhere.
        (
            RawPlacement { tolerations: json!("all"), ..at_home() },
            "its placement is not valid: worker_tolerations: must be a list",
        ),
    ];
    let host = world.start().await;
    let mut said = Vec::new();
    for (round, (placement, reason)) in (1..).zip(away) {
        let pids = world.eventually_facts("demo.moving", round).await.pop().unwrap();
        let (leader, child) = pids.split_once(' ').unwrap();
        let of_now = |row: &SensorProcess| row.pid.is_some_and(|pid| pid.to_string() == leader);
        let row = world.eventually_row(host.worker, "demo.moving", of_now).await;
        assert_eq!((row.status, row.consecutive_failures), (SensorProcessStatus::Running, 0), "{reason}");
        assert!(is_alive(leader) && is_alive(child));
        world.pack.sensors[0].placement = placement;
        change(&world).await;
        let row = world.eventually_row(host.worker, "demo.moving", is_stopped).await;
        assert_eq!((row.pid, row.next_restart_at, row.consecutive_failures), (None, None, 0), "{reason}");
        assert!(!is_alive(leader), "{reason}");
        eventually("the end of its child", async || (!is_alive(child)).then_some(())).await;
        said.push(reason.to_owned());
        assert_eq!(refusals(&world, "demo.moving"), said);
        assert_eq!(world.facts("demo.moving").len(), round, "{reason}");
        world.pack.sensors[0].placement = at_home();
        change(&world).await;
    }
    world.eventually_facts("demo.moving", said.len() + 1).await;
    assert_eq!(world.facts("demo.settled").len(), 1, "nothing of it changed");
    assert_eq!(refusals(&world, "demo.settled"), Vec::<String>::new());
    host.stop().await;
}

#[tokio::test]
async fn a_sensor_that_waits_for_its_next_start_is_not_started_when_it_fits_no_longer() {
    let mut world = World::new().await;
    world.timing.backoff_min = Duration::from_hours(1);
    world.timing.backoff_max = Duration::from_hours(1);
    put_in_zone(&mut world);
    world.add_sensor("failing", "shell", r#"echo started >> "$FACTS/$ATTUNE_SENSOR_REF"; exit 1"#);
    world.pack.sensors[0].placement = at_home();
    let host = world.start().await;
    let in_backoff = |row: &SensorProcess| row.status == SensorProcessStatus::Backoff;
    world.eventually_row(host.worker, "demo.failing", in_backoff).await;
    world.pack.sensors[0].placement.selector = json!({"zone": "b"});
    change(&world).await;
    let row = world.eventually_row(host.worker, "demo.failing", is_stopped).await;
    assert_eq!((row.pid, row.next_restart_at), (None, None));
    assert_eq!(world.facts("demo.failing").len(), 1);
    assert_eq!(refusals(&world, "demo.failing"), ["it is not placed here: worker_selector wants label zone=b"]);
    host.stop().await;
}

#[tokio::test]
async fn a_tainted_host_starts_only_what_tolerates_its_taint() {
    let mut world = World::new().await;
    put_in_zone(&mut world);
    let cases = [
        ("anything", tolerating(&json!({"key": "gpu", "operator": "exists"})), true),
        ("exactly", tolerating(&json!({"key": "gpu", "value": "a100", "effect": "no_schedule"})), true),
        ("nothing", RawPlacement::default(), false),
        ("another_value", tolerating(&json!({"key": "gpu", "value": "v100"})), false),
        (
            "another_effect",
            tolerating(&json!({"key": "gpu", "operator": "exists", "effect": "prefer_no_schedule"})),
            false,
        ),
    ];
    for (index, (name, placement, _)) in cases.iter().enumerate() {
        world.add_sensor(name, "shell", FAITHFUL);
        world.pack.sensors[index].placement = placement.clone();
    }
    let mut host = world.start().await;
    assert!(host.started.wait().await);
    for (name, _, fits) in cases {
        let sensor = format!("demo.{name}");
        if fits {
            world.eventually_running(host.worker, &sensor).await;
            assert_eq!(refusals(&world, &sensor), Vec::<String>::new());
        } else {
            assert_eq!(refusals(&world, &sensor), ["it is not placed here: taint gpu=a100 is not tolerated"], "{name}");
            assert_eq!((world.facts(&sensor), world.row(host.worker, &sensor).await), (Vec::new(), None), "{name}");
        }
    }
    assert_eq!(world.api.tokens.load(Ordering::SeqCst), 2, "no token for what does not fit");
    host.stop().await;
}

#[tokio::test]
async fn a_constraint_that_nobody_can_read_is_met_by_no_version() {
    let mut world = World::new().await;
    for (name, constraint) in [("odd", Some("about five")), ("plain", None)] {
        world.add_sensor(name, "shell", FAITHFUL);
        world.pack.sensors.last_mut().unwrap().runtime_version_constraint = constraint.map(str::to_owned);
    }
    let mut host = world.start().await;
    assert!(host.started.wait().await);
    world.eventually_running(host.worker, "demo.plain").await;
    let refusals = refusals(&world, "demo.odd");
    assert_eq!(refusals.len(), 1, "{refusals:?}");
    assert!(refusals[0].contains("no usable runtime version constraint") && refusals[0].contains("about five"));
    assert_eq!((world.facts("demo.odd"), world.row(host.worker, "demo.odd").await), (Vec::new(), None));
    world.pack.sensors[0].runtime_version_constraint = None;
    change(&world).await;
    world.eventually_running(host.worker, "demo.odd").await;
    host.stop().await;
}

#[tokio::test]
async fn a_version_that_is_not_here_is_refused_and_nothing_is_tried() {
    let mut world = World::new().await;
    world.pack.runtimes[0].versions = vec![NewRuntimeVersion {
        version: "5.2".to_owned(),
        execution_config: json!({"interpreter": {"binary": "/bin/sh"}}),
        ..NewRuntimeVersion::default()
    }];
    for (name, constraint) in [("modern", ">=99"), ("plain", ">=5.1")] {
        world.add_sensor(name, "shell", FAITHFUL);
        world.pack.sensors.last_mut().unwrap().runtime_version_constraint = Some(constraint.to_owned());
    }
    world.load().await;
    let mut config = world.config();
    let mut advertised = support::advertised();
    advertised.runtime_versions.insert("shell".to_owned(), vec!["5.2.15".to_owned()]);
    let folders = (world.path("packs"), world.path("envs"));
    config.planner = Planner::new(config.build_host.clone(), folders.0, folders.1, &advertised);
    let mut host = world.start_host_with(config, Arc::new(SystemClock)).await;
    assert!(host.started.wait().await);
    world.eventually_running(host.worker, "demo.plain").await;
    let refusal =
        |name: &str| format!("no version fits: sensor demo.{name} needs core.shell >=99, but this agent has 5.2.15");
    assert_eq!(refusals(&world, "demo.modern"), [refusal("modern")]);
    // Other comparisons come to the same: it is neither tried nor told again.
    world.add_sensor("third", "shell", FAITHFUL);
    change(&world).await;
    world.eventually_running(host.worker, "demo.third").await;
    assert_eq!(refusals(&world, "demo.modern"), [refusal("modern")]);
    assert_eq!((world.facts("demo.modern"), world.row(host.worker, "demo.modern").await), (Vec::new(), None));
    assert_eq!(world.api.tokens.load(Ordering::SeqCst), 2, "no token for what is not started");
    // The constraints change places.
    world.pack.sensors[0].runtime_version_constraint = Some(">=5.1".to_owned());
    world.pack.sensors[1].runtime_version_constraint = Some(">=99".to_owned());
    change(&world).await;
    world.eventually_running(host.worker, "demo.modern").await;
    let row = world.eventually_row(host.worker, "demo.plain", is_stopped).await;
    assert_eq!((row.pid, row.next_restart_at, row.consecutive_failures), (None, None, 0));
    let plain = world.facts("demo.plain");
    assert!(plain.len() == 1 && !is_alive(&plain[0]), "{plain:?}");
    assert_eq!(refusals(&world, "demo.plain"), [refusal("plain")]);
    host.stop().await;
}
