//! The three queues of a worker. Names, arguments and bindings are facts of the platform.

use std::sync::Arc;

use attune_bus::{Bus, BusError, QueueLifetime, QueueSpec, Source, Subscription};
use attune_model::WorkerId;
use attune_model::message::Exchange;

/// How long a dispatch may wait in the queue. A fact of the platform: another value is refused by the broker.
const DISPATCH_TTL_MS: u32 = 300_000;

/// Declares all three, which takes the time of one: dispatches, cancels, packs.
pub(crate) async fn declare(bus: &Arc<dyn Bus>, worker: WorkerId, slots: u16) -> Result<[Subscription; 3], BusError> {
    let declare = |source| Subscription::declare(bus.clone(), source);
    let declared =
        tokio::try_join!(declare(executions(worker, slots)), declare(cancels(worker)), declare(packs(worker)))?;
    Ok(declared.into())
}

/// Dispatched executions.
fn executions(worker: WorkerId, slots: u16) -> Source {
    Source {
        queue: QueueSpec {
            name: format!("worker.{worker}.executions"),
            bindings: vec![(Exchange::Executions, format!("execution.dispatch.worker.{worker}"))],
            message_ttl_ms: Some(DISPATCH_TTL_MS),
            dead_letters: true,
            lifetime: QueueLifetime::Permanent,
        },
        tag: format!("worker-{worker}"),
        prefetch: slots,
    }
}

/// Packs that come and go.
fn packs(worker: WorkerId) -> Source {
    Source {
        queue: QueueSpec {
            name: format!("worker.{worker}.packs"),
            bindings: vec![
                (Exchange::Events, "pack.registered".to_owned()),
                (Exchange::Events, "pack.deleted".to_owned()),
            ],
            message_ttl_ms: None,
            dead_letters: true,
            lifetime: QueueLifetime::Permanent,
        },
        tag: format!("worker-{worker}-packs"),
        prefetch: 5,
    }
}

/// Executions to be cancelled.
fn cancels(worker: WorkerId) -> Source {
    Source { queue: cancel_queue(worker), tag: format!("worker-{worker}-cancel"), prefetch: 10 }
}

/// The queue that a worker consumes for as long as it has executions.
pub(crate) fn cancel_queue(worker: WorkerId) -> QueueSpec {
    QueueSpec {
        name: format!("worker.{worker}.cancel"),
        bindings: vec![(Exchange::Executions, format!("execution.cancel.worker.{worker}"))],
        message_ttl_ms: None,
        dead_letters: true,
        lifetime: QueueLifetime::Permanent,
    }
}
