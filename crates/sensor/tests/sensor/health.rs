//! What a host says about itself: states, restarts by their cause, tokens, leases, and the truth about its row.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use attune_health::{About, Health, Parts};
use attune_lifecycle::{Stop, Tasks};
use attune_model::clock::SystemClock;
use attune_model::measure::SensorState;
use attune_sensor::{Overview, SensorHost};
use attune_testkit::eventually;
use serde_json::json;

use crate::support::World;

const FAITHFUL: &str = r#"echo "$$" >> "$FACTS/$ATTUNE_SENSOR_REF"; exec sleep 1000"#;

struct Watched {
    health: Health,
    overview: Overview,
    stop: Stop,
    tasks: Tasks,
}

/// A host whose health is watched, as it is in the agent.
async fn watched(world: &World) -> Watched {
    world.load().await;
    let (stop, tasks) = (Stop::new(), Tasks::default());
    let about = About { role: "sensor", name: "host".to_owned(), version: "1", parts: Parts::SENSOR };
    let health = Health::new(about, stop.clone());
    let (store, bus) = (world.store.clone(), world.bus.clone());
    let host = SensorHost::build(world.config(), store, bus, Arc::new(SystemClock), health.metrics()).await.unwrap();
    let overview = host.overview();
    let asked = overview.clone();
    health.watch(move |all| asked.conditions(all));
    health.started();
    assert!(!health.is_ready(), "nothing was written or consumed yet");
    host.spawn(&stop, &tasks);
    eventually("the host is ready", async || health.is_ready().then_some(())).await;
    Watched { health, overview, stop, tasks }
}

impl Watched {
    fn value(&self, series: &str) -> f64 {
        let text = self.health.exposition().unwrap();
        let line = text.lines().find_map(|line| line.strip_prefix(series)?.strip_prefix(' '));
        line.unwrap_or_else(|| panic!("no {series} in\n{text}")).parse().unwrap()
    }

    async fn reaches(&self, series: &str, value: f64) {
        eventually(series, async || (self.value(series) >= value - 0.5).then_some(())).await;
    }

    fn is(&self, series: &str, value: f64) {
        let seen = self.value(series);
        assert!((seen - value).abs() < 0.5, "{series}: {seen} and not {value}");
    }

    /// Everything ends, and nothing is counted as being there any more.
    async fn finish(self) {
        self.stop.ask();
        tokio::time::timeout(attune_testkit::PATIENCE, self.tasks.drained()).await.unwrap();
        for state in ["idle", "waiting", "starting", "running", "backoff"] {
            self.is(&format!("attune_sensor_sensors{{state=\"{state}\"}}"), 0.0);
        }
        self.is("attune_sensor_leases_held", 0.0);
        assert!(self.overview.sensors().iter().all(|sensor| sensor.state == SensorState::Idle && sensor.pid.is_none()));
    }
}

#[tokio::test]
async fn sensors_are_counted_by_state_and_restarts_by_cause() {
    let mut world = World::new().await;
    world.timing.backoff_max = Duration::from_millis(40);
    world.add_sensor("good", "shell", FAITHFUL);
    world.add_sensor("bad", "shell", "exit 3");
    world.add_sensor("odd", "missing", FAITHFUL);
    let watched = watched(&world).await;
    watched.reaches("attune_sensor_restarts_total{cause=\"ended\"}", 2.0).await;
    watched.reaches("attune_sensor_restarts_total{cause=\"start_failed\"}", 2.0).await;
    watched.reaches("attune_sensor_sensors{state=\"running\"}", 1.0).await;
    let good = eventually("the good one is looked at", async || {
        watched.overview.sensors().into_iter().find(|sensor| sensor.pid.is_some() && sensor.sensor_ref == "demo.good")
    })
    .await;
    assert_eq!((good.state, good.failures, good.active_rules), (SensorState::Running, 0, 1));
    watched.is("attune_sensor_restarts_total{cause=\"changed\"}", 0.0);
    world.pack.rules.retain(|rule| !rule.trigger_ref.contains("good"));
    world.add_rule("other_rule", "good", &json!({"n": 2}));
    world.load().await;
    world.hint().await;
    watched.reaches("attune_sensor_restarts_total{cause=\"changed\"}", 1.0).await;
    watched.is("attune_sensor_restarts_total{cause=\"token\"}", 0.0);
    assert!(watched.value("attune_children_total{result=\"ok\"}") >= 3.5);
    watched.finish().await;
}

#[tokio::test]
async fn tokens_are_counted_and_their_restarts_too() {
    let mut world = World::new().await;
    world.api.is_down.store(true, Ordering::SeqCst);
    world.add_sensor("good", "shell", FAITHFUL);
    let watched = watched(&world).await;
    watched.reaches("attune_sensor_tokens_total{result=\"failed\"}", 1.0).await;
    world.api.life_ms.store(300, Ordering::SeqCst);
    world.api.is_down.store(false, Ordering::SeqCst);
    watched.reaches("attune_sensor_restarts_total{cause=\"token\"}", 1.0).await;
    watched.reaches("attune_sensor_tokens_total{result=\"ok\"}", 2.0).await;
    watched.finish().await;
}

#[tokio::test]
async fn leases_are_counted_and_their_renewals_are_the_signs_of_life() {
    let mut world = World::new().await;
    world.timing.lease_time = Some(Duration::from_secs(6));
    world.timing.heartbeat_interval = Duration::from_millis(300);
    world.add_sensor("good", "shell", FAITHFUL);
    world.add_sensor("other", "shell", FAITHFUL);
    let watched = watched(&world).await;
    watched.reaches("attune_sensor_leases_held", 2.0).await;
    watched.reaches("attune_heartbeats_total{result=\"ok\"}", 3.0).await;
    let lock = world.lock_store().await;
    eventually("the host is not ready", async || (!watched.health.is_ready()).then_some(())).await;
    let problems = watched.health.conditions().into_iter().filter(|condition| !condition.is_well());
    assert_eq!(problems.map(|condition| condition.name).collect::<Vec<_>>(), ["host_row"]);
    lock.rollback().await.unwrap();
    eventually("the host is ready again", async || watched.health.is_ready().then_some(())).await;
    watched.finish().await;
}

#[tokio::test]
async fn a_bus_that_is_gone_is_named() {
    use attune_bus::Bus;
    let world = World::new().await;
    let watched = watched(&world).await;
    world.bus.close().await;
    eventually("the host is not ready", async || {
        let conditions = watched.health.conditions();
        conditions.iter().any(|condition| condition.name == "rules" && !condition.is_well()).then_some(())
    })
    .await;
    watched.finish().await;
}
