//! Preparing a start, which may take minutes: only as long as it is wanted.

use std::convert::Infallible;
use std::future::pending;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use attune_lifecycle::{Backoff, CancellationToken};
use attune_model::chain;
use attune_model::measure::RestartCause;
use attune_store::ProcessChange;
use tokio::sync::watch;
use tokio::time::sleep;

use super::{Next, Phase, Supervisor, Wish, start_failure};
use crate::context::Context;
use crate::process::{Event, Failure, Process, UNLIMITED};
use crate::start::{Prepared, StartFailure, prepare};
use crate::target::Target;

/// A start that takes longer is worth a word in the row.
const SLOW_START: Duration = Duration::from_millis(500);

/// Ready when the sensor is not to run any more. Another input is no reason to stop a build: most inputs have the same
/// environment.
async fn unwanted(mut wish: watch::Receiver<Wish>) {
    // An error says that nobody wants anything any more.
    drop(wish.wait_for(|wish| wish.target().is_none()).await);
}

/// Another wish ends the wait.
async fn prepare_after(
    wait: Duration,
    mut wish: watch::Receiver<Wish>,
    (context, target, stop): (&Context, &Arc<Target>, &CancellationToken),
) -> Result<Prepared, StartFailure> {
    tokio::select! {
        () = stop.cancelled() => return Err(StartFailure::Stopping),
        _ = wish.changed(), if !wait.is_zero() => {}
        () = sleep(wait) => {}
    }
    prepare(context, target, stop).await
}

/// Returns how long to wait for its next sign of life.
fn ask_to_end(process: &mut Process, new: &Target) -> Duration {
    tracing::warn!(sensor.ref = %new.sensor.r#ref, "a sensor hangs while its successor is prepared");
    process.ask_to_end();
    UNLIMITED
}

impl Supervisor {
    /// Says that it is starting only when that takes a while: most starts are over before the row could be read.
    pub(super) async fn prepare(&mut self, target: &Arc<Target>) -> Result<Prepared, StartFailure> {
        let context = self.context.clone();
        self.say_what_comes(target);
        let stop = context.stop.soft().child_token();
        let wish = self.wish.clone();
        let give_up = async {
            unwanted(wish).await;
            stop.cancel();
            pending::<Infallible>().await
        };
        let record = async {
            sleep(SLOW_START).await;
            tracing::info!(sensor.ref = %target.sensor.r#ref, "sensor is starting");
            self.record.write_set().await;
            pending::<Infallible>().await
        };
        let prepared = tokio::select! {
            prepared = prepare(&context, target, &stop) => prepared,
            never = give_up => match never {},
            never = record => match never {},
        };
        if stop.is_cancelled() { Err(StartFailure::Stopping) } else { prepared }
    }

    /// Nothing runs until the successor is ready, which may take minutes.
    fn ended_early(&mut self, new: &Arc<Target>, failure: &Failure) {
        let reason = &failure.reason;
        tracing::warn!(sensor.ref = %new.sensor.r#ref, reason, "a sensor ended while its successor is prepared");
        self.set_phase(Phase::Starting, new);
        self.status.send_modify(|status| status.reason = Some(reason.clone()));
        self.record.set(new, ProcessChange::Starting);
        self.record.hurry();
    }

    /// The API gives no token for the successor. What runs is better than nothing, so it goes on until that has one. False when
    /// something else is wanted meanwhile.
    fn goes_on(&self, new: &Arc<Target>, error: &StartFailure) -> bool {
        if self.wish.has_changed().is_ok_and(|has_changed| has_changed) {
            self.status.send_modify(|status| status.reason = None);
            return false;
        }
        let reason = format!("it goes on as it was: {}", chain(error));
        if self.status.borrow().reason.as_ref() != Some(&reason) {
            tracing::warn!(sensor.ref = %new.sensor.r#ref, "a sensor is to be started anew, and {reason}");
            self.status.send_modify(|status| status.reason = Some(reason));
        }
        true
    }

    /// Prepares the successor of a running process while that goes on. None: it stays (a renewal that did not work is
    /// tried again, its token is still good; one that gets no token is not what is wanted any more).
    pub(super) async fn replace(&mut self, process: &mut Process, new: &Arc<Target>, is_renewal: bool) -> Option<Next> {
        let mut ended = None;
        let revoked = self.revoked();
        let context = self.context.clone();
        let stop = context.stop.soft().child_token();
        let mut given_up = false;
        let timing = &context.config.timing;
        let (mut patience, mut backoff) = (timing.watchdog, Backoff::new(timing.backoff_min, timing.backoff_max));
        let prepared = {
            let start = (&*context, new, &stop);
            let mut preparing = pin!(prepare_after(Duration::ZERO, self.wish.clone(), start));
            let mut unwanted = pin!(unwanted(self.wish.clone()));
            loop {
                let is_gone = async {
                    tokio::select! {
                        () = &mut unwanted => {}
                        () = stop.cancelled() => {}
                    }
                };
                tokio::select! {
                    biased;
                    event = process.next(patience), if ended.is_none() => match event {
                        Event::Ended(failure) => {
                            self.ended_early(new, &failure);
                            ended = Some(failure);
                            if backoff.attempts() > 0 {
                                preparing.set(prepare_after(Duration::ZERO, self.wish.clone(), start));
                            }
                        }
                        Event::Heard => self.hear(process),
                        Event::Hangs => patience = ask_to_end(process, new),
                    },
                    () = revoked.cancelled() => return Some(Next::Lost),
                    prepared = &mut preparing => match prepared {
                        Err(error @ StartFailure::Token(_)) if !is_renewal && ended.is_none() => {
                            if !self.goes_on(new, &error) {
                                return None;
                            }
                            preparing.set(prepare_after(backoff.next_delay(), self.wish.clone(), start));
                        }
                        prepared => break prepared,
                    },
                    () = self.record.retry() => {}
                    () = is_gone, if !given_up => {
                        given_up = true;
                        stop.cancel();
                        process.ask_to_end();
                    }
                }
            }
        };
        if given_up || stop.is_cancelled() {
            return Some(Next::Stop);
        }
        if is_renewal && let Some(failure) = ended {
            return Some(Next::Failed(failure));
        }
        self.follow(process, new, is_renewal, prepared)
    }

    /// What comes of a successor that is ready, or is not.
    fn follow(
        &mut self,
        process: &mut Process,
        new: &Arc<Target>,
        is_renewal: bool,
        prepared: Result<Prepared, StartFailure>,
    ) -> Option<Next> {
        match prepared {
            Ok(prepared) if is_renewal => {
                self.cause = Some(RestartCause::Token);
                Some(Next::Again(new.clone(), Some(Box::new(prepared))))
            }
            Ok(prepared) => Some(self.again(new, Some(Box::new(prepared)))),
            // The start comes to know which one it is to be.
            Err(StartFailure::Replaced) if !is_renewal => Some(self.again(new, None)),
            Err(error) if is_renewal => {
                self.not_renewed(process, new, &chain(&error));
                None
            }
            Err(error) => {
                self.forget_failures();
                Some(start_failure(&error))
            }
        }
    }
}
