//! The loop: sleeps until something is due, sends events, follows the rules.
//!
//! One task owns the timers. Calls to the API run beside it in a bounded set, so a slow API delays no timer. Every branch
//! of the `select!` is cancel-safe: the state is in [`Engine`].

use std::collections::VecDeque;
use std::time::Duration;

use attune_http::HttpError;
use attune_lifecycle::CancellationToken;
use attune_model::chain;
use chrono::Utc;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until, timeout};

use crate::TimerError;
use crate::api::{Api, is_unauthorized};
use crate::timers::{Change, Firing, Now, TimerRule, Timers};

/// Events on their way at once.
const MOST_CALLS: usize = 32;
/// Events that wait for a call. When full, the oldest is dropped with a log line: the newest tell more.
const MOST_WAITING: usize = 1_000;
/// How long events that are on their way may take after the stop.
const FAREWELL: Duration = Duration::from_secs(1);

/// What a call beside the loop came to.
enum Done {
    Rules(Result<Vec<TimerRule>, HttpError>),
    Event { rule_ref: String, result: Result<(), HttpError> },
}

/// The running timers.
pub(crate) struct Engine {
    api: Api,
    timers: Timers,
    begun: Instant,
    poll_interval: Duration,
    next_poll: Instant,
    polling: bool,
    /// Whether the last poll failed, so that an outage is one line.
    poll_failed: bool,
    calls: JoinSet<Done>,
    waiting: VecDeque<Firing>,
}

impl Engine {
    /// With the rules that the sensor was started with, if it was told.
    pub(crate) fn new(api: Api, poll_interval: Duration, rules: Option<Vec<TimerRule>>) -> Self {
        let begun = Instant::now();
        let start = Now { wall: Utc::now(), monotonic: Duration::ZERO };
        let mut engine = Self {
            api,
            timers: Timers::new(start),
            begun,
            poll_interval,
            next_poll: begun,
            polling: false,
            poll_failed: false,
            calls: JoinSet::new(),
            waiting: VecDeque::new(),
        };
        if let Some(rules) = rules {
            engine.follow(rules);
        }
        engine
    }

    /// Until stopped, or until the token is refused for good.
    pub(crate) async fn run(mut self, stop: &CancellationToken) -> Result<(), TimerError> {
        loop {
            self.poll();
            self.send_waiting();
            let wake = Instant::now() + self.timers.sleep(self.now());
            let wake = if self.polling { wake } else { wake.min(self.next_poll) };
            tokio::select! {
                biased;
                () = stop.cancelled() => break,
                Some(done) = self.calls.join_next() => match done {
                    Ok(done) => self.handle(done)?,
                    Err(error) => tracing::error!(%error, "a call to the API panicked"),
                },
                () = sleep_until(wake) => self.fire(),
            }
        }
        self.say_farewell().await;
        Ok(())
    }

    fn now(&self) -> Now {
        Now { wall: Utc::now(), monotonic: self.begun.elapsed() }
    }

    fn fire(&mut self) {
        let (firings, changes) = self.timers.due(self.now());
        report(&changes);
        for firing in firings {
            tracing::debug!(rule.ref = %firing.rule_ref, "timer fired");
            if self.waiting.len() >= MOST_WAITING
                && let Some(dropped) = self.waiting.pop_front()
            {
                tracing::error!(rule.ref = %dropped.rule_ref, "event dropped: too many wait for the API");
            }
            self.waiting.push_back(firing);
        }
    }

    fn send_waiting(&mut self) {
        while self.calls.len() < MOST_CALLS
            && let Some(firing) = self.waiting.pop_front()
        {
            let api = self.api.clone();
            self.calls.spawn(async move {
                let result = api.emit(&firing).await;
                Done::Event { rule_ref: firing.rule_ref, result }
            });
        }
    }

    fn poll(&mut self) {
        if self.polling || Instant::now() < self.next_poll {
            return;
        }
        self.polling = true;
        let api = self.api.clone();
        self.calls.spawn(async move { Done::Rules(api.rules().await) });
    }

    fn handle(&mut self, done: Done) -> Result<(), TimerError> {
        match done {
            Done::Event { result: Ok(()), .. } => {}
            Done::Event { result: Err(error), .. } if is_unauthorized(&error) => {
                return Err(TimerError::Unauthorized { source: error });
            }
            Done::Event { rule_ref, result: Err(error) } => {
                tracing::error!(rule.ref = %rule_ref, error = %chain(&error), "event dropped: the API did not take it");
            }
            Done::Rules(result) => {
                self.polling = false;
                self.next_poll = Instant::now() + self.poll_interval;
                match result {
                    Ok(rules) => {
                        self.poll_failed = false;
                        self.follow(rules);
                    }
                    Err(error) if is_unauthorized(&error) => {
                        return Err(TimerError::Unauthorized { source: error });
                    }
                    Err(error) => {
                        if !self.poll_failed {
                            tracing::warn!(error = %chain(&error), "failed to read the rules; going on with those known");
                        }
                        self.poll_failed = true;
                    }
                }
            }
        }
        Ok(())
    }

    fn follow(&mut self, rules: Vec<TimerRule>) {
        let changes = self.timers.sync(rules, self.now());
        report(&changes);
        if !changes.is_empty() {
            tracing::info!(timers = self.timers.live(), "rules changed");
        }
    }

    /// Lets what is on its way arrive; starts nothing new.
    async fn say_farewell(&mut self) {
        let arrived = timeout(FAREWELL, async { while self.calls.join_next().await.is_some() {} }).await;
        let lost = self.waiting.len() + self.calls.len();
        if arrived.is_err() || lost > 0 {
            tracing::warn!(events = lost, "stopped with events that were not taken by the API");
        }
    }
}

fn report(changes: &[Change]) {
    for change in changes {
        match change {
            Change::Added { rule_ref } => tracing::info!(rule.ref = %rule_ref, "timer started"),
            Change::Removed { rule_ref } => tracing::info!(rule.ref = %rule_ref, "timer removed"),
            Change::Over { rule_ref } => {
                tracing::info!(rule.ref = %rule_ref, "timer will not fire (again)");
            }
            Change::Invalid { rule_ref, error } => {
                tracing::error!(rule.ref = %rule_ref, %error, "rule makes no timer; correct its trigger_params");
            }
        }
    }
}
