//! What a worker says about itself: the truth, from loss to return, and every execution counted once.

use std::sync::Arc;
use std::time::Duration;

use attune_health::{About, Health, Parts};
use attune_lifecycle::{Stop, Tasks};
use attune_model::clock::SystemClock;
use attune_model::condition::Condition;
use attune_testkit::eventually;
use attune_worker::{Overview, Worker};
use sqlx::{Connection, Executor};

use crate::support::rig::{Backend, Rig};

struct Watched {
    health: Health,
    overview: Overview,
    stop: Stop,
    tasks: Tasks,
}

/// A worker whose health is watched, as it is in the agent.
async fn watched(rig: &Rig, heartbeat: Duration) -> Watched {
    let (stop, tasks) = (Stop::new(), Tasks::default());
    let about = About { role: "worker", name: "runner".to_owned(), version: "1", parts: Parts::WORKER };
    let health = Health::new(about, stop.clone());
    let mut config = rig.config();
    config.heartbeat_interval = heartbeat;
    // 128 of them are kept free for the notice.
    config.executor.max_stdout_bytes = 1128;
    let store = rig.store.clone();
    let worker = Worker::build(config, store, rig.bus.clone(), Arc::new(SystemClock), health.metrics()).await.unwrap();
    let overview = worker.overview();
    let watched = overview.clone();
    health.watch(move |all| watched.conditions(all));
    health.started();
    assert!(!health.is_ready(), "nothing was consumed yet");
    worker.spawn(&stop, &tasks);
    eventually("the worker is ready", async || health.is_ready().then_some(())).await;
    Watched { health, overview, stop, tasks }
}

impl Watched {
    fn value(&self, series: &str) -> f64 {
        let text = self.health.exposition().unwrap();
        let line = text.lines().find_map(|line| line.strip_prefix(series)?.strip_prefix(' '));
        line.unwrap_or_else(|| panic!("no {series} in\n{text}")).parse().unwrap()
    }

    fn problems(&self) -> Vec<&'static str> {
        self.health
            .conditions()
            .iter()
            .filter(|condition| !condition.is_well())
            .map(|condition| condition.name)
            .collect()
    }

    async fn finish(self) {
        self.stop.ask();
        tokio::time::timeout(attune_testkit::PATIENCE, self.tasks.drained()).await.unwrap();
    }
}

#[tokio::test]
async fn every_execution_is_counted_by_how_it_ends() {
    let actions = [("good", "true"), ("bad", "exit 3"), ("loud", "head -c 3000 /dev/zero"), ("long", "sleep 1000")];
    let rig = Rig::new(Backend::Embedded, &actions.map(|(name, code)| (name, code.to_owned()))).await;
    let watched = watched(&rig, Duration::from_secs(5)).await;
    let id = watched.overview.id();
    for action in ["good", "loud", "bad"] {
        let id = rig.submit(id, action).await;
        rig.ended(id).await;
    }
    let long = rig.submit(id, "long").await;
    let running = eventually("it runs", async || Some(watched.overview.running()).filter(|all| !all.is_empty())).await;
    assert_eq!((running[0].id, running[0].action_ref.as_str(), running.len()), (long, "demo.long", 1));
    assert!(watched.value("attune_worker_executions_running") >= 1.0);
    rig.send_cancel(id, long).await;
    rig.ended(long).await;
    eventually("nothing runs", async || watched.overview.running().is_empty().then_some(())).await;
    // Of an execution that has ended already, and of one that nobody has heard of: both come again as unknown.
    rig.send_cancel(id, long).await;
    eventually("the cancel came", async || {
        (watched.value("attune_worker_cancels_total{target=\"unknown\"}") >= 1.0).then_some(())
    })
    .await;
    for (series, value) in [
        ("attune_worker_slots", 4.0),
        ("attune_worker_executions_running", 0.0),
        ("attune_worker_executions_started_total", 4.0),
        ("attune_worker_executions_ended_total{status=\"completed\"}", 2.0),
        ("attune_worker_executions_ended_total{status=\"failed\"}", 1.0),
        ("attune_worker_executions_ended_total{status=\"cancelled\"}", 1.0),
        ("attune_worker_execution_duration_seconds_count", 4.0),
        ("attune_worker_claims_total{answer=\"claimed\"}", 4.0),
        ("attune_worker_claim_duration_seconds_count", 4.0),
        ("attune_worker_finishes_total{answer=\"written\"}", 4.0),
        ("attune_worker_cancels_total{target=\"in_hand\"}", 1.0),
        ("attune_children_total{result=\"ok\"}", 4.0),
        ("attune_child_output_dropped_bytes_total", 2000.0),
        ("attune_consumer_changes_total{change=\"confirmed\"}", 3.0),
        ("attune_heartbeats_total{result=\"failed\"}", 0.0),
    ] {
        assert!((watched.value(series) - value).abs() < 0.5, "{series}: {} and not {value}", watched.value(series));
    }
    assert!(watched.value("attune_heartbeats_total{result=\"ok\"}") >= 1.0);
    watched.finish().await;
}

