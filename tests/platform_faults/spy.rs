//! Somebody who reads everything that is said about executions, and looks at the row whenever one is said to have ended.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use attune_bus::{Bus as _, ConsumerEvent, QueueLifetime, QueueSpec, decode};
use attune_bus_amqp::{AmqpBus, AmqpConfig};
use attune_lifecycle::Tasks;
use attune_model::message::{Exchange, ExecutionCompleted};
use attune_model::{ExecutionId, Secret};

use crate::support::Installation;

const QUEUE: &str = "test.spy";

/// An end that was announced.
#[derive(Debug, Clone)]
pub(crate) struct End {
    pub(crate) execution: i64,
    /// As the message says.
    pub(crate) status: String,
    /// The row's when the message came.
    pub(crate) row: String,
}

/// Reads until it is dropped.
#[derive(Debug)]
pub(crate) struct Spy {
    pub(crate) bus: Arc<AmqpBus>,
    ends: Arc<Mutex<Vec<End>>>,
    task: tokio::task::JoinHandle<()>,
}

impl Spy {
    pub(crate) async fn start(installation: &Arc<Installation>) -> Self {
        let config = AmqpConfig::new(Secret::new(installation.broker.url()), "spy");
        let bus = Arc::new(AmqpBus::connect(&config).await.unwrap());
        let queue = QueueSpec {
            name: QUEUE.to_owned(),
            bindings: vec![(Exchange::Executions, "execution.completed".to_owned())],
            message_ttl_ms: None,
            dead_letters: false,
            lifetime: QueueLifetime::Permanent,
        };
        bus.declare(&queue).await.unwrap();
        let mut consumer = bus.consume(QUEUE, "spy", 1).await.unwrap();
        let ends = Arc::<Mutex<Vec<End>>>::default();
        let (seen, installation) = (ends.clone(), installation.clone());
        let task = Tasks::default().spawn(async move {
            while let Some(event) = consumer.next().await {
                let ConsumerEvent::Delivery(delivery) = event else { continue };
                let (_, said) = decode::<ExecutionCompleted>(&delivery.body).unwrap();
                let ExecutionId(execution) = said.execution_id;
                let row = status(installation.clone(), execution).await;
                seen.lock().unwrap().push(End { execution, status: said.status.to_lowercase(), row });
                // The broker may be gone; it then sends the message again.
                drop(delivery.ack().await);
            }
        });
        Self { bus, ends, task }
    }

    /// What was announced of this execution.
    pub(crate) fn ends_of(&self, execution: i64) -> Vec<End> {
        self.ends.lock().unwrap().iter().filter(|end| end.execution == execution).cloned().collect()
    }
}

/// The row's status, as soon as the database answers.
async fn status(installation: Arc<Installation>, execution: i64) -> String {
    let sql = format!("SELECT status FROM execution WHERE id = {execution}");
    let mut tries = tokio::time::interval(Duration::from_millis(20));
    loop {
        tries.tick().await;
        if let Some(status) = installation.database.texts(&sql).await.and_then(|mut rows| rows.pop()) {
            return status;
        }
    }
}

impl Drop for Spy {
    fn drop(&mut self) {
        self.task.abort();
    }
}
