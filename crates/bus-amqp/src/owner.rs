//! The task that owns the connection: it watches, gives up, and connects again, for ever.

use std::sync::Arc;
use std::time::Duration;

use attune_lifecycle::Backoff;
use attune_model::chain;
use futures_util::StreamExt;
use lapin::Event;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep};

use crate::error::words;
use crate::session::Session;
use crate::shared::Shared;
use crate::state::{Block, Link};
use crate::{ConnectError, limits};

/// Looks per heartbeat when heartbeats are shorter than a look.
const LOOKS_PER_HEARTBEAT: u32 = 4;

/// Owns the connection until the bus is closed.
pub(crate) async fn own(shared: Arc<Shared>, first: Arc<Session>) {
    let mut session = first;
    loop {
        let cause = tokio::select! {
            biased;
            () = shared.closing.cancelled() => None,
            cause = watch(&shared, &session) => Some(cause),
        };
        shared.session.send_replace(None);
        let Some(cause) = cause else {
            session.end(true).await;
            break;
        };
        session.end(false).await;
        drop(session);
        lost(&shared, &cause);
        let Some(next) = reconnect(&shared).await else { break };
        session = next;
    }
    shared.state.send_modify(|state| {
        state.link = Link::Closed;
        state.blocked = None;
    });
}

fn lost(shared: &Shared, cause: &str) {
    tracing::warn!(broker = %shared.target.address, cause, "the connection to the broker is lost; connecting again");
    shared.state.send_modify(|state| {
        state.link = Link::Lost { since: Instant::now(), cause: cause.to_owned(), attempts: 0 };
        state.blocked = None;
        state.losses += 1;
    });
}

/// Tries until it works; none when the bus is closed meanwhile.
async fn reconnect(shared: &Shared) -> Option<Arc<Session>> {
    let begun = Instant::now();
    let mut backoff = Backoff::new(limits::RETRY_MIN, limits::RETRY_MAX);
    let mut last = String::new();
    loop {
        let attempt = async {
            sleep(backoff.next_delay()).await;
            Session::open(&shared.target).await
        };
        let opened = tokio::select! {
            biased;
            () = shared.closing.cancelled() => return None,
            opened = attempt => opened,
        };
        match opened {
            Ok(session) => {
                let after = begun.elapsed();
                tracing::info!(broker = %shared.target.address, ?after, attempts = backoff.attempts(), "the connection to the broker is back");
                up(shared, &session);
                return Some(session);
            }
            Err(error) => {
                let cause = chain(&error);
                // What is the same as before has been said.
                if cause != last {
                    tracing::debug!(cause, "still no connection to the broker");
                }
                shared.state.send_modify(|state| {
                    if let Link::Lost { cause: told, attempts, .. } = &mut state.link {
                        told.clone_from(&cause);
                        *attempts = backoff.attempts();
                    }
                });
                last = cause;
            }
        }
    }
}

/// The first connection: tried until `limit`, unless the error is one that stays.
pub(crate) async fn first(target: &crate::session::Target, limit: Duration) -> Result<Arc<Session>, ConnectError> {
    let begun = Instant::now();
    let mut backoff = Backoff::new(limits::RETRY_MIN, limits::RETRY_MAX);
    loop {
        let error = match Session::open(target).await {
            Ok(session) => return Ok(session),
            Err(error) => error,
        };
        let wait = backoff.next_delay();
        if error.is_final() || begun.elapsed() + wait >= limit {
            return Err(error);
        }
        if backoff.attempts() == 1 {
            tracing::warn!(broker = %target.address, cause = chain(&error), ?limit, "no connection to the broker yet; trying on");
        }
        sleep(wait).await;
    }
}

/// Tells everybody about a connection.
pub(crate) fn up(shared: &Shared, session: &Arc<Session>) {
    shared.state.send_modify(|state| {
        state.link = Link::Up { since: Instant::now() };
        state.heartbeat = session.heartbeat();
        state.silence = Duration::ZERO;
        state.blocked = None;
    });
    shared.session.send_replace(Some(session.clone()));
}

/// Returns why the connection cannot be used any more.
async fn watch(shared: &Shared, session: &Session) -> String {
    let mut events = std::pin::pin!(session.events());
    let heartbeat = session.heartbeat();
    let look = heartbeat.map_or(limits::LOOK, |heartbeat| limits::LOOK.min(heartbeat / LOOKS_PER_HEARTBEAT));
    let mut looks = interval(look);
    // After a pause of the process (SIGSTOP, a suspended machine) missed looks must not count as silence.
    looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut silence = Silence { heard: session.heard(), looks: 0 };
    loop {
        tokio::select! {
            event = events.next() => match event {
                Some(Event::Error(error)) if !session.is_connected() => return words(&error),
                Some(Event::ConnectionBlocked(reason)) => blocked(shared, Some(reason)),
                Some(Event::ConnectionUnblocked) => blocked(shared, None),
                Some(_) => {}
                None => return "the connection ended".to_owned(),
            },
            _ = looks.tick() => {
                if !session.is_connected() {
                    return "the connection ended".to_owned();
                }
                let silent = look * silence.look(session.heard());
                shared.state.send_if_modified(|state| std::mem::replace(&mut state.silence, silent) != silent);
                if heartbeat.is_some_and(|heartbeat| silent >= heartbeat * 2) {
                    return format!("nothing was heard from it for {silent:?}");
                }
            }
        }
    }
}

fn blocked(shared: &Shared, reason: Option<String>) {
    if let Some(reason) = &reason {
        tracing::warn!(reason, "the broker takes no messages for now");
    } else {
        tracing::info!("the broker takes messages again");
    }
    shared.state.send_modify(|state| state.blocked = reason.map(|reason| Block { reason, since: Instant::now() }));
}

/// Counts looks in which nothing was heard. Looks, not time: a process that was stopped has not looked.
#[derive(Debug)]
struct Silence {
    heard: u64,
    looks: u32,
}

impl Silence {
    fn look(&mut self, heard: u64) -> u32 {
        self.looks = if heard == self.heard { self.looks.saturating_add(1) } else { 0 };
        self.heard = heard;
        self.looks
    }
}
