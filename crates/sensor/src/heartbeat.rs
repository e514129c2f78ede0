//! Keeps the host's row fresh. With leases, their renewals are the signs of life, and this writes the numbers only.

use std::sync::Arc;
use std::time::Duration;

use attune_lifecycle::CancellationToken;
use attune_model::chain;
use attune_model::measure::Success;
use attune_model::status::WorkerStatus;
use tokio::time::{Instant, MissedTickBehavior, interval};

use crate::context::{Context, STORE_LIMIT};
use crate::registry::{Counts, Registry, capabilities};

/// Beats until `stop`, the first time at once. An unreachable store is tried again with the next beat.
pub(crate) async fn beat(context: Arc<Context>, registry: Registry, stop: CancellationToken) {
    let mut ticks = interval(context.config.timing.heartbeat_interval.max(Duration::from_millis(10)));
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut written = Some(Counts::default());
    loop {
        tokio::select! {
            biased;
            () = stop.cancelled() => return,
            _ = ticks.tick() => {}
        }
        if context.config.timing.lease_time.is_none() {
            sign_of_life(&context).await;
        }
        let counts = registry.counts();
        if written != Some(counts) {
            // What another process of this name has written is not this one's when the row is its own again.
            written = write(&context, counts).await.then_some(counts);
        }
    }
}

async fn sign_of_life(context: &Context) {
    let begun = Instant::now();
    let beaten = context.store.heartbeat(context.worker, WorkerStatus::Active);
    let written = context.deadline.within(STORE_LIMIT, beaten).await;
    let success = if matches!(written, Ok(Ok(true))) { Success::Ok } else { Success::Failed };
    context.vitals.sign_of_life(success, begun);
    match written {
        Ok(Ok(true)) => {}
        Ok(Ok(false)) => {
            tracing::error!(worker.id = %context.worker, "the row of this host was deleted; restart it to register again");
        }
        Ok(Err(error)) => tracing::warn!(error = %chain(&error), "heartbeat failed"),
        Err(late) => tracing::warn!(error = %late, "heartbeat failed"),
    }
}

async fn write(context: &Context, counts: Counts) -> bool {
    if context.is_replaced().await {
        return false;
    }
    let capabilities = capabilities(&context.config, counts);
    let written = context.store.set_capabilities(context.worker, &capabilities);
    match context.deadline.within(STORE_LIMIT, written).await {
        Ok(Ok(())) => true,
        Ok(Err(error)) => {
            tracing::warn!(error = %chain(&error), "failed to write the capabilities");
            false
        }
        Err(_late) => false,
    }
}
