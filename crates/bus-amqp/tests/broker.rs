//! What the broker has afterwards, and what it refuses.

mod support;

use std::time::Duration;

use attune_bus::{Bus, BusError, QueueLifetime, QueueSpec};
use attune_bus_amqp::{AmqpBus, AmqpConfig};
use attune_model::message::Exchange;
use attune_testkit::bus_contract::{drain, message, queue};
use attune_testkit::{TestBroker, eventually};
use support::Rig;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_the_broker_refuses_is_said_without_the_password() {
    let broker = TestBroker::new();
    let wrong = [
        (format!("amqp://guest:hunter2@{}/{}", broker.authority(), broker.vhost()), "ACCESS_REFUSED"),
        (format!("amqp://guest:guest@{}/no-such-virtual-host", broker.authority()), "no-such-virtual-host"),
    ];
    for (url, expected) in wrong {
        let config = AmqpConfig { start_limit: Duration::ZERO, ..support::config(&url) };
        let refused = AmqpBus::connect(&config).await.unwrap_err();
        let text = refused.to_string();
        assert!(text.contains(expected) && !format!("{refused:?}{config:?}").contains("hunter2"), "{text}");
    }
    eventually("no thread of lapin left", async || (support::io_threads() == 0).then_some(())).await;
}

/// Arguments as they were declared: from version 4 on the broker adds the type that every queue has without asking.
fn declared(queue: &serde_json::Value) -> serde_json::Value {
    let mut arguments = queue["arguments"].clone();
    if arguments["x-queue-type"] == "classic" {
        arguments.as_object_mut().expect("arguments are an object").remove("x-queue-type");
    }
    arguments
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_broker_has_queues_exactly_as_the_platform_declares_them() {
    let rig = Rig::new().await;
    let spec = QueueSpec {
        name: "worker.42.executions".into(),
        bindings: vec![(Exchange::Executions, "execution.dispatch.worker.42".into())],
        message_ttl_ms: Some(300_000),
        dead_letters: true,
        lifetime: QueueLifetime::Permanent,
    };
    rig.bus.declare(&spec).await.unwrap();
    let made = rig.broker.queue("worker.42.executions").unwrap();
    let arguments = serde_json::json!({ "x-dead-letter-exchange": "attune.dlx", "x-message-ttl": 300_000 });
    assert_eq!(declared(&made), arguments);
    assert_eq!(
        (&made["durable"], &made["auto_delete"], &made["exclusive"]),
        (&true.into(), &false.into(), &false.into())
    );
    let bindings = [("attune.executions".to_owned(), "execution.dispatch.worker.42".to_owned())];
    assert_eq!(rig.broker.bindings("worker.42.executions"), bindings);
    let vhost = rig.broker.vhost();
    for (name, kind) in [
        ("attune.events", "topic"),
        ("attune.executions", "topic"),
        ("attune.notifications", "fanout"),
        ("attune.dlx", "direct"),
    ] {
        let exchange = rig.broker.management().get(&format!("/api/exchanges/{vhost}/{name}"));
        assert_eq!((&exchange["type"], &exchange["durable"]), (&kind.into(), &true.into()), "{name}");
    }
    assert_eq!(declared(&rig.broker.queue("attune.dlx.queue").unwrap()), serde_json::json!({}));
    assert_eq!(rig.broker.bindings("attune.dlx.queue"), [("attune.dlx".to_owned(), "#".to_owned())]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn messages_have_the_properties_that_tools_look_at() {
    let rig = Rig::new().await;
    rig.bus.declare(&queue("q", &["#"])).await.unwrap();
    let sent = message(1);
    rig.bus.publish(std::slice::from_ref(&sent)).await.unwrap();
    let got = support::get(&rig.broker, "q").await;
    let properties = &got.properties;
    assert_eq!(*properties.delivery_mode(), Some(2));
    assert_eq!(properties.content_type().as_ref().unwrap().as_str(), "application/json");
    assert_eq!(properties.message_id().as_ref().unwrap().as_str(), sent.envelope.message_id.to_string());
    assert_eq!(properties.correlation_id().as_ref().unwrap().as_str(), sent.envelope.correlation_id.to_string());
    assert_eq!(*properties.timestamp(), Some(u64::try_from(sent.envelope.timestamp.timestamp()).unwrap()));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_account_that_may_not_declare_the_common_parts_works_with_its_own() {
    let owner = Rig::new().await;
    let url = owner.broker.restricted_url("^mine$");
    let bus = AmqpBus::connect(&support::config(&url)).await.unwrap();
    bus.declare(&queue("mine", &["#"])).await.unwrap();
    let mut consumer = bus.consume("mine", "t", 1).await.unwrap();
    bus.publish(&[message(1)]).await.unwrap();
    assert_eq!(drain(&mut consumer, 1).await, [1]);
    let refused = bus.declare(&queue("theirs", &["#"])).await.unwrap_err();
    assert!(matches!(&refused, BusError::Refused { reason, .. } if reason.contains("ACCESS_REFUSED")), "{refused}");
    bus.close().await;
}
