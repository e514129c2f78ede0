//! What a running process says, does not say any more, and is told.

use std::pin::pin;

use attune_model::chain;

use super::{Next, Supervisor};
use crate::excerpt::with_hint;
use crate::process::{Event, Failure, Process, UNLIMITED};
use crate::renewal::{News, Renewal};
use crate::target::Target;
use crate::token;

impl Supervisor {
    /// It said something; nothing of it decides whether it runs.
    pub(super) fn hear(&self, process: &Process) {
        self.status.send_modify(|status| status.said.clone_from(&process.said));
    }

    /// Ends a process that gives no sign of life any more.
    pub(super) async fn hung(&self, process: Process) -> Next {
        let ran_for = process.began.elapsed();
        let left = process.end().await;
        let patience = self.context.config.timing.watchdog;
        let reason = format!("it hung: no WATCHDOG=1 within {} s", patience.as_secs_f64());
        let excerpt = with_hint(left.excerpt, Some(&reason));
        self.failed(Failure { reason, excerpt, ran_for, log: left.log, ..Failure::default() })
    }

    /// Gives a new token to a process that takes it while it runs. What is returned ends the process.
    pub(super) async fn renew_token(&self, process: &mut Process, target: &Target) -> Option<Next> {
        let context = self.context.clone();
        let run_dir = context.run_dir.as_ref()?;
        let mut fetching = pin!(token::fetch(&context, target));
        let fetched = loop {
            tokio::select! {
                biased;
                // A hang is seen afterwards.
                event = process.next(UNLIMITED) => match event {
                    Event::Ended(failure) => return Some(self.failed(failure)),
                    Event::Heard | Event::Hangs => self.hear(process),
                },
                () = context.stop.soft().cancelled() => return Some(Next::Stop),
                () = self.revoked().cancelled_owned() => return Some(Next::Lost),
                fetched = &mut fetching => break fetched,
            }
        };
        let renewed = fetched.map_err(|error| chain(&error)).and_then(|token| {
            process.tokens.add(&token.value);
            run_dir.write_token(target.sensor.id, &token.value).map_err(|error| error.to_string())?;
            Ok(Renewal::of(&token))
        });
        match renewed {
            Ok(renewal) => {
                let before = std::mem::replace(&mut process.renewal, renewal);
                if before.has_failed() {
                    tracing::info!(sensor.ref = %target.sensor.r#ref, "the token of a sensor is renewed at last");
                    self.status.send_modify(|status| status.reason = None);
                }
            }
            Err(problem) => self.not_renewed(process, target, &problem),
        }
        None
    }

    /// The process goes on with the token that it has, also when that has expired: without another one it could not be started
    /// again either, and what it does without the API it still does.
    pub(super) fn not_renewed(&self, process: &mut Process, target: &Target, problem: &str) {
        let timing = &self.context.config.timing;
        let sensor_ref = &target.sensor.r#ref;
        let news = process.renewal.failed((timing.backoff_min, timing.backoff_max));
        let reason = match news {
            Some(News::Failed(left)) => {
                let left = left.as_secs();
                tracing::warn!(sensor.ref = %sensor_ref, error = problem,
                    "the token of a sensor cannot be renewed; it is good for another {left} s, and the host goes on trying");
                "its token cannot be renewed"
            }
            Some(News::Expired) => {
                tracing::error!(sensor.ref = %sensor_ref, error = problem,
                    "the token of a sensor has expired: it runs, and its events are refused, until the host gets another one");
                "its token has expired"
            }
            None => return,
        };
        self.status.send_modify(|status| status.reason = Some(format!("{reason}: {problem}")));
    }
}
