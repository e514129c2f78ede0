//! Tells the platform about a sensor that fails again and again.

use std::time::Duration;

use attune_bus::{BusError, Outgoing};
use attune_model::chain;
use attune_store::ProcessEnd;

use crate::alert::{Failing, is_due, payload};
use crate::context::{BUS_LIMIT, Context, STORE_LIMIT};
use crate::target::Target;

/// `source_service` of the message (a fact of the platform).
const SOURCE: &str = "system-alert";

/// Raises the alert if it is due; whether it was. A failed publish leaves the stored event, as on the platform.
pub(crate) async fn raise_alert(
    context: &Context,
    target: &Target,
    end: &ProcessEnd,
    delay: Duration,
    alerted: i32,
) -> bool {
    if !is_due(target.active_rules, end.consecutive_failures, alerted) {
        return false;
    }
    let payload = payload(&Failing {
        sensor: &target.sensor,
        worker: (context.worker, &context.config.name),
        end,
        delay,
        active_rules: target.active_rules,
        now: context.clock.now(),
    });
    let stored = match context.deadline.within(STORE_LIMIT, context.store.insert_alert(&payload)).await {
        Ok(Ok(stored)) => stored,
        Ok(Err(error)) => return failed(target, &chain(&error)),
        Err(late) => return failed(target, &late.to_string()),
    };
    let Some(event) = stored else {
        tracing::warn!(sensor.ref = %target.sensor.r#ref, "no alert: trigger core.alert does not exist");
        return false;
    };
    let published = async {
        let message = Outgoing::new(&event, SOURCE, context.clock.now())?;
        let published = context.deadline.within(BUS_LIMIT, context.bus.publish(&[message])).await;
        published.unwrap_or_else(|late| Err(BusError::Unavailable(late.to_string())))
    };
    if let Err(error) = published.await {
        tracing::warn!(sensor.ref = %target.sensor.r#ref, error = %chain(&error),
            "the alert is stored but was not published");
    }
    true
}

fn failed(target: &Target, problem: &str) -> bool {
    tracing::warn!(sensor.ref = %target.sensor.r#ref, error = problem, "failed to store an alert");
    false
}
