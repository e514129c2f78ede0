//! What an execution keeps busy, and for how long.

use std::collections::BTreeSet;
use std::sync::Arc;

use async_trait::async_trait;
use attune_bus::{Bus, BusError, Consumer, Outgoing, QueueSpec};
use attune_model::message::MessageType;
use attune_model::status::ExecutionStatus;
use tokio::sync::watch;

use crate::support::rig::{Backend, Rig};

/// A bus that confirms no end of an execution until it is told to.
#[derive(Debug, Clone)]
struct SlowToConfirm {
    inner: Arc<dyn Bus>,
    confirms: watch::Sender<bool>,
}

#[async_trait]
impl Bus for SlowToConfirm {
    async fn declare(&self, queue: &QueueSpec) -> Result<u32, BusError> {
        self.inner.declare(queue).await
    }

    async fn consume(&self, queue: &str, consumer_tag: &str, prefetch: u16) -> Result<Box<dyn Consumer>, BusError> {
        self.inner.consume(queue, consumer_tag, prefetch).await
    }

    async fn publish(&self, messages: &[Outgoing]) -> Result<(), BusError> {
        if messages.iter().any(|message| message.routing_key == "execution.completed") {
            self.confirms.subscribe().wait_for(|confirms| *confirms).await.unwrap();
        }
        self.inner.publish(messages).await
    }

    async fn close(&self) {
        self.inner.close().await;
    }
}

async fn an_end_that_the_broker_has_not_confirmed_keeps_no_slot_and_only_so_many_pile_up(on: Backend) {
    let mut rig = Rig::new(on, &[("say", "echo hello".to_owned())]).await;
    let bus = SlowToConfirm { inner: rig.bus.clone(), confirms: watch::Sender::new(false) };
    rig.bus = Arc::new(bus.clone());
    let mut config = rig.config();
    config.max_concurrent_tasks = 1;
    let life = rig.live_with(config).await;
    let mut executions = Vec::new();
    for _ in 0..4 {
        executions.push(rig.submit(life.id, "say").await);
    }
    for &execution in &executions[..2] {
        assert_eq!(rig.ended(execution).await.status, ExecutionStatus::Completed);
    }
    // There are two places for each slot.
    for &execution in &executions[2..] {
        assert_eq!(rig.row(execution).await.status, ExecutionStatus::Scheduled);
    }
    life.stop.soft().cancel();
    bus.confirms.send_replace(true);
    // In whichever order.
    let mut told = BTreeSet::new();
    while told.len() < 2 {
        let envelope = rig.heard().await;
        if envelope.message_type == MessageType::ExecutionCompleted {
            told.insert(envelope.payload["execution_id"].as_i64().unwrap());
        }
    }
    assert_eq!(told, executions[..2].iter().map(|execution| execution.0).collect());
    life.drained().await;
}

attune_testkit::tests_on_each! {
    embedded: Backend::Embedded, servers: Backend::Servers => [
        an_end_that_the_broker_has_not_confirmed_keeps_no_slot_and_only_so_many_pile_up,
    ]
}
