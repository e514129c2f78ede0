//! What a running process says, does not say any more, and is told.

use attune_model::chain;
use tokio::time::Instant;

use super::{Next, Supervisor};
use crate::excerpt::with_hint;
use crate::process::{Failure, Process};
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
        let fetched = tokio::select! {
            biased;
            failure = process.ended() => return Some(self.failed(failure)),
            () = context.stop.soft().cancelled() => return Some(Next::Stop),
            () = self.revoked().cancelled_owned() => return Some(Next::Lost),
            fetched = token::fetch(&context, target) => fetched,
        };
        let renewed = fetched.map_err(|error| chain(&error)).and_then(|token| {
            process.tokens.add(&token.value);
            run_dir.write_token(target.sensor.id, &token.value).map_err(|error| error.to_string())?;
            Ok(token.renew_after)
        });
        let wait = renewed.unwrap_or_else(|problem| {
            tracing::warn!(sensor.ref = %target.sensor.r#ref, error = problem, "failed to renew a token; trying again");
            context.config.timing.backoff_min
        });
        process.renew_at = Instant::now() + wait;
        None
    }
}
