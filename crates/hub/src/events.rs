//! Event intake: from the API and from events that others stored, into one function.

use std::sync::Arc;
use std::time::Duration;

use attune_bus::{Delivery, Event as BusEvent, Requeue, Subscription, decode};
use attune_lifecycle::{Backoff, Stop};
use attune_model::message::{EnforcementCreated, EventCreated, Exchange};
use attune_model::rows::Event;
use attune_store::{Decision, Enforced, EventSource, Intake, StoreError};

use crate::core::Core;
use crate::outbox::{Outbox, SOURCE_SERVICE};
use crate::rules::RuleEngine;
use crate::vitals::Part;

/// The queue of stored events; the name is a fact of the platform.
pub(crate) const QUEUE: &str = "attune.executor.events.queue";

/// Its binding.
pub(crate) const BINDING: (Exchange, &str) = (Exchange::Events, "event.created");

/// Takes an event in as one unit of work, then announces what it led to.
pub(crate) async fn take(core: &Core, source: EventSource<'_>) -> Result<Intake, StoreError> {
    let engine = RuleEngine::new(&core.config.sealing_key, core.system, core.now());
    let announce_event = matches!(source, EventSource::New(_));
    let intake = core.store.take_event(source, &|event, targets| engine.decide(event, targets)).await?;
    if let Intake::Taken { event, enforced } = &intake {
        let mut outbox = core.outbox();
        if announce_event {
            outbox.add(&event_created(event));
        }
        for enforcement in enforced {
            announce(&mut outbox, event, enforcement);
        }
        outbox.send(&*core.bus).await;
    }
    Ok(intake)
}

fn event_created(event: &Event) -> EventCreated {
    EventCreated {
        event_id: event.id,
        trigger_id: event.trigger,
        trigger_ref: event.trigger_ref.clone(),
        sensor_id: event.source,
        sensor_ref: event.source_ref.clone(),
        payload: event.payload.clone(),
        config: event.config.clone(),
    }
}

fn announce(outbox: &mut Outbox, event: &Event, enforced: &Enforced) {
    outbox.add(&EnforcementCreated {
        enforcement_id: enforced.id,
        rule_id: Some(enforced.rule),
        rule_ref: enforced.rule_ref.clone(),
        event_id: Some(event.id),
        trigger_ref: event.trigger_ref.clone(),
        payload: enforced.payload.clone(),
    });
    if let Some(execution) = &enforced.execution {
        outbox.requested(execution);
    }
}

/// Takes in the events that others stored, until the stop.
pub(crate) async fn run(core: Arc<Core>, mut events: Subscription, stop: Stop) {
    let mut backoff = Backoff::new(Duration::from_millis(100), Duration::from_secs(10));
    loop {
        let event = tokio::select! {
            biased;
            () = stop.soft().cancelled() => break,
            event = events.next() => event,
        };
        match event {
            BusEvent::Delivery(delivery) => handle(&core, delivery, &mut backoff, &stop).await,
            // What is stored while nobody listens waits in the queue.
            BusEvent::Up => core.vitals.report(Part::Events, true),
            BusEvent::Down => core.vitals.report(Part::Events, false),
            BusEvent::Closed => break,
        }
    }
    events.end().await;
}

async fn handle(core: &Core, delivery: Delivery, backoff: &mut Backoff, stop: &Stop) {
    let answered = match take_stored(core, &delivery).await {
        Ok(()) => {
            backoff.reset();
            delivery.ack().await
        }
        Err(Decision::Retry) => {
            tokio::select! {
                () = stop.soft().cancelled() => {}
                () = tokio::time::sleep(backoff.next_delay()) => {}
            }
            delivery.reject(Requeue::Yes).await
        }
        Err(Decision::Fail) => delivery.reject(Requeue::No).await,
    };
    if let Err(error) = answered {
        let error: &dyn std::error::Error = &error;
        tracing::debug!(error, "delivery will come again");
    }
}

/// Errors are logged here; the caller only wants to know whether trying again can help.
async fn take_stored(core: &Core, delivery: &Delivery) -> Result<(), Decision> {
    let (envelope, message) = decode::<EventCreated>(&delivery.body).map_err(|error| {
        let error: &dyn std::error::Error = &error;
        tracing::warn!(error, queue = QUEUE, "message refused");
        Decision::Fail
    })?;
    if envelope.headers.source_service.as_deref() == Some(SOURCE_SERVICE) {
        return Ok(());
    }
    let event_id = message.event_id.0;
    match take(core, EventSource::Stored(message.event_id)).await {
        Ok(Intake::Taken { .. }) => Ok(()),
        Ok(Intake::UnknownEvent | Intake::UnknownTrigger) => {
            tracing::warn!(event_id, "message names an event that does not exist");
            Ok(())
        }
        Err(error) => {
            let decision = error.decision();
            let error: &dyn std::error::Error = &error;
            tracing::error!(error, event_id, "event could not be taken in");
            Err(decision)
        }
    }
}
