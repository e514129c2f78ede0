//! The right to run the sensor: waited for, and lost.

use std::sync::Arc;

use attune_lifecycle::CancellationToken;
use attune_model::status::SensorProcessStatus;
use attune_store::ProcessChange;

use super::{Next, Phase, Supervisor};
use crate::lease::Grant;
use crate::process::Failure;
use crate::target::Target;

impl Supervisor {
    /// Waits for the right to run the sensor, while another host has it.
    pub(super) async fn obtain(&mut self, target: &mut Arc<Target>) -> Result<(), Next> {
        if self.grant.as_ref().is_some_and(Grant::is_valid) {
            return Ok(());
        }
        self.grant = None;
        let context = self.context.clone();
        let sensor = target.sensor.id;
        let stop = context.stop.soft();
        let reason = tokio::select! {
            biased;
            () = stop.cancelled() => return Err(Next::Stop),
            answer = context.leases.ask(sensor) => match answer {
                Ok(grant) => {
                    self.grant = Some(grant);
                    return Ok(());
                }
                Err(reason) => reason,
            },
        };
        tracing::info!(sensor.ref = %target.sensor.r#ref, "sensor waits: {reason}");
        self.status.send_modify(|status| status.reason = Some(reason));
        if self.status.borrow().phase == Phase::Backoff {
            // Nothing of it is started from here for the time being, and the row would say so for ever.
            self.record.set(target, ProcessChange::Stopped);
        }
        self.set_phase(Phase::Waiting, target);
        let mut free = std::pin::pin!(context.leases.wait(sensor));
        loop {
            tokio::select! {
                biased;
                () = stop.cancelled() => return Err(Next::Stop),
                changed = self.wish.changed() => {
                    let new = if changed.is_ok() { self.latest() } else { None };
                    *target = new.ok_or(Next::Stop)?;
                }
                grant = &mut free => {
                    self.grant = Some(grant);
                    return Ok(());
                }
                () = self.record.retry() => {}
            }
        }
    }

    /// Another host may run it now, so this one says that it does not.
    pub(super) async fn lose(&mut self, target: &Arc<Target>) {
        self.record.write(target, ProcessChange::Stopped).await;
        self.observe(target, SensorProcessStatus::Stopped, None, Some("the lease of this host ended".to_owned()));
        self.grant = None;
        self.cause = None;
    }

    /// When the grant ends; it is never waited for without one.
    pub(super) fn revoked(&self) -> CancellationToken {
        self.grant.as_ref().map_or_else(CancellationToken::new, |grant| grant.revoked().clone())
    }

    /// A process that the guardian killed, or that ended when its time here was over anyway, has not failed.
    pub(super) fn failed(&self, failure: Failure) -> Next {
        let is_ours = self.grant.as_ref().is_some_and(Grant::is_valid);
        if is_ours { Next::Failed(failure) } else { Next::Lost }
    }
}