#[tokio::test]
async fn a_dispatch_that_comes_twice_is_counted_as_not_ours() {
    let rig = Rig::new(Backend::Embedded, &[("good", "true".to_owned())]).await;
    let watched = watched(&rig, Duration::from_millis(20)).await;
    let execution = rig.scheduled(watched.overview.id(), "good").await;
    rig.dispatch(&execution).await;
    rig.ended(execution.id).await;
    eventually("its slot is free", async || watched.overview.running().is_empty().then_some(())).await;
    rig.dispatch(&execution).await;
    eventually("the second one came", async || {
        (watched.value("attune_worker_claims_total{answer=\"not_ours\"}") >= 1.0).then_some(())
    })
    .await;
    assert!((watched.value("attune_worker_executions_started_total") - 1.0).abs() < 0.5);
    watched.finish().await;
}

#[tokio::test]
async fn storage_that_does_not_answer_is_seen_within_two_heartbeats_and_so_is_its_return() {
    let rig = Rig::new(Backend::Embedded, &[("good", "true".to_owned())]).await;
    let heartbeat = Duration::from_millis(200);
    let watched = watched(&rig, heartbeat).await;
    let url = format!("sqlite://{}", rig.place.path("attune.db").display());
    let mut blocker = sqlx::SqliteConnection::connect(&url).await.unwrap();
    blocker.execute("BEGIN IMMEDIATE").await.unwrap();
    let lost = tokio::time::Instant::now();
    eventually("the worker is not ready", async || (!watched.health.is_ready()).then_some(())).await;
    // On a machine that is busy the test is late, never the worker: it is the condition that says since when.
    assert_eq!(watched.problems(), ["row"]);
    let seen = tokio::time::Instant::from_std(
        watched.health.conditions().iter().find(|condition| !condition.is_well()).unwrap().since,
    );
    assert!(seen <= tokio::time::Instant::now() && seen >= lost - heartbeat, "{seen:?} {lost:?}");
    assert!(watched.value("attune_ready") < 0.5);
    blocker.execute("ROLLBACK").await.unwrap();
    eventually("the worker is ready again", async || watched.health.is_ready().then_some(())).await;
    assert!(watched.value("attune_heartbeats_total{result=\"failed\"}") >= 0.5);
    let id = rig.submit(watched.overview.id(), "good").await;
    rig.ended(id).await;
    watched.finish().await;
}

#[tokio::test]
async fn a_bus_that_is_gone_is_named() {
    let rig = Rig::new(Backend::Embedded, &[("good", "true".to_owned())]).await;
    let watched = watched(&rig, Duration::from_millis(20)).await;
    rig.bus.close().await;
    let expected = ["executions", "cancels", "packs"];
    eventually("all consumers are down", async || (watched.problems() == expected).then_some(())).await;
    let mut all: Vec<Condition> = Vec::new();
    watched.overview.conditions(&mut all);
    assert!(all[0].problem.as_deref().unwrap().contains("consumer of dispatches"), "{all:?}");
    watched.stop.hard().cancel();
    watched.finish().await;
}
