//! Executions to workers: choice, waiting, recovery, monitors.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use attune_bus::{Bus, BusError, Consumer, MemoryBus, Outgoing, QueueSpec};
use attune_hub::{Hub, HubError};
use attune_model::ExecutionId;
use attune_model::clock::SystemClock;
use attune_model::message::{ExecutionRequested, MessageType};
use attune_model::status::{ExecutionStatus, WorkerStatus};
use attune_store::AgentStore as _;
use attune_testkit::eventually;
use chrono::Utc;
use serde_json::json;

use crate::support::http::post;
use crate::support::{World, ask, config, load, register, rule, sensor_token};

#[tokio::test]
async fn an_event_becomes_a_dispatch_to_the_worker() {
    let world = World::new().await;
    load(&world, vec![rule("web.rule", json!({"who": "{{ event.payload.who }}"}))]).await;
    let worker = world.worker("w", &["bash"]).await;
    let event = json!({"trigger_ref": "web.hook", "payload": {"who": {"name": "Ada"}}});
    let event = post(world.address, "/api/v1/events", Some(&sensor_token(&["web.hook"])), &event).await.data();
    let execution = world.eventually_status(1, "scheduled").await;
    assert_eq!(execution.worker, Some(worker.id));
    assert_eq!(execution.config, Some(json!({"who": {"name": "Ada"}})), "defaults are not stored");
    let key = format!("execution.dispatch.worker.{}", worker.id);
    let dispatch = eventually("the dispatch", async || world.seen.with_key(&key).pop()).await;
    assert_eq!(dispatch["config"], json!({"who": {"name": "Ada"}, "name": "world"}));
    assert_eq!(dispatch["worker_id"], json!(worker.id));
    assert_eq!(dispatch["scheduled_attempt_updated_at"], json!(execution.updated));
    let created = world.seen.of(MessageType::EventCreated);
    assert_eq!((created.len(), &created[0]["event_id"]), (1, &event["id"]));
    assert_eq!(world.seen.of(MessageType::EnforcementCreated)[0]["rule_ref"], "web.rule");
    world.stop().await;
}

#[tokio::test]
async fn executions_wait_for_a_worker_that_fits_to_come_or_come_back() {
    let world = World::new().await;
    load(&world, vec![]).await;
    let first = ask(&world, "web.greet").await;
    world.eventually_status(first, "requested").await;
    let worker = world.worker("w", &["shell"]).await;
    world.eventually_status(first, "scheduled").await;
    world.store.set_worker_status(worker.id, WorkerStatus::Inactive).await.unwrap();
    let second = ask(&world, "web.greet").await;
    eventually("the second to be looked at", async || {
        let execution = world.execution(second).await;
        (execution.status == ExecutionStatus::Requested && execution.updated > execution.created).then_some(())
    })
    .await;
    assert!(world.store.heartbeat(worker.id, WorkerStatus::Active).await.unwrap());
    world.eventually_status(second, "scheduled").await;
    world.stop().await;
}

#[tokio::test]
async fn an_execution_that_no_worker_can_run_fails_and_says_what_is_missing() {
    let world = World::new().await;
    load(&world, vec![]).await;
    world.worker("w", &["shell"]).await;
    let id = ask(&world, "web.secret").await;
    let failed = world.eventually_status(id, "failed").await;
    let error = failed.result.unwrap()["error"].as_str().unwrap().to_owned();
    assert!(error.contains("unschedulable") && error.contains("worker w: runtime Python is missing"), "{error}");
    let told = world.seen.eventually(MessageType::ExecutionCompleted, |m| m["execution_id"] == id).await;
    assert_eq!((&told["status"], told["result"]["error"].as_str()), (&json!("Failed"), Some(error.as_str())));
    world.stop().await;
}

#[tokio::test]
async fn waiting_has_an_end() {
    let mut config = config();
    config.waiting_limit = Duration::from_millis(1);
    config.sweep_period = Duration::from_millis(10);
    let world = World::with(config).await;
    load(&world, vec![]).await;
    let id = ask(&world, "web.greet").await;
    let failed = world.eventually_status(id, "failed").await;
    let error = failed.result.unwrap()["error"].to_string();
    assert!(error.contains("no worker took it") && error.contains("no action worker is registered"), "{error}");
    world.stop().await;
}

#[tokio::test]
async fn least_loaded_workers_come_first() {
    let world = World::new().await;
    load(&world, vec![]).await;
    let workers = [world.worker("a", &["shell"]).await.id, world.worker("b", &["shell"]).await.id];
    let mut counts = [0, 0];
    for _ in 0..6 {
        let id = ask(&world, "web.greet").await;
        let worker = world.eventually_status(id, "scheduled").await.worker;
        counts[workers.iter().position(|id| Some(*id) == worker).unwrap()] += 1;
    }
    assert_eq!(counts, [3, 3]);
    world.stop().await;
}

