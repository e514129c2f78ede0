//! A panic while a sensor is looked after is a failure of that sensor alone. Its process was killed when that was given up.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::sleep;

use super::{Next, Phase, Supervisor, Todo};
use crate::delay::delay;
use crate::excerpt::with_hint;
use crate::process::Failure;
use crate::target::Target;

const REASON: &str = "its supervisor panicked, which is a fault of the host; the host's log says where";

impl Supervisor {
    /// What follows instead of what was to be done.
    pub(super) async fn panicked(&mut self, target: &Arc<Target>, todo: &Todo) -> Next {
        tracing::error!(sensor.ref = %target.sensor.r#ref, "the supervisor of a sensor panicked");
        match todo {
            Todo::Run(_) => Next::Failed(self.fault()),
            // It is told no more: that may be what does not work.
            Todo::BackOff(_) => self.pause(target).await,
        }
    }

    fn fault(&self) -> Failure {
        let was_running = self.status.borrow().phase == Phase::Running;
        let ran_for = if was_running { self.began.elapsed() } else { Duration::ZERO };
        Failure { reason: REASON.to_owned(), excerpt: with_hint(None, Some(REASON)), ran_for, ..Failure::default() }
    }

    async fn pause(&self, target: &Arc<Target>) -> Next {
        self.status.send_modify(|status| status.reason = Some(REASON.to_owned()));
        self.set_phase(Phase::Backoff, target);
        let timing = &self.context.config.timing;
        tokio::select! {
            () = self.context.stop.soft().cancelled() => Next::Stop,
            () = sleep(delay(timing.backoff_min, timing.backoff_max, self.failures.unsigned_abs())) => {
                Next::Again(target.clone(), None)
            }
        }
    }
}