#[tokio::test]
async fn a_restart_goes_on_where_the_hub_stopped() {
    let world = World::new().await;
    load(&world, vec![]).await;
    let waiting = ask(&world, "web.greet").await;
    world.eventually_status(waiting, "requested").await;
    let store = world.store.clone();
    let world = world.restarted(config()).await;
    let worker = register(&store, "w", world.worker("w", &["shell"]).await.capabilities).await;
    let scheduled = world.eventually_status(waiting, "scheduled").await;
    let world = world.restarted(config()).await;
    let key = format!("execution.dispatch.worker.{}", worker.id);
    let told = eventually("the dispatch again", async || world.seen.with_key(&key).pop()).await;
    assert_eq!((&told["execution_id"], &told["config"]), (&json!(waiting), &json!({"name": "world"})));
    let after = world.execution(waiting).await;
    assert_eq!(after.updated, scheduled.updated, "the row is not touched by telling again");
    world.stop().await;
}

#[tokio::test]
async fn messages_that_make_no_sense_do_not_stop_the_scheduler() {
    let world = World::new().await;
    load(&world, vec![]).await;
    world.worker("w", &["shell"]).await;
    let nonsense = ExecutionRequested {
        execution_id: ExecutionId(4711),
        action_id: None,
        action_ref: "web.gone".into(),
        parent_id: None,
        enforcement_id: None,
        config: None,
    };
    let unknown = Outgoing::new(&nonsense, "tests", Utc::now()).unwrap();
    let mut broken = unknown.clone();
    broken.envelope.payload = json!(["not", "a", "request"]);
    world.bus.publish(&[unknown, broken]).await.unwrap();
    let id = ask(&world, "web.greet").await;
    world.eventually_status(id, "scheduled").await;
    world.stop().await;
}

#[tokio::test]
async fn a_taken_port_is_an_error_that_names_it() {
    let world = World::new().await;
    let mut config = config();
    config.listen = world.address;
    let bus = Arc::new(MemoryBus::new());
    let error = Hub::build(config, world.store.clone(), bus, Arc::new(SystemClock)).await.unwrap_err();
    assert!(matches!(error, HubError::AddressInUse(address) if address == world.address), "{error:?}");
    assert!(error.to_string().contains(&world.address.to_string()), "{error}");
    world.stop().await;
}

#[tokio::test]
async fn a_dispatch_that_the_bus_did_not_take_is_published_again() {
    let bus = ForgetfulBus::default();
    let world = World::with_bus(config(), Arc::new(bus.clone()), bus.inner.clone()).await;
    load(&world, vec![]).await;
    let worker = world.worker("w", &["shell"]).await;
    bus.refuse.store(true, Ordering::SeqCst);
    let body = json!({"action_ref": "web.greet"});
    let answer = post(world.address, "/api/v1/executions/execute", Some(&world.user()), &body).await;
    assert_eq!(answer.status, 201, "the row is stored, whatever the bus says");
    // Its request was lost with the bus; another hub's or a later message brings the scheduler to it.
    let hint = ExecutionRequested {
        execution_id: ExecutionId(1),
        action_id: None,
        action_ref: "web.greet".into(),
        parent_id: None,
        enforcement_id: None,
        config: None,
    };
    bus.inner.publish(&[Outgoing::new(&hint, "tests", Utc::now()).unwrap()]).await.unwrap();
    world.eventually_status(1, "scheduled").await;
    let key = format!("execution.dispatch.worker.{}", worker.id);
    assert_eq!(world.seen.with_key(&key), [json!(null); 0]);
    bus.refuse.store(false, Ordering::SeqCst);
    eventually("the dispatch", async || world.seen.with_key(&key).pop()).await;
    world.stop().await;
}

#[tokio::test]
async fn a_request_that_was_lost_is_found_by_the_sweep() {
    let bus = ForgetfulBus::default();
    let mut config = config();
    config.sweep_period = Duration::from_millis(20);
    let world = World::with_bus(config, Arc::new(bus.clone()), bus.inner.clone()).await;
    load(&world, vec![]).await;
    world.worker("w", &["shell"]).await;
    bus.refuse.store(true, Ordering::SeqCst);
    let id = ask(&world, "web.greet").await;
    bus.refuse.store(false, Ordering::SeqCst);
    world.eventually_status(id, "scheduled").await;
    world.stop().await;
}

#[tokio::test]
async fn a_hub_whose_bus_is_closed_stops_instead_of_pretending_to_work() {
    let world = World::new().await;
    world.bus.close().await;
    eventually("the hub to ask for the stop", async || world.is_stopping().then_some(())).await;
    world.stop().await;
}

/// A bus that takes nothing while it is told so.
#[derive(Debug, Clone, Default)]
struct ForgetfulBus {
    inner: MemoryBus,
    refuse: Arc<AtomicBool>,
}

#[async_trait]
impl Bus for ForgetfulBus {
    async fn declare(&self, queue: &QueueSpec) -> Result<u32, BusError> {
        self.inner.declare(queue).await
    }

    async fn consume(&self, queue: &str, consumer_tag: &str, prefetch: u16) -> Result<Box<dyn Consumer>, BusError> {
        self.inner.consume(queue, consumer_tag, prefetch).await
    }

    async fn publish(&self, messages: &[Outgoing]) -> Result<(), BusError> {
        if self.refuse.load(Ordering::SeqCst) {
            return Err(BusError::Unavailable("told to refuse".to_owned()));
        }
        self.inner.publish(messages).await
    }

    async fn close(&self) {
        self.inner.close().await;
    }
}
